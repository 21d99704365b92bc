"""One comparison of an assessment, and how often a right pipeline may fail one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

FALSE_ALARM: Final = 1e-4
"""Probability that anything at all fails on a right pipeline, at most."""
TESTS: Final = 12
"""Tests that could fail by chance in a whole assessment; each gets its part of FALSE_ALARM."""
ALPHA: Final = FALSE_ALARM / TESTS
Announce = Callable[[str], None]


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        name: what is compared.
        passed: whether it is as claimed; None where it could not be looked at.
        found: what was measured, beside what is allowed.
        false_alarm: probability that a right pipeline fails; 0.0 where nothing is random.
        catches: the bug that it looks for.
        power: probability that this bug fails; None where nothing can be said.
    """

    name: str
    passed: bool | None
    found: str
    false_alarm: float
    catches: str
    power: float | None

    def to_json(self) -> dict[str, Any]:
        """Every field by name."""
        return asdict(self)
