"""The tables against the distribution that they stand for, integer by integer, and the tails."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from scipy.stats import chi2

from privacy.noise import _gaussian, _poisson
from privacy.rng import SecureRandom
from privacy.strips import StripSampler, _alias, _below

KEY = bytes(range(32))
ALPHA = 1e-6
COLUMNS = 1024


def gaussian_log(x: np.ndarray) -> np.ndarray:
    return -np.square(x.astype(np.float64)) / (2 * 50.0**2)


def half_line_log(x: np.ndarray) -> np.ndarray:
    """Geometric from 0 on: no left tail at all."""
    return np.where(x < 0, -np.inf, -0.25 * x)


def weights_of(sampler: StripSampler) -> list[int]:
    """What each strip is chosen with, in 2^-32, read back from the alias tables."""
    chosen = [0] * len(sampler.log_height)
    share = 2**32 // COLUMNS
    for column in range(COLUMNS):
        cut = int(sampler.cut[column])
        chosen[int(sampler.strip[2 * column])] += cut
        chosen[int(sampler.strip[2 * column + 1])] += share - cut
    return chosen


def tabled(sampler: StripSampler) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All integers of all strips, what each is kept with, and log P(k) up to a constant."""
    width = 1 << sampler.low_bits
    weights = np.array(weights_of(sampler), dtype=np.float64)[:-2]
    strips = len(weights)
    first = np.zeros(strips, dtype=np.int64)
    first[sampler.strip[sampler.strip < strips]] = sampler.first[sampler.strip < strips]
    every = (first[:, None] + np.arange(width)).astype(np.int64)
    chance = np.exp(
        sampler.log_weight(every.reshape(-1)).reshape(every.shape).T - sampler.log_height[:-2]
    ).T
    with np.errstate(divide="ignore"):
        return every, chance, np.log(weights)[:, None] + np.log(chance)


