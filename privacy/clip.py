"""From vectors of units to one integer vector whose sensitivity is known exactly.

clip_l2 -> a public linear map -> round_stochastic -> saturate -> clip_integers. Every step treats
each row by itself, so that what one unit contributes never depends on which other units are
present. The guarantee of the whole rests on the last step alone, which uses integers only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.errors import PlanRefused
from privacy.rng import SecureRandom
from privacy.stages import Stage, stage

MIN_BOUND, MAX_BOUND = 2.0**-500, 2.0**500
MAX_ROUNDED = 2.0**52
MAX_DELTA = 2**31 - 1
_SUM_BLOCK = 1 << 13  # values at a time: they stay in the cache, and BLAS on one thread
_ROUND_BLOCK = 1 << 16  # likewise, and the set-up of the key stream does not show


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
    rows = np.empty(units.shape, dtype=np.float64)
    if rows.size:
        for unit, row in zip(units, rows, strict=True):
            _clip_row(unit, bound, row)
    return rows


def within(
    units: NDArray[np.floating[Any]], bound: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows are finite, and which of them `clip_l2` keeps as they are.

    Args:
        units: float16, float32 or float64 [k, d], d at least 1.
        bound: as for `clip_l2`.

    Returns:
        bool [k] each; a row that is not finite is within no bound.
    """
    norms = [_norm_of(unit, bound) for unit in units]
    finite = np.array([norm is not None for norm in norms], dtype=np.bool_)
    kept = np.array([norm is not None and not norm.over for norm in norms], dtype=np.bool_)
    return finite, kept


@dataclass(frozen=True)
class _Norm:
    """A finite row's norm, of the row times 2^-exponent; and whether it is over the bound."""

    value: float
    exponent: int
    over: bool


def _norm_of(unit: NDArray[np.floating[Any]], bound: float) -> _Norm | None:
    """The norm as `clip_l2` sees it; None where a value is not finite."""
    largest = max(float(unit.max()), -float(unit.min()))
    if not math.isfinite(largest):
        return None
    # By a power of two the row comes to where squares neither overflow nor vanish.
    exponent = 0 if 2.0**-400 < largest < 2.0**400 else math.frexp(largest)[1]
    squared = 0.0
    scratch = np.empty(min(_SUM_BLOCK, unit.size), dtype=np.float64)
    for block in _blocks(unit.size, _SUM_BLOCK):
        part = scratch[: unit[block].size]
        np.copyto(part, unit[block])
        if exponent:
            np.ldexp(part, -exponent, out=part)
        squared += float(np.dot(part, part))
    norm = math.sqrt(squared)
    # On the row's scale. 2^520 times any bound is above every norm: no larger factor is needed.
    limit = math.ldexp(bound, min(-exponent, 520))
    return _Norm(norm, exponent, norm * (1.0 + _slack(unit.size)) > limit)


def _slack(size: int) -> float:
    """Relative error of a computed norm, at most."""
    return (size + 8) * 2.0**-52


def _clip_row(unit: NDArray[np.floating[Any]], bound: float, row: NDArray[np.float64]) -> None:
    norm = _norm_of(unit, bound)
    if norm is None:
        row.fill(0.0)
        return
    factor = bound * (1.0 - 2.0 * _slack(unit.size)) / norm.value if norm.over else 1.0
    np.copyto(row, unit)
    if norm.over and norm.exponent:
        np.ldexp(row, -norm.exponent, out=row)
    # A row within the bound, zeros included, takes as long as one that is clipped.
    row *= factor


def round_stochastic(values: NDArray[np.float64], rng: SecureRandom) -> NDArray[np.int64]:
    """Round each value up or down at random so that the mean of the result is the value.

    floor(x) + floor(x - floor(x) + u) with u uniform on multiples of 2^-32 in [0, 1), so that the
    mean is off by at most 2^-32; integers, negative zero included, stay as they are.

    Args:
        values: float64, any shape, each |x| < 2^52.
        rng: the generator to draw from.

    Returns:
        int64 of the same shape; each entry differs from the value by less than 1.

    Raises:
        PlanRefused: a value that is not finite or too large.
    """
    flat = np.ascontiguousarray(values).reshape(-1)
    if flat.size and not max(float(flat.max()), -float(flat.min())) < MAX_ROUNDED:
        raise PlanRefused("a value to round is not finite or not below 2^52 in magnitude")
    rounded = np.empty(flat.size, dtype=np.int64)
    for block in _blocks(flat.size, _ROUND_BLOCK):
        down = np.floor(flat[block])
        part = flat[block] - down
        part += rng.words(part.size) * 2.0**-32
        np.floor(part, out=part)
        down += part
        np.copyto(rounded[block], down, casting="unsafe")
    return rounded.reshape(values.shape)


