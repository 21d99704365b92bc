"""Integer noise."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from privacy.errors import PlanRefused
from privacy.rng import SecureRandom

MAX_VARIANCE = 2.0**50
LARGE_MEAN = 1000.0
"""Poisson means from which on the sampler of this file is used."""


def skellam(variance: float, size: int, rng: SecureRandom) -> NDArray[np.int64]:
    """Independent draws of the symmetric Skellam distribution with this variance.

    Each is the difference of two Poisson(variance / 2) variables, so that
    P(k) = exp(-variance) * I_k(variance), and the sum of n such draws is Skellam with n times the
    variance: shares of several clients add up to exactly the noise that is accounted for.

    The arithmetic is float64. A probability is off by at most a relative 2e-13 * sqrt(variance)
    within 10 standard deviations (4e-9 at a variance of 1e9), and by far less near the mean.

    Args:
        variance: variance of one draw, > 0 and at most 2^50; the mean is zero.
        size: number of draws.
        rng: the generator to draw from.

    Returns:
        int64 [size].

    Raises:
        PlanRefused: a variance outside (0, 2^50]; there is no value that means "no noise".
    """
    if not 0.0 < variance <= MAX_VARIANCE:
        raise PlanRefused(f"variance {variance!r} of the noise is outside (0, 2^50]")
    if size < 0:
        raise PlanRefused(f"size {size} of the noise is negative")
    mean = variance / 2.0
    if mean < LARGE_MEAN:
        generator = rng.generator
        small: NDArray[np.int64] = generator.poisson(mean, size) - generator.poisson(mean, size)
        return small
    return _poisson_less_floor(mean, size, rng) - _poisson_less_floor(mean, size, rng)


def _poisson_less_floor(mean: float, size: int, rng: SecureRandom) -> NDArray[np.int64]:
    """Poisson(mean) - floor(mean), for mean >= LARGE_MEAN.

    Transformed rejection, Hoermann 1993 ("The transformed rejection method for generating Poisson
    random variables"), algorithm PTRS. NumPy has the same, but compares log-probabilities as
    differences of terms of size mean * log(mean): at a mean of 2^49 its variance is 8 % too large.
    Here every quantity is an offset from the mean, and the comparison loses nothing.
    """
    b = 0.931 + 2.53 * math.sqrt(mean)
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    squeeze = 0.9277 - 3.6224 / (b - 2.0)
    fraction = mean - math.floor(mean)
    accepted: list[NDArray[np.int64]] = []
    missing = size
    while missing > 0:
        uniform = rng.generator.random((2, missing + missing // 7 + 8))
        u, v = uniform[0] - 0.5, 1.0 - uniform[1]
        distance = np.maximum(0.5 - np.abs(u), 2.0**-54)
        offset = np.floor((2.0 * a / distance + b) * u + (fraction + 0.43))
        keep = (distance >= 0.07) & (v <= squeeze)
        check = np.flatnonzero(~keep & ((distance >= 0.013) | (v <= distance)))
        hat = np.log(v[check] * inverse_alpha / (a / distance[check] ** 2 + b))
        keep[check] = hat <= _log_poisson(offset[check] - fraction, mean)
        found = offset[keep][:missing].astype(np.int64)
        accepted.append(found)
        missing -= len(found)
    return np.concatenate(accepted) if accepted else np.zeros(0, dtype=np.int64)


def _log_poisson(x: NDArray[np.float64], mean: float) -> NDArray[np.float64]:
    """Log P(k) of a Poisson variable at k = mean + x, for mean >= LARGE_MEAN.

    Loader's saddle-point form (2000, "Fast and Accurate Computation of Binomial Probabilities"):
    -(k log(k / mean) - x) - log(2 pi k) / 2 - (1 / (12 k) - 1 / (360 k^3)), whose terms are of
    the size of x rather than of the mean. Below mean / 2 it is -inf: such k together have a
    probability of less than exp(-0.15 * mean).
    """
    log_p = np.full(x.shape, -np.inf)
    inside = x > -mean / 2.0
    near = x[inside]
    k = mean + near
    deviance = k * np.log1p(near / mean) - near
    log_p[inside] = (
        -deviance - np.log(2.0 * math.pi * k) / 2.0 - (1.0 - 1.0 / (30.0 * k * k)) / (12.0 * k)
    )
    return log_p
