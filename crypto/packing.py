"""Bit packing: d values of b bits each in exactly ceil(d * b / 8) bytes.

Format: value k stands in bits [k*b, (k+1)*b) of one little-endian bit string, that is the bytes
are the little-endian encoding of the integer sum of value_k * 2^(k*b). Pad bits are zero.
Up to 32 bits, two neighbours are first joined to one field of 2b bits. The fewest fields that
fill whole 64-bit words make a group, so that whole columns of groups are shifted at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from crypto.errors import Malformed

_WORD: Final = np.dtype("<u8")
_CHUNK: Final = 1 << 18  # values at a time: about a megabyte, so that columns stay in the cache

_Words = NDArray[np.uint64]


def lane(bits: int) -> np.dtype[np.unsignedinteger[Any]]:
    """The narrowest of uint32 and uint64 (little-endian) that holds values of `bits` bits."""
    return np.dtype("<u4") if bits <= 32 else _WORD


def packed_size(length: int, bits: int) -> int:
    """Number of bytes that hold `length` values of `bits` bits."""
    return (length * bits + 7) // 8


def pack_bits(values: NDArray[np.unsignedinteger[Any]], bits: int) -> bytes:
    """Pack [d] unsigned values, each below 2^bits (not checked here), into packed_size bytes."""
    layout = _Layout(bits)
    packed = np.empty((layout.groups(values.size), layout.words), dtype=_WORD)
    for low, high in layout.chunks(values.size):
        part = values[low * layout.values : high * layout.values]
        whole = _whole(part, (high - low) * layout.values, lane(bits))
        fields = layout.join(whole.view(_WORD))
        packed[low:high] = layout.shift_together(fields.reshape(-1, layout.fields))
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
    layout = _Layout(bits)
    packed = np.frombuffer(view, dtype=np.uint8)
    values = np.empty(layout.groups(length) * layout.values, dtype=lane(bits))
    fields = values.view(_WORD).reshape(-1, layout.fields)
    stride = layout.words * _WORD.itemsize
    for low, high in layout.chunks(length):
        part = _whole(packed[low * stride : high * stride], (high - low) * stride, packed.dtype)
        columns = layout.shift_apart(part.view(_WORD).reshape(-1, layout.words))
        fields[low:high] = layout.split(columns).T
    return values[:length]


@dataclass(frozen=True)
class _Layout:
    """How values of `bits` bits lie in groups: `values` of them, as `fields`, in `words` words."""

    bits: int

    @cached_property
    def width(self) -> int:
        return 2 * self.bits if self.bits <= 32 else self.bits

    @cached_property
    def fields(self) -> int:
        return 64 // math.gcd(self.width, 64)

    @cached_property
    def words(self) -> int:
        return self.width // math.gcd(self.width, 64)

    @cached_property
    def values(self) -> int:
        return self.fields * (self.width // self.bits)

    def groups(self, length: int) -> int:
        return -(-length // self.values)

    def chunks(self, length: int) -> Iterator[tuple[int, int]]:
        groups, step = self.groups(length), _CHUNK // self.values
        for low in range(0, groups, step):
            yield low, min(low + step, groups)

    def join(self, pairs: _Words) -> _Words:
        """Fields from words that hold two 32-bit lanes each; wider lanes are fields already."""
        if self.bits > 32:
            return pairs
        joined = pairs >> np.uint64(32 - self.bits)
        joined &= np.uint64(_ones(self.bits) << self.bits)
        joined |= pairs & np.uint64(_ones(self.bits))
        return joined

    def split(self, fields: _Words) -> _Words:
        """Inverse of join."""
        if self.bits > 32:
            return fields
        pairs = fields << np.uint64(32 - self.bits)
        pairs &= np.uint64(_ones(self.bits) << 32)
        pairs |= fields & np.uint64(_ones(self.bits))
        return pairs

    def shift_together(self, groups: _Words) -> _Words:
        """[groups, fields] to [groups, words]."""
        columns = np.ascontiguousarray(groups.T)
        words = np.empty((self.words, len(groups)), dtype=_WORD)
        shifted = np.empty(len(groups), dtype=_WORD)
        for k, column in enumerate(columns):
            at, shift = divmod(k * self.width, 64)
            if shift == 0:
                words[at] = column
            else:
                np.left_shift(column, np.uint64(shift), out=shifted)
                np.bitwise_or(words[at], shifted, out=words[at])
            if shift + self.width > 64:
                np.right_shift(column, np.uint64(64 - shift), out=words[at + 1])
        return words.T

    def shift_apart(self, groups: _Words) -> _Words:
        """[groups, words] to [fields, groups]."""
        words = np.ascontiguousarray(groups.T)
        columns = np.empty((self.fields, len(groups)), dtype=_WORD)
        shifted = np.empty(len(groups), dtype=_WORD)
        for k, column in enumerate(columns):
            at, shift = divmod(k * self.width, 64)
            np.right_shift(words[at], np.uint64(shift), out=column)
            if shift + self.width > 64:
                np.left_shift(words[at + 1], np.uint64(64 - shift), out=shifted)
                np.bitwise_or(column, shifted, out=column)
            np.bitwise_and(column, np.uint64(_ones(self.width)), out=column)
        return columns


def _ones(bits: int) -> int:
    return (1 << bits) - 1


def _whole(part: NDArray[Any], size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The part itself, or filled up with zeros to `size` elements of `dtype`."""
    if part.size == size and part.dtype == dtype and part.flags.c_contiguous:
        return part
    filled = np.zeros(size, dtype=dtype)
    filled[: part.size] = part
    return filled
