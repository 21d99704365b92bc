"""Key streams: AES-256 in counter mode (SP 800-38A) as residues modulo 2^b.

One stream per key: the counter block always starts at 2, so a key must come from a key
derivation that never yields it twice. Lane k of the stream (4 bytes little-endian up to 32 bits
per value, else 8) is truncated to its low b bits, which keeps every residue equally likely,
zero and 2^b - 1 included.

Counter blocks from 2 are those of GCM under a zero nonce (SP 800-38D, section 7.1), and GCM is
the mode that OpenSSL runs on wide vectors: taken from there, the same stream costs less than half
as much. No tag is made or used. GCM's bound of 2^36 - 32 bytes per stream holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from crypto.errors import KeyRefused
from crypto.ring import Ring, Unsigned

KEY_BYTES: Final = 32
_NONCE: Final = bytes(12)
_BLOCK: Final = 1 << 18  # bytes per call: the stream is added while it is still in the cache
_ZEROS: Final = memoryview(bytes(_BLOCK))


def expand(key: bytes, ring: Ring, length: int) -> NDArray[np.uint64]:
    """The first `length` residues of the stream of `key`, as [length] uint64.

    Raises:
        KeyRefused: the key does not have 32 bytes.
    """
    stream = np.zeros(length, dtype=ring.lane)
    add_stream(stream, key)
    ring.reduce(stream)
    return stream.astype(np.uint64)


def add_stream(accumulator: Unsigned, key: bytes) -> None:
    """Add the stream of `key` to an accumulator [d] of dtype Ring.lane, in place.

    The sum is taken modulo the lane; Ring.reduce at the end gives it modulo 2^b.
    """
    for part, lanes in _blocks(accumulator, key):
        np.add(part, lanes, out=part)


def subtract_stream(accumulator: Unsigned, key: bytes) -> None:
    """Subtract the stream of `key` from an accumulator [d] of dtype Ring.lane, in place."""
    for part, lanes in _blocks(accumulator, key):
        np.subtract(part, lanes, out=part)


def _blocks(accumulator: Unsigned, key: bytes) -> Iterator[tuple[Unsigned, Unsigned]]:
    if len(key) != KEY_BYTES:
        raise KeyRefused(f"stream key of {len(key)} bytes; allowed: {KEY_BYTES}")
    encryptor = Cipher(algorithms.AES(key), modes.GCM(_NONCE)).encryptor()
    width = accumulator.dtype.itemsize
    step = min(_BLOCK // width, accumulator.size)
    # update_into of older releases wants room for one block more than it writes.
    buffer = np.empty(step * width + 16, dtype=np.uint8)
    lanes: Unsigned = buffer[: step * width].view(accumulator.dtype)
    for low in range(0, accumulator.size, _BLOCK // width):
        part = accumulator[low : low + step]
        encryptor.update_into(_ZEROS[: part.size * width], buffer.data)
        yield part, lanes[: part.size]
