"""Key streams: AES-256 in counter mode (SP 800-38A) as residues modulo 2^b.

One stream per key: the counter block always starts at zero, so a key must come from a key
derivation that never yields it twice. Lane k of the stream (4 bytes little-endian up to 32 bits
per value, else 8) is truncated to its low b bits, which keeps every residue equally likely,
zero and 2^b - 1 included.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from crypto.errors import KeyRefused
from crypto.ring import Ring, Unsigned

KEY_BYTES: Final = 32
_COUNTER_ZERO: Final = bytes(16)
_BLOCK: Final = 1 << 17  # bytes per call: the stream is added while it is still in the cache
_ZEROS: Final = bytes(_BLOCK)


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
    encryptor = Cipher(algorithms.AES(key), modes.CTR(_COUNTER_ZERO)).encryptor()
    width = accumulator.dtype.itemsize
    # update_into of older releases wants room for one block more than it writes.
    buffer = bytearray(_BLOCK + 16)
    lanes: NDArray[np.unsignedinteger[Any]] = np.frombuffer(
        buffer, dtype=accumulator.dtype, count=_BLOCK // width
    )
    for low in range(0, accumulator.size, lanes.size):
        part = accumulator[low : low + lanes.size]
        encryptor.update_into(memoryview(_ZEROS)[: part.size * width], buffer)
        yield part, lanes[: part.size]
