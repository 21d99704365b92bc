"""Tests with stated error rates, and the lower bound on epsilon: formulas, rates and power."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from privacy.empirical import (
    audit_p_value,
    count_limits,
    epsilon_lower_bound,
    expected_guesses,
    most_alike,
    proportion_interval,
    variance_limits,
    variance_power,
)
from privacy.errors import PlanRefused


@pytest.mark.parametrize(
    ("m", "r", "v", "delta", "expected"),
    [(1000, 100, 75, 1e-4, 0.673), (100_000, 1510, 1439, 1e-5, 2.675), (26, 26, 26, 0.0, 2.10)],
)
def test_published_lower_bounds(m: int, r: int, v: int, delta: float, expected: float) -> None:
    """The last one is (1/26) log(1/0.05) turned into epsilon: all right, and still no more."""
    assert abs(epsilon_lower_bound(m, r, v, delta, 0.05) - expected) < 5e-3


def test_without_delta_the_bound_is_the_binomial_tail() -> None:
    for epsilon in (0.0, 0.5, 2.0):
        truth = math.exp(epsilon) / (1.0 + math.exp(epsilon))
        exact = sum(math.comb(40, k) * truth**k * (1.0 - truth) ** (40 - k) for k in range(30, 41))
        assert math.isclose(audit_p_value(500, 40, 30, epsilon, 0.0), exact, rel_tol=1e-9)


def test_the_worst_mechanism_passes_the_bound_as_often_as_is_said() -> None:
    """Randomised response is as bad as epsilon allows: the p-value is its own tail, no less.

    With delta it may show all bits with probability delta each: the bound must cover that too.
    """
    rng = np.random.default_rng(5)
    m, epsilon, delta, runs = 60, 1.0, 0.03, 20_000
    truth = math.exp(epsilon) / (1.0 + math.exp(epsilon))
    shown = rng.random((runs, m)) < delta
    right = np.where(shown, True, rng.random((runs, m)) < truth).sum(axis=1)
    for v in (44, 48, 52):
        found = float((right >= v).mean())
        error = 5.0 * math.sqrt(found / runs) + 5.0 / runs
        assert found <= audit_p_value(m, m, v, epsilon, delta) + error
    # Without its delta term the bound would not hold.
    assert (right >= 50).mean() > 1.2 * audit_p_value(m, m, 50, epsilon, 0.0)


def test_a_lower_bound_is_wrong_as_rarely_as_p_says() -> None:
    """Monte Carlo of the whole chain at a true epsilon of 1, two-sided at 5 deviations."""
    rng = np.random.default_rng(6)
    r, p, runs = 200, 0.05, 20_000
    law = stats.binom(r, math.e / (1.0 + math.e))
    draws = law.rvs(runs, random_state=rng)
    bounds = {v: epsilon_lower_bound(1000, r, int(v), 0.0, p) for v in np.unique(draws)}
    wrong = np.mean([bounds[v] > 1.0 for v in draws])
    assert wrong <= p + 5.0 * math.sqrt(p / runs)
    assert wrong > p / 3.0  # not so careful that it says nothing


def test_the_bound_grows_with_right_guesses_and_shrinks_with_delta() -> None:
    bounds = [epsilon_lower_bound(10_000, 200, v, 1e-5, 0.05) for v in range(100, 201, 10)]
    assert bounds == sorted(bounds)
    assert bounds[0] == 0.0
    assert bounds[-1] > 3.0
    assert epsilon_lower_bound(10_000, 200, 180, 1e-3, 0.05) < bounds[8]


@pytest.mark.parametrize("shift", [0.0, 0.7, 2.0, 5.0])
def test_expected_guesses_are_those_of_gaussian_scores(shift: float) -> None:
    rng = np.random.default_rng(7)
    m, r = 10_000, 400
    right = []
    for _ in range(200):
        included = rng.random(m) < 0.5
        order = np.argsort(rng.standard_normal(m) + shift * included)
        right.append(included[order[-r // 2 :]].sum() + (~included[order[: r // 2]]).sum())
    assert abs(np.mean(right) - expected_guesses(m, r, shift)) < 5.0 * math.sqrt(r / 4 / 200) + 1


# --- false alarms and power -----------------------------------------------------------------------

RUNS, ALPHA = 4000, 0.05


def rate_is(found: float, expected: float) -> bool:
    """Within five standard errors."""
    return abs(found - expected) <= 5.0 * math.sqrt(expected * (1.0 - expected) / RUNS)


@pytest.mark.parametrize("ratio", [1.0, 0.9, 0.75])
def test_variances_are_rejected_as_often_as_is_said(ratio: float) -> None:
    rng = np.random.default_rng(8)
    samples = rng.standard_normal((RUNS, 300)) * math.sqrt(ratio)
    limits = variance_limits(300, ALPHA)
    rejected = np.mean([not limits.hold(float(np.square(one).mean())) for one in samples])
    assert rate_is(float(rejected), variance_power(300, ALPHA, ratio))
    assert ratio < 1.0 or math.isclose(variance_power(300, ALPHA, 1.0), ALPHA, rel_tol=1e-9)


def test_a_missing_share_of_n_needs_about_110_n_squared_samples() -> None:
    for n in (5, 10, 30):
        assert variance_power(110 * n * n, 1e-6, (n - 1) / n) > 0.97
        assert variance_power(25 * n * n, 1e-6, (n - 1) / n) < 0.2


def test_counts_are_rejected_as_often_as_is_said() -> None:
    rng = np.random.default_rng(9)
    for trials, rate, groups in ((24, 0.25, 300), (300, 0.25, 24), (24, 0.1, 300)):
        limits = count_limits(trials, rate, groups, ALPHA)
        counts = rng.binomial(trials, rate, size=(RUNS, groups))
        ratios = np.square(counts - trials * rate).mean(axis=1) / (trials * rate * (1 - rate))
        rejected = np.mean([not limits.hold(float(one)) for one in ratios])
        assert abs(rejected - ALPHA) < 0.02, (trials, rate, groups)
        assert not limits.hold(0.0)  # batches of fixed size


def test_independent_rows_are_rarely_called_alike_and_copies_always() -> None:
    rng = np.random.default_rng(10)
    alarms = 0
    for _ in range(500):
        rows = np.rint(10 * rng.standard_normal((6, 200))).astype(np.int64)
        alarms += most_alike(rows).p_value <= ALPHA
    assert alarms <= 500 * ALPHA + 5 * math.sqrt(500 * ALPHA)
    rows[4] = rows[1]
    found = most_alike(rows)
    assert (found.one, found.other) == (1, 4)
    assert found.p_value < 1e-40
    rows[4] = -rows[2]
    assert most_alike(rows).p_value < 1e-40
    assert most_alike(np.zeros((3, 10), dtype=np.int64)).p_value == 1.0


def test_intervals_miss_as_rarely_as_is_said() -> None:
    rng = np.random.default_rng(11)
    for truth in (0.01, 0.3):
        hits = rng.binomial(100, truth, size=RUNS)
        missed = np.mean([not proportion_interval(int(h), 100, ALPHA).hold(truth) for h in hits])
        assert missed <= ALPHA + 5 * math.sqrt(ALPHA / RUNS)
    assert proportion_interval(0, 10, 0.05).low == 0.0
    assert math.isclose(proportion_interval(0, 10, 0.05).high, 1 - 0.025**0.1)
    assert proportion_interval(10, 10, 0.05).high == 1.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: audit_p_value(10, 11, 5, 1.0, 0.0),
        lambda: audit_p_value(10, 5, 6, 1.0, 0.0),
        lambda: audit_p_value(10, 5, -1, 1.0, 0.0),
        lambda: audit_p_value(10, 5, 3, -1.0, 0.0),
        lambda: audit_p_value(10, 5, 3, math.nan, 0.0),
        lambda: audit_p_value(10, 5, 3, 1.0, 1.0),
        lambda: epsilon_lower_bound(10, 5, 3, 0.0, 0.0),
        lambda: variance_limits(0, 0.1),
        lambda: variance_limits(10, 1.0),
        lambda: count_limits(10, 1.0, 10, 0.1),
        lambda: proportion_interval(11, 10, 0.1),
    ],
)
def test_what_makes_no_sense_is_refused(call: object) -> None:
    with pytest.raises(PlanRefused, match="allowed"):
        call()  # type: ignore[operator]
