"""Tight figures of Gaussian steps against other accountants, and in logs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

from audit.canonical import decimal, dumps, sha256
from audit.divergence import ORDERS
from audit.errors import EntryRefused, VerificationFailed
from audit.losses import ABOVE_TIGHT, WRAPPED, Tight, tight_epsilon
from audit.spend import ADVERSARIES, SpendChecker
from privacy.accountant import spend
from privacy.events import event_from_json
from privacy.gaussian import exact_gaussian_epsilon, figure, replace_one
from tests.audit import scenario
from tests.audit.figures import DELTA, verify

COURSES = [
    # z, q, steps, delta
    (1.0, 0.01, 1000, 1e-5),
    (1.0, 0.1, 100, 1e-5),
    (2.0, 0.25, 200, 1e-4),
    (0.7, 0.3, 3, 1e-6),
    (4.0, 0.5, 40, 1e-8),
    (30.0, 0.9, 1000, 1e-5),
    (1.0, 0.5, 1, 1e-5),
    (8.0, 0.01, 5, 1e-3),
]


def steps(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "kind": "gaussian_steps",
        "unit": "task",
        "relation": "add_remove",
        "rate": "0.1",
        "noise_multiplier": "1.5",
        "steps": 5,
        "person_units": 4,
    }
    return base | changes


def charged(*events: dict[str, Any], plan: dict[str, Any] | None = None) -> SpendChecker:
    """A checker that was shown these events as earlier charges."""
    checker = SpendChecker()
    checker._start(plan or {}, DELTA)
    for event in events:
        checker._charge(event, 1, of_plan=False)
    return checker


def tight(z: float, rate: float, count: int, delta: float) -> Tight:
    event = steps(noise_multiplier=decimal(z), rate=decimal(rate), steps=count)
    found = charged(event)._tight("recipients", delta)
    assert found is not None
    return found


def spent(z: float, rate: float, count: int, delta: float, **changes: str) -> float:
    event = steps(noise_multiplier=decimal(z), rate=decimal(rate), steps=count, **changes)
    return charged(event).epsilon("recipients", delta)


@pytest.mark.parametrize(("z", "rate", "count", "delta"), COURSES)
def test_it_agrees_with_google_s_accountant(
    z: float, rate: float, count: int, delta: float
) -> None:
    found = tight(z, rate, count, delta)
    pld = figure(((z, rate, count),), delta, "pld")
    prv = figure(((z, rate, count),), delta, "prv")
    assert pld is not None
    assert prv is not None
    assert found.epsilon == pytest.approx(pld, abs=5e-4)
    assert found.epsilon - found.excess <= pld <= prv <= found.epsilon + ABOVE_TIGHT
    assert found.excess < 1e-4
    fine = from_gaussian_mechanism(z, sampling_prob=rate, value_discretization_interval=2e-5)
    truth = fine.self_compose(count).get_epsilon_for_delta(delta)
    assert found.epsilon - found.excess <= truth <= found.epsilon + 1e-5


@pytest.mark.parametrize("name", ["prv", "pld"])
def test_a_figure_may_be_off_by_what_grids_explain_and_no_more(name: str) -> None:
    checker = charged(steps())
    checker._plan_delta = DELTA
    found = checker._tight("aggregator", DELTA)
    assert found is not None
    assert found.excess < 2e-5
    loose = decimal(checker._by_rdp("aggregator", DELTA))

    def state(figure: float) -> None:
        row = {"rdp": loose, name: decimal(figure)}
        checker._compare(dict.fromkeys(ADVERSARIES, row))

    state(found.epsilon - 0.99 * found.excess)
    state(found.epsilon + 0.99 * ABOVE_TIGHT)
    for wrong in (-1.01 * found.excess, 1.01 * ABOVE_TIGHT):
        with pytest.raises(EntryRefused, match="states epsilon"):
            state(found.epsilon + wrong)


@pytest.mark.parametrize(("z", "rate", "count", "delta"), COURSES)
def test_a_record_agrees_as_well(z: float, rate: float, count: int, delta: float) -> None:
    found = spent(z, rate, count, delta, unit="record", relation="replace_one")
    other = replace_one(((z, rate, count),), delta)
    assert found == pytest.approx(other, abs=5e-4)


@pytest.mark.parametrize(("relation", "shift"), [("add_remove", 1.0), ("replace_one", 2.0)])
@pytest.mark.parametrize("count", [1, 40])
@pytest.mark.parametrize("z", [0.3, 1.5, 200.0])
def test_without_coins_it_is_exact(relation: str, shift: float, count: int, z: float) -> None:
    found = tight_epsilon(((z, 1.0, count),), relation, DELTA, 1.0)
    exact = exact_gaussian_epsilon(shift * math.sqrt(count) / z, DELTA)
    assert found is not None
    assert found.epsilon == pytest.approx(exact, rel=1e-9, abs=1e-9)


def test_steps_of_several_settings_are_composed() -> None:
    events = [steps(), steps(rate="0.3", noise_multiplier="3.0"), steps(rate="1.0")]
    found = charged(*events).epsilon("aggregator", DELTA)
    course = ((1.5, 0.1, 5), (3.0, 0.3, 5), (1.5, 1.0, 5))
    assert found == pytest.approx(figure(course, DELTA, "pld"), abs=5e-4)
    doubled = charged(steps(), steps()).epsilon("aggregator", DELTA)
    assert doubled == charged(steps(steps=10)).epsilon("aggregator", DELTA)


def test_it_is_never_below_the_divergence_of_one_step() -> None:
    """Delta at the figure from an integral over the densities, both ways round."""
    z, q = 1.1, 0.3
    found = spent(z, q, 1, DELTA)
    x = np.linspace(-40.0, 41.0, 2_000_001)
    one = np.exp(-(x**2) / (2 * z * z)) / (z * math.sqrt(2 * math.pi))
    moved = np.exp(-((x - 1) ** 2) / (2 * z * z)) / (z * math.sqrt(2 * math.pi))
    mixed = (1 - q) * one + q * moved
    shown = max(
        np.trapezoid(np.clip(p - math.exp(found) * r, 0.0, None), x)
        for p, r in ((mixed, one), (one, mixed))
    )
    assert shown <= DELTA * (1 + 1e-6)
    assert shown > 0.99 * DELTA


def test_what_cannot_be_told_is_left_to_renyi() -> None:
    assert tight_epsilon(((1.0, 0.5, 10),), "add_remove", DELTA, 341.0) is None
    assert tight_epsilon(((1.0, 0.5, 10),), "add_remove", 1e-13, 10.0) is None
    assert tight_epsilon(((9.0, 0.01, 10**6),), "add_remove", 8e-10, 50.0) is None
    with pytest.raises(EntryRefused, match="nothing is proved"):
        tight_epsilon(((1.0, 0.5, 10),), "zero_out", DELTA, 10.0)


def test_other_noise_in_the_history_leaves_renyi_alone() -> None:
    both = charged(steps(), scenario.event())
    events = [event_from_json(e) for e in (steps(), scenario.event())]
    assert both._tight("aggregator", DELTA) is None
    expected = spend(events, delta=DELTA).adversaries
    for name, row in expected.items():
        assert both.epsilon(name.value, DELTA) == pytest.approx(row.claimed, rel=1e-9)
    assert (1.0 + math.log(2.0 / (WRAPPED * DELTA)) / (ORDERS - 1.0)).min() < 2.0


# --- in logs --------------------------------------------------------------------------------------

PLAN = {
    "delta": "1e-05",
    "mechanism": "gaussian",
    "noise_multiplier": "1.5",
    "rate": "0.1",
    "rounds": 3,
    "local_steps": 5,
}


def log_of(directory: Path, spends: list[dict[str, Any]], **changes: Any) -> None:
    """A log of releases, each of 5 steps and with these figures."""
    plan = PLAN | changes.pop("plan", {})
    named = {"plan": plan, "plan_digest": sha256(dumps(plan)).hex()}
    log = scenario.start(directory, **named)
    log.append("budget-granted", scenario.grant(epsilon=changes.pop("granted", "40.0")))
    for index, found in enumerate(spends, start=1):
        body = scenario.intent(
            index, event=steps(**changes), clip="1.0", plan_digest=named["plan_digest"]
        )
        opened = log.append("round-intent", body).digest.hex()
        log.append("round-release", scenario.release(index, opened, spend=found))
    log.close()


def stated(rounds: int, **wrong: float) -> dict[str, Any]:
    """What the product states after so many rounds, some figures changed by so much."""
    row = spend([event_from_json(steps())] * rounds, delta=DELTA).adversaries
    return {
        name.value: {
            key: decimal(value + wrong.get(key, 0.0)) for key, value in row_.epsilon.items()
        }
        for name, row_ in row.items()
    }


def test_a_run_s_figures_are_recomputed(tmp_path: Path) -> None:
    log_of(tmp_path, [stated(1), stated(2), stated(3)])
    assert verify(tmp_path).released == 3


@pytest.mark.parametrize(
    "wrong", [{"prv": -0.02}, {"prv": 0.2}, {"rdp": -1e-6}, {"rdp": 1e-3}, {"prv": -1.0}]
)
def test_a_figure_too_small_or_too_large_is_refused(
    tmp_path: Path, wrong: dict[str, float]
) -> None:
    log_of(tmp_path, [stated(1), stated(2, **wrong)])
    with pytest.raises(VerificationFailed, match="states epsilon") as caught:
        verify(tmp_path)
    assert caught.value.index == 5


def test_an_accountant_started_afresh_each_round_is_caught(tmp_path: Path) -> None:
    log_of(tmp_path, [stated(1), stated(1)])
    with pytest.raises(VerificationFailed, match="states epsilon") as caught:
        verify(tmp_path)
    assert caught.value.index == 5


def test_a_grant_that_the_tight_figure_keeps_is_enough(tmp_path: Path) -> None:
    figures = spend([event_from_json(steps())] * 3, delta=DELTA)
    loose = float(stated(3)["aggregator"]["rdp"])
    assert figures.worst < 0.95 * loose
    log_of(tmp_path / "kept", [stated(n) for n in (1, 2, 3)], granted=decimal(figures.worst))
    assert verify(tmp_path / "kept").released == 3
    less = decimal(figures.worst - 0.05)
    log_of(tmp_path / "passed", [stated(n) for n in (1, 2, 3)], granted=less)
    with pytest.raises(VerificationFailed, match="exceeds granted") as caught:
        verify(tmp_path / "passed")
    assert caught.value.index == 6


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"steps": 4}, "event steps 4; plan has local_steps 5"),
        ({"noise_multiplier": "3.0"}, "event noise_multiplier '3.0'"),
        ({"rate": "0.05"}, "event rate '0.05'"),
        ({"steps": 0}, "steps 0 is out of range"),
        ({"steps": "5"}, "steps '5' is out of range"),
        ({"person_units": 0}, "person_units 0"),
        ({"noise_multiplier": "0.0"}, "noise_multiplier"),
        ({"noise_multiplier": "inf"}, "decimal"),
        ({"unit": "user"}, "bounds one task"),
        ({"unit": "record"}, "allowed are"),
        ({"unit": "client", "relation": "zero_out"}, "bounds one task"),
        ({"survivors": 7}, "missing or unknown"),
        ({"plan": {"mechanism": "skellam"}}, "plan has mechanism 'skellam'"),
    ],
)
def test_events_that_are_not_the_plan_s_are_refused(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    log_of(tmp_path, [stated(1)], **changes)
    with pytest.raises(VerificationFailed, match=why) as caught:
        verify(tmp_path)
    assert caught.value.index == 2


def test_tight_figures_of_shares_are_refused(tmp_path: Path) -> None:
    """No tight accountant is proved for integer noise: nobody may state one."""
    checker = charged(scenario.event())
    spend_ = {name: {"rdp": decimal(checker.epsilon(name, DELTA))} for name in ADVERSARIES}
    checker._compare(spend_)
    with pytest.raises(EntryRefused, match="a figure by 'prv', which has none here"):
        checker._compare(spend_ | {"aggregator": spend_["aggregator"] | {"prv": "0.1"}})
