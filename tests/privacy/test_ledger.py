from __future__ import annotations

import json
import math
import sqlite3
import stat
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privacy.accountant import Adversary, spend
from privacy.errors import BudgetExceeded, EventRefused, LedgerError
from privacy.events import NonPrivate
from privacy.ledger import MAX_AFFORDABLE, Ledger
from privacy.unit import Relation, Unit
from tests.privacy.plans import calibrated, with_noise

PLAN = calibrated(rounds=5)
EVENT = PLAN.worst_event()
DIGEST = PLAN.digest()
NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def opened(file: Path, **options: Any) -> Ledger:
    return Ledger(f"sqlite:///{file}", **options)


def granted(file: Path, epsilon: float = 3.0, **options: Any) -> Ledger:
    ledger = opened(file, **options)
    ledger.grant("p", unit=Unit.TASK, epsilon=epsilon, delta=1e-5, approver="the board")
    return ledger


def reserve(ledger: Ledger, index: int, **changes: Any) -> str:
    asked = {
        "population": "p",
        "run": "r",
        "round": index,
        "attempt": 0,
        "event": EVENT,
        "plan_digest": DIGEST,
        **changes,
    }
    return ledger.reserve(**asked)


def test_a_plan_fits_its_own_budget_exactly(file: Path) -> None:
    ledger = granted(file)
    for index in range(5):
        assert ledger.affordable("p", EVENT) == 5 - index
        ledger.commit(reserve(ledger, index))
    with pytest.raises(BudgetExceeded, match="0 more") as caught:
        reserve(ledger, 5)
    assert caught.value.granted == 3.0
    assert caught.value.requested == spend([EVENT] * 6, delta=1e-5).worst > 3.0
    assert caught.value.affordable_rounds == 0
    assert ledger.events("p") == (EVENT,) * 5


def test_a_refusal_writes_nothing_and_says_what_still_fits(file: Path) -> None:
    ledger = granted(file)
    reserve(ledger, 0)
    dear = with_noise(0.5).worst_event()
    with pytest.raises(BudgetExceeded):
        reserve(ledger, 1, event=dear)
    assert ledger.events("p") == (EVENT,)
    assert ledger.affordable("p", dear) == 0
    assert ledger.affordable("p", EVENT) == 4
    reserve(ledger, 1)


def test_rounds_that_failed_are_charged_like_the_others(file: Path) -> None:
    """Another's bug: epsilon only for rounds that succeeded."""
    ledger = granted(file)
    reserve(ledger, 0)
    reserve(ledger, 0, attempt=1)
    ledger.commit(reserve(ledger, 0, attempt=2))
    assert len(ledger.events("p")) == 3
    assert ledger.affordable("p", EVENT) == 2


def test_the_budget_is_over_all_runs_of_a_population_and_no_other(file: Path) -> None:
    ledger = granted(file)
    ledger.grant("q", unit=Unit.TASK, epsilon=3.0, delta=1e-5, approver="x")
    for run in ("a", "b", "c"):
        reserve(ledger, 0, run=run)
    assert ledger.affordable("p", EVENT) == 2
    assert ledger.affordable("q", EVENT) == 5
    assert ledger.events("q") == ()


def test_what_is_reserved_is_there_in_another_process_object(file: Path) -> None:
    reserve(granted(file), 0)
    again = opened(file)
    assert again.events("p") == (EVENT,)
    grant = again.grant_of("p")
    assert grant is not None
    assert (grant.epsilon, grant.delta, grant.unit) == (3.0, 1e-5, Unit.TASK)
    assert again.grant_of("q") is None


def test_affordable_per_adversary(file: Path) -> None:
    ledger = granted(file, epsilon=5.0)
    counts = {a: ledger.affordable("p", EVENT, adversary=a) for a in Adversary}
    assert counts[Adversary.AGGREGATOR] > counts[Adversary.COLLUDERS] > counts[Adversary.BROKEN_SUM]
    assert ledger.affordable("p", EVENT) == counts[Adversary.COLLUDERS]
    for adversary, count in counts.items():
        within = spend([EVENT] * count, delta=1e-5).adversaries[adversary].claimed
        beyond = spend([EVENT] * (count + 1), delta=1e-5).adversaries[adversary].claimed
        assert within <= 5.0 < beyond


def test_affordable_has_an_end(file: Path) -> None:
    ledger = granted(file, epsilon=1e6)
    assert ledger.affordable("p", with_noise(1000.0).worst_event()) == MAX_AFFORDABLE


