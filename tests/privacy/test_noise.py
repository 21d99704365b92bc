"""The sampler against the exact distribution. Keys are fixed; alpha is for a fresh key."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from scipy.stats import chi2, poisson

from privacy.errors import PlanRefused
from privacy.noise import (
    MAX_VARIANCE,
    SAMPLERS,
    Sampler,
    _poisson,
    discrete_gaussian,
    poisson_log_weight,
    rounded_gaussian,
    rounded_log_weight,
    skellam,
)
from privacy.rng import SecureRandom
from tests.privacy.skellam_exact import log_pmf

KEY = bytes(range(32))
ALPHA = 1e-6


def bins_reject(
    sample: np.ndarray,
    variance: float,
    log_p: Callable[[float, int], np.ndarray] = log_pmf,
) -> bool:
    """Chi-square test of fit to the exact pmf, in up to 60 bins of equal width plus two tails."""
    spread = math.sqrt(variance)
    reach = int(9 * spread) + 12
    pmf = np.exp(log_p(variance, reach))
    width = max(1, round(spread / 8))
    edges = np.arange(-4 * max(spread, 1), 4 * max(spread, 1), width).round().astype(int)
    cut = np.searchsorted(edges, np.arange(-reach, reach + 1), side="right")
    expected = np.bincount(cut, weights=pmf, minlength=len(edges) + 1) * len(sample)
    observed = np.bincount(np.searchsorted(edges, sample, side="right"), minlength=len(edges) + 1)
    kept = expected >= 10
    statistic = ((observed[kept] - expected[kept]) ** 2 / expected[kept]).sum()
    return bool(statistic > chi2.ppf(1 - ALPHA, kept.sum() - 1))


@pytest.mark.parametrize("variance", [0.05, 1.0, 7.3, 19.9, 20.1, 500.0, 1999.0, 2001.0, 1e5, 1e9])
def test_draws_follow_the_exact_distribution(variance: float) -> None:
    sample = skellam(variance, 200_000, SecureRandom.from_key(KEY))
    assert sample.dtype == np.int64
    assert not bins_reject(sample, variance)


@pytest.mark.parametrize("variance", [1.0, 500.0, 1e5])
def test_the_test_of_fit_has_power(variance: float) -> None:
    rng = SecureRandom.from_key(KEY)
    assert bins_reject(skellam(variance / 2, 200_000, rng), variance)
    assert bins_reject(skellam(variance * 0.95, 200_000, rng), variance)
    assert bins_reject(
        skellam(variance, 200_000, rng) + round(math.sqrt(variance) / 20 + 0.5), variance
    )


@pytest.mark.parametrize("mean", [5.5, 1000.5, 123456.7])
def test_each_poisson_variable_follows_its_distribution(mean: float) -> None:
    """A finer test of fit than on differences: 2 million draws in bins of an eighth of a spread."""
    count, spread = 2_000_000, math.sqrt(mean)
    sample = _poisson(mean).draw(count, SecureRandom.from_key(KEY)) + math.floor(mean)
    assert sample.min() >= 0
    edges = np.unique(np.floor(mean + spread * np.arange(-4, 4.01, 0.125)))
    edges = edges[edges >= 0]
    expected = np.diff(poisson.cdf([-1, *edges, np.inf], mean)) * count
    observed = np.bincount(np.searchsorted(edges, sample, side="left"), minlength=len(expected))
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert statistic < chi2.ppf(1 - ALPHA, len(expected) - 1)


def test_shares_add_up_to_the_distribution_that_is_accounted() -> None:
    rng = SecureRandom.from_key(KEY)
    total = sum(skellam(40.0, 100_000, rng) for _ in range(7))
    assert not bins_reject(np.asarray(total), 280.0)
    assert bins_reject(np.asarray(total), 320.0)


@pytest.mark.parametrize("sampler", [skellam, discrete_gaussian])
@pytest.mark.parametrize("variance", [1e8, 1e12, MAX_VARIANCE])
def test_large_variances_have_the_right_moments(sampler: Sampler, variance: float) -> None:
    """Two-sided at 6 standard errors; kurtosis of both is a Gaussian's."""
    count = 200_000
    sample = sampler(variance, count, SecureRandom.from_key(KEY)).astype(np.float64)
    assert abs(sample.mean()) < 6 * math.sqrt(variance / count)
    assert abs(sample.var() / variance - 1) < 6 * math.sqrt(2 / count)
    assert abs((sample**4).mean() / variance**2 - 3) < 6 * math.sqrt(96 / count)


@pytest.mark.parametrize("variance", [2.0**-10, 0.05])
def test_small_variances_have_the_right_counts(variance: float) -> None:
    """Zeros, ones and twos at 6 standard errors; half the variance is seen."""
    count = 1_000_000
    sample = np.abs(skellam(variance, count, SecureRandom.from_key(KEY)))

    def fits(assumed: float) -> bool:
        half = np.exp(log_pmf(assumed, 12))[12:15]
        shares = half * [1, 2, 2]
        counts = np.bincount(sample, minlength=3)[:3]
        errors = 6 * np.sqrt(count * shares * (1 - shares)) + 6
        return bool((np.abs(counts - count * shares) < errors).all())

    assert fits(variance)
    assert not fits(variance / 2)
    assert not fits(variance * 1.2)


