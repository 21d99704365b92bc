"""Linear compression: fewer coordinates, or flatter ones, by public maps that commute with the sum.

A unit's vector x in R^d, clipped to C, becomes y = A x in R^m before it is scaled and rounded; the
opened sum of all y is taken back to R^d afterwards. The rows of A are orthonormal (a rotation, a
choice of coordinates, or one after the other), so that ||y|| <= ||x|| <= C: the map never makes a
unit longer. It is fixed by a public seed and depends on no data.

    kind      rows of A              new map        back to R^d   error against x
    none      all d                  each round     A^T y         none
    subset    m random coordinates   each round     (d/m) A^T y   unbiased, sqrt(d/m - 1) relative
    low-rank  m of the rotated ones  once in a run  A^T y         A^T A x is the part of x in one
                                                                  fixed subspace: contractive

Nothing about sensitivity rests on any of this: what a unit contributes is clipped again in integers
after the map (privacy/clip.py), whatever the unit holds and whoever knows the seed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from privacy.errors import CompressionRefused
from privacy.rotate import Floats, Rotation, block_size, spread

SHORTENED = 1e-2
"""Probability, over a rotation, that the part of a vector that is kept is beyond `Image.norm`."""


class Kind(StrEnum):
    """Which coordinates are summed; the module describes each."""

    NONE = "none"
    SUBSET = "subset"
    LOW_RANK = "low-rank"


@dataclass(frozen=True)
class Image:
    """What becomes of a vector of norm 1, as far as public numbers tell.

    Attributes:
        length: m, coordinates that are summed.
        norm: L2 norm up to which the image is kept. 1 where all of a vector may be in the image;
            with a rotation the norm of the image is near sqrt(m / d), and this is a bound that it
            exceeds with probability about SHORTENED. Longer ones are clipped.
        coordinate: the same for each coordinate; exceeded with probability SATURATION.
        gain: what the image is multiplied by on the way back.
        missed: relative L2 error of a vector taken there and back; without a rotation that of a
            vector without outstanding coordinates.
    """

    length: int
    norm: float
    coordinate: float
    gain: float
    missed: float


@dataclass(frozen=True, kw_only=True)
class Compression:
    """Public terms of the map.

    Attributes:
        kind: which coordinates are summed.
        rotate: whether vectors are rotated before coordinates are chosen.
        keep: m / d, in (0, 1); None for kind "none".

    Raises:
        CompressionRefused: terms that contradict each other.
    """

    kind: Kind = Kind.NONE
    rotate: bool = False
    keep: float | None = None

    def __post_init__(self) -> None:
        if self.kind is Kind.NONE:
            if self.keep is not None:
                raise CompressionRefused(
                    f"keep {self.keep!r} without a kind: set kind to 'subset' or 'low-rank', or "
                    "leave keep out"
                )
            return
        if type(self.keep) is not float or not 0.0 < self.keep < 1.0:
            raise CompressionRefused(
                f"keep {self.keep!r}: kind {self.kind.value!r} needs the fraction of coordinates "
                "to keep, above 0 and below 1"
            )
        if self.kind is Kind.LOW_RANK and not self.rotate:
            raise CompressionRefused(
                "kind 'low-rank' with rotate = false would train some parameters and never the "
                "others: set rotate = true"
            )

    def image(self, parameters: int) -> Image:
        """Shape and bounds of the image of a unit vector in R^parameters.

        The norm after a rotation is bounded as if the coordinates were Gaussian with variances up
        to 1/p: Laurent and Massart 2000, Lemma 1.

        Raises:
            CompressionRefused: vectors too short for these terms.
        """
        length = self._length(parameters)
        if self.kind is Kind.NONE and not self.rotate:
            return Image(length, norm=1.0, coordinate=1.0, gain=1.0, missed=0.0)
        kept = length / parameters
        coordinate = spread(parameters) if self.rotate else 1.0
        if self.rotate and coordinate >= 1.0:
            raise CompressionRefused(
                f"rotate = true with {parameters} parameters: a rotation of so few makes nothing "
                "flatter; set rotate = false, or take a larger model"
            )
        norm = 1.0
        if self.rotate and self.kind is not Kind.NONE:
            block, x = block_size(parameters), -math.log(SHORTENED)
            norm = math.sqrt(min(1.0, kept + 2.0 * math.sqrt(x * kept / block) + 2.0 * x / block))
        if self.kind is Kind.SUBSET:
            gain, missed = 1.0 / kept, math.sqrt(1.0 / kept - 1.0)
        else:
            gain, missed = 1.0, math.sqrt(1.0 - kept)
        return Image(length, norm, coordinate, gain, missed)

    def basis(self, parameters: int, seed: bytes, round_index: int) -> Basis:
        """The map of one round; equal for everybody who knows the public seed.

        Args:
            parameters: d.
            seed: public bytes of the run.
            round_index: which round; a low-rank map is the same in all of them.
        """
        moment = b"run" if self.kind is Kind.LOW_RANK else b"round " + str(round_index).encode()
        return _basis(self, parameters, hashlib.sha256(seed + b"\n" + moment).digest())

    def to_json(self) -> Mapping[str, str | bool | None]:
        """The terms as plain data; `keep` as its shortest decimal string."""
        keep = None if self.keep is None else repr(self.keep)
        return {"kind": self.kind.value, "rotate": self.rotate, "keep": keep}

    def _length(self, parameters: int) -> int:
        if self.keep is None:
            return parameters
        length = math.ceil(self.keep * parameters)
        if length == parameters:
            raise CompressionRefused(
                f"keep {self.keep!r} of {parameters} parameters keeps them all: lower it, or set "
                "kind = 'none'"
            )
        return length


class Basis:
    """The map A of one round and its way back. Holds public values only.

    Args:
        compression: the terms.
        parameters: d.
        seed: 32 public bytes.
    """

    def __init__(self, compression: Compression, parameters: int, seed: bytes) -> None:
        image = compression.image(parameters)
        self._parameters = parameters
        self._gain = image.gain
        self._rotation = Rotation(parameters, seed) if compression.rotate else None
        self._chosen = (
            None if compression.kind is Kind.NONE else random_subset(parameters, image.length, seed)
        )

    def forward(self, rows: Floats) -> Floats:
        """A x for each row: float64 [k, d] to float64 [k, m]."""
        turned = rows if self._rotation is None else self._rotation.forward(rows)
        return turned if self._chosen is None else turned[:, self._chosen]

    def backward(self, total: Floats) -> Floats:
        """The estimate of x from A x: float64 [m] to float64 [d]."""
        if self._chosen is not None:
            spread_out = np.zeros(self._parameters)
            spread_out[self._chosen] = total * self._gain
            total = spread_out
        return total if self._rotation is None else self._rotation.backward(total[None, :])[0]


def random_subset(parameters: int, length: int, seed: bytes) -> NDArray[np.int64]:
    """`length` of `parameters` indices, increasing, all subsets alike: int64 [length].

    The indices with the smallest of `parameters` 64-bit keys from SHAKE-256 of the seed.
    """
    stream = hashlib.shake_256(b"fedmeta/subset/v1\n" + seed).digest(8 * parameters)
    order = np.argsort(np.frombuffer(stream, dtype="<u8"), kind="stable")
    return np.sort(order[:length])


@lru_cache(maxsize=4)
def _basis(compression: Compression, parameters: int, seed: bytes) -> Basis:
    """Simulated clients of one round share the arrays; they hold public values only."""
    return Basis(compression, parameters, seed)
