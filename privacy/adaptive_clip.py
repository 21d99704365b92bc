"""A clip bound that follows a quantile of the units' norms, from a private count alone.

Andrew, Thakkar, McMahan and Ramaswamy 2021, "Differentially private learning with adaptive
clipping", Algorithm 1: after each round C <- C exp(-r (b - g)), with b the noised part of units
within C and g the quantile that is aimed at. The count is a coordinate of the sum that is opened
anyway (extras.py); nothing else of the norms leaves a client.

What stays fixed while C moves is everything that privacy depends on. A unit's vector x is clipped
to C_t and scaled by s_t = s_0 C_0 / C_t, so that its bound in integer steps, s_t C_t = s_0 C_0, is
that of the first round, and so are Delta, the noise, the event and the plan's digest. Each round is
a mechanism with one and the same privacy curve, whichever C_t is put in, and C_t follows from
earlier releases: adaptive composition of equal curves, for which Renyi bounds add up (Mironov 2017,
Proposition 1) and dominating pairs, and so PLD and PRV figures, compose (Zhu, Dong and Wang 2022,
Theorem 10). The plan is one that was fixed beforehand.

Clients get C_t from the aggregator. Privacy does not depend on it: a lying aggregator can choose
any C_t within the range below, and moves a unit's integer vector nowhere beyond Delta. It can make
the model worse, as it could by other means; the log shows the bound of each round, and whoever
reads it can recompute it from the figures released before (audit/rules.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.errors import PlanRefused

MAX_RATIO = 1024.0
"""How far C may move away from where it began, up or down."""
MAX_SPEED = 2.0


@dataclass(frozen=True)
class AdaptiveClip:
    """Public terms of the rule.

    Attributes:
        quantile: g, part of the units that should be within the bound, in (0, 1).
        speed: r, in (0, 2]: C moves by at most the factor exp(r) in a round without noise.
        weight: w of the indicator's coordinate; see extras.py.

    Raises:
        PlanRefused: a value out of range.
    """

    quantile: float
    speed: float
    weight: float

    def __post_init__(self) -> None:
        if type(self.quantile) is not float or not 0.0 < self.quantile < 1.0:
            raise PlanRefused(f"clip quantile {self.quantile!r} is not above 0 and below 1")
        if type(self.speed) is not float or not 0.0 < self.speed <= MAX_SPEED:
            raise PlanRefused(f"clip speed {self.speed!r} is not above 0 and up to {MAX_SPEED:g}")

    @property
    def span(self) -> float:
        """max(g, 1 - g), the largest magnitude of b - g."""
        return max(self.quantile, 1.0 - self.quantile)

    def indicator(self, within: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The coordinate v of each unit: (b - g) / max(g, 1 - g), in [-1, 1]."""
        return (within.astype(np.float64) - self.quantile) / self.span

    def error(self, behind: int, *, steps: float) -> float:
        """The private estimate of b - g, over the public number of expected units.

        Args:
            behind: the indicator's coordinate of an opened sum.
            steps: integer steps of v = w = 1, times the expected units.
        """
        return behind * self.span / (steps * self.weight)

    def next(self, clip: float, error: float, *, start: float) -> float:
        """C of the next round.

        Args:
            clip: C of this round.
            error: what `error` gave; any finite float.
            start: C of the first round; the result stays within MAX_RATIO of it.
        """
        moved = clip * math.exp(max(-50.0, min(50.0, -self.speed * error)))
        return min(max(moved, start / MAX_RATIO), start * MAX_RATIO)

    def to_json(self) -> Mapping[str, str]:
        """The terms as shortest decimal strings."""
        return {
            "quantile": repr(self.quantile),
            "speed": repr(self.speed),
            "weight": repr(self.weight),
        }


def checked_clip(clip: object, start: float, rule: AdaptiveClip | None) -> float:
    """A clip bound that may be used.

    Args:
        clip: what somebody says.
        start: C of the plan.
        rule: how it may move; None: not at all.

    Raises:
        PlanRefused: no float, NaN, or outside of the range.
    """
    if rule is None:
        if type(clip) is not float or clip != start:
            raise PlanRefused(f"clip {clip!r}; allowed: the plan's {start!r}, which does not move")
        return clip
    low, high = start / MAX_RATIO, start * MAX_RATIO
    if type(clip) is not float or not low <= clip <= high:
        raise PlanRefused(f"clip {clip!r} is not a float from {low!r} to {high!r}")
    return clip