def test_committing_twice_changes_nothing(file: Path) -> None:
    ledger = granted(file)
    name = reserve(ledger, 0)
    ledger.commit(name)
    before = ledger.export("p")
    ledger.commit(name)
    assert ledger.export("p") == before
    assert len(ledger.events("p")) == 1
    with pytest.raises(LedgerError, match="no reservation"):
        ledger.commit("nothing")


@pytest.mark.parametrize("again", [{}, {"event": PLAN.event(9)}, {"population": "q"}])
def test_one_attempt_is_reserved_once(file: Path, again: dict[str, Any]) -> None:
    ledger = granted(file)
    ledger.grant("q", unit=Unit.TASK, epsilon=3.0, delta=1e-5, approver="x")
    reserve(ledger, 0)
    with pytest.raises(LedgerError, match="reserved before"):
        reserve(ledger, 0, **again)
    assert len(ledger.events("p")) == 1


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
    file: Path, amount: Any, which: str
) -> None:
    ledger = opened(file)
    amounts = {"epsilon": 1.0, "delta": 1e-5, which: amount}
    with pytest.raises(LedgerError, match=which):
        ledger.grant("p", unit=Unit.TASK, approver="x", **amounts)
    assert ledger.grant_of("p") is None


def test_a_delta_of_one_is_refused_and_a_whole_epsilon_is_fine(file: Path) -> None:
    ledger = opened(file)
    with pytest.raises(LedgerError, match="below 1"):
        ledger.grant("p", unit=Unit.TASK, epsilon=1, delta=1.0, approver="x")
    made = ledger.grant("p", unit=Unit.TASK, epsilon=2, delta=np.float64(1e-5), approver="x")
    assert made.epsilon == 2.0
    assert ledger.grant_of("p") == made


def test_a_grant_names_a_known_unit(file: Path) -> None:
    ledger = opened(file)
    with pytest.raises(LedgerError, match="one of record, task"):
        ledger.grant("p", unit="person", epsilon=1.0, delta=1e-5, approver="x")  # type: ignore[arg-type]
    assert ledger.grant("p", unit="task", epsilon=1.0, delta=1e-5, approver="x").unit is Unit.TASK  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", "\ud800", "\x00", 5, None])
def test_names_are_short_and_printable(file: Path, name: Any) -> None:
    ledger = granted(file)
    with pytest.raises(LedgerError, match="printable"):
        ledger.grant(name, unit=Unit.TASK, epsilon=1.0, delta=1e-5, approver="x")
    with pytest.raises(LedgerError, match="printable"):
        ledger.grant("p", unit=Unit.TASK, epsilon=1.0, delta=1e-5, approver=name)
    for field in ("population", "run"):
        with pytest.raises(LedgerError, match="printable"):
            reserve(ledger, 0, **{field: name})


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
def test_other_fields_are_checked_too(file: Path, field: str, value: Any) -> None:
    with pytest.raises(LedgerError):
        reserve(granted(file), 0, **{field: value})


def test_without_a_grant_nothing_is_reserved(file: Path) -> None:
    ledger = opened(file)
    for ask in (lambda: reserve(ledger, 0), lambda: ledger.affordable("p", EVENT)):
        with pytest.raises(LedgerError, match="no grant"):
            ask()


def test_a_grant_expires(file: Path) -> None:
    now = [NOW]
    ledger = opened(file, clock=lambda: now[0])
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
    grant = ledger.grant_of("p")
    assert grant is not None
    assert grant.expires == expires


def test_times_need_a_zone(file: Path) -> None:
    naive = datetime(2040, 1, 1)  # noqa: DTZ001
    ledger = opened(file, clock=lambda: NOW)
    for expires in (naive, NOW, NOW - timedelta(days=1)):
        with pytest.raises(LedgerError, match="expiry"):
            ledger.grant(
                "p", unit=Unit.TASK, epsilon=1.0, delta=1e-5, approver="x", expires=expires
            )
    with pytest.raises(LedgerError, match="clock"):
        granted(file, clock=lambda: naive)


def test_times_are_kept_in_utc(file: Path) -> None:
    zone = timezone(timedelta(hours=5))
    ledger = granted(file, clock=lambda: NOW.astimezone(zone))
    grant = ledger.grant_of("p")
    assert grant is not None
    assert grant.granted.isoformat() == "2030-01-01T00:00:00+00:00"


def test_a_later_grant_counts_and_nothing_is_forgiven(file: Path) -> None:
    ledger = granted(file)
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


