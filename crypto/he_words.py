"""Packed words of ciphertexts: 64 * g words of b bits each, b < 64, in exactly 8 * b * g bytes.

Format: words j, g + j, 2g + j, ... (64 of them) form one little-endian bit string of 64 * b bits,
that is b words of 64 bits, which stand at j, g + j, 2g + j, ... of the output. Unlike the format
of crypto.packing, whose words stand side by side, it takes no transposition on either side; a
polynomial of 4096 coefficients always divides into whole groups. There are no pad bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from crypto.codec import Reader
from crypto.errors import Malformed

WIDTH: Final = 64
_BLOCK: Final = 8192  # columns at a time, 64 kB, so that they stay in the cache

Words = NDArray[np.uint64]


def packed_size(count: int, bits: int) -> int:
    """Bytes that `count` words take, a multiple of 64."""
    return count * bits // 8


def pack_polynomials(words: Words, primes: Sequence[int]) -> bytes:
    """Pack [..., primes, N] residues prime by prime, those of one in order, in its bit length."""
    return b"".join(
        pack_words(np.ascontiguousarray(words[..., at, :]).reshape(-1), prime.bit_length())
        for at, prime in enumerate(primes)
    )


def unpack_polynomials(
    data: memoryview, shape: Sequence[int], primes: Sequence[int], degree: int
) -> Words:
    """Unpack [*shape, primes, N] residues.

    Raises:
        Malformed: not exactly these residues, or one that is not below its prime.
    """
    count = math.prod(shape) * degree
    reader = Reader(data)
    found = np.empty((*shape, len(primes), degree), dtype=np.uint64)
    for at, prime in enumerate(primes):
        packed = reader.view(packed_size(count, prime.bit_length()))
        words = unpack_words(packed, count, prime.bit_length())
        if int(words.max()) >= prime:
            raise Malformed("a coefficient is not below its prime")
        found[..., at, :] = words.reshape(*shape, degree)
    reader.end()
    return found


def packed_polynomials_size(count: int, primes: Sequence[int], degree: int) -> int:
    """Bytes that `count` polynomials of residues modulo every prime take."""
    return sum(packed_size(count * degree, prime.bit_length()) for prime in primes)


def pack_words(words: Words, bits: int) -> bytes:
    """Pack [64 * g] words, each below 2^bits (not checked here)."""
    columns = words.reshape(WIDTH, -1)
    packed = np.empty((bits, columns.shape[1]), dtype="<u8")
    scratch = np.empty(_BLOCK, dtype=np.uint64)
    for low in range(0, columns.shape[1], _BLOCK):
        source, target = columns[:, low : low + _BLOCK], packed[:, low : low + _BLOCK]
        part = scratch[: source.shape[1]]
        for k in range(WIDTH):
            at, shift = divmod(k * bits, WIDTH)
            if shift == 0:
                target[at] = source[k]
            else:
                np.left_shift(source[k], np.uint64(shift), out=part)
                np.bitwise_or(target[at], part, out=target[at])
            if shift + bits > WIDTH:
                np.right_shift(source[k], np.uint64(WIDTH - shift), out=target[at + 1])
    return packed.tobytes()


def unpack_words(data: memoryview, count: int, bits: int) -> Words:
    """Unpack [count] words, a multiple of 64.

    Raises:
        Malformed: the number of bytes is not packed_size(count, bits).
    """
    if len(data) != packed_size(count, bits):
        raise Malformed(f"{count} words of {bits} bits in {len(data)} bytes")
    packed = np.frombuffer(data, dtype="<u8").reshape(bits, -1)
    words = np.empty((WIDTH, packed.shape[1]), dtype=np.uint64)
    scratch = np.empty(_BLOCK, dtype=np.uint64)
    mask = np.uint64((1 << bits) - 1)
    for low in range(0, packed.shape[1], _BLOCK):
        source, target = packed[:, low : low + _BLOCK], words[:, low : low + _BLOCK]
        part = scratch[: source.shape[1]]
        for k in range(WIDTH):
            at, shift = divmod(k * bits, WIDTH)
            np.right_shift(source[at], np.uint64(shift), out=target[k])
            if shift + bits > WIDTH:
                np.left_shift(source[at + 1], np.uint64(WIDTH - shift), out=part)
                np.bitwise_or(target[k], part, out=target[k])
            np.bitwise_and(target[k], mask, out=target[k])
    return words.reshape(-1)
