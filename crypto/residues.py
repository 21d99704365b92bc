"""Vectors of residues modulo primes below 2^60: products, and numbers drawn from given randomness.

Arrays are [..., primes, N] uint64, each word below the prime of its row. Products use Shoup's
precomputed quotient (Harvey 2014, section 2), so that no word is ever wider than 64 bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from crypto.codec import Writer
from crypto.keys import Rand, draw, never_pickled

Words = NDArray[np.uint64]

BINOMIAL_PAIRS: Final = 21  # bits less bits: largest value 21, standard deviation 3.24, as in SEAL
SMUDGING_PARTS: Final = 3
WORD_BITS: Final = 64
_HALF: Final = np.uint64(32)
_LOW: Final = np.uint64(2**32 - 1)
_TERNARY_LIMIT: Final = 255  # bytes below it are uniform modulo 3


def column(primes: Sequence[int]) -> Words:
    """The primes as [primes, 1], to go with [..., primes, N]."""
    return np.array(primes, dtype=np.uint64)[:, None]


def add(left: Words, right: Words, primes: Words) -> Words:
    """Sum modulo the primes, a column."""
    total = left + right
    # of x and x - p modulo 2^64 the smaller is x mod p, since x < 2p < 2^64
    low: Words = np.minimum(total, total - primes)
    return low


def subtract(left: Words, right: Words, primes: Words) -> Words:
    """Difference modulo the primes, a column."""
    return add(left, primes - right, primes)


class Multiplier:
    """Multiplies by fixed residues [..., primes, N or 1], which may be secret.

    Args:
        factor: the residues.
        primes: one for each row.
    """

    def __init__(self, factor: Words, primes: Sequence[int]) -> None:
        self._primes = column(primes)
        self._factor = factor
        wide: NDArray[Any] = (factor.astype(object) << 64) // self._primes.astype(object)
        self._quotient = wide.astype(np.uint64)

    def __repr__(self) -> str:
        return "Multiplier(redacted)"

    __reduce__ = never_pickled

    def times(self, words: Words) -> Words:
        """The product, word by word, modulo the primes."""
        found = words * self._factor - _high(words, self._quotient) * self._primes  # below 2p
        low: Words = np.minimum(found, found - self._primes)
        return low


def inner(left: Words, right: Words, prime: int) -> int:
    """Inner product of two vectors [N] modulo a prime."""
    total = int(np.dot(left.astype(object), right.astype(object)))
    return total % prime


def reduced(small: NDArray[np.int64], primes: Sequence[int]) -> Words:
    """Small integers [..., N] as residues [..., primes, N]."""
    columns = column(primes)
    spread = small[..., None, :]
    shifted = spread.astype(np.uint64) + np.where(spread < 0, columns, np.uint64(0))
    return shifted.astype(np.uint64)


def hashed(seed: bytes) -> Rand:
    """Public numbers that nobody chose: SHAKE-256 of a seed and a counter of the calls."""
    count = 0

    def rand(length: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(seed + Writer().u32(count).done()).digest(length)

    return rand


def uniform(rand: Rand, shape: Sequence[int], primes: Sequence[int], degree: int) -> Words:
    """Uniform residues [*shape, primes, N], by rejection."""
    found = np.empty((*shape, len(primes), degree), dtype=np.uint64)
    for at, prime in enumerate(primes):
        row = np.empty(found[..., at, :].size, dtype=np.uint64)
        mask = np.uint64((1 << prime.bit_length()) - 1)
        filled = 0
        while filled < row.size:
            drawn = np.frombuffer(draw(rand, 8 * (row.size - filled)), dtype="<u8") & mask
            kept = drawn[drawn < prime]
            row[filled : filled + kept.size] = kept
            filled += kept.size
        found[..., at, :] = row.reshape(found[..., at, :].shape)
    return found


def ternary(rand: Rand, count: int) -> NDArray[np.int64]:
    """Uniform integers -1, 0 and 1, [count]."""
    found = np.empty(count, dtype=np.int64)
    filled = 0
    while filled < count:
        drawn = np.frombuffer(draw(rand, count - filled), dtype=np.uint8)
        kept = drawn[drawn < _TERNARY_LIMIT]
        found[filled : filled + kept.size] = kept.astype(np.int64) % 3 - 1
        filled += kept.size
    return found


def binomial(rand: Rand, count: int) -> NDArray[np.int64]:
    """Centred binomial integers, [count]: the errors of ring-LWE samples."""
    width = 2 * BINOMIAL_PAIRS
    drawn = np.frombuffer(draw(rand, 8 * count), dtype=np.uint8).reshape(count, 8)
    bits = np.unpackbits(drawn, axis=1)[:, :width].astype(np.int64)
    found: NDArray[np.int64] = bits[:, :BINOMIAL_PAIRS].sum(axis=1)
    found -= bits[:, BINOMIAL_PAIRS:].sum(axis=1)
    return found


def smudging(rand: Rand, bound: int, count: int, primes: Sequence[int]) -> Words:
    """Sums of three uniform integers, from -bound to bound, as residues [primes, count].

    Args:
        rand: secret randomness.
        bound: a multiple of 3.
        count: how many.
        primes: to reduce by.
    """
    columns = column(primes)
    first, second, third = (
        wide(rand, bound // SMUDGING_PARTS, count, primes) for _ in range(SMUDGING_PARTS)
    )
    return add(add(first, second, columns), third, columns)


def wide(rand: Rand, bound: int, count: int, primes: Sequence[int]) -> Words:
    """Uniform integers from -bound to bound, as residues [primes, count]; 1 <= bound < 2^126.

    An integer is high * 2^64 + low - bound; those above 2 * bound are drawn again.
    """
    span_high, span_low = divmod(2 * bound, 1 << 64)
    high_mask = np.uint64((1 << span_high.bit_length()) - 1)
    low_bits = WORD_BITS if span_high else span_low.bit_length()
    low_mask = np.uint64((1 << low_bits) - 1)
    both = np.empty((2, count), dtype=np.uint64)
    filled = 0
    while filled < count:
        drawn = np.frombuffer(draw(rand, 16 * (count - filled)), dtype="<u8").reshape(2, -1)
        high, low = drawn[0] & high_mask, drawn[1] & low_mask
        fits = (high < span_high) | ((high == span_high) & (low <= np.uint64(span_low)))
        kept = int(fits.sum())
        both[0, filled : filled + kept], both[1, filled : filled + kept] = high[fits], low[fits]
        filled += kept
    columns = column(primes)
    power = np.array([[(1 << 64) % prime] for prime in primes], dtype=np.uint64)
    low_offset = np.array([[-bound % prime] for prime in primes], dtype=np.uint64)
    scaled = Multiplier(power, primes).times(both[0] % columns)
    return add(add(scaled, both[1] % columns, columns), low_offset, columns)


def _high(left: Words, right: Words) -> Words:
    """Upper 64 bits of the 128-bit products."""
    left_high, left_low = left >> _HALF, left & _LOW
    right_high, right_low = right >> _HALF, right & _LOW
    low = left_low * right_low
    cross = left_high * right_low
    middle = (low >> _HALF) + (cross & _LOW) + left_low * right_high
    high: Words = left_high * right_high + (cross >> _HALF) + (middle >> _HALF)
    return high
