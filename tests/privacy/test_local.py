"""Plans with noise at the client. Keys are fixed; alpha is for a fresh key."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from opacus.accountants import PRVAccountant, RDPAccountant

from privacy.accountant import Adversary, spend, spend_with_reference
from privacy.charged import sum_event_of
from privacy.compression import Compression
from privacy.empirical import variance_limits, variance_power
from privacy.errors import PlanRefused
from privacy.events import GaussianSteps, Mechanism, event_from_json
from privacy.gaussian import exact_gaussian_epsilon, figure, replace_one
from privacy.local import batch_of, message_of
from privacy.plan import PrivacyPlan
from privacy.report import budget_report
from privacy.rng import SecureRandom
from privacy.unit import Unit
from tests.privacy.plans import calibrated, with_noise

KEY = bytes(range(32))
LOCAL: dict[str, Any] = {
    "noise": "local",
    "mechanism": Mechanism.GAUSSIAN,
    "local_steps": 5,
    "local_lr": 0.3,
    "rounds": 8,
    "person_units": 1,  # the figure of more takes seconds
}


def local(noise_multiplier: float = 1.5, **changes: Any) -> PrivacyPlan:
    return with_noise(noise_multiplier, **{**LOCAL, **changes})


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"mechanism": Mechanism.SKELLAM}, "set mechanism 'gaussian'"),
        ({"mechanism": Mechanism.DISCRETE_GAUSSIAN}, "set mechanism 'gaussian'"),
        ({"unit": Unit.USER}, "allowed are task and record"),
        ({"unit": Unit.CLIENT, "max_units_per_client": 1}, "allowed are task and record"),
        ({"max_participations": 3}, "cannot be capped"),
        ({"tasks_per_user": 2}, "unit user alone"),
        ({"local_steps": 0}, "local_steps 0"),
        ({"local_steps": None}, "local_steps None"),
        ({"local_steps": 2.0}, "local_steps 2.0"),
        ({"local_steps": True}, "local_steps True"),
        ({"local_lr": 0.0}, "local_lr 0.0"),
        ({"local_lr": math.nan}, "local_lr nan"),
        ({"local_lr": None}, "local_lr None"),
        ({"local_lr": 1}, "local_lr 1"),
        ({"compression": Compression(rotate=True), "parameters": 64}, "compression with noise"),
        ({"value_bits": 12}, "compression with noise"),
        ({"rate": 0.5, "delta": 1e-13}, "accountants' rounding"),
        ({"noise_multiplier": 2.0**-13}, "allowed is 1 or more"),
        ({"max_colluders": 8}, "max_colluders"),
        ({"clients": 7}, "min_survivors"),
    ],
)
def test_what_does_not_go_with_it_is_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(PlanRefused, match=named):
        local(**changes)


@pytest.mark.parametrize(
    "changes", [{"share_variance": 1e8}, {"noise_multiplier": 3.0}, {"l2": 5000}, {"scale": 1.0}]
)
def test_parts_that_disagree_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(PlanRefused, match="do not follow"):
        replace(local(), **changes)


def test_a_delta_below_the_rounding_is_fine_without_sampling() -> None:
    assert local(delta=1e-13).delta == 1e-13


# --- what is claimed ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(Adversary))
@pytest.mark.parametrize("rate", [0.2, 1.0])
@pytest.mark.parametrize("unit", [Unit.TASK, Unit.RECORD])
def test_every_adversary_sees_the_same(name: Adversary, rate: float, unit: Unit) -> None:
    plan = local(rate=rate, unit=unit)
    found = spend([plan.worst_event()] * 8, delta=plan.delta).adversaries
    assert found[name] == found[Adversary.AGGREGATOR]
    assert plan.worst_epsilon() == found[name].claimed


def test_colluders_and_drops_change_no_charge() -> None:
    plan = local()
    assert plan.event(8) == plan.event(10) == local(max_colluders=6).event(8)
    assert plan.share_variance == local(max_colluders=6, clients=20).share_variance
    with pytest.raises(PlanRefused, match="survivors"):
        plan.event(7)


@pytest.mark.parametrize("rate", [0.05, 1.0])
@pytest.mark.parametrize("epsilon", [0.7, 3.0])
def test_the_claim_of_a_calibrated_plan_is_just_within_the_target(
    epsilon: float, rate: float
) -> None:
    plan = calibrated(epsilon, **{**LOCAL, "rate": rate})
    assert epsilon - 0.02 < plan.worst_epsilon() <= epsilon


GOLDEN = [
    # q, z, rounds, steps of a round, delta -> prv or exact, pld, rdp, as the design states them
    (0.01, 1.0, 100, 10, 1e-5, 1.838, 1.828, 2.101),
    (0.1, 1.0, 10, 10, 1e-5, 7.057, 7.047, 7.899),
    (0.25, 2.0, 100, 2, 1e-4, 8.407, 8.397, 9.228),
    (1.0, 10.0, 100, 1, 1e-5, 4.377, 4.377, 4.729),
]


@pytest.mark.parametrize(("q", "z", "rounds", "steps", "delta", "claim", "pld", "rdp"), GOLDEN)
def test_golden_values_over_all_steps_of_all_rounds(
    q: float, z: float, rounds: int, steps: int, delta: float, claim: float, pld: float, rdp: float
) -> None:
    plan = local(z, rate=q, rounds=rounds, local_steps=steps, delta=delta)
    events = [plan.event(9)] * rounds
    row = spend_with_reference(events, delta=delta).adversaries[Adversary.PARTICIPANTS]
    # The design's figures are cut to three decimals.
    assert row.claimed == pytest.approx(claim, abs=1e-3)
    assert row.epsilon["pld"] == pytest.approx(pld, abs=1e-3)
    assert row.epsilon["rdp"] == pytest.approx(rdp, abs=1e-3)
    assert row.claim == ("exact" if q == 1.0 else "prv")


@pytest.mark.parametrize("accountant", [PRVAccountant, RDPAccountant])
def test_a_record_is_never_taken_for_a_task(accountant: type) -> None:
    """Halving z in Opacus' accountant is no proof under sampling; the pair itself is accounted."""
    plan = local(rate=0.1, unit=Unit.RECORD)
    course = ((1.5, 0.1, 40),)
    row = spend([plan.worst_event()] * 8, delta=1e-5).adversaries[Adversary.AGGREGATOR]
    assert (row.claim, row.claimed) == ("pld", replace_one(course, 1e-5))
    opacus = accountant()
    opacus.history = [(1.5, 0.1, 40)]
    assert row.claimed > 1.2 * opacus.get_epsilon(1e-5)
    without = local(unit=Unit.RECORD)
    row = spend([without.worst_event()] * 8, delta=1e-5).adversaries[Adversary.AGGREGATOR]
    assert row.claimed == exact_gaussian_epsilon(2 * math.sqrt(40) / 1.5, 1e-5)


