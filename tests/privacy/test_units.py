"""What one unit changes in a sum, under every unit; and the coins that decide who is in it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy.stats import chi2

from privacy import plan as plan_module
from privacy.accountant import Adversary, spend
from privacy.draw import throw_coins
from privacy.errors import PlanRefused
from privacy.events import Mechanism
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from privacy.unit import Relation, Unit
from tests.privacy.plans import calibrated, with_noise

D = 12
ALPHA = 1e-6
HOSTILE = st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308, 1e-320, 0.0, 1.0])


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No noise and no luck in rounding: what is left of `encode` is the sum itself."""
    none = dict.fromkeys(Mechanism, lambda _variance, size, _rng: np.zeros(size, dtype=np.int64))
    monkeypatch.setattr(plan_module, "SAMPLERS", none)


def made(unit: Unit, **changes: Any) -> PrivacyPlan:
    most = {"max_units_per_client": 1} if unit is Unit.CLIENT else {}
    return with_noise(unit=unit, parameters=D, **{**most, **changes})


def encoded(
    plan: PrivacyPlan,
    rows: NDArray[np.float64],
    users: NDArray[np.int64] | None = None,
    drawn: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """A client's sum; the same coins of rounding for the same rows, whatever follows them."""
    rng = SecureRandom.from_key(bytes(32))
    return plan.encode(rows, rng, round_index=1, users=users, drawn=drawn)


def norm(vector: NDArray[np.int64]) -> float:
    return math.sqrt(sum(int(v) ** 2 for v in vector))


def vectors(rows: int) -> st.SearchStrategy[NDArray[np.float64]]:
    return arrays.arrays(np.float64, (rows, D), elements=st.floats(-5.0, 5.0) | HOSTILE)


@settings(max_examples=60, deadline=None)
@pytest.mark.usefixtures("silent")
@given(others=vectors(3), mine=vectors(1))
def test_a_task_moves_the_sum_by_delta(others: Any, mine: Any) -> None:
    plan = made(Unit.TASK)
    both = encoded(plan, np.concatenate([others, mine]))
    assert norm(both - encoded(plan, others)) <= plan.l2


@settings(max_examples=60, deadline=None)
@pytest.mark.usefixtures("silent")
@given(others=vectors(3), before=vectors(1), after=vectors(1))
def test_a_record_moves_its_task_by_twice_delta(others: Any, before: Any, after: Any) -> None:
    plan = made(Unit.RECORD)
    assert (plan.relation, plan.l2) == (Relation.REPLACE_ONE, made(Unit.TASK).l2)
    one = encoded(plan, np.concatenate([others, before]))
    two = encoded(plan, np.concatenate([others, after]))
    assert norm(one - two) <= 2 * plan.l2


@settings(max_examples=60, deadline=None)
@pytest.mark.usefixtures("silent")
@given(others=vectors(3), mine=vectors(3))
def test_a_user_with_any_number_of_tasks_moves_the_sum_by_delta(others: Any, mine: Any) -> None:
    plan = made(Unit.USER)
    users = np.array([0, 1, 0, 2, 2, 2])
    both = encoded(plan, np.concatenate([others, mine]), users)
    assert norm(both - encoded(plan, others, users[:3])) <= plan.l2


@settings(max_examples=60, deadline=None)
@pytest.mark.usefixtures("silent")
@given(others=vectors(2), mine=vectors(3))
def test_a_user_s_tasks_clipped_apart_move_it_by_k_delta(others: Any, mine: Any) -> None:
    plan = made(Unit.USER, tasks_per_user=3)
    assert plan.l2 == 3 * made(Unit.USER).l2
    users = np.array([0, 1, 2, 2, 2])
    both = encoded(plan, np.concatenate([others, mine]), users)
    assert norm(both - encoded(plan, others, users[:2])) <= plan.l2


@pytest.mark.usefixtures("silent")
def test_tasks_clipped_apart_do_reach_k_delta() -> None:
    """So a plan that charged them as one clipped vector would be wrong by k."""
    aligned = np.zeros((3, D))
    aligned[:, 0] = 1e9
    users = np.zeros(3, dtype=np.int64)
    apart, once = made(Unit.USER, tasks_per_user=3), made(Unit.USER)
    assert norm(encoded(apart, aligned, users)) > 2.9 * once.l2
    assert norm(encoded(once, aligned, users)) <= once.l2
    assert norm(encoded(made(Unit.TASK), aligned)) > 2.9 * once.l2


@settings(max_examples=60, deadline=None)
@pytest.mark.usefixtures("silent")
@given(vectors(1))
def test_a_client_s_final_vector_or_zero(mine: Any) -> None:
    plan = made(Unit.CLIENT)
    assert plan.relation is Relation.ZERO_OUT
    assert norm(encoded(plan, mine) - encoded(plan, np.zeros((1, D)))) <= plan.l2
    assert norm(encoded(plan, np.zeros((0, D)))) == 0.0


@pytest.mark.usefixtures("silent")
def test_the_order_of_a_user_s_rows_among_others_does_not_matter() -> None:
    plan = made(Unit.USER)
    rows = np.random.default_rng(1).normal(size=(6, D)) * 0.1
    users = np.array([0, 1, 2, 0, 1, 2])
    order = np.array([0, 3, 1, 4, 2, 5])
    assert np.array_equal(encoded(plan, rows, users), encoded(plan, rows[order], users[order]))


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("unit", [Unit.TASK, Unit.RECORD])
def test_what_was_not_drawn_counts_as_nothing(unit: Unit) -> None:
    plan = made(unit, rate=0.5)
    rows = np.full((4, D), 0.1)
    rows[2] = math.nan
    drawn = np.array([True, False, False, True])
    found = encoded(plan, rows, drawn=drawn)
    whole = made(unit)
    alone = encoded(whole, np.where(drawn[:, None], rows, 0.0))
    assert np.array_equal(found, alone)
    assert norm(encoded(plan, rows, drawn=np.zeros(4, dtype=np.bool_))) == 0.0


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("apart", [None, 2])
def test_a_user_s_tasks_share_one_coin(apart: int | None) -> None:
    plan = made(Unit.USER, rate=0.5, tasks_per_user=apart)
    rows, users = np.full((4, D), 0.02), np.array([0, 1, 0, 1])
    drawn = np.array([False, True, True])  # the third user has no task this time
    found = encoded(plan, rows, users, drawn)
    assert np.abs(found - 2 * 0.02 * plan.scale).max() <= 2.0


def test_a_round_without_a_drawn_unit_is_noise_like_any_other() -> None:
    plan = with_noise(rate=0.01, parameters=5000)
    rng = SecureRandom.from_os()
    none = np.zeros(3, dtype=np.bool_)
    for rows, drawn in ((np.ones((3, 5000)), none), (np.zeros((0, 5000)), none[:0])):
        total = plan.encode(rows, rng, round_index=1, drawn=drawn)
        assert total.shape == (5000,)
        spread = float(np.square(total).sum()) / plan.share_variance
        assert chi2.ppf(ALPHA / 2, 5000) < spread < chi2.ppf(1 - ALPHA / 2, 5000)


@pytest.mark.parametrize(
    ("unit", "changes", "given", "why"),
    [
        (Unit.TASK, {}, {"users": np.zeros(3, dtype=np.int64)}, "whose rows are units"),
        (Unit.USER, {}, {}, "needs the user of each row"),
        (Unit.USER, {}, {"users": np.zeros(2, dtype=np.int64)}, "needs the user of each row"),
        (Unit.USER, {}, {"users": np.zeros(3)}, "needs the user of each row"),
        (Unit.USER, {}, {"users": np.array([0, -1, 2])}, "numbered from 0"),
        (Unit.USER, {}, {"users": np.array([0, 1, 10])}, "at most 10"),
        (Unit.USER, {"tasks_per_user": 1}, {"users": np.array([0, 1, 1])}, "a user has 2 tasks"),
        (Unit.TASK, {"rate": 0.5}, {}, "needs this round's coins"),
        (Unit.TASK, {"rate": 0.5}, {"drawn": np.ones(2, dtype=np.bool_)}, "2 coins for 3"),
        (Unit.TASK, {"rate": 0.5}, {"drawn": np.ones(4, dtype=np.bool_)}, "4 coins for 3"),
        (Unit.TASK, {"rate": 0.5}, {"drawn": np.ones(3)}, r"allowed: bool"),
        (Unit.TASK, {"rate": 0.5}, {"drawn": np.ones((3, 1), dtype=np.bool_)}, r"allowed: bool"),
        (Unit.TASK, {}, {"drawn": np.array([True, False, True])}, "no unit is left out"),
        (Unit.CLIENT, {}, {}, "at most 1 per client"),
        (
            Unit.USER,
            {"rate": 0.5},
            {"users": np.array([0, 1, 2]), "drawn": np.ones(2, dtype=np.bool_)},
            "2 coins for 3",
        ),
        (
            Unit.USER,
            {"rate": 0.5},
            {"users": np.array([0, 1, 2]), "drawn": np.ones(11, dtype=np.bool_)},
            "at most 10",
        ),
    ],
)
def test_rows_that_do_not_fit_the_unit_are_refused(
    unit: Unit, changes: dict[str, Any], given: dict[str, Any], why: str
) -> None:
    with pytest.raises(PlanRefused, match=why):
        encoded(made(unit, **changes), np.zeros((3, D)), **given)


# --- coins --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.77])
def test_coins_are_independent_and_of_the_rate(rate: float) -> None:
    """Counts have the binomial's mean and variance: a false alarm in a million, at the most."""
    rng, units, rounds = SecureRandom.from_key(bytes(range(32))), 50, 8000
    plan = with_noise(rate=rate, max_units_per_client=units)
    coins = np.array([plan.draw(units, rng) for _ in range(rounds)])
    assert binomial(coins, rate)
    assert not binomial(coins, 1.15 * rate)
    shuffled = np.zeros((rounds, units), dtype=np.bool_)
    shuffled[:, : max(1, round(units * rate))] = True  # a batch of fixed size: int(N q)
    assert not binomial(np.random.default_rng(1).permuted(shuffled, axis=1), rate)
    assert not binomial(np.repeat(coins[:, :1], units, axis=1), rate)  # one coin for all units
    stored = np.repeat(coins[:1], rounds, axis=0)  # drawn once, used in every round
    assert not binomial(stored, rate)


def binomial(coins: NDArray[np.bool_], rate: float) -> bool:
    """Are counts per round, and per unit, binomial? Twice the limit for the skewed variance."""
    limit = 4.9  # two-sided 1e-6
    for axis in (0, 1):
        counts, trials = coins.sum(axis=axis), coins.shape[axis]
        mean, variance = trials * rate, trials * rate * (1 - rate)
        many = len(counts)
        if abs(counts.mean() - mean) > limit * math.sqrt(variance / many):
            return False
        kurtosis = (1 - 6 * rate * (1 - rate)) / variance
        error = variance * math.sqrt((2.0 + kurtosis) / many)
        if abs(np.square(counts - mean).mean() - variance) > 2.0 * limit * error:
            return False
    return True


def test_a_coin_is_never_likelier_than_its_rate() -> None:
    """The threshold is rounded down; the extremes draw nothing and cost nothing."""
    rng = SecureRandom.from_os()
    assert throw_coins(7, 1.0, rng).all()
    assert len(throw_coins(0, 0.5, rng)) == 0
    assert not throw_coins(100_000, 2.0**-53, rng).any()
    assert not throw_coins(100_000, 2.0**-54, rng).any()
    with pytest.raises(PlanRefused, match="allowed: 0 or more"):
        throw_coins(-1, 0.5, rng)
    with pytest.raises(PlanRefused, match="at most 10"):
        with_noise(rate=0.5).draw(11, rng)


# --- calibration under units, coins and turns -----------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"rate": 0.1},
        {"unit": Unit.RECORD},
        {"unit": Unit.RECORD, "rate": 0.05},
        {"unit": Unit.USER, "tasks_per_user": 4},
        {"unit": Unit.CLIENT, "max_units_per_client": 1, "max_participations": 3},
        {"mechanism": Mechanism.DISCRETE_GAUSSIAN},
    ],
)
def test_the_claim_is_just_within_the_target(changes: dict[str, Any]) -> None:
    plan = calibrated(3.0, **changes)
    spent = spend([plan.worst_event()] * plan.rounds, delta=plan.delta)
    assert 2.98 < spent.worst == plan.worst_epsilon() <= 3.0
    assert spent.worst == spent.adversaries[Adversary.PARTICIPANTS].claimed


