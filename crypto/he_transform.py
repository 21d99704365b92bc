"""Number-theoretic transforms modulo many primes: SEAL's, through `tenseal.sealapi`.

A polynomial of Z_q[X]/(X^N + 1), transformed, is its N values at the odd powers of a 2N-th root of
one, so that products are taken value by value. SEAL takes the same roots for a prime wherever it
occurs, and public keys are stored transformed: what is transformed here fits them.

The context of this module checks and protects nothing, it only computes: nothing is ever encrypted
under it. Its last prime is there because SEAL leaves the last one out of every ciphertext.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from crypto.he_parameters import MAX_PRIME_BITS, ntt_primes
from crypto.he_seal import Scratch, SealFailed

Words = NDArray[np.uint64]

_TRANSFORMED_AT: Final = 32  # in a saved ciphertext, after the id of its parameters


class Transform:
    """Transforms pairs of polynomials [2, primes, N] modulo these primes; threads may share it.

    Args:
        degree: N, a power of two.
        primes: each 1 mod 2N and below 2^60.

    Raises:
        SealFailed: SEAL does not take them.
    """

    def __init__(self, degree: int, primes: tuple[int, ...]) -> None:
        spare = next(
            prime
            for prime in ntt_primes(degree, (MAX_PRIME_BITS,) * (len(primes) + 1))
            if prime not in primes
        )
        settings = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
        settings.set_poly_modulus_degree(degree)
        settings.set_coeff_modulus([seal.Modulus(prime) for prime in (*primes, spare)])
        self._context = seal.SEALContext(settings, True, seal.SEC_LEVEL_TYPE.NONE)
        if not self._context.parameters_set():
            raise SealFailed(self._context.parameters_error_message())
        self._evaluator = seal.Evaluator(self._context)
        self._file: Final = Scratch()
        self.shape: Final = (2, len(primes), degree)
        public, zero = seal.PublicKey(), seal.Ciphertext()
        seal.KeyGenerator(self._context).create_public_key(public)
        seal.Encryptor(self._context, public).encrypt_zero(zero)
        self._version, body = self._file.saved(zero)
        header = bytearray(body[: len(body) - 8 * int(np.prod(self.shape))])
        self._headers: Final[dict[bool, bytes]] = {}
        for transformed in (False, True):
            header[_TRANSFORMED_AT] = transformed
            self._headers[transformed] = bytes(header)

    def forward(self, pair: Words) -> Words:
        """Transform two polynomials [2, primes, N]."""
        ciphertext = self._loaded(pair, transformed=False)
        self._evaluator.transform_to_ntt_inplace(ciphertext)
        return self._words(ciphertext)

    def backward(self, pair: Words) -> Words:
        """Undo forward."""
        ciphertext = self._loaded(pair, transformed=True)
        self._evaluator.transform_from_ntt_inplace(ciphertext)
        return self._words(ciphertext)

    def _loaded(self, pair: Words, *, transformed: bool) -> Any:
        if pair.shape != self.shape:
            raise SealFailed(f"words of shape {pair.shape}; allowed: {self.shape}")
        ciphertext = seal.Ciphertext()
        header = self._headers[transformed]
        self._file.load_secret(ciphertext, self._context, self._version, header, pair)
        return ciphertext

    def _words(self, ciphertext: Any) -> Words:
        body = self._file.saved_secret(ciphertext)
        count = 8 * int(np.prod(self.shape))
        return np.frombuffer(body, dtype="<u8", offset=len(body) - count).reshape(self.shape)


@lru_cache(maxsize=8)
def transform_for(degree: int, primes: tuple[int, ...]) -> Transform:
    """The transform for these primes; it holds no secret and takes 30 ms to make."""
    return Transform(degree, primes)
