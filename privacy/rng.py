"""Randomness of the mechanisms: AES-256 key streams, keyed once from the operating system."""

from __future__ import annotations

import os
import secrets
from typing import Final, NoReturn

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from privacy.errors import PrivacyError

KEY_BYTES: Final = 32
_NONCE: Final = bytes(12)
_STEP: Final = 1 << 20  # bytes per key
_ZEROS: Final = memoryview(bytes(_STEP))


class SecureRandom:
    """Uniform words from AES-256 in counter mode with fast key erasure.

    Every request is answered by the key stream of the present key, at most 1 MiB of it, whose
    first 32 bytes are not given out but become the next key (Bernstein 2017, "Fast-key-erasure
    random-number generators"): no key is used twice, and this object cannot tell what it gave
    before. (Python lets go of the old key without overwriting it.) The stream is that of GCM under
    a zero nonce (SP 800-38D, section 7.1: counter blocks from 2), which OpenSSL runs at twice the
    speed of plain CTR; no tag is made.

    One object belongs to one process: after a fork both processes would draw the same noise, so
    use in another process than the one that made it is refused, and so are copies and pickles.

    Attributes:
        reproducible: True when the key was given instead of drawn from the operating system; what
            such an object protects is not private.
    """

    __slots__ = ("_key", "_pid", "reproducible")

    def __init__(self, key: bytes, *, reproducible: bool) -> None:
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:
            raise PrivacyError(f"the key of a generator has {KEY_BYTES} bytes")
        self._key = key
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

    def words(self, count: int) -> NDArray[np.uint32]:
        """`count` independent uniform words: a new array [count] uint32.

        Raises:
            PrivacyError: in a process that did not make this generator, or a negative count.
        """
        if os.getpid() != self._pid:
            raise PrivacyError(
                "this generator was made in another process, which would draw the same noise: "
                "make one with SecureRandom.from_os() in each process"
            )
        if count < 0:
            raise PrivacyError(f"{count} words; allowed: 0 or more")
        size = 4 * count
        # update_into of older releases wants room for one block more than it writes.
        drawn = np.empty(size + 16, dtype=np.uint8)
        for low in range(0, size, _STEP):
            encryptor = Cipher(algorithms.AES(self._key), modes.GCM(_NONCE)).encryptor()
            self._key = encryptor.update(_ZEROS[:KEY_BYTES])
            encryptor.update_into(_ZEROS[: min(_STEP, size - low)], drawn[low:].data)
        return drawn[:size].view("<u4")

    def fractions(self, count: int) -> NDArray[np.float64]:
        """`count` independent uniform multiples of 2^-53 in [0, 1): float64 [count]."""
        top = self.words(2 * count).view("<u8") >> np.uint64(11)
        return top.astype(np.float64) * 2.0**-53

    def choice(self, limit: int, count: int) -> NDArray[np.int64]:
        """`count` different numbers below `limit`, every choice and order as likely: int64 [count].

        Takes time and memory in proportion to `limit`. Two equal fractions, which would favour the
        smaller number, have a probability below limit^2 2^-54.

        Raises:
            PrivacyError: more are asked for than there are, or a negative number.
        """
        if not 0 <= count <= limit:
            raise PrivacyError(f"{count} different numbers of {limit}; allowed: 0 to {limit}")
        return np.argsort(self.fractions(limit), kind="stable")[:count]

    def __repr__(self) -> str:
        return "SecureRandom(<redacted>)"

    def __reduce__(self) -> NoReturn:
        raise PrivacyError("a generator of noise is never copied or pickled")
