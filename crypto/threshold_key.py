"""A key that nobody holds: parts of the public key, their sum, and decryption by t members.

Every member draws a ternary s_i and an error e_i and publishes b_i = -(a s_i) + e_i, with `a` a
hash of the context; the public key is (sum of b_i, a), transformed as SEAL keeps it, and its
secret key the sum of the s_i, which is never put together: s_i is dealt to the others in shares
over the primes of the ciphertexts (threshold_sharing), and the sum of the shares that a member got
is its share of the key.

A set S of t members decrypts (c0, c1): member i multiplies c1 with its share times its Lagrange
coefficient in S, both transformed, THEN adds smudging (threshold_parameters) and its pad in S
(threshold_pads), which cancels in the set; the answers add up to c1 s + noise. With smudging first
the coefficient would scale it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from crypto.codec import tagged_digest
from crypto.he_parameters import Parameters
from crypto.he_transform import Transform, transform_for
from crypto.keys import Rand, never_pickled
from crypto.progress import Ticker
from crypto.residues import (
    Multiplier,
    Words,
    add,
    binomial,
    column,
    hashed,
    reduced,
    smudging,
    subtract,
    ternary,
    uniform,
)
from crypto.threshold_parameters import ThresholdParameters
from crypto.threshold_sharing import weight_at_zero


def common_polynomial(context: bytes, scheme: Parameters) -> Words:
    """The second half of every public key, [key primes, N] transformed: a hash of the context."""
    seed = tagged_digest("fedmeta/threshold/a/v1", context, scheme.encode())
    return uniform(hashed(seed), (), scheme.key_primes, scheme.degree)


class KeyPart:
    """A member's own part of a key: fresh, and let go when it has been dealt.

    Attributes:
        public: b_i, [key primes, N] words, transformed.
        secret: s_i over the primes of the ciphertexts, [data primes, N] words, transformed.
    """

    def __init__(self, scheme: Parameters, a: Words, rand: Rand) -> None:
        primes = scheme.key_primes
        drawn = np.stack([ternary(rand, scheme.degree), binomial(rand, scheme.degree)])
        pair = transform_for(scheme.degree, primes).forward(reduced(drawn, primes))
        product = Multiplier(a, primes).times(pair[0])
        self.public: Final = subtract(pair[1], product, column(primes))
        self.secret: Final = pair[0][: len(scheme.data_primes)].copy()

    def __repr__(self) -> str:
        return "KeyPart(redacted)"

    __reduce__ = never_pickled


def summed(parts: Iterable[Words], primes: Sequence[int]) -> Words:
    """The sum of polynomials, one at least, [primes, N]."""
    columns = column(primes)
    first, *others = parts
    total = first
    for part in others:
        total = add(total, part, columns)
    return total


class KeyShare:
    """A member's share of the key, [data primes, N] transformed words: secret.

    Args:
        parameters: of the sum.
        words: the sum of the shares that every dealer dealt to this member.
        point: this member's point.
    """

    def __init__(self, parameters: ThresholdParameters, words: Words, point: int) -> None:
        self._parameters = parameters
        self._scheme = parameters.scheme
        self.words: Final = words
        self._point = point
        self._transform: Transform = transform_for(self._scheme.degree, self._scheme.data_primes)

    def __repr__(self) -> str:
        return f"KeyShare(point={self._point}, redacted)"

    __reduce__ = never_pickled

    def answer(self, seconds: Words, points: Sequence[int], pad: Words, rand: Rand) -> Words:
        """Smudged parts of the decryptions of c1 polynomials, as a member of a set.

        Args:
            seconds: [count, data primes, N] words, not transformed.
            points: those of the set of members, this one's among them, `threshold` of them.
            pad: this member's in the set, [count, data primes, N].
            rand: randomness of the smudging, fresh at every call: without pads, the same for two
                sets would leave a known multiple of the share in their difference.

        Returns:
            [count, data primes, N] transformed words, uniform to everybody else but for the sum of
            those of the set.
        """
        factor = self._times_weight(points)
        ticker = Ticker("answering: ciphertext", len(seconds))
        found = np.empty_like(seconds)
        for row, second, mask in zip(found, seconds, pad, strict=True):
            pair = self._transform.forward(np.stack([second, self._smudging(rand)]))
            row[:] = self._smudged(factor, pair[0], pair[1], mask)
            ticker.add(1)
        return found

    def answer_transformed(
        self, second: Words, points: Sequence[int], pad: Words, rand: Rand
    ) -> Words:
        """The same for one polynomial that is transformed already, [data primes, N]."""
        drawn = self._smudging(rand)
        noise = self._transform.forward(np.stack([drawn, drawn]))[0]
        return self._smudged(self._times_weight(points), second, noise, pad)

    def _smudged(self, factor: Multiplier, second: Words, noise: Words, pad: Words) -> Words:
        columns = column(self._scheme.data_primes)
        return add(add(factor.times(second), noise, columns), pad, columns)

    def _smudging(self, rand: Rand) -> Words:
        scheme = self._scheme
        return smudging(rand, self._parameters.smudging, scheme.degree, scheme.data_primes)

    def _times_weight(self, points: Sequence[int]) -> Multiplier:
        primes = self._scheme.data_primes
        weights = [weight_at_zero(points, self._point, prime) for prime in primes]
        weighted = self.words.astype(object) * np.array(weights, dtype=object)[:, None]
        share = (weighted % column(primes).astype(object)).astype(np.uint64)
        return Multiplier(share, primes)
