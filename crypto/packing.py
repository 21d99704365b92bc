"""Bit packing: d values of b bits each in exactly ceil(d * b / 8) bytes.

Format: value k stands in bits [k*b, (k+1)*b) of one little-endian bit string, that is the bytes
are the little-endian encoding of the integer sum of value_k * 2^(k*b). Pad bits are zero.
A group of w values fills exactly b words of w bits (w = 32 up to 32 bits per value, else 64), so
that whole columns of groups are shifted at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from crypto.errors import Malformed

_GROUPS: Final = 8192  # groups at a time: some hundred kB, so that columns stay in the cache


def lane(bits: int) -> np.dtype[np.unsignedinteger[Any]]:
    """The narrowest of uint32 and uint64 (little-endian) that holds values of `bits` bits."""
    return np.dtype("<u4") if bits <= 32 else np.dtype("<u8")


def packed_size(length: int, bits: int) -> int:
    """Number of bytes that hold `length` values of `bits` bits."""
    return (length * bits + 7) // 8


def pack_bits(values: NDArray[np.unsignedinteger[Any]], bits: int) -> bytes:
    """Pack [d] unsigned values, each below 2^bits (not checked here), into packed_size bytes."""
    word = lane(bits)
    width = 8 * word.itemsize
    groups = -(-values.size // width)
    packed = np.empty((groups, bits), dtype=word)
    for low, high in _chunks(groups):
        block = np.zeros((high - low, width), dtype=word)
        part = values[low * width : high * width]
        block.reshape(-1)[: part.size] = part
        columns = np.ascontiguousarray(block.T)
        words = np.zeros((bits, high - low), dtype=word)
        for k in range(width):
            at, shift = divmod(k * bits, width)
            words[at] |= columns[k] << word.type(shift)
            if shift + bits > width:
                words[at + 1] |= columns[k] >> word.type(width - shift)
        packed[low:high] = words.T
    return packed.reshape(-1).view(np.uint8)[: packed_size(values.size, bits)].tobytes()


def unpack_bits(
    data: bytes | memoryview, bits: int, length: int
) -> NDArray[np.unsignedinteger[Any]]:
    """Unpack `length` values of `bits` bits into an array [length] of dtype lane(bits).

    Raises:
        Malformed: the number of bytes is not packed_size(length, bits), or a pad bit is set.
    """
    view = memoryview(data).cast("B")
    size = packed_size(length, bits)
    if len(view) != size:
        raise Malformed(f"{length} values of {bits} bits need {size} bytes, got {len(view)}")
    used = length * bits % 8
    if used and view[-1] >> used:
        raise Malformed("pad bits are not zero")
    word = lane(bits)
    width = 8 * word.itemsize
    groups = -(-length // width)
    packed = np.zeros((groups, bits), dtype=word)
    packed.reshape(-1).view(np.uint8)[:size] = np.frombuffer(view, dtype=np.uint8)
    values = np.empty((groups, width), dtype=word)
    mask = word.type(2**bits - 1)
    for low, high in _chunks(groups):
        words = np.ascontiguousarray(packed[low:high].T)
        columns = np.empty((width, high - low), dtype=word)
        for k in range(width):
            at, shift = divmod(k * bits, width)
            column = words[at] >> word.type(shift)
            if shift + bits > width:
                column |= words[at + 1] << word.type(width - shift)
            columns[k] = column & mask
        values[low:high] = columns.T
    return values.reshape(-1)[:length]


def _chunks(groups: int) -> Iterator[tuple[int, int]]:
    for low in range(0, groups, _GROUPS):
        yield low, min(low + _GROUPS, groups)
