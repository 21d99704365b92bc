"""What samples say about noise, draws and epsilon: tests with stated error rates, lower bounds.

A conformance test compares a sample with the law that is claimed. Its false-alarm rate `alpha` is
the probability that it rejects a right mechanism; its power is the probability that it rejects one
particular wrong one. Both are given here by the same formulas that make the decision.

The lower bound on epsilon from canaries is that of Steinke, Nasr and Jagielski 2023, "Privacy
Auditing with One (1) Training Run".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from privacy.errors import PlanRefused

_STEPS: Final = 40  # of the bisection: below 1e-9 of the first unit interval
_MAX_EPSILON: Final = 64.0
"""Above it a coin that tells the truth with probability e^eps / (1 + e^eps) never lies."""


@dataclass(frozen=True)
class Limits:
    """What a statistic stays between, but for its false-alarm rate."""

    low: float
    high: float

    def hold(self, value: float) -> bool:
        """Whether the value is a number between them."""
        return self.low <= value <= self.high


def variance_limits(samples: int, alpha: float) -> Limits:
    """Two-sided limits of mean(x^2) / variance for `samples` independent values of mean zero.

    Those of a normal law, from the chi-square distribution. Skellam and discrete Gaussian noise of
    variance v has a kurtosis larger by about 1/v, which changes nothing where v is 100 or more.
    """
    _check_alpha(alpha)
    if samples < 1:
        raise PlanRefused(f"{samples} samples; allowed: 1 or more")
    law = stats.chi2(samples)
    return Limits(float(law.ppf(alpha / 2)) / samples, float(law.isf(alpha / 2)) / samples)


def variance_power(samples: int, alpha: float, ratio: float) -> float:
    """Probability that `variance_limits` rejects noise with `ratio` times the claimed variance."""
    if ratio == 0.0:
        return 1.0
    limits, law = variance_limits(samples, alpha), stats.chi2(samples)
    below = law.cdf(limits.low * samples / ratio)
    return float(below + law.sf(limits.high * samples / ratio))


def count_limits(trials: int, rate: float, groups: int, alpha: float) -> Limits:
    """Two-sided limits of mean((K - trials * rate)^2) / variance over `groups` binomial counts.

    The sum of squares is taken as a multiple of a chi-square variable with the same mean and
    variance; its exact fourth moment enters. Good where groups * trials * rate * (1 - rate) is 100
    or more.
    """
    _check_alpha(alpha)
    if not 0.0 < rate < 1.0:
        raise PlanRefused(f"counts of rate {rate!r} do not vary; allowed: above 0 and below 1")
    law = stats.binom(trials, rate)
    excess = float(law.stats(moments="k"))
    freedom = 2.0 * groups / (2.0 + excess)
    shape = stats.chi2(freedom)
    return Limits(float(shape.ppf(alpha / 2)) / freedom, float(shape.isf(alpha / 2)) / freedom)


@dataclass(frozen=True)
class Pair:
    """The two rows of a sample that look least independent.

    Attributes:
        one, other: their positions.
        p_value: how likely the most remarkable of all pairs is as remarkable as this.
    """

    one: int
    other: int
    p_value: float


def most_alike(rows: NDArray[np.int64]) -> Pair:
    """The pair of rows whose signs agree or disagree most often, tested over all pairs.

    Of the coordinates where neither of two independent rows is zero, the agreeing ones are
    Binomial(k, 1/2) where one row has independent symmetric coordinates: exact and two-sided for
    one pair, times the number of pairs.

    Args:
        rows: int64 [k, m], k >= 2.
    """
    signs = np.sign(rows).astype(np.float32)  # sums of up to 2^24 signs are exact
    balance = signs @ signs.T
    total = np.abs(signs) @ np.abs(signs).T
    most = (total + np.abs(balance)) / 2.0
    first, second = np.triu_indices(len(rows), k=1)
    p = 2.0 * stats.binom.sf(most[first, second] - 1.0, total[first, second], 0.5)
    least = int(np.argmin(p))
    return Pair(int(first[least]), int(second[least]), min(1.0, float(p[least]) * len(p)))


def proportion_interval(hits: int, trials: int, alpha: float) -> Limits:
    """Clopper-Pearson interval of a probability: misses it with probability alpha at most."""
    _check_alpha(alpha)
    if not 0 <= hits <= trials or trials < 1:
        raise PlanRefused(f"{hits} hits in {trials} trials; allowed: 0 to trials, 1 or more")
    low = 0.0 if hits == 0 else float(stats.beta.ppf(alpha / 2, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(stats.beta.isf(alpha / 2, hits + 1, trials - hits))
    return Limits(low, high)


def audit_p_value(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """Bound on the probability of v right guesses or more out of r, under (epsilon, delta).

    Each of m canaries was included by a fair coin of its own; r of them are guessed, chosen after
    the output was seen. Steinke et al. 2023, Theorem 5.2 with fair coins:

        P[V >= v] <= f(v) + 2 m delta max_{1 <= i <= v} (f(v - i) - f(v)) / i,

    where f(v) = P[Binomial(r, e^eps / (1 + e^eps)) >= v].

    Raises:
        PlanRefused: not 0 <= v <= r <= m, a negative epsilon, or delta outside [0, 1).
    """
    if not (0 <= v <= r <= m and m >= 1):
        raise PlanRefused(f"m {m}, r {r}, v {v}; allowed: 0 <= v <= r <= m")
    if not (epsilon >= 0.0 and 0.0 <= delta < 1.0):
        raise PlanRefused(f"epsilon {epsilon!r}, delta {delta!r}; allowed: 0 or more, and [0, 1)")
    law = stats.binom(r, 1.0 / (1.0 + math.exp(-epsilon)))
    beta = float(law.sf(v - 1))
    if v == 0:
        return 1.0
    back = np.arange(1, v + 1)
    alpha = float(np.max(np.cumsum(law.pmf(v - back)) / back))
    return min(1.0, beta + 2.0 * m * delta * alpha)


def epsilon_lower_bound(m: int, r: int, v: int, delta: float, p: float) -> float:
    """The least epsilon that v right guesses of r do not refute; wrong with probability <= p.

    See `audit_p_value`. 0.0 where they refute nothing.

    Raises:
        PlanRefused: see `audit_p_value`; or p outside (0, 1).
    """
    _check_alpha(p)
    if audit_p_value(m, r, v, 0.0, delta) >= p:
        return 0.0
    low, high = 0.0, 1.0
    while high < _MAX_EPSILON and audit_p_value(m, r, v, high, delta) < p:
        low, high = high, 2.0 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        if audit_p_value(m, r, v, middle, delta) < p:
            low = middle
        else:
            high = middle
    return low


def expected_guesses(m: int, r: int, shift: float) -> int:
    """Right guesses to expect from Gaussian scores whose means differ by `shift` deviations.

    The r / 2 highest of m scores are guessed to be included, the r / 2 lowest not. By symmetry both
    sides are right equally often.
    """
    share = r / 2.0 / m

    def above(level: float) -> float:
        return float(0.5 * stats.norm.sf(level) + 0.5 * stats.norm.sf(level - shift))

    low, high = -10.0, 10.0 + shift
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if above(middle) > share else (low, middle)
    right = 0.5 * float(stats.norm.sf(low - shift))
    return round(r * min(1.0, right / share))


def _check_alpha(alpha: float) -> None:
    if not 0.0 < alpha < 1.0:
        raise PlanRefused(f"error rate {alpha!r}; allowed: above 0 and below 1")
