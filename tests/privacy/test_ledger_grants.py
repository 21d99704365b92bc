"""Grants: amounts, names, expiry, the adversaries and the order that they limit."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from privacy.accountant import Adversary, spend
from privacy.errors import BudgetExceeded, LedgerError
from privacy.events import Event
from privacy.ledger_limits import MAX_AFFORDABLE, affordable, spent_of
from privacy.ledger_rows import Grant
from privacy.unit import RELATION_OF, Unit
from tests.privacy.ledgers import EVENT, NOW, Open, grant, reserve
from tests.privacy.plans import with_noise
from tests.privacy.test_local import local

AMOUNTS = [
    0.0,
    -0.0,
    -1.0,
    -1,
    0,
    math.nan,
    math.inf,
    -math.inf,
    5e-324,
    2.0**-1023,
    10**400,
    True,
    "3",
    None,
    1 + 0j,
]


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("which", ["epsilon", "delta"])
def test_amounts_that_mean_nothing_or_everything_are_refused(
    sqlite: Open, amount: Any, which: str
) -> None:
    ledger = sqlite()
    amounts = {"epsilon": 1.0, "delta": 1e-5, which: amount}
    with pytest.raises(LedgerError, match=which):
        ledger.grant("p", unit=Unit.TASK, approver="x", **amounts)
    assert ledger.grants_of("p") == ()


def test_a_delta_of_one_is_refused_and_a_whole_epsilon_is_fine(sqlite: Open) -> None:
    ledger = sqlite()
    with pytest.raises(LedgerError, match="below 1"):
        ledger.grant("p", unit=Unit.TASK, epsilon=1, delta=1.0, approver="x")
    made = ledger.grant("p", unit=Unit.TASK, epsilon=2, delta=np.float64(1e-5), approver="x")
    assert made.epsilon == 2.0
    assert ledger.grants_of("p") == (made,)


def test_a_grant_names_a_known_unit(sqlite: Open) -> None:
    ledger = sqlite()
    with pytest.raises(LedgerError, match="one of record, task"):
        ledger.grant("p", unit="person", epsilon=1.0, delta=1e-5, approver="x")  # type: ignore[arg-type]
    assert ledger.grant("p", unit="task", epsilon=1.0, delta=1e-5, approver="x").unit is Unit.TASK  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", "\ud800", "\x00", 5, None])
def test_names_are_short_and_printable(sqlite: Open, name: Any) -> None:
    ledger = grant(sqlite())
    with pytest.raises(LedgerError, match="printable"):
        ledger.grant(name, unit=Unit.TASK, epsilon=1.0, delta=1e-5, approver="x")
    with pytest.raises(LedgerError, match="printable"):
        ledger.grant("p", unit=Unit.TASK, epsilon=1.0, delta=1e-5, approver=name)
    for field in ("population", "run"):
        with pytest.raises(LedgerError, match="printable"):
            reserve(ledger, 0, **{field: name})


def test_a_grant_expires(opened: Open) -> None:
    now = [NOW]
    ledger = opened(clock=lambda: now[0])
    expires = NOW + timedelta(days=1)
    ledger.grant("p", unit=Unit.TASK, epsilon=3.0, delta=1e-5, approver="x", expires=expires)
    reserve(ledger, 0)
    now[0] = expires - timedelta(microseconds=1)
    reserve(ledger, 1)
    assert ledger.affordable("p", EVENT) > 0
    now[0] = expires
    assert ledger.affordable("p", EVENT) == 0
    with pytest.raises(LedgerError, match="expired"):
        reserve(ledger, 2)
    assert len(ledger.events("p")) == 2
    (held,) = ledger.grants_of("p")
    assert held.expires == expires


def test_times_need_a_zone(sqlite: Open) -> None:
    naive = datetime(2040, 1, 1)  # noqa: DTZ001
    ledger = sqlite(clock=lambda: NOW)
    for expires in (naive, NOW, NOW - timedelta(days=1)):
        with pytest.raises(LedgerError, match=r"^expires .* lacks a time zone or has passed$"):
            ledger.grant(
                "p", unit=Unit.TASK, epsilon=1.0, delta=1e-5, approver="x", expires=expires
            )
    with pytest.raises(LedgerError, match="clock"):
        grant(sqlite(clock=lambda: naive))


def test_times_are_kept_in_utc(sqlite: Open) -> None:
    zone = timezone(timedelta(hours=5))
    ledger = grant(sqlite(clock=lambda: NOW.astimezone(zone)))
    (held,) = ledger.grants_of("p")
    assert held.granted.isoformat() == "2030-01-01T00:00:00+00:00"


def test_a_later_grant_counts_and_nothing_is_forgiven(opened: Open) -> None:
    ledger = grant(opened())
    for index in range(5):
        reserve(ledger, index)
    ledger.grant("p", unit=Unit.TASK, epsilon=3.2, delta=1e-5, approver="the board")
    assert len(ledger.events("p")) == 5
    few = ledger.affordable("p", EVENT)
    assert spend([EVENT] * (5 + few), delta=1e-5).worst <= 3.2
    ledger.grant("p", unit=Unit.TASK, epsilon=1.0, delta=1e-5, approver="the board")
    with pytest.raises(BudgetExceeded):
        reserve(ledger, 5)
    for other in ({"unit": Unit.RECORD}, {"delta": 1e-6}):
        terms = {"unit": Unit.TASK, "delta": 1e-5, **other}
        with pytest.raises(LedgerError, match="cannot change"):
            ledger.grant("p", epsilon=9.0, approver="x", **terms)


def test_a_clock_that_was_set_back_revives_no_grant(opened: Open) -> None:
    now = [NOW]
    ledger = opened(clock=lambda: now[0])
    grant(ledger, expires=NOW + timedelta(days=2))
    reserve(ledger, 0)
    now[0] += timedelta(days=1, hours=23)
    reserve(ledger, 1)
    now[0] = NOW - timedelta(days=400)
    reserve(ledger, 2)
    times = [row["reserved"] for row in ledger.export("p")["reservations"]]
    assert times == sorted(times)
    grant(ledger, expires=NOW + timedelta(days=1))  # it ended before the newest entry
    assert ledger.affordable("p", EVENT) == 0
    with pytest.raises(LedgerError, match="expired"):
        reserve(ledger, 3)
    assert ledger.account("p").affordable == 0


def test_a_clock_that_jumps_ahead_ends_a_grant_and_charges_nothing(opened: Open) -> None:
    now = [NOW]
    ledger = opened(clock=lambda: now[0])
    grant(ledger, expires=NOW + timedelta(days=2))
    now[0] += timedelta(days=4000)
    with pytest.raises(LedgerError, match="expired"):
        reserve(ledger, 0)
    assert ledger.events("p") == ()
    now[0] = NOW
    reserve(ledger, 0)


def test_a_grant_for_one_adversary_tightens_the_budget(opened: Open) -> None:
    ledger = grant(opened())
    assert ledger.affordable("p", EVENT) == 5
    limit = spend([EVENT] * 3, delta=1e-5).adversaries[Adversary.AGGREGATOR].claimed
    grant(ledger, adversary=Adversary.AGGREGATOR, epsilon=limit)
    assert ledger.affordable("p", EVENT) == 3
    for index in range(3):
        reserve(ledger, index)
    with pytest.raises(BudgetExceeded, match="aggregator adversary, fixed plan") as caught:
        reserve(ledger, 3)
    assert caught.value.granted == limit
    assert [held.adversary for held in ledger.grants_of("p")] == [None, Adversary.AGGREGATOR]
    grant(ledger, adversary=Adversary.AGGREGATOR, epsilon=9.0)
    assert ledger.affordable("p", EVENT) == 2


def test_even_a_broken_sum_can_be_limited(opened: Open) -> None:
    ledger = grant(opened(), epsilon=100.0)
    limit = spend([EVENT], delta=1e-5).adversaries[Adversary.BROKEN_SUM].claimed
    grant(ledger, adversary=Adversary.BROKEN_SUM, epsilon=limit)
    assert ledger.affordable("p", EVENT) == 1


def test_one_adversary_alone_is_no_budget(sqlite: Open) -> None:
    """It would leave all the others without limit."""
    with pytest.raises(LedgerError, match="must be for the worst adversary"):
        grant(sqlite(), adversary=Adversary.RECIPIENTS)


@pytest.mark.parametrize("order", [1, 513, 2.0, True, "9"])
def test_an_order_that_nobody_accounts_for_is_refused(sqlite: Open, order: Any) -> None:
    with pytest.raises(LedgerError, match="integer from 2 to 512"):
        grant(sqlite(), order=order)


def test_a_filter_adds_up_at_its_own_order(opened: Open) -> None:
    """At the order of the best bound it affords as much; at any other one less."""
    best = min(range(2, 513), key=lambda a: spend([EVENT] * 5, delta=1e-5, order=a).worst)
    ledger = grant(opened(), order=best)
    assert ledger.affordable("p", EVENT) == 5
    for order in (2, best + 20):
        grant(ledger, population=f"order {order}", order=order)
        fits = ledger.affordable(f"order {order}", EVENT)
        assert fits < 5
        assert spend([EVENT] * fits, delta=1e-5, order=order).worst <= 3.0
        assert spend([EVENT] * (fits + 1), delta=1e-5, order=order).worst > 3.0
    for index in range(5):
        reserve(ledger, index)
    with pytest.raises(BudgetExceeded, match=f"filter at order {best}"):
        reserve(ledger, 5)


def test_a_filter_is_not_moved_to_the_order_that_turns_out_best(opened: Open) -> None:
    """Planted: the smallest epsilon over orders, after events were chosen from results."""
    ledger = grant(opened(), order=2)
    limit = ledger.affordable("p", EVENT)
    for index in range(limit):
        reserve(ledger, index)
    assert spend([EVENT] * (limit + 1), delta=1e-5).worst <= 3.0
    with pytest.raises(BudgetExceeded):
        reserve(ledger, limit)
    for order in (None, 9):
        with pytest.raises(LedgerError, match="cannot change"):
            grant(ledger, order=order)


def test_where_a_population_stands(opened: Open) -> None:
    ledger = opened()
    assert ledger.populations() == ()
    grant(ledger)
    grant(ledger, population="a")
    empty = ledger.account("p")
    assert (empty.spent, empty.charged, empty.last, empty.affordable) == ((0.0,), 0, None, None)
    ledger.commit(reserve(ledger, 0))
    reserve(ledger, 1)
    found = ledger.account("p")
    assert (found.charged, found.opened, found.last, found.affordable) == (2, 1, EVENT, 3)
    assert found.spent == (spend([EVENT] * 2, delta=1e-5).worst,)
    assert found.grants == ledger.grants_of("p")
    assert ledger.populations() == ("a", "p")
    assert ledger.account("nobody").grants == ()
    assert found.turns_left is None


def test_turns_are_counted_by_contributions(opened: Open) -> None:
    """Ten clients with three turns each make room for four rounds of seven, then for fewer."""
    ledger = opened()
    grant(ledger, unit=Unit.CLIENT)
    few = with_noise(
        10.0,
        unit=Unit.CLIENT,
        max_units_per_client=1,
        rounds=4,
        min_survivors=5,
        max_participations=3,
    )
    events = [few.event(survivors) for survivors in (7, 7, 5, 7)]
    left = []
    for index, event in enumerate(events):
        ledger.reserve("p", "r", index, 1, event, few.digest())
        left.append(ledger.account("p").turns_left)
    assert left == [3, 2, 2, 0]  # of 30 turns 23, 16, 11 and 4 are left
    assert ledger.account("p").affordable == MAX_AFFORDABLE
    other = replace(events[0], clients=11)
    ledger.reserve("p", "other", 0, 1, other, few.digest())
    assert ledger.account("p").turns_left is None


def a_grant(epsilon: float) -> Grant:
    return Grant(
        "p", Unit.TASK, RELATION_OF[Unit.TASK], None, epsilon, 1e-5, None, "the board", NOW, None
    )


def test_how_many_fit_asks_for_the_same_totals_after_every_charge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Figures of sampled steps take up to seconds, and are kept."""
    plan = local(6.0, rate=0.05, rounds=40, local_steps=10)
    event, asked = plan.worst_event(), set[int]()
    limit = a_grant(1.0)

    def noted(one: Grant, counts: Counter[Event]) -> float:
        asked.add(counts[event])
        return spent_of(one, counts)

    monkeypatch.setattr("privacy.ledger_limits.spent_of", noted)
    most = affordable([limit], Counter(), event)
    fits, more = (spent_of(limit, Counter({event: total})) for total in (most, most + 1))
    assert fits <= 1.0 < more
    first = set(asked)
    for held in range(1, most + 2):
        assert affordable([limit], Counter({event: held}), event) == max(0, most - held)
    assert asked == first
    assert len(first) <= 8
    assert affordable([a_grant(1.4), limit], Counter({event: 3}), event) == most - 3
