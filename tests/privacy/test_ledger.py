"""What is charged stays charged, and nothing beyond the grant is; on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from privacy.accountant import spend
from privacy.errors import BudgetExceeded, LedgerError
from privacy.events import NonPrivate
from privacy.ledger_limits import MAX_AFFORDABLE
from privacy.unit import Relation, Unit
from tests.privacy.ledgers import EVENT, PLAN, Open, grant, reserve
from tests.privacy.plans import with_noise


def test_a_plan_fits_its_own_budget_exactly(opened: Open) -> None:
    ledger = grant(opened())
    for index in range(5):
        assert ledger.affordable("p", EVENT) == 5 - index
        ledger.commit(reserve(ledger, index))
    with pytest.raises(BudgetExceeded, match="0 more") as caught:
        reserve(ledger, 5)
    assert caught.value.granted == 3.0
    assert caught.value.requested == spend([EVENT] * 6, delta=1e-5).worst > 3.0
    assert caught.value.affordable_rounds == 0
    assert ledger.events("p") == (EVENT,) * 5
    assert ledger.counts("p") == {EVENT: 5}


def test_a_refusal_writes_nothing_and_says_what_still_fits(opened: Open) -> None:
    ledger = grant(opened())
    reserve(ledger, 0)
    dear = with_noise(0.5).worst_event()
    with pytest.raises(BudgetExceeded):
        reserve(ledger, 1, event=dear)
    assert ledger.events("p") == (EVENT,)
    assert ledger.affordable("p", dear) == 0
    assert ledger.affordable("p", EVENT) == 4
    reserve(ledger, 1)


def test_rounds_that_failed_are_charged_like_the_others(opened: Open) -> None:
    """Another's bug: epsilon only for rounds that succeeded."""
    ledger = grant(opened())
    reserve(ledger, 0)
    reserve(ledger, 0, attempt=1)
    ledger.commit(reserve(ledger, 0, attempt=2))
    assert len(ledger.events("p")) == 3
    assert ledger.affordable("p", EVENT) == 2


def test_the_budget_is_over_all_runs_of_a_population_and_no_other(opened: Open) -> None:
    ledger = grant(opened())
    ledger.grant("q", unit=Unit.TASK, epsilon=3.0, delta=1e-5, approver="x")
    for run in ("a", "b", "c"):
        reserve(ledger, 0, run=run)
    assert ledger.affordable("p", EVENT) == 2
    assert ledger.affordable("q", EVENT) == 5
    assert ledger.events("q") == ()


def test_what_is_reserved_is_there_in_another_process_object(opened: Open) -> None:
    reserve(grant(opened()), 0)
    again = opened()
    assert again.events("p") == (EVENT,)
    (held,) = again.grants_of("p")
    assert (held.epsilon, held.delta, held.unit) == (3.0, 1e-5, Unit.TASK)
    assert again.grants_of("q") == ()


def test_affordable_has_an_end(opened: Open) -> None:
    ledger = grant(opened(), epsilon=1e6)
    assert ledger.affordable("p", with_noise(1000.0).worst_event()) == MAX_AFFORDABLE


def test_committing_twice_changes_nothing(opened: Open) -> None:
    ledger = grant(opened())
    name = reserve(ledger, 0)
    ledger.commit(name)
    before = ledger.export("p")
    ledger.commit(name)
    assert ledger.export("p") == before
    assert len(ledger.events("p")) == 1
    with pytest.raises(LedgerError, match="no reservation"):
        ledger.commit("nothing")


@pytest.mark.parametrize("again", [{}, {"event": PLAN.event(9)}, {"population": "q"}])
def test_one_attempt_is_reserved_once(opened: Open, again: dict[str, Any]) -> None:
    ledger = grant(opened())
    ledger.grant("q", unit=Unit.TASK, epsilon=3.0, delta=1e-5, approver="x")
    reserve(ledger, 0)
    with pytest.raises(LedgerError, match="reserved before"):
        reserve(ledger, 0, **again)
    assert len(ledger.events("p")) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("round", -1),
        ("round", 2**53),
        ("round", 1.0),
        ("attempt", -1),
        ("attempt", True),
        ("plan_digest", b""),
        ("plan_digest", bytes(31)),
        ("plan_digest", "00" * 32),
    ],
)
def test_other_fields_are_checked_too(opened: Open, field: str, value: Any) -> None:
    with pytest.raises(LedgerError):
        reserve(grant(opened()), 0, **{field: value})


def test_without_a_grant_nothing_is_reserved(opened: Open) -> None:
    ledger = opened()
    for ask in (lambda: reserve(ledger, 0), lambda: ledger.affordable("p", EVENT)):
        with pytest.raises(LedgerError, match="no grant"):
            ask()


def test_units_and_relations_never_mix(opened: Open) -> None:
    ledger = grant(opened(), epsilon=100.0)
    with pytest.raises(LedgerError, match="unit record"):
        reserve(ledger, 0, event=NonPrivate(Unit.RECORD, Relation.REPLACE_ONE, ""))
    with pytest.raises(LedgerError, match="unit record"):
        ledger.affordable("p", NonPrivate(Unit.RECORD, Relation.REPLACE_ONE, ""))
    for index in (1, 2):
        with pytest.raises(LedgerError, match="under replace_one, under a grant"):
            reserve(ledger, index, event=NonPrivate(Unit.TASK, Relation.REPLACE_ONE, ""))
        reserve(ledger, 0, attempt=index)
    assert ledger.events("p") == (EVENT, EVENT)


def test_a_release_without_noise_fits_no_budget(opened: Open) -> None:
    ledger = grant(opened(), epsilon=1e300)
    bare = NonPrivate(Unit.TASK, Relation.ADD_REMOVE, "noise off")
    assert ledger.affordable("p", bare) == 0
    with pytest.raises(BudgetExceeded):
        reserve(ledger, 0, event=bare)