def test_units_and_relations_never_mix(file: Path) -> None:
    ledger = granted(file, epsilon=100.0)
    with pytest.raises(LedgerError, match="unit record"):
        reserve(ledger, 0, event=NonPrivate(Unit.RECORD, Relation.REPLACE_ONE, ""))
    with pytest.raises(LedgerError, match="unit record"):
        ledger.affordable("p", NonPrivate(Unit.RECORD, Relation.REPLACE_ONE, ""))
    reserve(ledger, 0)
    with pytest.raises(EventRefused, match="never compose"):
        reserve(ledger, 1, event=NonPrivate(Unit.TASK, Relation.REPLACE_ONE, ""))
    assert ledger.events("p") == (EVENT,)


def test_a_release_without_noise_fits_no_budget(file: Path) -> None:
    ledger = granted(file, epsilon=1e300)
    bare = NonPrivate(Unit.TASK, Relation.ADD_REMOVE, "noise off")
    assert ledger.affordable("p", bare) == 0
    with pytest.raises(BudgetExceeded):
        reserve(ledger, 0, event=bare)


def test_an_export_is_plain_json(file: Path) -> None:
    ledger = granted(file, clock=lambda: NOW)
    name = reserve(ledger, 0)
    ledger.commit(name)
    exported = json.loads(json.dumps(ledger.export("p")))
    assert exported == ledger.export("p")
    assert exported["reservations"] == [
        {
            "id": name,
            "population": "p",
            "run": "r",
            "round": 0,
            "attempt": 0,
            "event": EVENT.to_json(),
            "plan_digest": DIGEST.hex(),
            "reserved": NOW.isoformat(),
            "committed": NOW.isoformat(),
        }
    ]
    assert exported["grants"][0]["epsilon"] == "3.0"
    assert ledger.export("nobody")["reservations"] == []


def test_restoring_an_older_copy_never_refunds(file: Path, tmp_path: Path) -> None:
    ledger = granted(file)
    reserve(ledger, 0)
    older = ledger.export("p")
    reserve(ledger, 1)
    assert ledger.restore(older) == 0
    assert len(ledger.events("p")) == 2
    elsewhere = opened(tmp_path / "other.db")
    assert elsewhere.restore(older) == 1
    assert elsewhere.restore(ledger.export("p")) == 1
    assert elsewhere.restore(older) == 0
    assert elsewhere.events("p") == ledger.events("p")
    assert elsewhere.grant_of("p") == ledger.grant_of("p")


def test_restoring_never_raises_a_budget(file: Path, tmp_path: Path) -> None:
    generous = granted(tmp_path / "generous.db", epsilon=50.0)
    strict = granted(file, epsilon=3.0)
    strict.restore(generous.export("p"))
    grant = strict.grant_of("p")
    assert grant is not None
    assert grant.epsilon == 3.0


def test_a_database_put_back_from_an_older_copy_is_noticed(file: Path) -> None:
    ledger = granted(file)
    reserve(ledger, 0)
    copy = file.read_bytes()
    reserve(ledger, 1)
    kept = ledger.export("p")
    file.write_bytes(copy)
    back = opened(file)
    for ask in (
        lambda: back.events("p"),
        lambda: back.affordable("p", EVENT),
        lambda: reserve(back, 2),
    ):
        with pytest.raises(LedgerError, match="older copy"):
            ask()
    assert back.restore(kept) == 1
    assert len(back.events("p")) == 2
    reserve(back, 2)


def test_a_deleted_database_is_noticed(file: Path) -> None:
    reserve(granted(file), 0)
    file.unlink()
    with pytest.raises(LedgerError, match="once held 1"):
        reserve(granted(file), 1)


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 2},
        {"population": ""},
        {"grants": [{}]},
        {"grants": None},
        {"reservations": [{}]},
        {"reservations": [3]},
        {"population": "q"},
    ],
)
def test_what_is_no_export_is_not_restored(
    file: Path, tmp_path: Path, damage: dict[str, Any]
) -> None:
    ledger = granted(file)
    reserve(ledger, 0)
    elsewhere = opened(tmp_path / "other.db")
    with pytest.raises(LedgerError):
        elsewhere.restore({**ledger.export("p"), **damage})
    with pytest.raises(LedgerError, match="not an export"):
        elsewhere.restore({})
    assert elsewhere.events("p") == ()
    assert elsewhere.grant_of("p") is None


