from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from privacy.clip import _squared_norm, bounded_sum, clip_integers, clip_l2, round_stochastic
from privacy.compression import Compression
from privacy.errors import PlanRefused
from privacy.extras import Extras
from privacy.rng import SecureRandom
from privacy.scale import default_scale, integer_bound, steps

KEY = bytes(32)
HUGE = np.finfo(np.float64).max
TINY = np.finfo(np.float64).smallest_subnormal

hostile = st.one_of(
    st.floats(width=64),
    st.sampled_from([0.0, -0.0, HUGE, -HUGE, TINY, -TINY, np.inf, -np.inf, np.nan, 1.0, -1.0]),
)
matrices = st.tuples(st.integers(0, 4), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=hostile)
)


def exact_square(row: np.ndarray) -> Fraction:
    return sum((Fraction(float(v)) ** 2 for v in row), Fraction(0))


@given(matrices, st.sampled_from([1.0, 0.1, 1 / 3, 2.0**-500, 2.0**500, 1e-9, 12345.678]))
@example(np.array([[HUGE, HUGE, HUGE]]), 0.1)
@example(np.array([[TINY, -TINY]]), 2.0**-500)
def test_no_row_is_longer_than_the_bound_in_exact_arithmetic(
    units: np.ndarray, bound: float
) -> None:
    clipped = clip_l2(units, bound)
    assert clipped.shape == units.shape
    assert clipped.dtype == np.float64
    for before, after in zip(units, clipped, strict=True):
        assert exact_square(after) <= Fraction(bound) ** 2
        if not np.isfinite(before).all():
            assert not after.any()
        elif exact_square(before) <= Fraction(bound) ** 2 * (1 - Fraction(1, 10**12)):
            assert after.tobytes() == before.tobytes()
        else:
            assert exact_square(after) > Fraction(bound) ** 2 * (1 - Fraction(1, 10**11))


