"""A tiny search: two candidates on five clients, scored on the sixth."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from privacy.accountant import spend
from secure_fedmeta.config import Config
from secure_fedmeta.pipeline import assemble
from tests.secure_fedmeta.federation import default_ledger, tiny

CLIENTS = 6
VALIDATION = ["client-002"]
CHARGED = {"ledger.population": "people"}
PRIVATE = {"data.source": "private", "tune.public_validation": True, **CHARGED}
ALGORITHMS = {"learner": {"algorithm": ["fomaml", "anil"]}}


ABSENT = {
    "data.held_out": VALIDATION,
    "data.unused": ["held-out-000", "held-out-001"],
    "privacy.min_survivors": CLIENTS - 2,
}
"""What a candidate's own config says of its clients."""


def searched(changes: Mapping[str, object] | None = None) -> Config:
    """Two candidates on five clients, scored on the sixth."""
    return tiny(
        {
            "data.options.clients": CLIENTS,
            "privacy.min_survivors": CLIENTS - 1,
            "training.rounds": 2,
            "tune.validation": VALIDATION,
            "tune.settings": ALGORITHMS,
            **(changes or {}),
        }
    )


def grant(epsilon: float) -> None:
    default_ledger().grant("people", unit="task", epsilon=epsilon, delta=1e-5, approver="board")


def fields(value: object) -> set[str]:
    """Every key at any depth, but for names from data and config."""
    if isinstance(value, list):
        return set().union(*map(fields, value))
    if not isinstance(value, dict):
        return set()
    inner = (fields(value[key]) for key in value.keys() - {"per_client", "settings", "epsilon"})
    return set(value).union(*inner)


def explained() -> set[str]:
    page = Path(__file__).parents[2] / "docs" / "tune.md"
    return set(re.findall(r"`([^`]+)`", page.read_text().split("## `tune.json`")[1]))


def needed(count: int) -> float:
    """Epsilon of this many candidates at the fewest survivors."""
    plan = assemble(searched(ABSENT)).plan
    return spend([plan.worst_event()] * (2 * count), delta=1e-5).worst
