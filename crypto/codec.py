"""Strict binary encoding: fixed-width little-endian integers and length-prefixed bytes.

Every value has exactly one encoding, and a decoder that leaves a byte over refuses the whole
message: two parties can therefore never read the same bytes differently.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sized
from typing import Final

import numpy as np

from crypto.errors import Malformed

MAX_U8: Final = 2**8 - 1
MAX_U32: Final = 2**32 - 1
MAX_U64: Final = 2**64 - 1
# Of a list of indices: a bit of a message becomes an integer in memory, several hundred times it.
MAX_SPAN: Final = 2**20


class Writer:
    """Builds an encoding; integers outside their width raise Malformed."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def u8(self, value: int) -> Writer:
        """Append an unsigned integer of 1 byte."""
        return self._integer(value, 1)

    def u32(self, value: int) -> Writer:
        """Append an unsigned integer of 4 bytes."""
        return self._integer(value, 4)

    def u64(self, value: int) -> Writer:
        """Append an unsigned integer of 8 bytes."""
        return self._integer(value, 8)

    def fixed(self, value: bytes, length: int) -> Writer:
        """Append bytes whose length both sides know."""
        if len(value) != length:
            raise Malformed(f"field has {len(value)} bytes, must have {length}")
        self._parts.append(bytes(value))
        return self

    def sized(self, value: bytes) -> Writer:
        """Append bytes behind their length as u32."""
        self.u32(len(value))
        self._parts.append(value)
        return self

    def text(self, value: str) -> Writer:
        """Append UTF-8 text behind its length in bytes as u32."""
        return self.sized(value.encode())

    def flag(self, value: bool) -> Writer:
        """Append 0 or 1 as u8."""
        return self.u8(int(value))

    def indices(self, values: Iterable[int]) -> Writer:
        """Append strictly increasing u32: span u32, then first u32 and a bit for each in the span.

        An empty list is a span of 0 and nothing else; the span is at most MAX_SPAN.
        """
        listed = np.fromiter(values, dtype=np.int64)
        if not listed.size:
            return self.u32(0)
        if (np.diff(listed) <= 0).any():
            raise Malformed("indices are not strictly increasing")
        first, span = int(listed[0]), int(listed[-1] - listed[0]) + 1
        if int(listed[-1]) > MAX_U32:
            raise Malformed(f"integer {listed[-1]} does not fit 4 unsigned bytes")
        _check_span(span)
        self.u32(span).u32(first)
        bits = np.zeros(span, dtype=np.uint8)
        bits[listed - first] = 1
        self._parts.append(np.packbits(bits, bitorder="little").tobytes())
        return self

    def bundle(self, values: Mapping[int, bytes]) -> Writer:
        """Append byte strings by u32 key behind their number, in increasing order of the keys."""
        self.u32(len(values))
        for key in sorted(values):
            self.u32(key).sized(values[key])
        return self

    def done(self) -> bytes:
        """Return the encoding."""
        return b"".join(self._parts)

    def _integer(self, value: int, width: int) -> Writer:
        if not 0 <= value < 1 << 8 * width:
            raise Malformed(f"integer {value} does not fit {width} unsigned bytes")
        self._parts.append(value.to_bytes(width, "little"))
        return self


class Reader:
    """Reads an encoding; every shortage, and any leftover at end(), raises Malformed."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data).cast("B")
        self._at = 0

    def u8(self) -> int:
        """Read an unsigned integer of 1 byte."""
        return self._integer(1)

    def u32(self) -> int:
        """Read an unsigned integer of 4 bytes."""
        return self._integer(4)

    def u64(self) -> int:
        """Read an unsigned integer of 8 bytes."""
        return self._integer(8)

    def fixed(self, length: int) -> bytes:
        """Read exactly `length` bytes."""
        return bytes(self._take(length))

    def view(self, length: int) -> memoryview:
        """Read exactly `length` bytes without copying them."""
        return self._take(length)

    def sized(self) -> bytes:
        """Read bytes that stand behind their length."""
        return bytes(self.sized_view())

    def sized_view(self) -> memoryview:
        """Read bytes that stand behind their length, without copying them."""
        return self._take(self.u32())

    def text(self) -> str:
        """Read UTF-8 text that stands behind its length."""
        try:
            return self.sized().decode()
        except UnicodeDecodeError:
            raise Malformed("text is not UTF-8") from None

    def flag(self) -> bool:
        """Read 0 or 1."""
        value = self.u8()
        if value > 1:
            raise Malformed(f"flag is {value}, must be 0 or 1")
        return value == 1

    def indices(self) -> tuple[int, ...]:
        """Read strictly increasing u32; see Writer.indices."""
        span = self.u32()
        if not span:
            return ()
        _check_span(span)
        first = self.u32()
        packed = np.frombuffer(self.view(-(-span // 8)), dtype=np.uint8)
        bits = np.unpackbits(packed, bitorder="little")
        if not (bits[0] and bits[span - 1]) or bits[span:].any():
            raise Malformed("the span of a list of indices is not its own")
        if first + span - 1 > MAX_U32:
            raise Malformed(f"index {first + span - 1} does not fit 4 unsigned bytes")
        return tuple((np.flatnonzero(bits) + first).tolist())

    def bundle(self) -> dict[int, bytes]:
        """Read byte strings by key; refuses repetition and any other order of the keys."""
        found: dict[int, bytes] = {}
        last = -1
        for _ in range(self.u32()):
            key = self.u32()
            if key <= last:
                raise Malformed("indices are not strictly increasing")
            found[key] = self.sized()
            last = key
        return found

    def rest(self) -> memoryview:
        """Read everything that is left, without copying it."""
        return self._take(len(self._data) - self._at)

    def end(self) -> None:
        """Refuse anything that is left over."""
        left = len(self._data) - self._at
        if left:
            raise Malformed(f"{left} bytes left over")

    def _integer(self, width: int) -> int:
        return int.from_bytes(self._take(width), "little")

    def _take(self, length: int) -> memoryview:
        if length > len(self._data) - self._at:
            raise Malformed(f"{length} bytes wanted, {len(self._data) - self._at} left")
        self._at += length
        return self._data[self._at - length : self._at]


def _check_span(span: int) -> None:
    if span > MAX_SPAN:
        raise Malformed(f"a list of indices that spans {span}; allowed: up to {MAX_SPAN}")


def frame(label: str, *parts: bytes) -> bytes:
    """Encode a label and byte strings so that no two different lists give the same bytes."""
    encoded = label.encode()
    pieces = [_count(encoded), encoded, _count(parts)]
    for part in parts:
        pieces += (_count(part), part)
    return b"".join(pieces)


def _count(value: Sized) -> bytes:
    return len(value).to_bytes(4, "little")


def tagged_digest(label: str, *parts: bytes) -> bytes:
    """SHA-256 of the framed parts; different labels never share a preimage."""
    return hashlib.sha256(frame(label, *parts)).digest()
