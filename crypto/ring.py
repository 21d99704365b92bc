"""The ring Z_{2^b} in which sums are taken, with headroom proved when it is built.

Signed integers are represented centred: v stands for v mod 2^b, and a residue r is read back as
r if r < 2^(b-1), else r - 2^b. A sum is right whenever it lies in [-2^(b-1), 2^(b-1) - 1];
Ring.for_sum chooses b so that leaving this range has probability at most 2^failure_log2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from crypto.errors import RingRefused
from crypto.packing import lane, pack_bits, packed_size, unpack_bits

MIN_BITS: Final = 2
MAX_BITS: Final = 62

_BLOCK: Final = 1 << 15  # values at a time: several passes over one block find it in the cache

Unsigned = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Ring:
    """Integers modulo 2^bits, 2 <= bits <= 62.

    Raises:
        RingRefused: bits is not an integer in that range.
    """

    bits: int

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not MIN_BITS <= self.bits <= MAX_BITS:
            raise RingRefused(
                f"ring of {self.bits!r} bits; allowed: integers {MIN_BITS} to {MAX_BITS}"
            )

    @classmethod
    def for_sum(
        cls,
        *,
        max_abs: int,
        clients: int,
        noise_std: float,
        dimension: int,
        failure_log2: int = -40,
    ) -> Ring:
        """The smallest ring in which a noisy sum overflows with probability <= 2^failure_log2.

        Guarantees clients * max_abs + tail < 2^(bits-1), where tail is a bound that no coordinate
        of the noise exceeds except with probability 2^failure_log2 over all coordinates together
        (see noise_tail). Fewer clients only shrink both terms, so it holds after drops as well.

        Args:
            max_abs: bound on one client's |integer| per coordinate before noise.
            clients: number of vectors added, noise shares included.
            noise_std: standard deviation per coordinate of the integer noise in the whole sum
                of all clients; 0 means no noise.
            dimension: number of coordinates.
            failure_log2: log2 of the tolerated probability per sum, at most -1.

        Raises:
            RingRefused: an argument is out of range, or more than 62 bits would be needed.
        """
        for name, value, least in (
            ("max_abs", max_abs, 0),
            ("clients", clients, 1),
            ("dimension", dimension, 1),
        ):
            if type(value) is not int or value < least:
                raise RingRefused(f"{name} is {value!r}; allowed: integers from {least}")
        largest = clients * max_abs + noise_tail(
            noise_std, dimension=dimension, failure_log2=failure_log2
        )
        bits = max(MIN_BITS, largest.bit_length() + 1)
        if bits > MAX_BITS:
            raise RingRefused(
                f"a sum of {clients} vectors may reach {largest} and needs {bits} bits; allowed:"
                f" up to {MAX_BITS}. Lower the scale, the clip or the noise"
            )
        return cls(bits)

    @property
    def modulus(self) -> int:
        """2^bits."""
        return 1 << self.bits

    @property
    def lane(self) -> np.dtype[np.unsignedinteger[Any]]:
        """Dtype in which sums run: its own modulus is a multiple of 2^bits."""
        return lane(self.bits)

    def encode(self, values: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Map signed integers [d] int64 to residues [d] uint64; nothing ever wraps silently.

        Raises:
            RingRefused: not a one-dimensional int64 array, or a value outside
                [-2^(bits-1), 2^(bits-1) - 1]. The value itself is not named: it may be private.
        """
        array = np.asarray(values)
        if array.dtype != np.int64 or array.ndim != 1:
            raise RingRefused(
                f"cannot encode {array.dtype} of shape {array.shape}; allowed: int64 of shape (d,)"
            )
        half = self.modulus >> 1
        residues = np.empty(array.size, dtype=np.uint64)
        for block in _blocks(array.size):
            part = array[block]
            if not (-half <= int(part.min()) and int(part.max()) < half):
                raise RingRefused(f"a value lies outside [{-half}, {half - 1}] ({self.bits} bits)")
            np.bitwise_and(part.view(np.uint64), np.uint64(self.modulus - 1), out=residues[block])
        return residues

    def decode(self, residues: Unsigned) -> NDArray[np.int64]:
        """Map residues [d] unsigned to centred integers [d] int64.

        Raises:
            RingRefused: not a one-dimensional unsigned array, or a residue >= 2^bits.
        """
        self._check(residues)
        half = np.int64(self.modulus >> 1)
        values = np.empty(residues.size, dtype=np.int64)
        for block in _blocks(residues.size):
            part = values[block]
            np.copyto(part, residues[block], casting="unsafe")
            np.bitwise_xor(part, half, out=part)
            np.subtract(part, half, out=part)
        return values

    def pack(self, residues: Unsigned) -> bytes:
        """Pack residues [d] into packed_size(d) bytes (format: crypto.packing).

        Raises:
            RingRefused: not a one-dimensional unsigned array, or a residue >= 2^bits.
        """
        self._check(residues)
        return pack_bits(residues, self.bits)

    def unpack(self, data: bytes | memoryview, length: int) -> NDArray[np.uint64]:
        """Unpack `length` residues into [length] uint64.

        Raises:
            Malformed: wrong number of bytes, or pad bits set.
        """
        return unpack_bits(data, self.bits, length).astype(np.uint64)

    def packed_size(self, length: int) -> int:
        """Bytes that `length` residues take: exactly ceil(length * bits / 8)."""
        return packed_size(length, self.bits)

    def add_into(self, accumulator: Unsigned, residues: Unsigned) -> None:
        """Replace accumulator [d] by (accumulator + residues) mod 2^bits, in place."""
        np.add(accumulator, residues, out=accumulator, casting="same_kind")
        self.reduce(accumulator)

    def reduce(self, accumulator: Unsigned) -> None:
        """Truncate an accumulator of any unsigned lane to residues below 2^bits, in place."""
        mask = accumulator.dtype.type(self.modulus - 1)
        np.bitwise_and(accumulator, mask, out=accumulator)

    def _check(self, residues: Unsigned) -> None:
        if residues.dtype.kind != "u" or residues.ndim != 1:
            raise RingRefused(
                f"residues are {residues.dtype} of shape {residues.shape};"
                " allowed: unsigned integers of shape (d,)"
            )
        if residues.size and int(residues.max()) >= self.modulus:
            raise RingRefused(f"a residue is not below 2^{self.bits}")


