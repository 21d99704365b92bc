"""Where secrets come from: the operating system, or one seed that marks the run as not private."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from privacy.rng import SecureRandom

RandomBytes = Callable[[int], bytes]


class Randomness:
    """A source of independent secret streams, one per label.

    With no seed every stream is the operating system's. With a seed every stream is a function of
    (seed, label), so that two runs are bit-identical and neither is private.

    Args:
        seed: None, or the seed of a run that is flagged as not private.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._seed = seed

    def __repr__(self) -> str:
        return f"Randomness(private={self._seed is None})"

    @property
    def private(self) -> bool:
        """Whether the streams are secret."""
        return self._seed is None

    def stream(self, label: str) -> RandomBytes:
        """A function from a count to that many fresh random bytes."""
        if self._seed is None:
            return os.urandom
        encryptor = Cipher(algorithms.AES(self._key(label)), modes.CTR(bytes(16))).encryptor()
        return lambda count: encryptor.update(bytes(count))

    def generator(self, label: str) -> SecureRandom:
        """A generator for numpy distributions; `reproducible` only where there is a seed."""
        if self._seed is None:
            return SecureRandom.from_os()
        return SecureRandom.from_key(self.stream(label)(32))

    def _key(self, label: str) -> bytes:
        return hashlib.sha256(f"fedmeta/not-private/{self._seed}/{label}".encode()).digest()
