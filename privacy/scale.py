"""How many integer steps a vector spans, from public constants only."""

from __future__ import annotations

import math

from privacy.errors import PlanRefused

MIN_STEPS = 4096
"""Integer steps that a unit's clipped norm spans at least, so that rounding costs little."""
STEPS_PER_ROUNDING = 64
"""How many times the clipped norm exceeds sqrt(d) / 2, the norm of the rounding error, at least."""
ROUNDING_TAIL = math.sqrt(2.0 * math.log(1e4))
"""sqrt(2 log(1 / beta)): rounding takes a vector past Delta with probability at most 1e-4."""
MAX_SCALE = 2**52


def default_scale(clip: float, dimension: int) -> int:
    """The power of two at which rounding costs little and the ring stays small.

    The smallest s with s * C >= max(4096, 64 * sqrt(d) / 2): Delta then exceeds s * C by at most
    0.1 %, and multiplying by s is exact. Depends on public constants only.

    Raises:
        PlanRefused: clip so small that s would pass 2^52.
    """
    target = max(float(MIN_STEPS), STEPS_PER_ROUNDING * math.sqrt(dimension) / 2.0)
    exponent = max(0, math.ceil(math.log2(target / clip)))
    if exponent > 52:
        raise PlanRefused(f"clip {clip!r} needs a scale above 2^52: give the vectors larger units")
    return int(2**exponent)


def integer_bound(clip: float, scale: int, dimension: int) -> int:
    """Delta: L2 bound, in integer steps, of a unit's vector after stochastic rounding.

    Kairouz, Liu, Steinke 2021 ("The Distributed Discrete Gaussian Mechanism"), Proposition 22:
    a rounded vector exceeds s^2 C^2 + d/4 + sqrt(2 log(1/beta)) * (s C + sqrt(d)/2) in squared
    norm with probability at most beta. Nothing about privacy depends on it: a vector beyond
    Delta is clipped to it in integers.
    """
    norm = scale * clip
    rounding = math.sqrt(dimension) / 2.0
    return math.floor(math.sqrt(norm**2 + rounding**2 + ROUNDING_TAIL * (norm + rounding))) + 1