@pytest.mark.parametrize(
    "mean",
    [
        2.0**-101,
        1e-9,
        2.0**-11,
        0.5,
        1.0,
        5.5,
        15.9,
        17.2,
        333.3,
        1000.0,
        12345.678,
        8e7,
        5e11,
        2.0**49 + 0.25,
    ],
)
def test_log_probabilities_are_as_exact_as_is_said(mean: float) -> None:
    spreads = [-10, -6, -3.1, -1, -0.1, 0, 0.1, 1, 3, 6, 10]
    counts = {max(0, math.floor(mean + s * math.sqrt(mean))) for s in spreads} | {0, 1, 2, 16}
    with mpmath.workdps(60):
        for count in counts:
            at = float((count - mpmath.mpf(mean)) / mpmath.sqrt(mean))
            exact = count * mpmath.log(mean) - mean - mpmath.loggamma(count + 1)
            exact += mpmath.log(2 * mpmath.pi) / 2
            found = float(poisson_log_weight(np.array([count - math.floor(mean)]), mean)[0])
            assert abs(float(exact - found)) <= 3e-15 * (4 + min(at * at, abs(float(exact))))
    below = np.array([-math.floor(mean) - 1, -math.floor(mean) - 10])
    assert poisson_log_weight(below, mean).tolist() == [-math.inf, -math.inf]


@pytest.mark.parametrize("variance", [0.3, 1.0, 40.0, 1e5])
def test_the_discrete_gaussian_follows_its_distribution(variance: float) -> None:
    sample = discrete_gaussian(variance, 200_000, SecureRandom.from_key(KEY))
    assert sample.dtype == np.int64
    assert not bins_reject(sample, variance, gaussian_log_pmf)
    assert bins_reject(sample, variance * 1.05, gaussian_log_pmf)
    if variance < 2:
        assert bins_reject(sample, variance)  # it is no Skellam


def gaussian_log_pmf(variance: float, reach: int) -> np.ndarray:
    log_p = -np.square(np.arange(-reach, reach + 1.0)) / (2 * variance)
    return log_p - np.log(np.exp(log_p).sum())


def test_coordinates_and_calls_do_not_repeat() -> None:
    rng = SecureRandom.from_os()
    one, two = skellam(1e10, 1000, rng), skellam(1e10, 1000, rng)
    assert len(np.unique(np.concatenate([one, two]))) > 1950
    assert abs(np.corrcoef(one, two)[0, 1]) < 6 / math.sqrt(1000)


def rounded_log_pmf(variance: float, reach: int) -> np.ndarray:
    """Of a normal variable rounded to the nearest integer, from its definition."""
    with mpmath.workdps(40):
        edges = [
            mpmath.ncdf(-(k - mpmath.mpf("0.5")) / mpmath.sqrt(variance)) for k in range(reach + 2)
        ]
        upper = [float(mpmath.log(edges[k] - edges[k + 1])) for k in range(reach + 1)]
    return np.array(upper[:0:-1] + upper)


@pytest.mark.parametrize("variance", [1.0, 7.3, 500.0, 1e5])
def test_rounded_gaussian_draws_follow_the_exact_distribution(variance: float) -> None:
    """alpha 1e-6; half the variance and 5 % less are noticed."""
    rng = SecureRandom.from_key(KEY)
    assert not bins_reject(rounded_gaussian(variance, 200_000, rng), variance, rounded_log_pmf)
    if variance >= 2.0:
        wrong = rounded_gaussian(variance / 2, 200_000, rng)
        assert bins_reject(wrong, variance, rounded_log_pmf)
        nearly = rounded_gaussian(variance * 0.95, 200_000, rng)
        assert bins_reject(nearly, variance, rounded_log_pmf)


@pytest.mark.parametrize("variance", [1.0, 2.5, 1e3, 2.0**30, 2.0**50])
def test_the_weights_of_a_rounded_gaussian_are_exact(variance: float) -> None:
    x = np.unique([round(t * math.sqrt(variance)) for t in (0, 0.01, 0.5, 1, 3, -3, 6, 9.9)])
    found = rounded_log_weight(x, variance)
    with mpmath.workdps(60):
        spread = mpmath.sqrt(variance)
        half = mpmath.mpf("0.5")
        exact = [
            mpmath.log(
                mpmath.ncdf(-(abs(int(k)) - half) / spread)
                - mpmath.ncdf(-(abs(int(k)) + half) / spread)
            )
            for k in x
        ]
        errors = [float(f - e) for f, e in zip(found, exact, strict=True)]
    # Up to a constant; within 10 deviations the product promises 1e-12.
    assert max(errors) - min(errors) < 1e-13


def test_the_weights_of_a_rounded_gaussian_fall_for_ever() -> None:
    x = np.array([0, 1, 2, 10, 10**3, 10**6, 10**9, 2**52])
    found = rounded_log_weight(x, 1.0)
    assert np.isfinite(found).all()
    assert (np.diff(found) < 0).all()


def test_a_rounded_gaussian_below_one_step_is_refused() -> None:
    with pytest.raises(PlanRefused, match="below 1"):
        rounded_gaussian(0.99, 1, SecureRandom.from_os())


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_no_draws_are_no_draws(sampler: Sampler) -> None:
    assert sampler(1.0, 0, SecureRandom.from_os()).shape == (0,)


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("variance", [0.0, -1.0, 2.0**-101, math.nan, math.inf, 2 * MAX_VARIANCE])
def test_variances_without_noise_or_without_room_are_refused(
    sampler: Sampler, variance: float
) -> None:
    with pytest.raises(PlanRefused, match="variance"):
        sampler(variance, 3, SecureRandom.from_os())


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_a_negative_size_is_refused(sampler: Sampler) -> None:
    with pytest.raises(PlanRefused, match="size"):
        sampler(1.0, -1, SecureRandom.from_os())


def test_the_smallest_variances_still_draw() -> None:
    for variance in (2.0**-100, 1e-20):
        assert not skellam(variance, 1000, SecureRandom.from_key(KEY)).any()
        assert not discrete_gaussian(variance, 1000, SecureRandom.from_key(KEY)).any()
