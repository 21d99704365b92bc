"""Random signs and Walsh-Hadamard transforms: a public rotation that makes every vector flat.

A rotation of d coordinates works on blocks of p coordinates, p the largest power of two up to d:
signs and transform on the first p, then signs and transform on the last p, which overlap wherever d
is no power of two. Nothing is padded: d coordinates come out. Every coordinate has passed a
transform of more than d/2 coordinates, so that (Hoeffding 1963, Theorem 2, over the signs) for a
vector x that does not depend on the signs

    P(|y_i| > t * ||x|| / sqrt(p)) <= 2 exp(-t^2 / 2).

The signs are public. A vector that was made for them can land on one coordinate: flatness is about
how much is lost, never about privacy.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

SATURATION = 1e-4
"""Probability, over the signs, with which any coordinate of one vector is beyond `spread`."""

_BLOCK = 1 << 15  # values at a time: both buffers of the transform find room in the cache

Floats = NDArray[np.float64]


def block_size(parameters: int) -> int:
    """p: the largest power of two up to `parameters`, which is at least 1."""
    return 1 << (parameters.bit_length() - 1)


def spread(parameters: int) -> float:
    """What no coordinate of a rotated unit vector exceeds, except with probability SATURATION."""
    tail = math.sqrt(2.0 * math.log(2.0 * parameters / SATURATION))
    return tail / math.sqrt(block_size(parameters))


class Rotation:
    """An orthogonal map of R^d that a public seed fixes.

    Each row is treated by itself: sums and differences of its own values in one fixed order, so
    that what a row becomes never depends on its company.

    Args:
        parameters: d, at least 1.
        seed: public bytes; equal seeds give equal rotations, on every machine.
    """

    def __init__(self, parameters: int, seed: bytes) -> None:
        self._size = block_size(parameters)
        count = 1 if self._size == parameters else 2
        signs = random_signs(count * self._size, seed)
        self._passes = tuple(
            (slice(start, start + self._size), signs[at * self._size :][: self._size])
            for at, start in enumerate((0, parameters - self._size)[:count])
        )

    def forward(self, rows: Floats) -> Floats:
        """Rotate each row: float64 [k, d] to a new float64 [k, d]."""
        turned = rows.copy()
        for block, signs in self._passes:
            turned[:, block] = walsh_hadamard(turned[:, block] * signs)
        return turned

    def backward(self, rows: Floats) -> Floats:
        """Undo `forward`, up to the rounding of float64."""
        turned = rows.copy()
        for block, signs in reversed(self._passes):
            turned[:, block] = walsh_hadamard(turned[:, block]) * signs
        return turned


def random_signs(count: int, seed: bytes) -> Floats:
    """`count` values of +1 and -1 from SHAKE-256 of the seed: float64 [count]."""
    stream = np.frombuffer(
        hashlib.shake_256(b"fedmeta/signs/v1\n" + seed).digest(-(-count // 8)), dtype=np.uint8
    )
    bits = np.unpackbits(stream, count=count, bitorder="little")
    return 1.0 - 2.0 * bits.astype(np.float64)


def walsh_hadamard(rows: Floats) -> Floats:
    """The orthonormal Walsh-Hadamard transform of each row; its own inverse.

    Sylvester's order, log2 p passes of p additions each. Every pass reads neighbours and writes
    sums into the first half and differences into the second (Pease 1968): after log2 p of them the
    order is the usual one, and all passes stream through memory alike.

    Args:
        rows: float64 [k, p], p a power of two.

    Returns:
        float64 [k, p], a new array.
    """
    width = rows.shape[1]
    half, factor = width // 2, 1.0 / math.sqrt(width)
    result = np.empty(rows.shape)
    step = max(1, _BLOCK // width)
    for start in range(0, rows.shape[0], step):
        source = rows[start : start + step] * factor
        target = np.empty_like(source)
        for _ in range(width.bit_length() - 1):
            np.add(source[:, 0::2], source[:, 1::2], out=target[:, :half])
            np.subtract(source[:, 0::2], source[:, 1::2], out=target[:, half:])
            source, target = target, source
        result[start : start + step] = source
    return result
