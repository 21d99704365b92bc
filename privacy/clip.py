"""From vectors of units to one integer vector whose sensitivity is known exactly.

clip_l2 -> a public linear map -> round_stochastic -> saturate -> clip_integers. Every step treats
each row by itself, so that what one unit contributes never depends on which other units are
present. The guarantee of the whole rests on the last step alone, which uses integers only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.errors import PlanRefused
from privacy.rng import SecureRandom

MIN_BOUND, MAX_BOUND = 2.0**-500, 2.0**500
MAX_ROUNDED = 2.0**52
MAX_DELTA = 2**31 - 1


def clip_l2(units: NDArray[np.floating[Any]], bound: float) -> NDArray[np.float64]:
    """Scale each row down to L2 norm <= bound.

    A row with a NaN or an infinity becomes the zero vector (one bad unit must neither stop the
    round nor reach the sum). Rows within the bound, zero rows and subnormal rows are kept as they
    are, negative zeros included; finite rows whose squares overflow are clipped like any other.
    The bound holds for the returned float64 values, evaluated without rounding: the computed norm
    and the product are off by at most (d + 8) * 2^-52 relatively, and twice that is taken off.

    Args:
        units: float16, float32 or float64 [k, d]; k = 0 is fine.
        bound: largest L2 norm of a row, from 2^-500 to 2^500.

    Returns:
        float64 [k, d], a new array.

    Raises:
        PlanRefused: another shape or dtype, or a bound outside the range.
    """
    if units.ndim != 2 or units.dtype.kind != "f" or units.dtype.itemsize > 8:
        raise PlanRefused(
            f"units have shape {units.shape} and dtype {units.dtype}; "
            "allowed: [k, d] of float16, float32 or float64"
        )
    if not MIN_BOUND <= bound <= MAX_BOUND:
        raise PlanRefused(f"clip bound {bound!r} is outside [{MIN_BOUND!r}, {MAX_BOUND!r}]")
    rows = np.array(units, dtype=np.float64, order="C")
    if rows.size == 0:
        return rows
    rows[~np.isfinite(rows).all(axis=1)] = 0.0
    slack = (rows.shape[1] + 8) * 2.0**-52
    largest = np.abs(rows).max(axis=1)
    largest[largest == 0.0] = 1.0
    # Dividing by the largest entry first: squares neither overflow nor vanish, and the norm,
    # which may itself overflow, is compared after division too.
    with np.errstate(over="ignore"):
        limit = bound / largest
    unit_rows = rows / largest[:, None]
    relative = np.sqrt(np.add.reduce(unit_rows * unit_rows, axis=1))
    over = relative * (1.0 + slack) > limit
    factor = (bound * (1.0 - 2.0 * slack) / relative[over])[:, None]
    rows[over] = unit_rows[over] * factor
    return rows


def round_stochastic(values: NDArray[np.float64], rng: SecureRandom) -> NDArray[np.int64]:
    """Round each value up or down at random so that the mean of the result is the value.

    floor(x) + [u < x - floor(x)] with u uniform on multiples of 2^-53; integers, negative zero
    included, stay as they are.

    Args:
        values: float64, any shape, each |x| < 2^52.
        rng: the generator to draw from.

    Returns:
        int64 of the same shape; each entry differs from the value by less than 1.

    Raises:
        PlanRefused: a value that is not finite or too large.
    """
    if not bool((np.abs(values) < MAX_ROUNDED).all()):
        raise PlanRefused("a value to round is not finite or not below 2^52 in magnitude")
    down = np.floor(values)
    up = rng.generator.random(values.shape) < values - down
    return down.astype(np.int64) + up


def clip_integers(rows: NDArray[np.int64], delta: int) -> NDArray[np.int64]:
    """Shrink each integer row, flooring toward zero, so that its L2 norm is <= delta exactly.

    No floating-point number takes part. Rows within the bound are returned unchanged. A longer row
    v becomes sign(v) * floor(|v| * delta / r) with r the norm of v rounded up to an integer, hence
    |w_i| <= |v_i| * delta / ||v|| for every coordinate and ||w|| <= delta. Holds for every int64
    input, -2^63 included.

    Args:
        rows: int64 [k, d]; k = 0 is fine.
        delta: largest L2 norm of a row, 0 <= delta < 2^31.

    Returns:
        int64 [k, d], a new array.

    Raises:
        PlanRefused: another shape or dtype, or a delta outside the range.
    """
    if rows.ndim != 2 or rows.dtype != np.int64:
        raise PlanRefused(
            f"rows have shape {rows.shape} and dtype {rows.dtype}; allowed: [k, d] of int64"
        )
    if not 0 <= delta <= MAX_DELTA:
        raise PlanRefused(f"delta {delta} is outside 0..2^31-1")
    clipped = rows.copy()
    for row in clipped:
        squared = _squared_norm(row)
        if squared > delta * delta:
            norm = math.isqrt(squared - 1) + 1
            row[:] = _shrink(row, delta, norm)
    return clipped


def _squared_norm(row: NDArray[np.int64]) -> int:
    """The exact squared L2 norm, in Python integers where int64 could overflow."""
    largest = max(int(row.max()), -int(row.min())) if row.size else 0
    if row.size * largest * largest < 2**63:
        return int(np.dot(row, row))
    return sum(int(value) ** 2 for value in row)


def _shrink(row: NDArray[np.int64], delta: int, norm: int) -> NDArray[np.int64]:
    """Trunc(row * delta / norm) in exact integer arithmetic."""
    largest = max(int(row.max()), -int(row.min()))
    if largest * delta < 2**63 and norm < 2**63:
        magnitude: NDArray[np.int64] = np.abs(row) * np.int64(delta) // np.int64(norm)
        return np.sign(row) * magnitude
    exact = [(abs(int(v)) * delta // norm) * (1 if v >= 0 else -1) for v in row]
    return np.array(exact, dtype=np.int64)


def bounded_sum(
    units: NDArray[np.floating[Any]],
    *,
    clip: float,
    forward: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    scale: float,
    cap: int,
    delta: int,
    rng: SecureRandom,
) -> NDArray[np.int64]:
    """Sum of the units' integer vectors, before noise.

    Adding or removing one unit, whatever it holds, moves the result by at most `delta` in L2 norm
    and by at most `cap` in each coordinate: each unit is clipped, mapped, scaled, rounded and
    clipped again by itself, and the coins of the rounding depend on nothing. Cutting coordinates
    off brings every one of them nearer to zero, so it makes no vector longer.

    Args:
        units: float16, float32 or float64 [k, d]; k = 0 gives zeros.
        clip: L2 bound of one unit's vector.
        forward: the public map, [k, d] to [k, m]; treats rows alone, and makes none longer but by
            the rounding of float64.
        scale: integer steps per 1.0.
        cap: largest magnitude of one coordinate of one unit, in steps.
        delta: L2 bound of one unit's integer vector, in steps.
        rng: the generator that decides the rounding.

    Returns:
        int64 [m].
    """
    rounded = round_stochastic(forward(clip_l2(units, clip)) * scale, rng)
    np.clip(rounded, -cap, cap, out=rounded)
    total: NDArray[np.int64] = np.add.reduce(clip_integers(rounded, delta), axis=0)
    return total
