"""Randomness of the mechanisms: ChaCha with 20 rounds, keyed once from the operating system."""

from __future__ import annotations

import os
import secrets
from typing import NoReturn

import numpy as np
from randomgen import ChaCha

from privacy.errors import PrivacyError

KEY_BYTES = 32


class SecureRandom:
    """A NumPy generator over the ChaCha20 key stream (256-bit key, counter from zero).

    One object belongs to one process: after a fork both processes would draw the same noise, so
    use in another process than the one that made it is refused, and so are copies and pickles.
    The key is not kept here and never shown; the generator's state is as secret as the key.

    Attributes:
        reproducible: True when the key was given instead of drawn from the operating system; what
            such an object protects is not private.
    """

    __slots__ = ("_generator", "_pid", "reproducible")

    def __init__(self, key: bytes, *, reproducible: bool) -> None:
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:
            raise PrivacyError(f"the key of a generator has {KEY_BYTES} bytes")
        bits = ChaCha(key=int.from_bytes(key, "little"), rounds=20)
        self._generator = np.random.Generator(bits)
        self._pid = os.getpid()
        self.reproducible = reproducible

    @classmethod
    def from_os(cls) -> SecureRandom:
        """A generator keyed with 256 bits from the operating system."""
        return cls(secrets.token_bytes(KEY_BYTES), reproducible=False)

    @classmethod
    def from_key(cls, key: bytes) -> SecureRandom:
        """A generator with a given 32-byte key: for tests and for runs marked "not private"."""
        return cls(key, reproducible=True)

    @property
    def generator(self) -> np.random.Generator:
        """The generator to draw from. Raises PrivacyError in a process that did not make it."""
        if os.getpid() != self._pid:
            raise PrivacyError(
                "this generator was made in another process, which would draw the same noise: "
                "make one with SecureRandom.from_os() in each process"
            )
        return self._generator

    def __repr__(self) -> str:
        return "SecureRandom(<redacted>)"

    def __reduce__(self) -> NoReturn:
        raise PrivacyError("a generator of noise is never copied or pickled")