def test_one_accountant_for_all_rounds() -> None:
    """A fresh accountant per round would say the first figure for ever."""
    plan = local(rate=0.1)
    figures = [
        spend([plan.worst_event()] * rounds, delta=plan.delta).worst for rounds in (1, 2, 4, 8)
    ]
    assert figures == [figure(((1.5, 0.1, 5 * n),), plan.delta, "prv") for n in (1, 2, 4, 8)]
    assert figures == sorted(set(figures))


def test_the_log_s_figure_stands_beside_the_claim() -> None:
    plan = local(rate=0.1)
    row = spend([plan.worst_event()] * 8, delta=plan.delta).adversaries[Adversary.AGGREGATOR]
    assert set(row.epsilon) == {"prv", "rdp"}
    opacus = figure(((1.5, 0.1, 40),), plan.delta, "rdp")
    assert opacus is not None
    assert row.claimed < opacus <= row.epsilon["rdp"] < 1.02 * opacus
    at_an_order = spend([plan.worst_event()] * 8, delta=plan.delta, order=8)
    assert set(at_an_order.adversaries[Adversary.AGGREGATOR].epsilon) == {"rdp"}


def test_the_event_is_that_of_one_round() -> None:
    event = local(rate=0.1, unit=Unit.RECORD).event(10)
    assert event == GaussianSteps(
        unit=Unit.RECORD,
        relation=event.relation,
        rate=0.1,
        noise_multiplier=1.5,
        steps=5,
        person_units=1,
    )
    assert event_from_json(event.to_json()) == event