@pytest.mark.parametrize("dimension", [1, 7, 1000, 100_000])
def test_the_bound_holds_with_many_coordinates(dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    units = rng.standard_normal((3, dimension)) * 10.0 ** rng.integers(-3, 3, (3, dimension))
    for row in clip_l2(units, 0.7):
        assert exact_square(row) <= Fraction(0.7) ** 2


@pytest.mark.parametrize(
    ("value", "bound"),
    [
        (2.0**-505, 2.0**-500),
        (2.0**-521, 2.0**-500),
        (2.0**-1074, 2.0**-500),
        (2.0**1015, 2.0**500),
    ],
)
def test_many_tiny_or_huge_coordinates_are_bounded_together(value: float, bound: float) -> None:
    (row,) = clip_l2(np.full((1, 100_000), value), bound)
    exact = 100_000 * Fraction(float(row[0])) ** 2
    assert (row == row[0]).all()
    assert exact <= Fraction(bound) ** 2
    if 100_000 * Fraction(value) ** 2 <= Fraction(bound) ** 2:
        assert row[0] == value
    else:
        assert exact > Fraction(bound) ** 2 * (1 - Fraction(1, 10**9))


@given(matrices, st.integers(0, 3))
def test_a_row_is_treated_alike_alone_and_in_company(units: np.ndarray, place: int) -> None:
    together = clip_l2(units, 1.0)
    strided = clip_l2(np.asfortranarray(units), 1.0)
    for index, row in enumerate(units):
        alone = np.zeros((place + 1, len(row)))
        alone[place] = row
        assert clip_l2(alone, 1.0)[place].tobytes() == together[index].tobytes()
    assert strided.tobytes() == together.tobytes()


def test_a_row_in_a_large_batch_is_treated_as_alone() -> None:
    units = np.random.default_rng(1).standard_normal((64, 4099)) / 50
    together = clip_l2(units, 1.0)
    for index in range(64):
        assert clip_l2(units[index : index + 1], 1.0).tobytes() == together[index].tobytes()


def test_the_input_is_left_alone() -> None:
    units = np.array([[3.0, 4.0], [np.nan, 1.0]])
    before = units.tobytes()
    clip_l2(units, 1.0)
    assert units.tobytes() == before


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_each_float_type_is_clipped_from_its_own_value(dtype: type) -> None:
    units = np.array([[3, 4], [0.25, -0.0], [np.inf, 0]], dtype=dtype)
    clipped = clip_l2(units, 1.0)
    np.testing.assert_allclose(clipped, [[0.6, 0.8], [0.25, 0.0], [0, 0]], rtol=1e-12)
    assert np.signbit(clipped[1, 1])


@pytest.mark.parametrize(
    "units",
    [
        np.zeros(3),
        np.zeros((1, 1, 1)),
        np.zeros((2, 2), dtype=np.int64),
        np.zeros((2, 2), dtype=np.complex128),
        np.zeros((2, 2), dtype=object),
        np.zeros((2, 2), dtype=np.longdouble),
    ],
)
def test_other_shapes_and_types_are_refused(units: np.ndarray) -> None:
    with pytest.raises(PlanRefused, match="allowed"):
        clip_l2(units, 1.0)


@pytest.mark.parametrize("bound", [0.0, -1.0, np.nan, np.inf, TINY, 1e200])
def test_other_bounds_are_refused(bound: float) -> None:
    with pytest.raises(PlanRefused, match="clip bound"):
        clip_l2(np.zeros((1, 2)), bound)


@given(arrays(np.float64, st.integers(0, 20), elements=st.floats(-(2.0**51), 2.0**51)))
def test_rounding_moves_each_value_by_less_than_one(values: np.ndarray) -> None:
    rounded = round_stochastic(values, SecureRandom.from_os())
    assert rounded.dtype == np.int64
    for value, integer in zip(values, rounded, strict=True):
        assert abs(Fraction(float(value)) - int(integer)) < 1 or value - np.floor(value) == 1.0


def test_integers_and_negative_zero_stay() -> None:
    values = np.array([0.0, -0.0, 1.0, -7.0, 2.0**51, -(2.0**51)])
    for _ in range(50):
        rounded = round_stochastic(values, SecureRandom.from_os())
        assert rounded.tolist() == [0, 0, 1, -7, 2**51, -(2**51)]


@pytest.mark.parametrize("value", [0.3, -0.3, 5.9, -5.999, 1e-3])
def test_rounding_keeps_the_mean(value: float) -> None:
    """Two-sided normal test at 6 standard errors: a false alarm in 5e8 runs of another key."""
    count = 200_000
    rounded = round_stochastic(np.full(count, value), SecureRandom.from_key(KEY))
    part = value - np.floor(value)
    error = np.sqrt(part * (1 - part) / count)
    assert abs(rounded.mean() - value) < 6 * error


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**52, -(2.0**52)])
def test_values_without_room_to_round_are_refused(value: float) -> None:
    with pytest.raises(PlanRefused, match="to round"):
        round_stochastic(np.array([0.0, value]), SecureRandom.from_os())


any_int64 = st.integers(-(2**63), 2**63 - 1)
extremes = st.sampled_from([-(2**63), 2**63 - 1, 2**31, -(2**31), 2**32 + 1, 0, 1, -1])


@given(
    st.tuples(st.integers(0, 3), st.integers(1, 6)).flatmap(
        lambda s: arrays(np.int64, s, elements=any_int64 | extremes | st.integers(-100, 100))
    ),
    st.integers(0, 2**31 - 1) | st.integers(0, 200),
)
@example(np.full((1, 3), -(2**63)), 2**31 - 1)
@example(np.full((1, 6), 2**62), 1)
def test_integer_rows_never_exceed_delta_and_floor_toward_zero(
    rows: np.ndarray, delta: int
) -> None:
    given = rows.tolist()
    clipped = clip_integers(rows, delta)
    assert clipped is rows
    for before, after in zip(given, clipped.tolist(), strict=True):
        length = sum(v * v for v in before)
        assert sum(v * v for v in after) <= delta * delta
        if length <= delta * delta:
            assert after == before
        for b, a in zip(before, after, strict=True):
            assert 0 <= a * (1 if b >= 0 else -1) <= abs(b)
            if length > delta * delta:
                # |b| delta / norm, floored, with the norm rounded up to an integer.
                assert abs(b) * delta < (abs(a) + 1) * (math.isqrt(length) + 1)


