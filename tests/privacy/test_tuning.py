"""The best of a secret number of trials: its bound, against exact output distributions."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from dp_accounting.rdp import rdp_privacy_accountant
from numpy.typing import NDArray
from scipy import stats

from privacy.accountant import spend
from privacy.errors import EventRefused
from privacy.events import NonPrivate
from privacy.rdp import ORDERS
from privacy.tuning import Family, RandomStopping, selected_epsilon, selected_rdp, uniform_below
from privacy.unit import Relation, Unit
from tests.privacy.plans import with_noise

STOPPINGS = [
    RandomStopping.with_mean(family, mean) for family in Family for mean in (1.5, 5.0, 30.0)
]
stoppings = pytest.mark.parametrize("stopping", STOPPINGS, ids=lambda s: f"{s.family}-{s.mean:.1f}")
Row = NDArray[np.float64]


def weights(stopping: RandomStopping, most: int = 40_000) -> Row:
    """P(K = k) for k = 1.. by Definition 1 of the paper."""
    k = np.arange(1, most + 1)
    log = k * math.log1p(-stopping.gamma)
    if stopping.family is Family.LOGARITHMIC:
        return np.asarray(np.exp(log) / (k * math.log(1.0 / stopping.gamma)))
    return np.asarray(np.exp(log) * stopping.gamma / (1.0 - stopping.gamma))


def best_of(trial: Row, stopping: RandomStopping) -> Row:
    """Exact distribution of the best of K outputs 0 < 1 < ...: the generating function of K."""
    below = np.concatenate([[0.0], np.cumsum(trial)])
    below[-1] = 1.0
    if stopping.family is Family.GEOMETRIC:
        value = stopping.gamma * below / (1.0 - (1.0 - stopping.gamma) * below)
    else:
        value = np.log1p(-(1.0 - stopping.gamma) * below) / math.log(stopping.gamma)
    return np.asarray(np.diff(value))


def best_of_exactly(trial: Row, count: int) -> Row:
    """The same for a number of trials that everybody knows."""
    below = np.minimum(np.concatenate([[0.0], np.cumsum(trial)]), 1.0)
    return np.asarray(np.diff(below**count))


def divergence(p: Row, q: Row) -> Row:
    """Renyi divergence of p from q at each of ORDERS."""
    logs = np.log(q)[None, :] + ORDERS[:, None] * (np.log(p) - np.log(q))[None, :]
    top = logs.max(axis=1)
    total = top + np.log(np.exp(logs - top[:, None]).sum(axis=1))
    return np.asarray(np.maximum(total / (ORDERS - 1.0), 0.0))


def pairs() -> list[tuple[Row, Row]]:
    """Neighbouring output distributions of small mechanisms, the rare output being the best."""
    found = []
    for rare, epsilon in itertools.product((1e-4, 0.01, 0.2), (0.1, 1.0, 3.0)):
        more = min(rare * math.exp(epsilon), 0.9)
        found.append((np.array([1 - more, more]), np.array([1 - rare, rare])))
    grid = np.arange(-4, 6)
    for sigma in (1.0, 3.0):
        one, two = (np.exp(-((grid - shift) ** 2) / (2 * sigma**2)) for shift in (0, 1))
        found.append((one / one.sum(), two / two.sum()))
    return found


def excess(select: Callable[[Row], Row], stopping: RandomStopping) -> float:
    """By how much the exact divergence of selected outputs passes the bound, at most."""
    worst = -math.inf
    for p, q in pairs():
        trial = np.maximum(divergence(p, q), divergence(q, p))
        bound = selected_rdp(trial, stopping)
        for one, two in ((p, q), (q, p)):
            worst = max(worst, float((divergence(select(one), select(two)) - bound).max()))
    return worst


@stoppings
def test_the_bound_covers_exact_distributions_in_both_directions(stopping: RandomStopping) -> None:
    assert excess(lambda trial: best_of(trial, stopping), stopping) <= 1e-9


@pytest.mark.parametrize("family", list(Family))
def test_a_number_of_trials_that_is_known_is_not_covered(family: Family) -> None:
    """Power: with as many trials on average, but always as many, the bound fails."""
    stopping = RandomStopping.with_mean(family, 30.0)
    assert excess(lambda trial: best_of_exactly(trial, 30), stopping) > 0.5


def test_one_trial_s_bound_alone_does_not_cover_the_best() -> None:
    """Power: without the terms of the selection the exact divergence is larger."""
    stopping = RandomStopping.with_mean(Family.GEOMETRIC, 30.0)
    p, q = pairs()[1]
    trial = np.maximum(divergence(p, q), divergence(q, p))
    assert (divergence(best_of(p, stopping), best_of(q, stopping)) > trial + 0.1).any()


@stoppings
def test_agreement_with_another_implementation(stopping: RandomStopping) -> None:
    trial = ORDERS / (2.0 * 4.0**2)
    theirs = rdp_privacy_accountant._compute_rdp_repeat_and_select(
        ORDERS, trial, stopping.mean, float(stopping.family.shape)
    )
    ours = selected_rdp(trial, stopping)
    # Theirs also uses that the divergence grows with the order.
    monotone = np.minimum.accumulate(ours[::-1])[::-1]
    assert monotone == pytest.approx(np.asarray(theirs), rel=1e-6)


# --- the number of trials -----------------------------------------------------------------------


@stoppings
def test_mean_and_definition_agree(stopping: RandomStopping) -> None:
    p = weights(stopping)
    assert p.sum() == pytest.approx(1.0, abs=1e-9)
    assert (p * np.arange(1, len(p) + 1)).sum() == pytest.approx(stopping.mean, rel=1e-6)


def stream(seed: int) -> Callable[[int], bytes]:
    return np.random.default_rng(seed).bytes


def p_value(drawn: RandomStopping, claimed: RandomStopping, seed: int) -> float:
    """Chi-square of 4,000 draws against the claimed distribution, in ten cells."""
    rand = stream(seed)
    counts = Counter(min(drawn.draw(rand), 10) for _ in range(4000))
    p = weights(claimed)
    cells = np.append(p[:9], 1.0 - p[:9].sum())
    observed = np.array([counts[k] for k in range(1, 11)])
    return float(stats.chisquare(observed, 4000 * cells).pvalue)


@pytest.mark.parametrize("family", list(Family))
def test_draws_follow_the_definition(family: Family) -> None:
    """Alpha 1e-6 for each family; a mean of 7 for 5 and the other family are noticed."""
    claimed = RandomStopping.with_mean(family, 5.0)
    assert p_value(claimed, claimed, seed=1) > 1e-6
    assert p_value(RandomStopping.with_mean(family, 7.0), claimed, seed=2) < 1e-6
    (other,) = set(Family) - {family}
    assert p_value(RandomStopping.with_mean(other, 5.0), claimed, seed=3) < 1e-6


def test_numbers_below_a_limit_are_equally_likely() -> None:
    """Alpha 1e-6; 3 of 5 values would be likelier if the last bytes were not thrown back."""
    rand = stream(4)
    counts = Counter(uniform_below(5, rand) for _ in range(20_000))
    assert set(counts) == set(range(5))
    assert stats.chisquare(list(counts.values())).pvalue > 1e-6
    values = iter([255, 254])
    assert uniform_below(5, lambda _: bytes([next(values)])) == 254 % 5  # 255 is thrown back
    assert uniform_below(1, lambda size: bytes(size)) == 0


@pytest.mark.parametrize("mean", [1.0, 0.5, -1.0, math.nan, math.inf, 1001.0])
def test_means_out_of_range(mean: float) -> None:
    with pytest.raises(EventRefused, match="allowed: above 1"):
        RandomStopping.with_mean(Family.GEOMETRIC, mean)


@pytest.mark.parametrize("gamma", [0.0, 1.0, math.nan])
def test_gamma_out_of_range(gamma: float) -> None:
    with pytest.raises(EventRefused, match="outside"):
        RandomStopping(Family.LOGARITHMIC, gamma)


# --- events -------------------------------------------------------------------------------------


def test_the_dearest_candidate_counts_and_many_trials_cost_less_than_composition() -> None:
    cheap, dear = (Counter({with_noise(z).worst_event(): 3}) for z in (12.0, 6.0))
    stopping = RandomStopping.with_mean(Family.LOGARITHMIC, 20.0)
    both = selected_epsilon([cheap, dear], stopping, delta=1e-5)
    assert both == selected_epsilon([dear], stopping, delta=1e-5)
    assert both > selected_epsilon([cheap], stopping, delta=1e-5)
    one = spend(list(dear.elements()), delta=1e-5).worst
    assert one < both < 4.0 * one
    composed = spend(list(dear.elements()) * 20, delta=1e-5).worst
    assert both < composed


def test_nothing_covers_a_trial_without_noise() -> None:
    bare = Counter([NonPrivate(Unit.TASK, Relation.ADD_REMOVE, "shown")])
    stopping = STOPPINGS[0]
    assert selected_epsilon([bare], stopping, delta=1e-5) == math.inf
    with pytest.raises(EventRefused, match="no candidate"):
        selected_epsilon([], stopping, delta=1e-5)
