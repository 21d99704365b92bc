"""What the answers of t members add up to: the key's test, and the sum of the vectors.

Nothing here is secret: whoever carries the answers can open what they are answers to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from crypto.errors import Malformed
from crypto.he_packing import from_coefficients
from crypto.he_seal import Rounder, scheme_for
from crypto.he_transform import transform_for
from crypto.progress import Ticker
from crypto.residues import BINOMIAL_PAIRS, Multiplier, Words, add, column
from crypto.threshold_key import summed
from crypto.threshold_parameters import ThresholdParameters


def key_fits(parameters: ThresholdParameters, public: Words, answers: Sequence[Words]) -> bool:
    """Whether the answers of t members at `a` decrypt the public key, an encryption of zero.

    b + a s is the sum of the members' errors, at most 21 m; with t answers it carries smudging of
    at most t B. Shares of anything but the secret key leave something uniform modulo q.

    Args:
        parameters: of the sum.
        public: b, [key primes, N] words, transformed.
        answers: of the members of one set, [data primes, N] words each, transformed.
    """
    scheme = parameters.scheme
    primes = scheme.data_primes
    total = summed([public[: len(primes)], *answers], primes)
    noise = transform_for(scheme.degree, primes).backward(np.stack([total, total]))[0]
    modulus = math.prod(primes)
    value = np.zeros(scheme.degree, dtype=object)
    for row, prime in zip(noise, primes, strict=True):
        rest = modulus // prime
        value = (value + row.astype(object) * (rest * pow(rest, -1, prime))) % modulus
    allowed = parameters.threshold * parameters.smudging + parameters.members * BINOMIAL_PAIRS
    return bool(((value <= allowed) | (value >= modulus - allowed)).all())


class Opener:
    """Opens sums of ciphertexts from the answers of t members."""

    def __init__(self, parameters: ThresholdParameters) -> None:
        scheme = parameters.scheme
        self._parameters = parameters
        self._rounder = Rounder(scheme_for(scheme))
        self._transform = transform_for(scheme.degree, scheme.data_primes)
        modulus = math.prod(scheme.data_primes)
        # t x / q modulo 1 is the sum over the primes of (x t (q/p)^-1 mod p) / p, modulo 1
        factors = [
            [(1 << scheme.plain_bits) * pow(modulus // p, -1, p) % p] for p in scheme.data_primes
        ]
        self._fraction = Multiplier(np.array(factors, dtype=np.uint64), scheme.data_primes)
        self._largest: Final = parameters.noise * 2.0**scheme.plain_bits / modulus

    def open(self, total: Words, answers: Sequence[Words], length: int) -> NDArray[np.int64]:
        """The sum of the vectors, [length].

        Args:
            total: the sum of the ciphertexts, [count, 2, data primes, N].
            answers: of the members of one set, [count, data primes, N] each.
            length: values in a vector.

        Raises:
            Malformed: the answers are not those of t members that follow the protocol.
        """
        scheme = self._parameters.scheme
        primes = column(scheme.data_primes)
        rows = []
        ticker = Ticker("opening: ciphertext", len(total))
        for at, ciphertext in enumerate(total):
            added = summed([answer[at] for answer in answers], scheme.data_primes)
            product = self._transform.backward(np.stack([added, added]))[0]
            plain = add(ciphertext[0], product, primes)
            self._check(plain)
            rows.append(self._rounder.round(plain))
            ticker.add(1)
        return from_coefficients(np.stack(rows), scheme, length)

    def _check(self, plain: Words) -> None:
        """Refuse noise that no honest sum has; a fraction is exact to 2^-50."""
        primes = column(self._parameters.scheme.data_primes).astype(np.float64)
        fraction = (self._fraction.times(plain) / primes).sum(axis=0)
        if np.abs(fraction - np.rint(fraction)).max() > self._largest + 2.0**-50:
            raise Malformed("the noise is larger than that of honest members and fresh uploads")