# --- what is sent ---------------------------------------------------------------------------------


def test_one_step_carries_the_whole_noise_of_the_claim() -> None:
    """alpha 1e-6; half the deviation is noticed with certainty, 5 % less in 99.9 % of all cases."""
    plan = local(parameters=60_000)
    drawn = np.zeros(3, dtype=np.bool_)
    rows = np.zeros((3, plan.parameters), dtype=np.float32)
    rng = SecureRandom.from_key(KEY)
    step = replace(plan, rate=0.5).encode(rows, rng, round_index=1, drawn=drawn)
    claimed = (plan.event(8).noise_multiplier * plan.l2) ** 2  # type: ignore[union-attr]
    ratio = float(np.square(step.astype(np.float64)).mean()) / claimed
    limits = variance_limits(len(step), 1e-6)
    assert limits.hold(ratio)
    assert not limits.hold(ratio / 4.0)
    assert variance_power(len(step), 1e-6, 0.25) == 1.0
    assert variance_power(len(step), 1e-6, 0.95**2) > 0.999


def test_the_divisors_are_public_constants() -> None:
    plan = local(expected_units=37)
    assert batch_of(plan) == 37 / 10
    assert plan.divisor == message_of(plan).scale * 10
    total = np.arange(plan.dimension, dtype=np.int64)
    np.testing.assert_array_equal(plan.decode(total, round_index=3), total / plan.divisor)


def test_a_message_has_room_for_every_step_at_its_bound() -> None:
    """All tasks of a client at the cap in every step, and 11 deviations of noise: not cut off."""
    plan = local(max_units_per_client=10)
    message = message_of(plan)
    unit = 0.3 / (plan.scale * batch_of(plan))
    spread = unit * math.sqrt(5 * plan.share_variance)
    furthest = unit * 5 * 10 * plan.cap + 11.9 * spread
    moved = np.array([furthest, -furthest, 0.0, spread])
    np.testing.assert_allclose(message.encode(moved) / message.scale, moved, atol=spread / 500)
    assert 256.0 <= message.spread <= 512.0
    assert message.spread == pytest.approx(spread * message.scale, rel=1e-12)
    assert plan.max_abs == message.cap
    assert math.log2(message.scale).is_integer()


def test_a_message_is_cut_off_at_the_cap_whatever_it_holds() -> None:
    message = message_of(local())
    found = message.encode(np.array([1e300, -1e300, math.inf, -math.inf, math.nan]))
    assert found.dtype == np.int64
    assert found.tolist() == [message.cap, -message.cap, message.cap, -message.cap, 0]


def test_other_plans_have_no_message() -> None:
    with pytest.raises(PlanRefused, match="no steps of their own"):
        message_of(with_noise())
    with pytest.raises(PlanRefused, match="no noise of its own"):
        sum_event_of(local(), 9)


def test_noise_of_the_average_does_not_depend_on_the_units_of_messages() -> None:
    plan = local()
    std = plan.noise_std(10) / plan.divisor
    expected = 0.3 * math.sqrt(5 * plan.share_variance * 10) / (plan.scale * plan.expected_units)
    assert std == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rate", [0.2, 1.0])
def test_the_report_says_what_ran(rate: float) -> None:
    plan = local(rate=rate)
    events = [plan.worst_event()] * 8
    found = budget_report(plan, events, grant=100.0)
    assert "Gaussian noise of variance" in found["mechanism"]
    assert "5 such steps of size 0.3" in found["mechanism"]
    assert ("secret coin of rate 0.2" in found["sampler"]) is (rate < 1.0)
    text = " ".join(found["caveats"])
    assert "before clients compute anything" in text
    assert "min_survivors" not in text
    assert "Skellam" not in text
    assert not any("subtract" in row["description"] for row in found["adversaries"])
    assert {row["claim"] for row in found["adversaries"]} == {"exact" if rate == 1.0 else "prv"}
    assert all(row["epsilon"].keys() >= {"pld", "rdp"} for row in found["adversaries"])
    declared = budget_report(plan, events, grant=100.0, order=8)
    assert "at the order that the grant declares" in declared["caveats"][0]