def _blocks(size: int) -> Iterator[slice]:
    for low in range(0, size, _BLOCK):
        yield slice(low, low + _BLOCK)


def noise_tail(noise_std: float, *, dimension: int, failure_log2: int) -> int:
    """An integer t with P(some |X_k| > t) <= 2^failure_log2 for integer noise X, by Chernoff.

    A symmetric Skellam variable X of variance v is the difference of two Poisson variables of
    mean v/2, so E exp(s X) = exp(v (cosh s - 1)) and Chernoff's bound at s = asinh(a/v) gives

        P(X >= a) <= exp(-I(a)),   I(a) = a asinh(a/v) - (sqrt(v^2 + a^2) - v).

    Sums of discrete Gaussians exp(-k^2 / (2 v_i)) with v = sum v_i lie below the same bound:
    E exp(s X_i) is exp(s^2 v_i / 2) times a theta series at a shift over the one at 0, which is its
    maximum, so at most exp(s^2 v_i / 2); and s^2 / 2 <= cosh s - 1.

    Both signs and all coordinates: P <= 2 d exp(-I(t+1)), whatever their dependence. I grows in a,
    so t is found by bisection, with a relative slack of 2^-40 in the exponent for the rounding of
    the formula in double precision. The bound is within a few percent of the exact quantile.

    Raises:
        RingRefused: noise_std negative, infinite or NaN, or failure_log2 not a negative integer.
    """
    if not 0 <= noise_std < 2.0**64:
        raise RingRefused(f"noise_std is {noise_std!r}; allowed: 0 up to 2^64")
    if type(failure_log2) is not int or failure_log2 >= 0:
        raise RingRefused(f"failure_log2 is {failure_log2!r}; allowed: negative integers")
    if noise_std == 0:
        return 0
    variance = float(noise_std) ** 2
    if variance == 0:
        raise RingRefused(f"noise_std is {noise_std!r}; its square underflows, allowed: 0 or more")
    wanted = (math.log(2.0 * dimension) - failure_log2 * math.log(2.0)) * (1 + 2.0**-40)
    low, high = 0, 1
    while _skellam_exponent(high, variance) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if _skellam_exponent(middle, variance) < wanted:
            low = middle
        else:
            high = middle
    return high


def _skellam_exponent(a: int, variance: float) -> float:
    root = math.hypot(variance, a)
    return a * math.asinh(a / variance) - a * (a / (root + variance))
