"""How many integer steps a vector spans, from public constants only.

One rule: a coordinate of a unit's vector is an integer of magnitude up to `cap`. Either the number
of value bits is given, cap = 2^(bits - 1) - 1, and the scale is the finest that keeps coordinates
within it; or the scale is chosen so that rounding costs little, and cap follows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from privacy.compression import Image
from privacy.errors import CompressionRefused, PlanRefused
from privacy.extras import Extras

MIN_STEPS = 4096
"""Integer steps that a unit's clipped norm spans at least, so that rounding costs little."""
STEPS_PER_ROUNDING = 64
"""How many times the clipped norm exceeds sqrt(m) / 2, the norm of the rounding error, at least."""
ROUNDING_TAIL = math.sqrt(2.0 * math.log(1e4))
"""sqrt(2 log(1 / beta)): rounding takes a vector past Delta with probability at most 1e-4."""
MIN_SCALE, MAX_SCALE = 2.0**-500, 2.0**52
MIN_VALUE_BITS, MAX_VALUE_BITS = 8, 20


@dataclass(frozen=True)
class Steps:
    """The integers of a plan.

    Attributes:
        scale: integer steps per 1.0.
        cap: largest magnitude of one coordinate of one unit; what is beyond is cut off.
        l2: Delta, L2 bound of one unit's vector in steps.
    """

    scale: float
    cap: int
    l2: int


def steps(clip: float, image: Image, value_bits: int | None, extras: Extras) -> Steps:
    """Scale and bounds of a unit's integers.

    Args:
        clip: C, L2 bound of a unit's vector before the map.
        image: what the map makes of a vector of norm 1.
        value_bits: bits of one coordinate of one unit with its sign; None: `default_scale`.
        extras: what stands behind the image and is inside the same bound.

    Raises:
        PlanRefused: value bits out of range, or constants for which no scale is sane.
        CompressionRefused: so few bits that rounding would move a vector by its own length.
    """
    norm, coordinate = clip * image.norm, clip * image.coordinate
    if value_bits is None:
        scale = default_scale(norm, image.length)
        cap = math.ceil(scale * coordinate) + 1
    else:
        if type(value_bits) is not int or not MIN_VALUE_BITS <= value_bits <= MAX_VALUE_BITS:
            raise PlanRefused(
                f"value_bits {value_bits!r} is not an integer from {MIN_VALUE_BITS} to "
                f"{MAX_VALUE_BITS}"
            )
        cap = 2 ** (value_bits - 1) - 1
        scale = (cap - 1) / coordinate
        _check_rounding(scale * norm, image.length, value_bits)
    if not MIN_SCALE <= scale <= MAX_SCALE:
        raise PlanRefused(
            f"clip {clip!r} needs {scale:.3g} steps per 1.0, which is outside of 2^-500 to 2^52: "
            "give the vectors other units"
        )
    length = image.length + extras.count
    return Steps(scale, cap, integer_bound(norm * extras.stretch, scale, length))


def default_scale(norm: float, length: int) -> float:
    """The power of two at which rounding costs little and the ring stays small.

    The smallest s >= 1 with s * C >= max(4096, 64 * sqrt(m) / 2): Delta then exceeds s * C by at
    most 0.1 %, and multiplying by s is exact. Depends on public constants only.
    """
    target = max(float(MIN_STEPS), STEPS_PER_ROUNDING * math.sqrt(length) / 2.0)
    return 2.0 ** max(0, math.ceil(math.log2(target / norm)))


def integer_bound(norm: float, scale: float, length: int) -> int:
    """Delta: L2 bound, in integer steps, of a vector of that norm after stochastic rounding.

    Kairouz, Liu, Steinke 2021 ("The Distributed Discrete Gaussian Mechanism"), Proposition 22:
    a rounded vector exceeds s^2 C^2 + m/4 + sqrt(2 log(1/beta)) * (s C + sqrt(m)/2) in squared
    norm with probability at most beta. Nothing about privacy depends on it: a vector beyond
    Delta is clipped to it in integers.
    """
    scaled = scale * norm
    rounding = math.sqrt(length) / 2.0
    return math.floor(math.sqrt(scaled**2 + rounding**2 + ROUNDING_TAIL * (scaled + rounding))) + 1


def _check_rounding(scaled: float, length: int, value_bits: int) -> None:
    rounding = math.sqrt(length) / 2.0
    if rounding > scaled:
        needed = value_bits + math.ceil(math.log2(rounding / scaled))
        raise CompressionRefused(
            f"value_bits {value_bits} for {length} coordinates: a vector spans {scaled:.0f} steps "
            f"and rounding may move it by {rounding:.0f}; set value_bits to {needed} or more, or "
            "rotate = true"
        )
