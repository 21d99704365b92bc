from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.accountant import (
    BUDGETED,
    Adversary,
    claimed_epsilon,
    noise_variance,
    rdp_at,
    spend,
    spend_with_reference,
)
from privacy.errors import EventRefused
from privacy.events import DiscreteGaussianRound, Event, GaussianSteps, NonPrivate, SkellamRound
from privacy.gaussian import exact_gaussian_epsilon, gaussian_epsilon, replace_one, together
from privacy.rdp import ORDERS, rdp_epsilon
from privacy.unit import RELATION_OF, Relation, Unit
from tests.privacy.plans import calibrated, with_noise

DELTA = 1e-5
EVENT = with_noise().worst_event()
OPEN = NonPrivate(Unit.TASK, Relation.ADD_REMOVE, "no noise")


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
            "gaussian_reference_exact",
            "gaussian_reference_prv",
            "gaussian_reference_rdp",
            "rdp",
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


def test_the_reference_of_very_weak_noise() -> None:
    spent = spend_with_reference([with_noise(0.01).worst_event()], delta=DELTA)
    for row in spent.adversaries.values():
        assert row.claimed >= row.epsilon["gaussian_reference_exact"] > 1000.0
        assert "gaussian_reference_prv" not in row.epsilon


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


# --- units, sampling, turns ---------------------------------------------------------------------


def round_of(unit: Unit, **changes: Any) -> SkellamRound:
    fields = {**EVENT.__dict__, "unit": unit, "relation": RELATION_OF[unit], **changes}
    return SkellamRound(**fields)


@pytest.mark.parametrize("rate", [1.0, 0.1])
def test_one_replaced_record_is_the_claim_of_unit_record(rate: float) -> None:
    task = spend([round_of(Unit.TASK, rate=rate)] * 9, delta=DELTA).adversaries
    record = spend([round_of(Unit.RECORD, rate=rate)] * 9, delta=DELTA).adversaries
    for adversary in Adversary:
        assert record[adversary].claimed == record[adversary].record == task[adversary].record
        assert record[adversary].person > record[adversary].claimed > task[adversary].claimed


def test_user_and_client_cost_what_a_task_costs_at_rate_one() -> None:
    """One clipped vector is there or not; so is its k-fold shift for a person."""
    task = spend([round_of(Unit.TASK)] * 9, delta=DELTA)
    for unit in (Unit.USER, Unit.CLIENT):
        assert spend([round_of(unit)] * 9, delta=DELTA).adversaries == task.adversaries


def test_a_person_with_records_in_k_tasks_is_2k_vectors() -> None:
    records = spend([round_of(Unit.RECORD, person_units=3)], delta=DELTA)
    tasks = spend([round_of(Unit.TASK, person_units=6)], delta=DELTA)
    for adversary in Adversary:
        assert records.adversaries[adversary].person == tasks.adversaries[adversary].person


@settings(max_examples=20, deadline=None)
@given(st.floats(2e-3, 0.9), st.sampled_from([Unit.TASK, Unit.RECORD, Unit.USER]))
def test_sampling_never_costs_more_and_more_of_it_costs_more(rate: float, unit: Unit) -> None:
    figures = [
        spend([round_of(unit, rate=q, share_variance=3e7)] * 50, delta=DELTA).adversaries
        for q in (rate, min(1.0, 1.2 * rate), 1.0)
    ]
    for adversary in Adversary:
        for what in ("claimed", "record", "person"):
            series = [getattr(one[adversary], what) for one in figures]
            assert series == sorted(series), (what, series)


def test_shuffled_batches_are_not_poisson() -> None:
    """Another's bug: everybody takes part once in 1/q rounds, charged as if by coins.

    Then each unit is in exactly one of ten rounds, and that one round is not amplified. The coins'
    figure for ten rounds is far less, and belongs to no such sampler: there is no event for it.
    """
    coins = spend([round_of(Unit.TASK, rate=0.1, share_variance=3e7)] * 10, delta=DELTA).worst
    once = spend([round_of(Unit.TASK, share_variance=3e7)], delta=DELTA).worst
    assert coins < once
    assert {kind.kind for kind in (SkellamRound, DiscreteGaussianRound, GaussianSteps)} == {
        "skellam_round",
        "discrete_gaussian_round",
        "gaussian_steps",
    }


