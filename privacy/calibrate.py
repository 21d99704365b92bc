"""The least noise whose claim stays within a target."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

from privacy.errors import PlanRefused

SLACK = 1e-9
"""Relative distance kept below the target, so that no order of summation exceeds it."""
MIN_MULTIPLIER = 2.0**-20
MAX_MULTIPLIER = 2.0**40
WIDTH = 1e-12
GAUSSIAN_WIDTH = 1e-3
"""Relative width to which noise is found where one figure takes up to seconds."""
_APART = 1.1
"""How far the ends of the first interval around a guess are apart."""
_MOST_LINES = 8
"""Guesses by a line; after those halves, which end whatever the claim looks like."""


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


def least_noise_near(
    claim: Callable[[float], float], guide: Callable[[float], float], epsilon: float
) -> float:
    """The same to GAUSSIAN_WIDTH, with about five calls of a claim that takes seconds.

    The logarithm of epsilon is nearly a line in that of z, so that the line between the ends of
    the interval says where the target is; asked is a little to the side of it where more of the
    interval is.

    Args:
        claim: as above.
        guide: about as large, and quick.
        epsilon: as above.

    Raises:
        PlanRefused: as above, by the guide or by the claim.
    """
    start = least_noise(guide, epsilon, width=GAUSSIAN_WIDTH)
    excess = lru_cache(maxsize=None)(_log_excess(claim, epsilon * (1.0 - SLACK)))
    low, high = _enclosing(excess, start, epsilon)
    lines = 0
    while high - low > GAUSSIAN_WIDTH * high:
        middle = math.sqrt(low * high)
        if lines < _MOST_LINES and math.isfinite(excess(low) - excess(high)):
            lines += 1
            root = low * (high / low) ** (excess(low) / (excess(low) - excess(high)))
            wider = 1.0 if high / root > root / low else -1.0
            beside = root * (1.0 + wider * GAUSSIAN_WIDTH / 3.0)
            middle = beside if low < beside < high else middle
        low, high = (low, middle) if excess(middle) <= 0.0 else (middle, high)
    return high


def _log_excess(claim: Callable[[float], float], aim: float) -> Callable[[float], float]:
    """Noise multiplier -> log(claim / aim), at most 0 where it fits."""

    def excess(z: float) -> float:
        found = claim(z)
        if found == 0.0:
            return -math.inf
        return math.log(found / aim) if found < math.inf else math.inf

    return excess


def _enclosing(
    excess: Callable[[float], float], start: float, epsilon: float
) -> tuple[float, float]:
    """Multipliers around the least that fits, from `start` on, first near and then far apart."""
    low = high = start
    apart = _APART
    while excess(high) > 0.0:
        low, high, apart = high, high * apart, apart * apart
        if high > MAX_MULTIPLIER:
            raise PlanRefused(f"epsilon {epsilon!r} is out of reach at this delta and rounds")
    while excess(low) <= 0.0:
        low, high, apart = low / apart, low, apart * apart
        if low < MIN_MULTIPLIER:
            raise PlanRefused(f"epsilon {epsilon!r} asks for next to no noise")
    return low, high
