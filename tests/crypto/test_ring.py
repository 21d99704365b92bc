"""Ring encoding, bit packing and the proof of headroom."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from crypto.errors import Malformed, RingRefused
from crypto.packing import _CHUNK, lane, packed_size
from crypto.ring import MAX_BITS, MIN_BITS, Ring, noise_tail

ALL_BITS = st.integers(MIN_BITS, MAX_BITS)
# 64 values of 62 bits fill whole words; chunk borders lie at 8192 groups of 32 or 64 values.
LENGTHS = st.one_of(st.integers(0, 200), st.sampled_from([8191, 8192, 262144, 262145]))


def residues(bits: int, length: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**bits - 1, length, dtype=np.uint64, endpoint=True)


@given(data=st.data(), bits=ALL_BITS)
def test_encode_decode_round_trip(data: st.DataObject, bits: int) -> None:
    half = 2 ** (bits - 1)
    values = data.draw(arrays(np.int64, st.integers(0, 50), elements=st.integers(-half, half - 1)))
    ring = Ring(bits)
    encoded = ring.encode(values)
    assert encoded.dtype == np.uint64
    assert [int(v) for v in encoded] == [int(v) % 2**bits for v in values]
    decoded = ring.decode(encoded)
    assert decoded.dtype == np.int64
    np.testing.assert_array_equal(decoded, values)


@given(bits=ALL_BITS, length=LENGTHS, seed=st.integers(0, 2**32))
def test_pack_round_trip_has_exactly_the_least_bytes(bits: int, length: int, seed: int) -> None:
    ring, values = Ring(bits), residues(bits, length, seed)
    packed = ring.pack(values)
    assert len(packed) == math.ceil(length * bits / 8) == ring.packed_size(length)
    unpacked = ring.unpack(packed, length)
    assert unpacked.dtype == np.uint64
    np.testing.assert_array_equal(unpacked, values)
    np.testing.assert_array_equal(ring.pack(values.astype(ring.lane)), packed)


@given(bits=ALL_BITS, length=st.integers(0, 150), seed=st.integers(0, 2**32))
def test_packed_bytes_are_the_specified_integer(bits: int, length: int, seed: int) -> None:
    values = residues(bits, length, seed)
    expected = sum(int(v) << (k * bits) for k, v in enumerate(values))
    packed = Ring(bits).pack(values)
    assert packed == expected.to_bytes(packed_size(length, bits), "little")


@pytest.mark.parametrize("bits", [3, 20, 32, 33, 62])
def test_chunks_of_a_long_vector_join_seamlessly(bits: int) -> None:
    ring, length, cut = Ring(bits), _CHUNK + 77, _CHUNK // 2
    values = residues(bits, length)
    packed = ring.pack(values)
    assert packed == ring.pack(values[:cut]) + ring.pack(values[cut:])
    np.testing.assert_array_equal(ring.unpack(packed, length), values)
    signed = ring.decode(values)
    np.testing.assert_array_equal(ring.encode(signed), values)
    signed[-1] = ring.modulus >> 1
    with pytest.raises(RingRefused, match="outside"):
        ring.encode(signed)


def test_packed_bytes_of_a_worked_example() -> None:
    # 1 | 2 << 3 | 7 << 6 | 5 << 9 = 0b101_111_010_001
    assert Ring(3).pack(np.array([1, 2, 7, 5], dtype=np.uint64)) == bytes([0b11010001, 0b1011])


@pytest.mark.parametrize(("length", "bits"), [(1, 3), (5, 7), (3, 62), (100, 33)])
def test_unpack_is_strict(length: int, bits: int) -> None:
    ring = Ring(bits)
    packed = ring.pack(residues(bits, length))
    for wrong in (packed[:-1], packed + b"\0", b""):
        with pytest.raises(Malformed, match="bytes, got"):
            ring.unpack(wrong, length)
    used = length * bits % 8
    assert used
    for bit in range(used, 8):
        with pytest.raises(Malformed, match="pad bits"):
            ring.unpack(packed[:-1] + bytes([packed[-1] | 1 << bit]), length)


def test_add_into_is_addition_modulo() -> None:
    for bits in (2, 31, 32, 33, 62):
        ring = Ring(bits)
        a, b = residues(bits, 100, 1), residues(bits, 100, 2)
        for dtype in (np.dtype(np.uint64), ring.lane):
            total = a.astype(dtype)
            ring.add_into(total, b.astype(dtype))
            expected = [(int(x) + int(y)) % 2**bits for x, y in zip(a, b, strict=True)]
            assert [int(v) for v in total] == expected


@pytest.mark.parametrize("bits", [1, 0, -3, 63, 64, True, 8.0, "8", None])
def test_rings_outside_2_to_62_bits_are_refused(bits: object) -> None:
    with pytest.raises(RingRefused, match="allowed: integers 2 to 62"):
        Ring(bits)


def test_overflow_is_refused_just_outside_the_ring() -> None:
    ring = Ring(8)
    ring.encode(np.array([127, -128], dtype=np.int64))
    for value in (128, -129):
        with pytest.raises(RingRefused, match=r"outside \[-128, 127\]"):
            ring.encode(np.array([value], dtype=np.int64))


def test_overflow_is_refused_at_encode_and_the_value_stays_private() -> None:
    ring = Ring(8)
    for value in (1280, -1290, 2**62, -(2**63), 2**63 - 1):
        with pytest.raises(RingRefused, match=r"outside \[-128, 127\]") as caught:
            ring.encode(np.array([0, value], dtype=np.int64))
        assert str(value) not in str(caught.value).replace("[-128, 127]", "")


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(3),
        np.zeros(3, np.int32),
        np.zeros(3, np.uint64),
        np.zeros((1, 3), np.int64),
        np.array(0, np.int64),
    ],
)
def test_only_one_dimensional_int64_is_encoded(values: np.ndarray) -> None:
    with pytest.raises(RingRefused, match="cannot encode"):
        Ring(8).encode(values)


def test_residues_out_of_the_ring_are_refused() -> None:
    ring = Ring(8)
    for call in (ring.decode, ring.pack):
        for residue in (256, 257, 2**40):
            with pytest.raises(RingRefused, match="not below 2\\^8"):
                call(np.array([0, residue], dtype=np.uint64))
        with pytest.raises(RingRefused, match="unsigned"):
            call(np.array([1], dtype=np.int64))
        with pytest.raises(RingRefused, match="unsigned"):
            call(np.zeros((2, 2), dtype=np.uint64))
        with pytest.raises(RingRefused, match="unsigned"):
            call(np.array(0, dtype=np.uint64))


def test_lanes() -> None:
    assert lane(2) == lane(32) == np.uint32
    assert lane(33) == lane(62) == np.uint64


# --- headroom -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_abs", "clients", "bits"), [(0, 3, 2), (1, 1, 2), (1, 2, 3), (127, 1, 8), (128, 1, 9)]
)
def test_smallest_ring_without_noise(max_abs: int, clients: int, bits: int) -> None:
    ring = Ring.for_sum(max_abs=max_abs, clients=clients, noise_std=0.0, dimension=7)
    assert ring == Ring(bits)


@given(
    max_abs=st.integers(0, 2**40),
    clients=st.integers(1, 1000),
    noise_std=st.floats(0, 2.0**40, allow_subnormal=False),
    dimension=st.integers(1, 10**7),
)
def test_ring_is_the_smallest_with_headroom(
    max_abs: int, clients: int, noise_std: float, dimension: int
) -> None:
    if 0 < noise_std < 1e-100:
        noise_std = 0.0
    ring = Ring.for_sum(max_abs=max_abs, clients=clients, noise_std=noise_std, dimension=dimension)
    largest = clients * max_abs + noise_tail(noise_std, dimension=dimension, failure_log2=-40)
    assert largest < 2 ** (ring.bits - 1)
    assert ring.bits == 2 or largest >= 2 ** (ring.bits - 2)


def test_headroom_is_for_values_and_noise_together() -> None:
    """Each alone fits 11 bits; their sum takes one more."""
    tail = noise_tail(10.0, dimension=1, failure_log2=-40)
    assert 24 <= tail < 1000
    fields = {"clients": 1, "noise_std": 10.0, "dimension": 1}
    assert Ring.for_sum(max_abs=1023 - tail, **fields) == Ring(11)
    assert Ring.for_sum(max_abs=1024 - tail, **fields) == Ring(12)
    assert Ring.for_sum(max_abs=1000, **fields) == Ring(12)
    assert noise_tail(10.0, dimension=1, failure_log2=-39) < tail


def test_the_widest_ring_is_allowed() -> None:
    fields = {"clients": 1, "noise_std": 0.0, "dimension": 1}
    assert Ring.for_sum(max_abs=2**61 - 1, **fields) == Ring(62)
    with pytest.raises(RingRefused, match="needs 63 bits"):
        Ring.for_sum(max_abs=2**61, **fields)


def test_a_ring_does_not_change() -> None:
    with pytest.raises(AttributeError):
        Ring(8).bits = 9  # type: ignore[misc]


def test_range_of_the_noise() -> None:
    largest = math.nextafter(2.0**64, 0)
    assert noise_tail(largest, dimension=1, failure_log2=-1) > largest
    for noise_std in (2.0**64, math.nextafter(2.0**64, math.inf)):
        with pytest.raises(RingRefused, match="allowed: 0 up to 2"):
            noise_tail(noise_std, dimension=1, failure_log2=-1)
    for failure_log2 in (0, 1):
        with pytest.raises(RingRefused, match="negative integers"):
            noise_tail(1.0, dimension=1, failure_log2=failure_log2)


def exact_log2_tail(variance: float, t: int) -> float:
    """log2 P(|X| > t) of a symmetric Skellam variable, from its Bessel mass function."""
    with mpmath.workdps(60):
        v = mpmath.mpf(variance)
        tail = mpmath.mpf(0)
        for k in range(t + 1, t + 1 + int(40 * math.sqrt(variance)) + 200):
            term = mpmath.exp(-v) * mpmath.besseli(k, v)
            tail += term
            if term < tail * mpmath.mpf(2) ** -20:
                break
        return float(mpmath.log(2 * tail, 2))


@pytest.mark.parametrize("noise_std", [0.05, 0.5, 1.0, 7.0, 25.0])
@pytest.mark.parametrize("failure_log2", [-10, -40])
def test_tail_bound_holds_against_the_exact_law_and_is_not_loose(
    noise_std: float, failure_log2: int
) -> None:
    t = noise_tail(noise_std, dimension=1, failure_log2=failure_log2)
    exact = exact_log2_tail(noise_std**2, t)
    assert exact <= failure_log2
    # Chernoff loses a factor that is polynomial in t / std, no more.
    assert exact_log2_tail(noise_std**2, max(int(0.75 * t) - 2, 0)) > failure_log2


def chernoff_exponent(variance: float, a: int) -> mpmath.mpf:
    """sup over s of s a - v (cosh s - 1), by bisection of its derivative: no closed form."""
    with mpmath.workdps(40):
        low, high = mpmath.mpf(0), mpmath.log(2 * a / mpmath.mpf(variance) + 2)
        for _ in range(120):
            s = (low + high) / 2
            low, high = (s, high) if variance * mpmath.sinh(s) < a else (low, s)
        return s * a - variance * (mpmath.cosh(s) - 1)


@pytest.mark.parametrize("noise_std", [0.01, 0.5, 7.0, 100.0, 1e6, 1e12])
@pytest.mark.parametrize(("dimension", "failure_log2"), [(1, -1), (1000, -40), (10**7, -128)])
def test_tail_is_where_the_chernoff_exponent_reaches_what_is_wanted(
    noise_std: float, dimension: int, failure_log2: int
) -> None:
    t = noise_tail(noise_std, dimension=dimension, failure_log2=failure_log2)
    wanted = mpmath.log(2 * dimension) - failure_log2 * mpmath.log(2)
    assert chernoff_exponent(noise_std**2, t) >= wanted
    just_below = int(t * (1 - 1e-9)) - 1
    assert just_below < 1 or chernoff_exponent(noise_std**2, just_below) < wanted


@pytest.mark.parametrize(("sigma", "shares"), [(0.5, 1), (0.7, 3), (6.0, 1), (6.0, 4)])
def test_sums_of_discrete_gaussians_stay_below_the_same_bound(sigma: float, shares: int) -> None:
    """Exact probabilities of a share, convolved; a bound far too wide is seen where it is tight."""
    reach = math.ceil(12 * sigma) + 5
    share = np.exp(-np.square(np.arange(-reach, reach + 1.0)) / (2 * sigma**2))
    law = np.ones(1)
    for _ in range(shares):
        law = np.convolve(law, share / share.sum())  # positive terms: tails keep their digits
    t = noise_tail(math.sqrt(shares) * sigma, dimension=1, failure_log2=-40)
    middle = shares * reach

    def tail(beyond: int) -> float:
        return 2.0 * float(law[middle + beyond + 1 :].sum())

    assert tail(t) <= 2.0**-40
    if sigma > 1:  # where Skellam is near a Gaussian
        assert tail(3 * t // 4) > 2.0**-40


def test_oracle_of_the_tail_agrees_with_scipy() -> None:
    # For the oracle itself: another implementation of the same law, where double precision lasts.
    for variance, t in ((1.0, 3), (49.0, 20)):
        other = 2 * stats.skellam.sf(t, variance / 2, variance / 2)
        assert 2 ** exact_log2_tail(variance, t) == pytest.approx(other, rel=1e-5)


def test_tail_grows_with_dimension_and_certainty() -> None:
    base = noise_tail(10.0, dimension=1, failure_log2=-40)
    assert noise_tail(10.0, dimension=1000, failure_log2=-50) > base
    assert noise_tail(10.0, dimension=2**10, failure_log2=-40) == noise_tail(
        10.0, dimension=1, failure_log2=-50
    )


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"max_abs": -1}, "max_abs is -1"),
        ({"max_abs": 1.5}, "max_abs is 1.5"),
        ({"clients": 0}, "clients is 0"),
        ({"clients": True}, "clients is True"),
        ({"dimension": 0}, "dimension is 0"),
        ({"noise_std": -1.0}, "noise_std is -1.0"),
        ({"noise_std": math.nan}, "noise_std is nan"),
        ({"noise_std": math.inf}, "noise_std is inf"),
        ({"noise_std": 1e-200}, "underflows"),
        ({"failure_log2": 0}, "failure_log2 is 0"),
        ({"failure_log2": -1.5}, "failure_log2 is -1.5"),
        ({"max_abs": 2**58}, "allowed: up to 62"),
    ],
)
def test_sums_without_headroom_are_refused_at_construction(
    changes: dict[str, object], match: str
) -> None:
    fine = {"max_abs": 100, "clients": 10, "noise_std": 5.0, "dimension": 3}
    Ring.for_sum(**fine)
    with pytest.raises(RingRefused, match=match):
        Ring.for_sum(**{**fine, **changes})