def test_the_rate_is_stated_and_never_derived_from_a_count() -> None:
    """Another's bug: batch size int(N * q). No event or plan takes a number of units to sample."""
    assert not {"batch_size", "units", "sample_size"} & set(EVENT.to_json())


def test_only_the_dearest_turns_of_a_client_are_charged() -> None:
    """At most three rounds per client: those with the least noise, whatever their order."""
    cheap = round_of(Unit.CLIENT, max_participations=3, survivors=10)
    dear = round_of(Unit.CLIENT, max_participations=3, survivors=8)
    free = round_of(Unit.CLIENT, survivors=8)
    for adversary in Adversary:

        def of(*events: Event, who: Adversary = adversary) -> float:
            return spend(events, delta=DELTA).adversaries[who].claimed

        assert of(*[dear] * 3) == pytest.approx(of(*[free] * 3), rel=1e-12)
        assert of(*[dear] * 20, *[cheap] * 50) == of(*[dear] * 3)
        assert of(*[cheap] * 50, dear, dear) == of(dear, dear, cheap)
        assert of(cheap, cheap) < of(*[cheap] * 3) == of(*[cheap] * 90)
    spent = spend([dear] * 20, delta=DELTA).adversaries[Adversary.AGGREGATOR]
    assert spent.person > spend([dear] * 3, delta=DELTA).adversaries[Adversary.AGGREGATOR].person


def test_rounds_without_a_cap_count_beside_those_with_one() -> None:
    free, capped = round_of(Unit.CLIENT), round_of(Unit.CLIENT, max_participations=2)
    assert spend([free] * 5 + [capped] * 9, delta=DELTA).worst == pytest.approx(
        spend([free] * 7, delta=DELTA).worst, rel=1e-12
    )
    wider = round_of(Unit.CLIENT, max_participations=4)
    assert spend([capped] * 9 + [wider] * 9, delta=DELTA).worst == pytest.approx(
        spend([free] * 4, delta=DELTA).worst, rel=1e-12
    )
    with_reference = spend_with_reference([capped] * 9 + [free], delta=DELTA)
    exact = with_reference.adversaries[Adversary.COLLUDERS].epsilon["gaussian_reference_exact"]
    assert exact == pytest.approx(exact_gaussian_epsilon(math.sqrt(3) / 8.0, DELTA), rel=1e-9)


def test_discrete_gaussian_rounds_are_charged_by_their_own_bound() -> None:
    """With shares this large the sum is as good as a discrete Gaussian."""
    event = DiscreteGaussianRound(**EVENT.__dict__)
    spent = spend([event] * 30, delta=DELTA)
    z = math.sqrt(7 * event.share_variance) / event.l2
    gaussian = rdp_epsilon(30 * ORDERS / (2 * z * z), DELTA)
    assert spent.worst == pytest.approx(gaussian, rel=1e-9)
    assert spent.worst < spend([EVENT] * 30, delta=DELTA).worst
    tiny = replace(event, l2=2, l1=4, share_variance=0.5)
    assert (
        spend([tiny], delta=DELTA).worst
        > spend([replace(tiny, share_variance=2.0, l2=4, l1=16)], delta=DELTA).worst
    )


STEPS = GaussianSteps(Unit.TASK, Relation.ADD_REMOVE, 0.05, 1.2, 40, 2)


def test_noise_at_the_client_has_one_figure_for_everybody() -> None:
    spent = spend_with_reference([STEPS, STEPS], delta=DELTA)
    figures = gaussian_epsilon(0.05, 1.2, 80, DELTA)
    course = ((1.2, 0.05, 80),)
    for row in spent.adversaries.values():
        assert (dict(row.epsilon), row.claim) == (figures, "prv")
        assert row.record == replace_one(course, DELTA)
        assert row.person == together(course, DELTA, 2)
    assert spend([STEPS, STEPS], delta=DELTA).worst == figures["prv"]


