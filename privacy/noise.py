"""Integer noise: Skellam and the discrete Gaussian, whose shares add up, and a rounded Gaussian."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from privacy.errors import PlanRefused
from privacy.rng import SecureRandom
from privacy.strips import Ints, StripSampler

MIN_VARIANCE: Final = 2.0**-100
MAX_VARIANCE: Final = 2.0**50
MIN_ROUNDED_VARIANCE: Final = 1.0
_STIRLING_TABLE: Final = 16
_SERIES_BELOW: Final = 0.25
_CACHED: Final = 16  # distributions, of some 60 kB each


class Sampler(Protocol):
    """Draws one client's noise share."""

    def __call__(self, variance: float, size: int, rng: SecureRandom) -> Ints:
        """Independent draws around zero: int64 [size]. `variance` is in steps^2."""
        ...


def skellam(variance: float, size: int, rng: SecureRandom) -> Ints:
    """Independent draws of the symmetric Skellam distribution with this variance.

    Each is the difference of two Poisson(variance / 2) variables, so that
    P(k) = exp(-variance) * I_k(variance), and the sum of n such draws is Skellam with n times the
    variance: shares of several clients add up to exactly the noise that is accounted for.

    The support is cut off nowhere, and the arithmetic is float64 only in the logarithm of a
    Poisson probability (see strips and `poisson_log_weight`). Within 10 standard deviations each
    P(k) is off by a relative 1e-12 at most, whatever the variance: the two Poisson variables
    then lie at x and y of their standard deviations with x^2 + y^2 near 100, and their logarithms
    are off by 3e-15 * (8 + x^2 + y^2) together.

    Args:
        variance: variance of one draw, from 2^-100 to 2^50; the mean is zero.
        size: number of draws.
        rng: the generator to draw from.

    Returns:
        int64 [size].

    Raises:
        PlanRefused: a variance outside [2^-100, 2^50]; there is no value that means "no noise".
    """
    _check(variance, size)
    # Both at once: what a call costs by itself is more than what a short vector does.
    drawn = _poisson(variance / 2.0).draw(2 * size, rng)
    return drawn[:size] - drawn[size:]


def discrete_gaussian(variance: float, size: int, rng: SecureRandom) -> Ints:
    """Independent draws of the discrete Gaussian: P(k) proportional to exp(-k^2 / (2 variance)).

    Canonne, Kamath and Steinke 2020 ("The Discrete Gaussian for Differential Privacy"),
    Definition 1, with `variance` for their sigma^2. The variance of a draw is at most that, and
    less only where `variance` is below 1 or so. Sums of shares are close to a discrete Gaussian,
    and not exactly one; the accounting pays for that (Kairouz, Liu and Steinke 2021).

    The support is cut off nowhere, and the exponent is rounded three times in float64, so that
    within 10 standard deviations each probability is off by a relative 1e-13 at most.

    Args, Returns, Raises: as for `skellam`.
    """
    _check(variance, size)
    return _gaussian(variance).draw(size, rng)


def rounded_gaussian(variance: float, size: int, rng: SecureRandom) -> Ints:
    """Independent draws of a normal variable rounded to the nearest integer.

    P(k) = Phi((k + 1/2) / s) - Phi((k - 1/2) / s) with s^2 = `variance`. For an integer x,
    x + round(N) = round(x + N): what integers with this noise show follows from what they show with
    the normal variable itself, so that every bound of the Gaussian mechanism holds, sampled or not,
    by every accountant. The variance of a draw is about `variance` + 1/12.

    The support is cut off nowhere. The logarithm of P(k) is a sum of positive terms (see
    `rounded_log_weight`); within 10 standard deviations P(k) is off by a relative 1e-12 at most.

    Args:
        variance: of the normal variable, from 1 to 2^50.
        size: number of draws.
        rng: the generator to draw from.

    Returns:
        int64 [size].

    Raises:
        PlanRefused: a variance outside [1, 2^50].
    """
    _check(variance, size)
    if variance < MIN_ROUNDED_VARIANCE:
        raise PlanRefused(f"variance {variance!r} of rounded Gaussian noise is below 1")
    return _rounded(variance).draw(size, rng)


SAMPLERS: Final[Mapping[str, Sampler]] = MappingProxyType(
    {"skellam": skellam, "discrete-gaussian": discrete_gaussian, "gaussian": rounded_gaussian}
)
"""By the name of the mechanism."""


def _check(variance: float, size: int) -> None:
    if not MIN_VARIANCE <= variance <= MAX_VARIANCE:
        raise PlanRefused(f"variance {variance!r} of the noise is outside [2^-100, 2^50]")
    if size < 0:
        raise PlanRefused(f"size {size} of the noise is negative")


@lru_cache(_CACHED)
def _poisson(mean: float) -> StripSampler:
    """Poisson(mean) - floor(mean)."""
    return StripSampler.build(lambda x: poisson_log_weight(x, mean), spread=math.sqrt(mean))


@lru_cache(_CACHED)
def _gaussian(variance: float) -> StripSampler:
    def log_weight(x: Ints) -> NDArray[np.float64]:
        return np.square(x.astype(np.float64)) / (-2.0 * variance)

    return StripSampler.build(log_weight, spread=math.sqrt(variance))


