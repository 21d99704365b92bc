"""Where secrets come from: the operating system, or one seed that marks the run as not private.

What has to be the same again when a run is resumed, the identities and drawing keys of simulated
parties, comes from a secret that is kept for it (`Founding`). Noise, coins, masks and rounding
never do: a resumed run draws them anew.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Protocol

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from crypto.keys import Secret, derive
from privacy.rng import SecureRandom

RandomBytes = Callable[[int], bytes]
Generators = Callable[[int], SecureRandom]
"""Index of a round, from 1 -> a generator for that round alone."""


class Streams(Protocol):
    """Independent streams of bytes, one per label."""

    def stream(self, label: str) -> RandomBytes:
        """A function from a count to that many bytes."""
        ...


class Founding(Secret):
    """Streams that one kept 32-byte secret gives again, one per label."""

    __slots__ = ()

    def stream(self, label: str) -> RandomBytes:
        """A function from a count to that many bytes of the label's stream."""
        return _key_stream(derive(self.reveal(), "fedmeta/founding/v1", label.encode()))


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
        return _key_stream(self._key(label))

    def generator(self, label: str) -> SecureRandom:
        """A generator for numpy distributions; `reproducible` only where there is a seed."""
        if self._seed is None:
            return SecureRandom.from_os()
        return SecureRandom.from_key(self.stream(label)(32))

    def rounds(self, label: str) -> Generators:
        """A generator for each round: with a seed, one that earlier rounds do not change."""
        return lambda round_index: self.generator(f"{label}/round-{round_index}")

    def _key(self, label: str) -> bytes:
        return hashlib.sha256(f"fedmeta/not-private/{self._seed}/{label}".encode()).digest()


def _key_stream(key: bytes) -> RandomBytes:
    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    return lambda count: encryptor.update(bytes(count))