def clip_integers(rows: NDArray[np.int64], delta: int) -> NDArray[np.int64]:
    """Shrink each integer row, flooring toward zero, so that its L2 norm is <= delta exactly.

    A longer row v becomes sign(v) * floor(|v| * delta / r) with r the norm of v rounded up to an
    integer, hence |w_i| <= |v_i| * delta / ||v|| for every coordinate and ||w|| <= delta. Rows
    within the bound are kept. Whether a row is within is decided in integers, unless a float64 sum
    of squares is below delta^2 by more than all its roundings together, (d + 8) * 2^-52 relatively.
    Holds for every int64 input, -2^63 included.

    Args:
        rows: int64 [k, d]; k = 0 is fine. Changed in place.
        delta: largest L2 norm of a row, 0 <= delta < 2^31.

    Returns:
        The same array.

    Raises:
        PlanRefused: another shape or dtype, or a delta outside the range.
    """
    if rows.ndim != 2 or rows.dtype != np.int64:
        raise PlanRefused(
            f"rows have shape {rows.shape} and dtype {rows.dtype}; allowed: [k, d] of int64"
        )
    if not 0 <= delta <= MAX_DELTA:
        raise PlanRefused(f"delta {delta} is outside 0..2^31-1")
    for row in rows:
        if _rough_square(row) * (1.0 + (row.size + 8) * 2.0**-52) < float(delta) ** 2:
            continue
        squared = _squared_norm(row)
        if squared > delta * delta:
            _shrink(row, delta, math.isqrt(squared - 1) + 1)
    return rows


def _rough_square(row: NDArray[np.int64]) -> float:
    squared = 0.0
    for block in _blocks(row.size, _SUM_BLOCK):
        part = row[block].astype(np.float64)
        squared += float(np.dot(part, part))
    return squared


def _squared_norm(row: NDArray[np.int64]) -> int:
    """The exact squared L2 norm, in integers of any size where int64 could overflow."""
    largest = max(int(row.max()), -int(row.min())) if row.size else 0
    if row.size * largest * largest < 2**63:
        return int(np.dot(row, row))
    if largest < 2**32 and row.size < 2**30:
        high, low = row >> 16, row & 0xFFFF
        parts = (np.dot(high, high), np.dot(high, low), np.dot(low, low))
        return (int(parts[0]) << 32) + (int(parts[1]) << 17) + int(parts[2])
    wide = row.astype(object)
    return int(np.dot(wide, wide))


def _shrink(row: NDArray[np.int64], delta: int, norm: int) -> None:
    """Replace row by trunc(row * delta / norm), in exact integer arithmetic."""
    largest = max(int(row.max()), -int(row.min()))
    narrow = largest * delta < 2**63 and norm < 2**63
    wide = row if narrow else row.astype(object)
    row[:] = np.sign(wide) * (np.abs(wide) * delta // norm)


def _blocks(size: int, step: int) -> Iterator[slice]:
    for low in range(0, size, step):
        yield slice(low, low + step)


def bounded_sum(
    units: NDArray[np.floating[Any]],
    *,
    clip: float,
    forward: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    scale: float,
    cap: int,
    delta: int,
    rng: SecureRandom,
    behind: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """Sum of the units' integer vectors, before noise.

    Adding or removing one unit, whatever it holds, moves the result by at most `delta` in L2 norm
    and by at most `cap` in each coordinate: each unit is clipped, mapped, scaled, rounded and
    clipped again by itself, and the coins of the rounding depend on nothing. Cutting coordinates
    off brings every one of them nearer to zero, so it makes no vector longer. What stands behind a
    unit's vector is clipped together with it.

    Args:
        units: float16, float32 or float64 [k, d]; k = 0 gives zeros.
        clip: L2 bound of one unit's vector.
        forward: the public map, [k, d] to [k, m]; treats rows alone, and makes none longer but by
            the rounding of float64.
        scale: integer steps per 1.0.
        cap: largest magnitude of one coordinate of one unit, in steps.
        delta: L2 bound of one unit's integer vector, in steps.
        rng: the generator that decides the rounding.
        behind: further coordinates of each unit, in steps: float64 [k, e]; None: there are none.

    Returns:
        int64 [m + e].
    """
    mapped = forward(clip_l2(units[:0], clip)).shape[1]
    total = np.zeros(mapped + (0 if behind is None else behind.shape[1]), dtype=np.int64)
    # Few rows at a time: what they need stays small, however many units there are.
    for some in _blocks(units.shape[0], max(1, _ROUND_BLOCK // max(1, units.shape[1]))):
        with stage(Stage.CLIP):
            clipped = clip_l2(units[some], clip)
            # A matrix product would round a row by how many others there are: each row alone.
            rows = np.concatenate([forward(clipped[i : i + 1]) for i in range(len(clipped))])
        with stage(Stage.ENCODE):
            np.multiply(rows, scale, out=rows)
            if behind is not None:
                rows = np.concatenate([rows, behind[some]], axis=1)
            rounded = round_stochastic(rows, rng)
            np.clip(rounded[:, :mapped], -cap, cap, out=rounded[:, :mapped])
            total += clip_integers(rounded, delta).sum(axis=0)
    return total
