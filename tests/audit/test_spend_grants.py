"""Grants in a log: limits, filters, what earlier runs have spent, and charges beyond any of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from audit.canonical import decimal, dumps, sha256
from audit.errors import VerificationFailed
from audit.spend import ADVERSARIES
from tests.audit import scenario
from tests.audit.figures import SHARES, figures, granted, oracle, released, verify
from tests.audit.scenario import event, intent, release


def test_charges_of_earlier_runs_count(tmp_path: Path) -> None:
    log = scenario.start(tmp_path)
    prior = [{"event": event(), "count": 5}]
    log.append("budget-granted", scenario.grant())
    log.append("budget-spent", scenario.spent(prior))
    released(log, 1, figures(6))
    log.close()
    assert verify(tmp_path).released == 1


def test_a_long_history_may_take_several_entries(tmp_path: Path) -> None:
    log = granted(tmp_path)
    for count in (2, 1, 2):
        log.append("budget-spent", scenario.spent([{"event": event(), "count": count}]))
    released(log, 1, figures(6))
    log.close()
    assert verify(tmp_path).released == 1


def test_the_history_of_others_is_refused(tmp_path: Path) -> None:
    log = granted(tmp_path)
    prior = [{"event": event(), "count": 5}]
    log.append("budget-spent", scenario.spent(prior, population="others"))
    log.close()
    with pytest.raises(VerificationFailed, match="'others'; the run charges 'applicants'"):
        verify(tmp_path)


def test_a_limit_against_one_adversary_holds_beside_the_budget(tmp_path: Path) -> None:
    affordable = oracle(2, 7) * 1.001
    log = granted(tmp_path)
    log.append(
        "budget-granted", scenario.grant(adversary="aggregator", epsilon=decimal(affordable))
    )
    for round_ in (1, 2, 3):
        opened = log.append("round-intent", intent(round_)).digest.hex()
        log.append("round-release", release(round_, opened, spend=figures(round_)))
    log.close()
    with pytest.raises(VerificationFailed, match=r"aggregator: epsilon .* exceeds") as caught:
        verify(tmp_path)
    assert caught.value.index == 7


def test_a_limit_against_one_adversary_alone_is_no_budget(tmp_path: Path) -> None:
    log = scenario.start(tmp_path)
    log.append("budget-granted", scenario.grant(adversary="recipients"))
    log.append("round-intent", intent(1))
    log.close()
    with pytest.raises(VerificationFailed, match="no budget was granted"):
        verify(tmp_path)


def test_under_a_filter_figures_and_limit_are_those_of_its_order(tmp_path: Path) -> None:
    """The best order afterwards is another one, and what it says is smaller."""
    order = 3
    at_order = {name: decimal(oracle(1, SHARES[name], order)) for name in ADVERSARIES}
    assert float(at_order["aggregator"]) > oracle(1, 7) * 1.01
    for name, stated in (("right", at_order), ("best", {})):
        log = scenario.start(tmp_path / name)
        log.append("budget-granted", scenario.grant(order=order))
        released(log, 1, figures(1, **stated))
        log.close()
    assert verify(tmp_path / "right").released == 1
    with pytest.raises(VerificationFailed, match="states epsilon"):
        verify(tmp_path / "best")
    between = decimal((oracle(1, 5) + oracle(1, 5, order)) / 2)
    log = scenario.start(tmp_path / "beyond")
    log.append("budget-granted", scenario.grant(order=order, epsilon=between))
    log.append("round-intent", intent(1))
    log.close()
    with pytest.raises(VerificationFailed, match="exceeds granted"):
        verify(tmp_path / "beyond")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"order": 9}, "at order 9; the one before has None"),
        ({"order": 513}, "not accounted for"),
        ({"adversary": "nobody"}, "who is not known"),
    ],
)
def test_a_grant_that_moves_the_goal_is_refused(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    log = granted(tmp_path)
    log.append("budget-granted", scenario.grant(**changes))
    log.close()
    with pytest.raises(VerificationFailed, match=why):
        verify(tmp_path)


def test_a_charge_beyond_the_grant_is_refused_at_its_intent(tmp_path: Path) -> None:
    """The worst budgeted adversary has five shares against it; a broken sum is not budgeted."""
    affordable = oracle(2, 5) * 1.001
    assert affordable < oracle(1, 1)
    log = scenario.start(tmp_path)
    log.append("budget-granted", scenario.grant(epsilon=decimal(affordable)))
    for round_ in (1, 2, 3):
        opened = log.append("round-intent", intent(round_)).digest.hex()
        log.append("round-release", release(round_, opened, spend=figures(round_)))
    log.close()
    with pytest.raises(VerificationFailed, match="exceeds granted") as caught:
        verify(tmp_path)
    assert caught.value.index == 6


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"delta": "0.5"}, "grant at delta 0.5; the plan's is 1e-05"),
        ({"delta": "1e-06"}, "the plan's is 1e-05"),
        ({"unit": "client"}, "grant for unit 'client'; the plan's is 'task'"),
    ],
)
def test_a_grant_that_the_plan_cannot_be_held_against_is_refused(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    """At delta 0.5 next to anything stays below the granted epsilon."""
    plan = {**scenario.PLAN, "unit": "task"}
    log = scenario.start(tmp_path, plan=plan, plan_digest=sha256(dumps(plan)).hex())
    log.append("budget-granted", scenario.grant(**changes))
    log.close()
    with pytest.raises(VerificationFailed, match=why) as caught:
        verify(tmp_path)
    assert caught.value.index == 1


def test_another_populations_grant_is_refused(tmp_path: Path) -> None:
    """A run charges one population; what another may spend does not lift its limit."""
    log = granted(tmp_path)
    log.append("budget-granted", scenario.grant(epsilon="50.0"))
    index = log.append("budget-granted", scenario.grant(population="others", epsilon="90.0")).index
    log.close()
    with pytest.raises(
        VerificationFailed, match="'others'; the run charges 'applicants'"
    ) as caught:
        verify(tmp_path)
    assert caught.value.index == index


def test_a_charge_without_a_grant_is_refused(tmp_path: Path) -> None:
    """Left out, the grant would limit nothing."""
    log = scenario.start(tmp_path)
    log.append("round-intent", intent(1))
    log.close()
    with pytest.raises(VerificationFailed, match="no budget was granted") as caught:
        verify(tmp_path)
    assert caught.value.index == 1


def test_more_rounds_than_planned_are_refused(tmp_path: Path) -> None:
    """The target is for the plan's rounds, failed attempts included, however large the grant."""
    plan = {**scenario.PLAN, "rounds": 2}
    digest = sha256(dumps(plan)).hex()
    log = scenario.start(tmp_path, plan=plan, plan_digest=digest)
    log.append("budget-granted", scenario.grant())
    log.append("round-abort", scenario.abort(1, charged=True, event=event()))
    released(log, 2, figures(2), plan_digest=digest)
    log.append("round-abort", scenario.abort(3))
    last = log.append("round-intent", intent(4, plan_digest=digest)).index
    log.close()
    with pytest.raises(VerificationFailed, match="3 charged rounds; the plan is for 2") as caught:
        verify(tmp_path)
    assert caught.value.index == last
