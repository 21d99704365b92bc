"""The sampler against the exact distribution. Keys are fixed; alpha is for a fresh key."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from scipy.stats import chi2, poisson

from privacy.errors import PlanRefused
from privacy.noise import LARGE_MEAN, MAX_VARIANCE, _log_poisson, _poisson_less_floor, skellam
from privacy.rng import SecureRandom
from tests.privacy.skellam_exact import log_pmf

KEY = bytes(range(32))
ALPHA = 1e-6


def bins_reject(sample: np.ndarray, variance: float) -> bool:
    """Chi-square test of fit to the exact pmf, in up to 60 bins of equal width plus two tails."""
    spread = math.sqrt(variance)
    reach = int(9 * spread) + 12
    pmf = np.exp(log_pmf(variance, reach))
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


@pytest.mark.parametrize("mean", [LARGE_MEAN, 1000.5, 123456.7])
def test_each_poisson_variable_follows_its_distribution(mean: float) -> None:
    """A finer test of fit than on differences: 2 million draws in bins of an eighth of a spread."""
    count, spread = 2_000_000, math.sqrt(mean)
    sample = _poisson_less_floor(mean, count, SecureRandom.from_key(KEY)) + math.floor(mean)
    edges = np.floor(mean + spread * np.arange(-4, 4.01, 0.125))
    expected = np.diff(poisson.cdf([-1, *edges, np.inf], mean)) * count
    observed = np.bincount(np.searchsorted(edges, sample, side="left"), minlength=len(expected))
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert statistic < chi2.ppf(1 - ALPHA, len(expected) - 1)


def test_shares_add_up_to_the_distribution_that_is_accounted() -> None:
    rng = SecureRandom.from_key(KEY)
    total = sum(skellam(40.0, 100_000, rng) for _ in range(7))
    assert not bins_reject(np.asarray(total), 280.0)
    assert bins_reject(np.asarray(total), 320.0)


@pytest.mark.parametrize("variance", [1e8, 1e12, MAX_VARIANCE])
def test_large_variances_have_the_right_moments(variance: float) -> None:
    """Two-sided at 6 standard errors; kurtosis of a large Skellam is a Gaussian's."""
    count = 200_000
    sample = skellam(variance, count, SecureRandom.from_key(KEY)).astype(np.float64)
    assert abs(sample.mean()) < 6 * math.sqrt(variance / count)
    assert abs(sample.var() / variance - 1) < 6 * math.sqrt(2 / count)
    assert abs((sample**4).mean() / variance**2 - 3) < 6 * math.sqrt(96 / count)


@pytest.mark.parametrize("mean", [LARGE_MEAN, 12345.678, 8e7, 5e11, 2.0**49 + 0.25])
def test_log_probabilities_lose_nothing_at_large_means(mean: float) -> None:
    spreads = [-10, -6, -3.1, -1, -0.1, 0, 0.1, 1, 3, 6, 10]
    with mpmath.workdps(60):
        for count in [math.floor(mean + s * math.sqrt(mean)) for s in spreads]:
            exact = count * mpmath.log(mean) - mean - mpmath.loggamma(count + 1)
            offset = float(count - mpmath.mpf(mean))
            found = float(_log_poisson(np.array([offset]), mean)[0])
            assert abs(float(exact - found)) <= 3e-15 * math.sqrt(mean)
    assert _log_poisson(np.array([-mean, -0.6 * mean]), mean).tolist() == [-math.inf, -math.inf]


def test_coordinates_and_calls_do_not_repeat() -> None:
    rng = SecureRandom.from_os()
    one, two = skellam(1e10, 1000, rng), skellam(1e10, 1000, rng)
    assert len(np.unique(np.concatenate([one, two]))) > 1950
    assert abs(np.corrcoef(one, two)[0, 1]) < 6 / math.sqrt(1000)


def test_no_draws_are_no_draws() -> None:
    assert skellam(1.0, 0, SecureRandom.from_os()).shape == (0,)


@pytest.mark.parametrize("variance", [0.0, -0.0, -1.0, math.nan, math.inf, 2 * MAX_VARIANCE])
def test_variances_without_noise_or_without_room_are_refused(variance: float) -> None:
    with pytest.raises(PlanRefused, match="variance"):
        skellam(variance, 3, SecureRandom.from_os())


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(PlanRefused, match="size"):
        skellam(1.0, -1, SecureRandom.from_os())