def test_integer_clip_refuses_what_it_cannot_bound() -> None:
    for rows in (np.zeros(3, dtype=np.int64), np.zeros((1, 3)), np.zeros((1, 2), dtype=np.int32)):
        with pytest.raises(PlanRefused, match="int64"):
            clip_integers(rows, 5)
    for delta in (-1, 2**31):
        with pytest.raises(PlanRefused, match="delta"):
            clip_integers(np.zeros((1, 3), dtype=np.int64), delta)


CLIP, DIMENSION = 0.75, 5
STEPS = steps(CLIP, Compression().image(DIMENSION), None, Extras())
SCALE, DELTA = STEPS.scale, STEPS.l2


def unchanged(rows: np.ndarray) -> np.ndarray:
    return rows


def summed(units: np.ndarray, key: bytes = KEY) -> list[int]:
    rng = SecureRandom.from_key(key)
    return bounded_sum(
        units, clip=CLIP, forward=unchanged, scale=SCALE, cap=STEPS.cap, delta=DELTA, rng=rng
    ).tolist()


@given(
    arrays(np.float64, st.tuples(st.integers(0, 3), st.just(DIMENSION)), elements=hostile),
    arrays(np.float64, (1, DIMENSION), elements=hostile),
    st.binary(min_size=32, max_size=32),
)
def test_no_unit_moves_the_sum_by_more_than_delta(
    others: np.ndarray, unit: np.ndarray, key: bytes
) -> None:
    # The unit comes last, so that the others are rounded with the same coins in both worlds.
    without, with_unit = summed(others, key), summed(np.vstack([others, unit]), key)
    assert sum((a - b) ** 2 for a, b in zip(with_unit, without, strict=True)) <= DELTA**2


@pytest.mark.parametrize(
    "unit",
    [
        np.full(DIMENSION, HUGE),
        np.full(DIMENSION, -HUGE),
        np.array([1e300, 0, 0, 0, 0]),
        np.full(DIMENSION, 1e9),
        np.full(DIMENSION, CLIP),
    ],
)
def test_a_huge_unit_comes_to_the_edge_and_not_beyond(unit: np.ndarray) -> None:
    """The bound is used: a test with a bound far too wide would not notice a missing clip."""
    for key in range(20):
        moved = summed(unit[None, :], bytes([key]) * 32)
        length = sum(v * v for v in moved)
        assert (0.999 * SCALE * CLIP) ** 2 <= length <= DELTA**2


def test_delta_holds_however_the_rounding_falls() -> None:
    """Rounding takes 2.5 steps to 2 or 3, and the norm from 50 beyond Delta; Delta holds."""
    unit = np.full((1, 400), 0.3125)
    for key in range(20):
        rng = SecureRandom.from_key(bytes([key]) * 32)
        moved = bounded_sum(
            unit, clip=7.0, forward=unchanged, scale=8.0, cap=57, delta=50, rng=rng
        ).tolist()
        assert 25**2 < sum(v * v for v in moved) <= 50**2


def test_a_unit_given_twice_counts_as_two_units() -> None:
    unit = np.full((1, DIMENSION), HUGE)
    twice = summed(np.vstack([unit, unit]))
    assert sum(v * v for v in twice) <= (2 * DELTA) ** 2
    assert sum(v * v for v in twice) > (1.9 * DELTA) ** 2


def test_no_units_sum_to_zero() -> None:
    assert summed(np.zeros((0, DIMENSION))) == [0] * DIMENSION


