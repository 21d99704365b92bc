"""Shamir's secret sharing over GF(2^8), byte by byte (Shamir 1979; field of FIPS 197 section 4).

Holder k (1 to n) gets the values at x = k of polynomials of degree t - 1 whose constant terms are
the secret's bytes: any t shares give the secret, any t - 1 are independent of it.

Evaluation and interpolation are linear in the secret bytes with public coefficients, so both are
one matrix product in which secret bits only ever act as masks: no table look-up, branch or index
depends on a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from crypto.errors import SharesRefused

MAX_SHARES: Final = 255

_Bytes = NDArray[np.uint8]


def split(
    secret: bytes, *, shares: int, threshold: int, rand: Callable[[int], bytes]
) -> tuple[bytes, ...]:
    """Split a secret of any length; element k - 1 of the result is the share of holder k.

    Raises:
        SharesRefused: not 1 <= threshold <= shares <= 255, or rand returned too few bytes.
    """
    if not 1 <= threshold <= shares <= MAX_SHARES:
        raise SharesRefused(
            f"threshold {threshold} of {shares} shares; allowed: 1 <= threshold <= shares <="
            f" {MAX_SHARES}"
        )
    wanted = (threshold - 1) * len(secret)
    random = rand(wanted)
    if len(random) != wanted:
        raise SharesRefused(f"randomness of {len(random)} bytes, {wanted} needed")
    coefficients = np.frombuffer(secret + random, dtype=np.uint8).reshape(threshold, -1)
    values = _apply(_powers(shares, threshold), coefficients)
    return tuple(row.tobytes() for row in values)


def combine(shares: Mapping[int, bytes], *, threshold: int) -> bytes:
    """Interpolate a secret from exactly `threshold` shares, keyed by holder.

    The result is right only if every share is: check it against a commitment.

    Raises:
        SharesRefused: another number of shares than the threshold, a holder outside 1 to 255,
            or shares of unequal length.
    """
    if len(shares) != threshold or threshold < 1:
        raise SharesRefused(f"{len(shares)} shares; allowed: exactly the threshold {threshold}")
    holders = tuple(sorted(shares))
    if not 1 <= holders[0] <= holders[-1] <= MAX_SHARES:
        raise SharesRefused(f"holders {holders[0]} to {holders[-1]}; allowed: 1 to {MAX_SHARES}")
    if len({len(share) for share in shares.values()}) != 1:
        raise SharesRefused("shares of unequal length")
    joined = b"".join(shares[holder] for holder in holders)
    values = np.frombuffer(joined, dtype=np.uint8).reshape(threshold, -1)
    secret: bytes = _apply(_weights(holders), values)[0].tobytes()
    return secret


def _field_tables() -> tuple[NDArray[np.int64], NDArray[np.int64], _Bytes]:
    """Powers and logarithms of the generator 3, and the products e * 2^k, all of public values."""
    powers = np.zeros(255, dtype=np.int64)
    logarithms = np.zeros(256, dtype=np.int64)
    value = 1
    for exponent in range(255):
        powers[exponent] = value
        logarithms[value] = exponent
        value ^= value << 1
        value ^= 0x11B if value & 0x100 else 0
    shifted = np.zeros((256, 8), dtype=np.uint8)
    for k in range(8):
        shifted[1:, k] = powers[(logarithms[1:] + logarithms[1 << k]) % 255]
    return powers, logarithms, shifted


_POWERS, _LOGARITHMS, _SHIFTED = _field_tables()
_BITS: Final = np.arange(8, dtype=np.uint8)
_BLOCK: Final = 1 << 16  # bytes of intermediate products at a time


def _apply(public: _Bytes, secret: _Bytes) -> _Bytes:
    """Product over GF(2^8) of public [a, b] and secret [b, L], as [a, L].

    Multiplying by a public element e is linear over GF(2): e * s is the XOR over k of e * 2^k
    where bit k of s is set, and that bit selects by a mask of eight equal bits.
    """
    rows, inner = public.shape
    length = secret.shape[1]
    masks = np.negative((secret[:, None, :] >> _BITS[None, :, None]) & np.uint8(1))
    product = np.zeros((rows, length), dtype=np.uint8)
    step = max(1, _BLOCK // max(1, 8 * rows * length))
    for low in range(0, inner, step):
        terms = _SHIFTED[public[:, low : low + step]][..., None] & masks[None, low : low + step]
        product ^= np.bitwise_xor.reduce(terms.reshape(rows, -1, length), axis=1)
    return product


@lru_cache(maxsize=64)
def _powers(shares: int, threshold: int) -> _Bytes:
    """[shares, threshold]: x^k for x = 1 .. shares."""
    exponents = np.outer(_LOGARITHMS[1 : shares + 1], np.arange(threshold)) % 255
    return _POWERS[exponents].astype(np.uint8)


@lru_cache(maxsize=256)
def _weights(holders: tuple[int, ...]) -> _Bytes:
    """[1, t]: Lagrange weights at zero, the product over m != j of x_m / (x_m - x_j)."""
    x = np.array(holders, dtype=np.int64)
    ratios = _LOGARITHMS[x][None, :] - _LOGARITHMS[x[None, :] ^ x[:, None]]
    np.fill_diagonal(ratios, 0)
    weights: _Bytes = _POWERS[ratios.sum(axis=1) % 255].astype(np.uint8)
    return weights[None, :]