SAMPLERS: dict[str, Callable[[], StripSampler]] = {
    "poisson 2^-11": lambda: _poisson(2.0**-11),
    "poisson 0.5": lambda: _poisson(0.5),
    "poisson 5.5": lambda: _poisson(5.5),
    "poisson 1000": lambda: _poisson(1000.0),
    "poisson 123456.7": lambda: _poisson(123456.7),
    "gaussian 0.01": lambda: _gaussian(0.01),
    "gaussian 3": lambda: _gaussian(3.0),
    "gaussian 1e7": lambda: _gaussian(1e7),
    "geometric": lambda: StripSampler.build(half_line_log, spread=4.0),
    "short": lambda: StripSampler.build(gaussian_log, spread=50.0, reach=0.5),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_tables_give_each_integer_its_probability(name: str) -> None:
    """P(k) / p(k) is one constant, whatever the strip, and no chance passes 1."""
    sampler = SAMPLERS[name]()
    weights = weights_of(sampler)
    assert sum(weights) == 2**32
    every, chance, log_p = tabled(sampler)
    assert len(np.unique(every)) == every.size
    assert chance.max() <= 1 + 1e-13
    possible = np.isfinite(log_p) & (chance > 1e-300)
    ratio = log_p[possible] - sampler.log_weight(every[possible])
    assert np.ptp(ratio) < 2e-13
    assert possible.any()


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_accepted_unseen_would_be_accepted_seen(name: str) -> None:
    sampler = SAMPLERS[name]()
    _, chance, _ = tabled(sampler)
    strips = len(chance)
    sure = np.zeros(strips + 2)
    sure[sampler.strip] = sampler.sure
    assert (sure[:-2] * 2.0 ** -(32 - sampler.low_bits) <= chance.min(axis=1)).all()
    assert not sure[-2:].any()


@pytest.mark.parametrize("name", SAMPLERS)
def test_tails_begin_where_strips_end_and_lie_under_their_steps(name: str) -> None:
    sampler = SAMPLERS[name]()
    every, _, _ = tabled(sampler)
    weights = weights_of(sampler)
    for number, tail in enumerate(sampler.tails):
        end = every.max() if tail.side == 1 else every.min()
        if weights[len(sampler.log_height) - 2 + number] == 0:
            assert sampler.log_weight(np.array([tail.edge]))[0] == -np.inf
            continue
        assert tail.edge == end + tail.side
        width = 1 << tail.step_bits
        far = tail.edge + tail.side * np.arange(40 * width)[:: max(1, width // 64)]
        steps = np.abs(far - tail.edge) // width
        with np.errstate(invalid="ignore"):
            height = sampler.log_height[len(sampler.log_height) - 2 + number]
            mass = height + sampler.low_bits * math.log(2)
            stairs = mass - (tail.step_bits + 1 + steps) * math.log(2)
            assert (sampler.log_weight(far) <= stairs + 1e-12).all()


@pytest.mark.parametrize("reach", [0.0, 0.5])
def test_draws_from_the_tails_follow_the_distribution(reach: float) -> None:
    """Strips that end within the bulk: a third or more of the draws come from the tails."""
    sampler = StripSampler.build(gaussian_log, spread=50.0, reach=reach)
    sample = sampler.draw(40_000, SecureRandom.from_key(KEY))
    assert np.mean((sample > 45) | (sample < -45)) > 0.3
    assert not fits_badly(sample, gaussian_log)
    assert fits_badly(sample, lambda x: gaussian_log(x) * 1.12)
    assert fits_badly(np.where(sample > 45, sample + 2, sample), gaussian_log)


def test_a_support_that_ends_is_never_left() -> None:
    sampler = StripSampler.build(half_line_log, spread=4.0, reach=0.0)
    sample = sampler.draw(40_000, SecureRandom.from_key(KEY))
    assert sample.min() == 0
    assert sample.max() > 16
    assert not fits_badly(sample, half_line_log)
    assert fits_badly(sample, lambda x: half_line_log(x) * 1.05)


def fits_badly(sample: np.ndarray, log_weight: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Chi-square test of fit, one bin per 5 integers; false alarms with probability ALPHA."""
    every = np.arange(-1000, 1000)
    p = np.exp(log_weight(every))
    bins = every // 5
    expected = np.bincount(bins - bins[0], weights=p / p.sum()) * len(sample)
    observed = np.bincount(sample // 5 - bins[0], minlength=len(expected))
    kept = expected >= 10
    statistic = ((observed[kept] - expected[kept]) ** 2 / expected[kept]).sum()
    return bool(statistic > chi2.ppf(1 - ALPHA, kept.sum() - 1))


def test_the_alias_tables_keep_any_weights_exactly() -> None:
    generator = np.random.default_rng(3)
    for size in (1, 2, 1023, 1024):
        parts = generator.dirichlet(np.full(size, 0.05)) * (2**32 - size)
        weights = [int(part) for part in parts]
        weights[0] += 2**32 - sum(weights)
        cut, strip = _alias(weights)
        chosen = [0] * COLUMNS
        for column in range(COLUMNS):
            chosen[strip[2 * column]] += int(cut[column])
            chosen[strip[2 * column + 1]] += 2**32 // COLUMNS - int(cut[column])
        assert chosen[:size] == weights


class Scripted(SecureRandom):
    """Fractions as told."""

    __slots__ = ("told",)

    def __init__(self, *told: float) -> None:
        super().__init__(bytes(32), reproducible=True)
        self.told = list(told)

    def fractions(self, count: int) -> np.ndarray:
        return np.array([self.told.pop(0) for _ in range(count)])


def test_a_uniform_number_is_compared_to_the_last_digit() -> None:
    """The number is (lead + f1 + f2 2^-53 + ...) / 2^bits; chances are compared with it exactly."""
    chance = np.array([0.5, 0.5, (7 + 0.25) / 16, (7 + 0.25) / 16, 1.0, 0.0, 3.0])
    lead = np.array([7, 8, 7, 7, 15, 0, 15], dtype=np.uint32)
    below = _below(chance, lead, 4, Scripted(0.25 - 2.0**-53, 0.25))
    assert below.tolist() == [True, False, True, False, True, False, True]
    tiny = np.array([2.0**-80, 2.0**-80])
    lead = np.zeros(2, dtype=np.uint32)
    far = Scripted(0.0, 0.0, 2.0**-23 - 2.0**-53, 2.0**-23)
    assert _below(tiny, lead, 4, far).tolist() == [True, False]


def test_chances_are_kept_in_the_mean() -> None:
    """6 standard errors, and one percent off is seen; the lead decides less than half of them."""
    count = 200_000
    rng = SecureRandom.from_key(KEY)
    for chance in (0.3, 0.97, 1 / 3):
        lead = rng.words(count) & np.uint32(1)
        share = _below(np.full(count, chance), lead, 1, rng).mean()
        error = math.sqrt(chance * (1 - chance) / count)
        assert abs(share - chance) < 6 * error < 0.01


def test_strips_of_the_discrete_gaussian_agree_with_mpmath() -> None:
    sampler = _gaussian(3.0)
    every, _, log_p = tabled(sampler)
    inside = np.abs(every) <= 17
    found = np.exp(log_p[inside] - np.log(np.exp(log_p[np.isfinite(log_p)]).sum()))
    with mpmath.workdps(40):
        total = mpmath.nsum(
            lambda k: mpmath.exp(-(k**2) / mpmath.mpf(6)), [-mpmath.inf, mpmath.inf]
        )
        for k, p in zip(every[inside], found, strict=True):
            exact = mpmath.exp(-(int(k) ** 2) / mpmath.mpf(6)) / total
            assert abs(p / float(exact) - 1) < 1e-13
