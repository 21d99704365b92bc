"""Secret sharing over GF(2^8): any t shares give the secret, t - 1 say nothing."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
from collections import Counter
from itertools import combinations, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.errors import SharesRefused
from crypto.masking_recovery import MAX_SUBSETS, _subsets, recover
from crypto.shamir import _LOGARITHMS, _POWERS, combine, split
from tests.crypto.harness import seeded


def times(a: int, b: int) -> int:
    """Multiplication in the field of FIPS 197 by shift and add, as an independent oracle."""
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def test_field_is_that_of_fips_197() -> None:
    assert times(0x57, 0x83) == 0xC1  # FIPS 197 section 4.2
    for a in range(1, 256):
        for b in range(1, 256):
            assert _POWERS[(_LOGARITHMS[a] + _LOGARITHMS[b]) % 255] == times(a, b)


@given(
    secret=st.binary(min_size=1, max_size=70),
    data=st.data(),
    shares=st.integers(1, 12),
)
def test_any_threshold_of_shares_gives_the_secret(
    secret: bytes, data: st.DataObject, shares: int
) -> None:
    threshold = data.draw(st.integers(1, shares))
    dealt = split(secret, shares=shares, threshold=threshold, rand=seeded(secret))
    holders = data.draw(
        st.lists(st.integers(1, shares), min_size=threshold, max_size=threshold, unique=True)
    )
    assert combine({k: dealt[k - 1] for k in holders}, threshold=threshold) == secret


def test_shares_are_the_values_of_the_polynomial() -> None:
    secret, random = bytes([7, 200]), bytes([3, 90, 255, 1])
    dealt = split(secret, shares=5, threshold=3, rand=lambda n: random[:n])
    for x, share in enumerate(dealt, start=1):
        for k in range(2):
            value = secret[k] ^ times(random[k], x) ^ times(random[2 + k], times(x, x))
            assert share[k] == value


def test_largest_committee() -> None:
    dealt = split(bytes(range(32)), shares=255, threshold=200, rand=seeded(1))
    assert combine({k: dealt[k - 1] for k in range(56, 256)}, threshold=200) == bytes(range(32))


@pytest.mark.parametrize("secret", [0, 1, 77, 255])
def test_fewer_shares_are_independent_of_the_secret(secret: int) -> None:
    """Exact, not statistical: over all coefficients, two shares of three take all values once."""
    for first, second in combinations((1, 2, 3), 2):
        seen = Counter()
        for high in range(0, 256, 51):
            for low in range(256):
                dealt = split(
                    bytes([secret]),
                    shares=3,
                    threshold=3,
                    rand=lambda n, pair=bytes([low, high]): pair[:n],
                )
                seen[dealt[first - 1][0], dealt[second - 1][0], high] += 1
        assert set(seen.values()) == {1}
    one = Counter(
        split(bytes([secret]), shares=2, threshold=2, rand=lambda n, c=c: bytes([c]))[1]
        for c in range(256)
    )
    assert len(one) == 256


def test_too_few_shares_give_another_secret() -> None:
    dealt = split(b"s" * 32, shares=5, threshold=3, rand=seeded(2))
    assert combine({1: dealt[0], 2: dealt[1]}, threshold=2) != b"s" * 32


@pytest.mark.parametrize(("shares", "threshold"), [(3, 0), (3, 4), (0, 0), (256, 2), (2, -1)])
def test_impossible_splits_are_refused(shares: int, threshold: int) -> None:
    with pytest.raises(SharesRefused, match="allowed"):
        split(b"s", shares=shares, threshold=threshold, rand=seeded(0))


@pytest.mark.parametrize("more", [-1, 1, 6])
def test_randomness_of_another_length_is_refused(more: int) -> None:
    with pytest.raises(SharesRefused, match=f"of {6 + more} bytes, 6 needed"):
        split(b"secret", shares=3, threshold=2, rand=lambda n: bytes(n + more))


def test_holders_outside_the_field_are_named() -> None:
    with pytest.raises(SharesRefused, match="holders 0 to 9; allowed: 1 to 255"):
        combine({0: b"a", 4: b"b", 9: b"c"}, threshold=3)
    with pytest.raises(SharesRefused, match="holders 2 to 256; allowed"):
        combine({256: b"a", 2: b"b"}, threshold=2)


def test_largest_split_takes_no_memory_for_all_products_at_once() -> None:
    """All products of 255 shares of degree 254 take 17 MB; one block of them 65 kB."""
    secret = b"s" * 32
    split(secret, shares=255, threshold=255, rand=seeded(5))
    tracemalloc.start()
    try:
        split(secret, shares=255, threshold=255, rand=seeded(5))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 350_000


@pytest.mark.parametrize(
    ("shares", "threshold"),
    [
        ({1: b"a"}, 2),
        ({1: b"a", 2: b"b", 3: b"c"}, 2),
        ({}, 0),
        ({0: b"a", 1: b"b"}, 2),
        ({1: b"a", 256: b"b"}, 2),
        ({1: b"a", 2: b"bb"}, 2),
    ],
)
def test_wrong_sets_of_shares_are_refused(shares: dict[int, bytes], threshold: int) -> None:
    with pytest.raises(SharesRefused):
        combine(shares, threshold=threshold)


@pytest.mark.parametrize(("shares", "threshold", "wrong"), [(7, 4, 3), (10, 7, 3), (40, 25, 2)])
def test_recovery_goes_around_wrong_shares(shares: int, threshold: int, wrong: int) -> None:
    secret = b"s" * 32
    dealt = dict(enumerate(split(secret, shares=shares, threshold=threshold, rand=seeded(3)), 1))
    for k in range(1, wrong + 1):
        dealt[k] = bytes(32)
    found = recover(dealt, threshold=threshold, order=list(dealt), accept=secret.__eq__)
    assert found is not None
    assert found[0] == secret
    assert set(found[1]).isdisjoint(range(1, wrong + 1))


def test_all_subsets_are_tried_where_they_are_few_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 subsets with a limit of 10: each once. With a limit of 9 some are drawn."""
    dealt = dict(enumerate(split(b"s", shares=5, threshold=2, rand=seeded(6)), 1))
    for limit in (10, 9):
        monkeypatch.setattr("crypto.masking_recovery.MAX_SUBSETS", limit)
        found = list(_subsets(list(dealt), 2))
        assert len(found) == limit
        assert (len(set(found)) == 10) is (limit == 10)
    assert MAX_SUBSETS == 2048


def test_drawn_subsets_are_the_same_everywhere() -> None:
    """Every aggregator tries the same ones: they follow from SHA-256 of number and holder."""
    drawn = list(islice(_subsets(range(1, 41), 25), 3))
    assert drawn[0] == tuple(range(1, 26))
    for attempt, subset in enumerate(drawn[1:], start=1):
        keys = {k: hashlib.sha256(struct.pack("<II", attempt, k)).digest() for k in range(1, 41)}
        assert subset == tuple(sorted(keys, key=keys.__getitem__)[:25])


@pytest.mark.parametrize(("shares", "threshold", "tries"), [(7, 4, 35), (40, 25, MAX_SUBSETS)])
def test_recovery_gives_up_after_a_bounded_number_of_subsets(
    shares: int, threshold: int, tries: int
) -> None:
    dealt = dict(enumerate(split(b"s", shares=shares, threshold=threshold, rand=seeded(4)), 1))
    tried = 0

    def never(_: bytes) -> bool:
        nonlocal tried
        tried += 1
        return False

    found = recover(dealt, threshold=threshold, order=list(dealt), accept=never)
    assert found is None
    assert tried == tries
