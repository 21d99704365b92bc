"""The least noise whose claim stays within a target."""

from __future__ import annotations

import math
from collections.abc import Callable

from privacy.errors import PlanRefused

SLACK = 1e-9
"""Relative distance kept below the target, so that no order of summation exceeds it."""
MIN_MULTIPLIER = 2.0**-20
MAX_MULTIPLIER = 2.0**40
WIDTH = 1e-12
GAUSSIAN_WIDTH = 1e-3
"""Relative width to which noise is found where one figure takes a fraction of a second."""


def least_noise(claim: Callable[[float], float], epsilon: float, *, width: float = WIDTH) -> float:
    """The smallest noise multiplier z for which claim(z) <= epsilon, by bisection.

    Args:
        claim: epsilon of a noise multiplier; falls as the multiplier grows.
        epsilon: the target, > 0 and finite.
        width: relative width of the last interval; its upper end, which fits, is returned.

    Raises:
        PlanRefused: a target that is no epsilon, one that next to no noise meets, or one that no
            noise meets; and what `claim` raises.
    """
    if not 0.0 < epsilon < math.inf:
        raise PlanRefused(f"epsilon {epsilon!r} is not positive and finite")
    aim = epsilon * (1.0 - SLACK)
    low = high = 1.0
    while claim(high) > aim:
        low, high = high, 2.0 * high
        if high > MAX_MULTIPLIER:
            raise PlanRefused(
                f"epsilon {epsilon!r} is out of reach: no noise gives it at this delta and rounds"
            )
    while claim(low) <= aim:
        low, high = low / 2.0, low
        if low < MIN_MULTIPLIER:
            raise PlanRefused(f"epsilon {epsilon!r} asks for next to no noise")
    while high - low > width * high:
        middle = (low + high) / 2.0
        low, high = (low, middle) if claim(middle) <= aim else (middle, high)
    return high
