"""Shamir's secret sharing of polynomials over every prime, and the check of what was dealt.

A dealer hides each word of its secret [primes, N] in the constant term of a random polynomial of
degree t - 1 over the prime's field; the member at x gets the values there. Fewer than t members
learn nothing (Shamir 1979); any t interpolate by a linear combination, so that they can decrypt
without ever putting the secret together.

Check: beside its words a dealer shares some random blinding words in the same way. A hash of
everything dealt gives random factors, and every member publishes the combination of its shares of
that dealer with them, plus its share of a blinding word. If any word was dealt by values that lie
on no polynomial of degree t - 1, then neither do the combinations, but with probability 1/p for
each (SCRAPE, Cascudo and David 2017, in the linear form of Pedersen's batching); REPEATS of them
leave 2^-128, which covers a dealer that tries hashes. The blinding words hide the combination of
the secret itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from crypto.codec import Reader, Writer, tagged_digest
from crypto.errors import Malformed, SharesRefused
from crypto.he_words import pack_polynomials, packed_polynomials_size, unpack_polynomials
from crypto.keys import Rand, never_pickled
from crypto.residues import Words, column, hashed, inner, uniform

_SOUNDNESS_BITS: Final = 128


def repeats_of(prime: int) -> int:
    """How many combinations modulo this prime leave a bad dealing a chance of 2^-128."""
    return -(-_SOUNDNESS_BITS // (prime.bit_length() - 1))


@dataclass(frozen=True, repr=False)
class Share:
    """One member's share of one dealer's secret; secret itself.

    Attributes:
        words: [primes, N].
        blinding: for each prime its blinding words, REPEATS each.
    """

    words: Words
    blinding: tuple[tuple[int, ...], ...]

    __reduce__ = never_pickled

    def encode(self, primes: Sequence[int]) -> bytes:
        """Words, then blinding words of 8 bytes."""
        writer = Writer()
        for row in self.blinding:
            for word in row:
                writer.u64(word)
        return pack_polynomials(self.words, primes) + writer.done()

    @classmethod
    def decode(cls, data: bytes, primes: Sequence[int], degree: int) -> Share:
        """Decode strictly.

        Raises:
            Malformed: not exactly one share with every word below its prime.
        """
        reader = Reader(data)
        packed = reader.view(packed_polynomials_size(1, primes, degree))
        words = unpack_polynomials(packed, (), primes, degree)
        blinding = tuple(tuple(reader.u64() for _ in range(repeats_of(prime))) for prime in primes)
        reader.end()
        for row, prime in zip(blinding, primes, strict=True):
            if max(row) >= prime:
                raise Malformed("a blinding word is not below its prime")
        return cls(words, blinding)


def share_size(primes: Sequence[int], degree: int) -> int:
    """Bytes of an encoded share."""
    return packed_polynomials_size(1, primes, degree) + 8 * sum(repeats_of(p) for p in primes)


def deal(
    secret: Words, points: Sequence[int], threshold: int, primes: Sequence[int], rand: Rand
) -> dict[int, Share]:
    """Shares of a secret [primes, N] for the members at these points, 1 to 15."""
    degree = secret.shape[-1]
    columns = column(primes)
    higher = uniform(rand, (threshold - 1,), primes, degree)
    blinding = [uniform(rand, (threshold,), (p,), repeats_of(p))[:, 0] for p in primes]
    return {
        x: Share(
            _value_at(x, [secret, *higher], columns),
            tuple(
                tuple(int(word) for word in _value_at(x, list(rows), np.array([p], np.uint64)))
                for rows, p in zip(blinding, primes, strict=True)
            ),
        )
        for x in points
    }


def combinations(share: Share, seed: bytes, primes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """What the holder of a share publishes for its dealer's check: REPEATS words per prime.

    Args:
        share: the share.
        seed: digest of everything that the dealer dealt.
        primes: of the sharing.
    """
    degree = share.words.shape[-1]
    found = []
    for at, prime in enumerate(primes):
        row = []
        for repeat, blinding in enumerate(share.blinding[at]):
            place = Writer().u8(at).u8(repeat).done()
            rand = hashed(tagged_digest("fedmeta/threshold/check/v1", seed, place))
            factors = uniform(rand, (), (prime,), degree)[0]
            row.append((inner(factors, share.words[at], prime) + blinding) % prime)
        found.append(tuple(row))
    return tuple(found)


def lies_on_polynomial(values: Mapping[int, int], threshold: int, prime: int) -> bool:
    """Whether values by point lie on a polynomial of degree below the threshold."""
    points = sorted(values)
    base = tuple(points[:threshold])
    for x in points[threshold:]:
        weights = _weights(base, x, prime)
        expected = sum(w * values[b] for w, b in zip(weights, base, strict=True)) % prime
        if expected != values[x]:
            return False
    return True


def weight_at_zero(points: Sequence[int], point: int, prime: int) -> int:
    """Lagrange coefficient of one point for the constant term.

    Raises:
        SharesRefused: the point is not one of them, or they repeat.
    """
    if point not in points or len(set(points)) != len(points):
        raise SharesRefused("interpolation at points that repeat or leave this one out")
    return _weights(tuple(points), 0, prime)[list(points).index(point)]


@lru_cache(maxsize=1024)
def _weights(points: tuple[int, ...], at: int, prime: int) -> tuple[int, ...]:
    found = []
    for x in points:
        weight = 1
        for other in points:
            if other != x:
                weight = weight * (at - other) * pow(x - other, -1, prime) % prime
        found.append(weight)
    return tuple(found)


def _value_at(x: int, coefficients: Sequence[NDArray[np.uint64]], primes: Words) -> Words:
    """Horner's rule; x below 16 and words below 2^60 keep every step within 64 bits."""
    value = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        value = (value * np.uint64(x) + coefficient) % primes
    return value
