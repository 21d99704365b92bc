from __future__ import annotations

import math
import time
from dataclasses import replace

import mpmath
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from hypothesis import example, given
from hypothesis import strategies as st

from privacy.accountant import (
    BUDGETED,
    Adversary,
    exact_gaussian_epsilon,
    gaussian_epsilon,
    noise_variance,
    spend,
    spend_with_reference,
)
from privacy.errors import EventRefused
from privacy.events import NonPrivate, SkellamRound
from privacy.unit import Relation, Unit
from tests.privacy.plans import calibrated, with_noise

DELTA = 1e-5
EVENT = with_noise().worst_event()
OPEN = NonPrivate(Unit.TASK, Relation.ADD_REMOVE, "no noise")

# (q, z, T, delta) -> RDP, upper end of PRV, PLD
GOLDEN = [
    (0.01, 1.0, 1000, 1e-5, 2.101, 1.838, 1.828),
    (0.1, 1.0, 100, 1e-5, 7.899, 7.057, 7.047),
    (0.25, 2.0, 200, 1e-4, 9.228, 8.407, 8.397),
    (1.0, 10.0, 100, 1e-5, 4.729, 4.387, 4.377),
]


@pytest.mark.parametrize(("rate", "z", "rounds", "delta", "rdp", "prv", "pld"), GOLDEN)
def test_gaussian_figures_are_the_known_ones(
    rate: float, z: float, rounds: int, delta: float, rdp: float, prv: float, pld: float
) -> None:
    figures = gaussian_epsilon(rate, z, rounds, delta)
    assert figures["rdp"] == pytest.approx(rdp, abs=6e-4)
    assert figures["prv"] == pytest.approx(prv, abs=6e-4)
    oracle = PLDAccountant()
    oracle.compose(
        SelfComposedDpEvent(PoissonSampledDpEvent(rate, GaussianDpEvent(z)), rounds)
        if rate < 1.0
        else SelfComposedDpEvent(GaussianDpEvent(z), rounds)
    )
    assert oracle.get_epsilon(delta) == pytest.approx(pld, abs=6e-4)
    assert figures["rdp"] >= figures["prv"] >= oracle.get_epsilon(delta)
    assert ("exact" in figures) == (rate == 1.0)


def test_the_exact_figure_without_sampling() -> None:
    assert gaussian_epsilon(1.0, 10.0, 100, 1e-5)["exact"] == pytest.approx(4.3772, abs=5e-5)


@given(st.floats(0.01, 30.0), st.sampled_from([1e-9, 1e-5, 1e-2]))
@example(0.01, 1e-2)
def test_the_exact_figure_solves_its_equation(mu: float, delta: float) -> None:
    epsilon = exact_gaussian_epsilon(mu, delta)
    with mpmath.workdps(50):
        m, e = mpmath.mpf(mu), mpmath.mpf(epsilon)
        achieved = mpmath.ncdf(m / 2 - e / m) - mpmath.exp(e) * mpmath.ncdf(-m / 2 - e / m)
    if epsilon == 0.0:
        assert achieved <= delta
    else:
        assert float(achieved) == pytest.approx(delta, rel=1e-6)


@pytest.mark.parametrize(
    ("rate", "z", "rounds", "delta"),
    [
        (0.0, 1.0, 1, 1e-5),
        (1.1, 1.0, 1, 1e-5),
        (0.5, 0.0, 1, 1e-5),
        (0.5, math.inf, 1, 1e-5),
        (math.nan, 1.0, 1, 1e-5),
        (0.5, 1.0, 0, 1e-5),
        (0.5, 1.0, 1, 0.0),
        (0.5, 1.0, 1, 1.0),
    ],
)
def test_gaussian_arguments_out_of_range_are_refused(
    rate: float, z: float, rounds: int, delta: float
) -> None:
    with pytest.raises(EventRefused, match="allowed"):
        gaussian_epsilon(rate, z, rounds, delta)


def test_nothing_costs_nothing() -> None:
    for spent in (spend([], delta=DELTA), spend_with_reference([], delta=DELTA)):
        assert spent.worst == 0.0
        for figures in spent.adversaries.values():
            assert (figures.record, figures.person, set(figures.epsilon.values())) == (0, 0, {0.0})


def test_a_release_without_noise_makes_everything_infinite() -> None:
    for spent in (
        spend([EVENT, OPEN], delta=DELTA),
        spend_with_reference([OPEN, EVENT], delta=DELTA),
    ):
        assert spent.worst == math.inf
        for figures in spent.adversaries.values():
            assert {*figures.epsilon.values(), figures.record, figures.person} == {math.inf}
    assert spend([OPEN], delta=DELTA).to_json()["adversaries"]["broken_sum"] == {  # type: ignore[index]
        "claim": "rdp",
        "epsilon": {"rdp": "inf"},
        "record": "inf",
        "person": "inf",
    }