def test_unit_record_with_noise_at_the_client_is_charged_as_a_replacement() -> None:
    event = replace(STEPS, unit=Unit.RECORD, relation=Relation.REPLACE_ONE)
    row = spend_with_reference([event], delta=DELTA).adversaries[Adversary.AGGREGATOR]
    assert row.claim == "pld"
    assert row.claimed == row.record == replace_one(((1.2, 0.05, 40),), DELTA)
    assert row.epsilon["rdp"] > row.claimed
    whole = spend([replace(event, rate=1.0)], delta=DELTA).adversaries[Adversary.AGGREGATOR]
    assert (whole.claim, whole.claimed) == (
        "exact",
        exact_gaussian_epsilon(2 * math.sqrt(40) / 1.2, DELTA),
    )


def test_without_a_numeric_figure_the_divergence_is_the_claim() -> None:
    weak = replace(STEPS, noise_multiplier=0.05, rate=0.5)
    record = replace(weak, unit=Unit.RECORD, relation=Relation.REPLACE_ONE)
    for event in (weak, record):
        row = spend([event], delta=DELTA).adversaries[Adversary.AGGREGATOR]
        assert row.claim == "rdp"
        assert 100.0 < row.claimed < math.inf
        assert row.claimed <= min(row.record, row.person) < math.inf


def test_integer_and_gaussian_noise_compose_by_divergence() -> None:
    mixed = spend([EVENT, STEPS], delta=DELTA).adversaries[Adversary.AGGREGATOR]
    alone = spend([EVENT], delta=DELTA).adversaries[Adversary.AGGREGATOR]
    assert mixed.claim == "rdp"
    assert mixed.claimed > max(alone.claimed, spend([STEPS], delta=DELTA).worst)
    at = [
        rdp_at(events, order=8, adversary=Adversary.AGGREGATOR)
        for events in ([EVENT], [STEPS], [EVENT, STEPS])
    ]
    assert at[0] + at[1] == pytest.approx(at[2], rel=1e-12)


def test_a_declared_order_is_never_better_than_the_best() -> None:
    events: list[Event] = [EVENT] * 30
    best = spend(events, delta=DELTA)
    by_order = [spend(events, delta=DELTA, order=a).worst for a in range(2, 513)]
    assert min(by_order) == best.worst
    assert by_order[0] > best.worst < by_order[-1]
    for order in (2, 9, 512):
        divergence = rdp_at(events, order=order, adversary=Adversary.PARTICIPANTS)
        vector = np.full(511, math.inf)
        vector[order - 2] = divergence
        assert rdp_epsilon(vector, DELTA) == pytest.approx(by_order[order - 2], rel=1e-12)
        assert claimed_epsilon(
            {EVENT: 30}, [Adversary.PARTICIPANTS], delta=DELTA, order=order
        ) == pytest.approx(by_order[order - 2])


def test_a_declared_order_is_for_divergences_alone() -> None:
    """PRV and PLD hold for what was fixed beforehand, so that a filter never reads them."""
    row = spend([STEPS], delta=DELTA, order=8).adversaries[Adversary.AGGREGATOR]
    assert row.claim == "rdp"
    assert row.claimed > spend([STEPS], delta=DELTA).worst
    assert row.record > replace_one(((1.2, 0.05, 40),), DELTA)  # type: ignore[operator]


def test_divergence_of_nothing_and_of_a_bare_release() -> None:
    assert rdp_at([], order=2, adversary=Adversary.AGGREGATOR) == 0.0
    assert rdp_at([OPEN], order=2, adversary=Adversary.AGGREGATOR) == math.inf
    for order in (1, 513, 2.0, True, None):
        with pytest.raises(EventRefused, match="order"):
            rdp_at([EVENT], order=order, adversary=Adversary.AGGREGATOR)  # type: ignore[arg-type]


@settings(max_examples=10, deadline=None)
@given(st.permutations([EVENT, STEPS, DiscreteGaussianRound(**EVENT.__dict__), EVENT]))
def test_the_order_of_events_does_not_matter(events: list[Event]) -> None:
    whole: list[Event] = [EVENT, EVENT, STEPS, DiscreteGaussianRound(**EVENT.__dict__)]
    expected = spend(whole, delta=DELTA)
    found = spend(events, delta=DELTA)
    for adversary in Adversary:
        one, two = found.adversaries[adversary], expected.adversaries[adversary]
        for what in ("claimed", "record", "person"):
            assert getattr(one, what) == pytest.approx(getattr(two, what), rel=1e-12)