@pytest.mark.parametrize(
    "damage",
    [
        {"event": {"kind": "free"}},
        {"event": 3},
        {"plan_digest": "zz"},
        {"round": -1},
        {"reserved": "2030-01-01"},
        {"reserved": "yesterday"},
        {"committed": 5},
    ],
)
def test_a_damaged_reservation_is_not_restored(
    file: Path, tmp_path: Path, damage: dict[str, Any]
) -> None:
    ledger = granted(file)
    reserve(ledger, 0)
    exported = ledger.export("p")
    exported["reservations"][0].update(damage)
    elsewhere = opened(tmp_path / "other.db")
    with pytest.raises((LedgerError, EventRefused)):
        elsewhere.restore(exported)
    assert elsewhere.events("p") == ()


def test_a_contradicting_export_is_refused_whole(file: Path) -> None:
    ledger = granted(file)
    reserve(ledger, 0)
    changed = ledger.export("p")
    changed["reservations"][0]["event"] = PLAN.event(10).to_json()
    with pytest.raises(LedgerError, match="differs"):
        ledger.restore(changed)
    renamed = ledger.export("p")
    renamed["reservations"][0]["id"] = "another"
    with pytest.raises(LedgerError, match="reserved before"):
        ledger.restore(renamed)
    assert ledger.events("p") == (EVENT,)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql://user:secret@host/db",
        "mysql://x/y",
        "not a url",
        "",
    ],
)
def test_other_databases_are_refused_and_passwords_not_shown(url: str) -> None:
    with pytest.raises(LedgerError) as caught:
        Ledger(url)
    assert "secret" not in str(caught.value)


def test_the_directory_is_made_and_files_are_private(tmp_path: Path) -> None:
    file = tmp_path / "state" / "deep" / "ledger.db"
    reserve(granted(file), 0)
    assert stat.S_IMODE(file.parent.stat().st_mode) & 0o077 == 0
    mark = file.with_name("ledger.db.high-water")
    assert stat.S_IMODE(mark.stat().st_mode) == 0o600
    assert mark.read_bytes() == b"%020d\n" % 1


@pytest.mark.parametrize("held", [b"", b"x" * 21, b"%020d" % 1, b"%021d\n" % 1, b"1\n"])
def test_a_damaged_mark_is_refused(file: Path, held: bytes) -> None:
    ledger = granted(file)
    reserve(ledger, 0)
    file.with_name("ledger.db.high-water").write_bytes(held)
    with pytest.raises(LedgerError, match="damaged"):
        ledger.events("p")


def test_a_mark_that_cannot_be_read_or_written_is_refused(file: Path) -> None:
    file.with_name("ledger.db.high-water").mkdir()
    ledger = granted(file)
    with pytest.raises(LedgerError, match="cannot be read"):
        reserve(ledger, 0)
    exported = ledger.export("p")
    with pytest.raises(LedgerError, match="cannot be written"):
        ledger.restore(exported)


def test_a_damaged_or_foreign_database_is_refused(file: Path) -> None:
    file.write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerError, match="refused"):
        opened(file)
    file.unlink()
    granted(file)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE ledger_schema SET version = 2")
    connection.close()
    with pytest.raises(LedgerError, match="schema 2"):
        opened(file)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE grants SET epsilon = 'nan'",
        "UPDATE grants SET epsilon = 'lots'",
        "UPDATE grants SET unit = 'person'",
        "UPDATE grants SET granted = '2030-01-01T00:00:00'",
        "UPDATE reservations SET event = '{'",
        "UPDATE reservations SET event = '[]'",
        """UPDATE reservations SET event = '{"kind": "free"}'""",
    ],
)
def test_damaged_rows_are_refused(file: Path, statement: str) -> None:
    ledger = granted(file)
    reserve(ledger, 0)
    with sqlite3.connect(file) as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises((LedgerError, EventRefused)):
        reserve(ledger, 1)


def test_a_locked_database_is_refused_after_a_while(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("privacy.ledger_store.BUSY_SECONDS", 0.05)
    ledger = granted(file)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerError, match="locked"):
        reserve(ledger, 0)
    other.execute("ROLLBACK")
    other.close()
    reserve(ledger, 0)


def test_a_commit_is_durable_in_the_database_settings(file: Path) -> None:
    ledger = granted(file)
    with ledger._store.writing() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("synchronous", "journal_mode", "foreign_keys")
        }
    assert pragmas == {"synchronous": 3, "journal_mode": "delete", "foreign_keys": 1}


def test_a_writer_shuts_others_out_before_it_reads(file: Path) -> None:
    ledger = granted(file)
    other = sqlite3.connect(file, isolation_level=None, timeout=0.0)
    with ledger._store.writing(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    with ledger._store.reading():
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    other.close()