@lru_cache(_CACHED)
def _rounded(variance: float) -> StripSampler:
    return StripSampler.build(
        lambda x: rounded_log_weight(x, variance), spread=math.sqrt(variance + 1.0 / 12.0)
    )


def rounded_log_weight(x: Ints, variance: float) -> NDArray[np.float64]:
    """Log of the mass of a normal variable between x - 1/2 and x + 1/2, up to a constant.

    With k = |x| it is -k^2 / (2 v) + log of the integral of exp(-(2 k t + t^2) / (2 v)) over t from
    -1/2 to 1/2, by Gauss and Legendre's rule of 16 nodes: all terms are positive. Up to k = 16 v
    the exponent falls by at most 16 over the interval, and the rule, exact to degree 31, is off by
    less than 1e-14; beyond, at 16 standard deviations or more, the figure only has to fall, and
    does.

    Args:
        x: int64 [n].
        variance: v, from 1 to 2^50.

    Returns:
        float64 [n].
    """
    k = np.abs(x).astype(np.float64)
    slope = k / variance
    inner = np.zeros_like(k)
    for t, weight in zip(_NODES, _WEIGHTS, strict=True):
        # Relative to the first node, where the slope leaves most: nothing over- or underflows.
        inner += weight * np.exp(-slope * (t - _NODES[0]) - t * t / (2.0 * variance))
    return np.asarray(-k * slope / 2.0 - slope * _NODES[0] + np.log(inner))


def poisson_log_weight(x: Ints, mean: float) -> NDArray[np.float64]:
    """Log P(k) of a Poisson variable at k = floor(mean) + x, plus log(2 pi) / 2.

    Loader's saddle-point form (2000, "Fast and Accurate Computation of Binomial Probabilities"):
    -D - S(k) - log(k) / 2, with S the error of Stirling's formula and D the deviance
    k log(k / mean) - delta, delta = k - mean. For |v| < 1/4, v = delta / (k + mean), the latter is
    taken as v delta + 2 k (atanh(v) - v), which has terms of the size of D itself: the cancellation
    that logarithms suffer at large means does not occur.

    Off by at most 3e-15 * (4 + D), where D is at most x^2 at x standard deviations. With u = 2^-53:
    k is exact, delta off by a relative u, v by 3 u, v delta by 5 u, the second term by 16 u; for
    larger |v|, where the plain form loses a factor of 5 at most, D is off by 25 u. The logarithm
    of k <= 2^52 is below 37 and adds 37 u, the error of Stirling's formula and the sums less than
    50 u.

    Args:
        x: int64 [n], offsets of absolute value below 2^52.
        mean: from 2^-101 to 2^49.

    Returns:
        float64 [n]; -inf where k < 0.
    """
    floor = math.floor(mean)
    inside = np.maximum(x, -floor)
    k = inside.astype(np.float64) + floor
    delta = inside - (mean - floor)
    v = delta / (k + mean)
    far = np.abs(v) >= _SERIES_BELOW
    deviance = v * delta + 2.0 * k * _atanh_less(np.where(far, 0.0, v))
    with np.errstate(divide="ignore", invalid="ignore"):
        if far.any():
            deviance[far] = k[far] * np.log(k[far] / mean) - delta[far]
        log_p = -deviance - np.log(k) / 2.0 - _stirling_error(k)
    log_p[k == 0.0] = math.log(2.0 * math.pi) / 2.0 - mean
    log_p[x < -floor] = -np.inf
    return log_p


def _atanh_less(v: NDArray[np.float64]) -> NDArray[np.float64]:
    """atanh(v) - v for |v| < 1/4, without cancellation: its series, to where it is below 2^-53."""
    square = v * v
    largest = float(square.max()) if v.size else 0.0
    terms = 1 if largest == 0.0 else 1 + math.ceil(-53.0 * math.log(2.0) / math.log(largest))
    series = np.zeros_like(v)
    for term in range(terms, 0, -1):
        series = square * (1.0 / (2 * term + 1) + series)
    return v * series


def _stirling_error(k: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log k! - (k log k - k + log(2 pi k) / 2), for k >= 1; the series ends below 2^-53."""
    inverse = 1.0 / (k * k)
    series = (1 / 1260 - inverse * (1 / 1680 - inverse / 1188)) * inverse
    series = (1 / 12 - inverse * (1 / 360 - series)) / k
    small = np.flatnonzero(k < _STIRLING_TABLE)
    series[small] = _STIRLING[k[small].astype(np.int64)]
    return series


def _stirling(k: int) -> float:
    if k == 0:
        return math.nan
    half_log = math.log(2.0 * math.pi * k) / 2.0
    return math.lgamma(k + 1) - (k * math.log(k) - k + half_log)


_STIRLING: Final = np.array([_stirling(k) for k in range(_STIRLING_TABLE)])
_NODES, _WEIGHTS = (half / 2.0 for half in np.polynomial.legendre.leggauss(16))
"""Of the interval from -1/2 to 1/2."""