def test_bad_units_neither_reach_the_sum_nor_stop_it() -> None:
    good = np.full((1, DIMENSION), 0.1)
    for bad in (np.nan, np.inf, -np.inf):
        unit = np.full((1, DIMENSION), 0.2)
        unit[0, 3] = bad
        assert summed(np.vstack([good, unit])) == summed(good)


def test_rounding_rarely_reaches_the_integer_clip() -> None:
    """Delta has room for rounding, and costs no more than 0.1 % of sensitivity."""
    for clip, dimension in ((1.0, 30), (0.3, 4000)):
        scale = default_scale(clip, dimension)
        delta = integer_bound(clip, scale, dimension)
        rng = SecureRandom.from_key(KEY)
        units = clip_l2(np.random.default_rng(5).standard_normal((500, dimension)) * 100, clip)
        rounded = round_stochastic(units * scale, rng)
        assert (np.square(rounded).sum(axis=1) <= delta**2).all()
        assert delta <= 1.001 * scale * clip


@given(
    arrays(
        np.float32, st.tuples(st.integers(0, 2), st.just(DIMENSION)), elements=st.floats(width=32)
    ),
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.integers(1, 3),
)
def test_one_unit_given_several_times_moves_the_sum_as_so_many_units(
    others: np.ndarray, dtype: type, copies: int
) -> None:
    """Duplicates count one by one, in every float type, the largest of the type included."""
    unit = np.full((1, DIMENSION), np.finfo(dtype).max, dtype=dtype)
    with np.errstate(over="ignore"):
        rows = others.astype(dtype)
    without, with_units = summed(rows), summed(np.vstack([rows, *[unit] * copies]))
    moved = sum((a - b) ** 2 for a, b in zip(with_units, without, strict=True))
    assert moved <= (copies * DELTA) ** 2
    assert moved > (0.99 * copies * SCALE * CLIP) ** 2


@pytest.mark.parametrize("delta", [1, 10**4, 2**30, 2**31 - 1])
def test_a_row_just_beyond_delta_is_clipped_and_one_at_delta_is_kept(delta: int) -> None:
    assert clip_integers(np.array([[delta, 0, 0]]), delta).tolist() == [[delta, 0, 0]]
    assert clip_integers(np.array([[0, delta, 1]]), delta).tolist() == [[0, delta - 1, 0]]


@given(arrays(np.int64, st.integers(0, 40), elements=st.integers(-(2**32) + 1, 2**32 - 1)))
@example(np.full(40, -(2**32) + 1))
@example(np.full(40, 2**31))
def test_squares_are_added_up_exactly_beyond_int64(row: np.ndarray) -> None:
    assert _squared_norm(row) == sum(int(value) ** 2 for value in row)


@pytest.mark.parametrize("block", [1, 7, 12, 1 << 16])
def test_the_sum_does_not_depend_on_how_many_rows_go_together(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values that need no rounding, of rows below, at and beyond every bound."""
    rows = np.array([[1, 2, 0], [3, -4, 0], [-30, 0, 40], [np.nan, 1, 1], [0, 0, 0], [2, 2, 1]])
    behind = np.arange(6, dtype=np.float64)[:, None]
    monkeypatch.setattr("privacy.clip._ROUND_BLOCK", block)
    shapes: list[int] = []

    def alone(row: NDArray[np.float64]) -> NDArray[np.float64]:
        shapes.append(len(row))
        return row

    total = bounded_sum(
        rows, clip=5.0 * (1 + 2**-40), forward=alone, scale=1.0, cap=3, delta=100,
        rng=SecureRandom.from_key(bytes(32)), behind=behind,
    )  # fmt: skip
    assert set(shapes) == {0, 1}  # a product with more rows could round each by the others
    assert len(shapes) == 7
    # 3, -4 is within; -30, 40 becomes -3, 4 up to rounding at random; then 3 is the cap.
    assert total[[1, 3]].tolist() == [2 - 3 + 2, 15]
    assert abs(total[0] - (1 + 3 - 3 + 2)) <= 1
    assert abs(total[2] - (3 + 1)) <= 1