def test_each_adversary_has_the_noise_that_it_cannot_subtract() -> None:
    event = replace(EVENT, survivors=9, max_colluders=2, share_variance=5.0)
    assert {a: noise_variance(event, a) for a in Adversary} == {
        Adversary.AGGREGATOR: 45.0,
        Adversary.RECIPIENTS: 45.0,
        Adversary.COLLUDERS: 35.0,
        Adversary.PARTICIPANTS: 35.0,
        Adversary.BROKEN_SUM: 5.0,
    }


def test_a_participant_always_subtracts_its_own_share() -> None:
    event = replace(EVENT, survivors=9, max_colluders=0, share_variance=5.0)
    assert {a: noise_variance(event, a) for a in Adversary} == {
        Adversary.AGGREGATOR: 45.0,
        Adversary.RECIPIENTS: 45.0,
        Adversary.COLLUDERS: 45.0,
        Adversary.PARTICIPANTS: 40.0,
        Adversary.BROKEN_SUM: 5.0,
    }
    spent = spend([event] * 5, delta=DELTA)
    assert spent.worst == spent.adversaries[Adversary.PARTICIPANTS].claimed
    assert spent.worst > spent.adversaries[Adversary.COLLUDERS].claimed


def test_adversaries_are_ordered_and_every_shift_costs_more() -> None:
    spent = spend([EVENT] * 5, delta=DELTA).adversaries
    claims = {name: figures.claimed for name, figures in spent.items()}
    assert claims[Adversary.PARTICIPANTS] == claims[Adversary.COLLUDERS]
    assert claims[Adversary.AGGREGATOR] == claims[Adversary.RECIPIENTS]
    assert claims[Adversary.AGGREGATOR] < claims[Adversary.COLLUDERS] < claims[Adversary.BROKEN_SUM]
    for figures in spent.values():
        assert figures.claimed < figures.record < figures.person
    assert spend([EVENT] * 5, delta=DELTA).worst == claims[Adversary.COLLUDERS]
    assert Adversary.BROKEN_SUM not in BUDGETED


def test_one_person_with_one_unit_costs_what_the_unit_costs() -> None:
    spent = spend([replace(EVENT, person_units=1)], delta=DELTA).adversaries
    assert all(figures.person == figures.claimed for figures in spent.values())


def test_a_replaced_record_costs_what_twice_the_sensitivity_costs() -> None:
    """As the same noise at half the multiplier, but for the small second-order term."""
    whole = spend([with_noise(8.0).worst_event()] * 30, delta=DELTA)
    half = spend([with_noise(4.0).worst_event()] * 30, delta=DELTA)
    for adversary in Adversary:
        record = whole.adversaries[adversary].record
        assert record == pytest.approx(half.adversaries[adversary].claimed, rel=1e-3)


@given(st.lists(st.integers(8, 10), max_size=12), st.integers(8, 10))
def test_every_further_event_costs_and_order_does_not_matter(
    survivors: list[int], another: int
) -> None:
    plan = with_noise(3.0)
    events = [plan.event(s) for s in survivors]
    spent = spend(events, delta=DELTA)
    more = spend([*events, plan.event(another)], delta=DELTA)
    for adversary in Adversary:
        assert more.adversaries[adversary].claimed > spent.adversaries[adversary].claimed
    backwards = spend(events[::-1], delta=DELTA)
    assert backwards.worst == pytest.approx(spent.worst, rel=1e-12)


def test_more_survivors_than_the_least_cost_less() -> None:
    plan = with_noise()
    assert spend([plan.event(10)], delta=DELTA).worst < spend([plan.event(8)], delta=DELTA).worst


def test_asking_changes_nothing_and_is_never_reset() -> None:
    """Others' bugs: a history changed by get_epsilon; a fresh accountant every round."""
    events = [EVENT]
    first = spend_with_reference(events, delta=DELTA)
    assert spend_with_reference(events, delta=DELTA) == first
    assert events == [EVENT]
    figures = [spend_with_reference([EVENT] * n, delta=DELTA) for n in (1, 2, 3)]
    for adversary in Adversary:
        for name in first.adversaries[adversary].epsilon:
            series = [f.adversaries[adversary].epsilon[name] for f in figures]
            assert series == sorted(set(series))
    assert gaussian_epsilon(0.1, 1.0, 100, DELTA) == gaussian_epsilon(0.1, 1.0, 100, DELTA)
    gaussian_epsilon(0.1, 1.0, 100, DELTA)["rdp"] = 0.0
    assert gaussian_epsilon(0.1, 1.0, 100, DELTA)["rdp"] > 7