def test_noise_by_unit() -> None:
    """A record needs twice the noise of a task; coins and turns need less of it."""
    task = calibrated().noise_multiplier
    assert calibrated(unit=Unit.RECORD).noise_multiplier == pytest.approx(2 * task, rel=1e-3)
    assert calibrated(unit=Unit.USER).noise_multiplier == task
    assert calibrated(rate=0.1).noise_multiplier < 0.5 * task
    client = {"unit": Unit.CLIENT, "max_units_per_client": 1}
    assert calibrated(**client).noise_multiplier == task
    turns = calibrated(**client, max_participations=3, rounds=30)
    assert turns.noise_multiplier == pytest.approx(calibrated(rounds=3).noise_multiplier)


def test_terms_are_in_the_event_and_in_the_plan_s_json() -> None:
    plan = calibrated(unit=Unit.CLIENT, max_units_per_client=1, max_participations=3)
    assert (plan.event(9).max_participations, plan.to_json()["max_participations"]) == (3, 3)
    sampled = calibrated(rate=0.25, mechanism=Mechanism.DISCRETE_GAUSSIAN)
    assert (sampled.event(8).rate, sampled.event(8).kind) == (0.25, "discrete_gaussian_round")
    assert sampled.to_json()["mechanism"] == "discrete-gaussian"
    assert len({calibrated(rate=q).digest() for q in (0.1, 0.2, 1.0)}) == 3


def test_too_small_shares_of_discrete_gaussians_are_refused() -> None:
    with pytest.raises(PlanRefused, match=r"bounded from 0\.25 on"):
        with_noise(2.0**-15, mechanism=Mechanism.DISCRETE_GAUSSIAN)


@pytest.mark.parametrize("mechanism", [Mechanism.SKELLAM, Mechanism.DISCRETE_GAUSSIAN])
def test_each_mechanism_draws_its_own_noise_of_the_planned_size(mechanism: Mechanism) -> None:
    """Variance of one share against the plan's, two-sided level ALPHA; half of it is noticed."""
    size = 20_000
    plan = with_noise(mechanism=mechanism, parameters=size)
    share = plan.encode(np.zeros((0, size)), SecureRandom.from_os(), round_index=1)
    low, high = (chi2.ppf(level, size) / size for level in (ALPHA / 2, 1 - ALPHA / 2))
    ratio = float(np.square(share).mean()) / plan.share_variance
    assert low * 0.99 < ratio < high * 1.01
    assert not low * 0.99 < ratio / 2 < high * 1.01
    assert plan_module.SAMPLERS[mechanism].__name__ == mechanism.value.replace("-", "_")