def test_units_and_relations_are_never_mixed() -> None:
    for other in (
        NonPrivate(Unit.TASK, Relation.REPLACE_ONE, ""),
        NonPrivate(Unit.RECORD, Relation.ADD_REMOVE, ""),
    ):
        with pytest.raises(EventRefused, match="never compose"):
            spend([EVENT, other], delta=DELTA)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1.0, math.nan])
def test_a_delta_out_of_range_is_refused(delta: float) -> None:
    with pytest.raises(EventRefused, match="delta"):
        spend([EVENT], delta=delta)


def test_the_reference_stands_beside_the_claim_and_below_it() -> None:
    """Gaussian noise of the same size needs no second-order term and has tighter accountants."""
    plan = calibrated()
    spent = spend_with_reference([plan.worst_event()] * plan.rounds, delta=plan.delta)
    for adversary in Adversary:
        figures = spent.adversaries[adversary].epsilon
        assert list(figures) == [
            "rdp",
            "gaussian_reference_rdp",
            "gaussian_reference_prv",
            "gaussian_reference_exact",
        ]
        assert spent.adversaries[adversary].claim == "rdp"
        assert (
            figures["rdp"]
            >= figures["gaussian_reference_rdp"]
            >= figures["gaussian_reference_prv"]
            >= figures["gaussian_reference_exact"]
        )
    z = plan.noise_multiplier
    reference = gaussian_epsilon(1.0, z, plan.rounds, plan.delta)
    found = spent.adversaries[Adversary.COLLUDERS].epsilon
    assert found["gaussian_reference_exact"] == pytest.approx(reference["exact"], rel=1e-9)


def test_the_skellam_claim_costs_seven_percent_more_noise_than_an_exact_gaussian() -> None:
    """z that gives an exact Gaussian epsilon 3 gives about 3.25 under the Skellam bound."""
    low, high = 1.0, 100.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        over = exact_gaussian_epsilon(math.sqrt(30) / middle, DELTA) > 3.0
        low, high = (middle, high) if over else (low, middle)
    plan = with_noise(high)
    assert plan.worst_epsilon() == pytest.approx(3.25, abs=0.03)
    assert calibrated().noise_multiplier / high == pytest.approx(1.074, abs=0.01)


def test_mixed_rounds_have_a_reference_too() -> None:
    plan = with_noise()
    events = [plan.event(8)] * 3 + [plan.event(10)] * 2
    figures = spend_with_reference(events, delta=DELTA).adversaries[Adversary.AGGREGATOR].epsilon
    mu = math.sqrt(3 * 7 / 8 / 64 + 2 * 7 / 10 / 64)
    assert figures["gaussian_reference_exact"] == pytest.approx(exact_gaussian_epsilon(mu, DELTA))


@pytest.mark.parametrize("z", [1e-3, 0.1, 0.6, 1e6])
def test_the_reference_of_very_weak_and_very_strong_noise(z: float) -> None:
    figures = gaussian_epsilon(1.0, z, 30, DELTA)
    assert figures["rdp"] >= figures["exact"] >= 0.0
    assert ("prv" in figures) == (figures["exact"] <= 100.0)
    plan = with_noise(0.01)
    spent = spend_with_reference([plan.worst_event()], delta=DELTA)
    for row in spent.adversaries.values():
        assert row.claimed >= row.epsilon["gaussian_reference_exact"] > 1000.0


def test_a_round_is_charged_in_less_than_20_ms() -> None:
    events: list[SkellamRound] = [EVENT] * 100
    spend(events, delta=DELTA)
    best = min(timed(events) for _ in range(5))
    assert best < 0.020


def timed(events: list[SkellamRound]) -> float:
    start = time.perf_counter()
    spend(events, delta=DELTA)
    return time.perf_counter() - start


def test_the_json_form_names_every_figure() -> None:
    body = spend([EVENT] * 2, delta=DELTA).to_json()
    assert (body["delta"], body["events"]) == ("1e-05", 2)
    adversaries = body["adversaries"]
    assert isinstance(adversaries, dict)
    assert list(adversaries) == [a.value for a in Adversary]
    for name, figures in adversaries.items():
        held = spend([EVENT] * 2, delta=DELTA).adversaries[Adversary(name)]
        assert float(figures["epsilon"]["rdp"]) == held.claimed
        assert float(figures["record"]) == held.record
        assert float(figures["person"]) == held.person
