"""Exports, restores, and databases that were put back from an older copy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from privacy.errors import EventRefused, LedgerError, OutcomeUnknown
from privacy.ledger import Ledger
from tests.privacy.databases import Database
from tests.privacy.ledgers import DIGEST, EVENT, NOW, PLAN, Open, grant, reserve


def test_an_export_is_plain_json(opened: Open) -> None:
    ledger = grant(opened(clock=lambda: NOW))
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


def test_restoring_an_older_copy_never_refunds(opened: Open, elsewhere: Ledger) -> None:
    ledger = grant(opened())
    reserve(ledger, 0)
    older = ledger.export("p")
    reserve(ledger, 1)
    assert ledger.restore(older) == 0
    assert len(ledger.events("p")) == 2
    assert elsewhere.restore(older) == 1
    assert elsewhere.restore(ledger.export("p")) == 1
    assert elsewhere.restore(older) == 0
    assert elsewhere.events("p") == ledger.events("p")
    assert elsewhere.grants_of("p") == ledger.grants_of("p")


def test_restoring_never_raises_a_budget(opened: Open, elsewhere: Ledger) -> None:
    generous = grant(elsewhere, epsilon=50.0)
    strict = grant(opened(), epsilon=3.0)
    strict.restore(generous.export("p"))
    (held,) = strict.grants_of("p")
    assert held.epsilon == 3.0


def test_a_database_put_back_from_an_older_copy_is_noticed(database: Database) -> None:
    ledger = grant(database.open())
    reserve(ledger, 0)
    copy = database.copy()
    reserve(ledger, 1)
    kept = ledger.export("p")
    database.put_back(copy)
    back = database.open()
    for ask in (
        lambda: back.events("p"),
        lambda: back.affordable("p", EVENT),
        lambda: back.account("p"),
        lambda: back.counts("p"),
        lambda: reserve(back, 2),
    ):
        with pytest.raises(LedgerError, match="older copy"):
            ask()
    assert back.restore(kept) == 1
    assert len(back.events("p")) == 2
    reserve(back, 2)


def test_a_charge_whose_mark_fails_counts_as_charged(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told as uncharged, the log would miss what the ledger holds."""
    ledger = grant(database.open())

    def full(*_: Any) -> None:
        raise LedgerError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(ledger._store.mark, "raise_to", full)
        with pytest.raises(OutcomeUnknown, match=r"is charged, but the disk is full"):
            reserve(ledger, 0)
    assert ledger.events("p") == (EVENT,)


def test_a_deleted_database_is_noticed(database: Database) -> None:
    reserve(grant(database.open()), 0)
    database.remove()
    with pytest.raises(LedgerError, match="once held 1"):
        reserve(grant(database.open()), 1)


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 1},
        {"version": 3},
        {"population": ""},
        {"grants": [{}]},
        {"grants": None},
        {"reservations": [{}]},
        {"reservations": [3]},
        {"population": "q"},
    ],
)
def test_what_is_no_export_is_not_restored(
    sqlite: Open, elsewhere: Ledger, damage: dict[str, Any]
) -> None:
    ledger = grant(sqlite())
    reserve(ledger, 0)
    with pytest.raises(LedgerError):
        elsewhere.restore({**ledger.export("p"), **damage})
    with pytest.raises(LedgerError, match="not an export"):
        elsewhere.restore({})
    assert elsewhere.events("p") == ()
    assert elsewhere.grants_of("p") == ()


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
    sqlite: Open, elsewhere: Ledger, damage: dict[str, Any]
) -> None:
    ledger = grant(sqlite())
    reserve(ledger, 0)
    exported = ledger.export("p")
    exported["reservations"][0].update(damage)
    with pytest.raises((LedgerError, EventRefused)):
        elsewhere.restore(exported)
    assert elsewhere.events("p") == ()


def test_a_contradicting_export_is_refused_whole(opened: Open) -> None:
    ledger = grant(opened())
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


@pytest.mark.parametrize("held", [b"", b"x" * 21, b"%020d" % 1, b"%021d\n" % 1, b"1\n"])
def test_a_damaged_mark_is_refused(database: Database, held: bytes) -> None:
    ledger = grant(database.open())
    reserve(ledger, 0)
    database.mark.write_bytes(held)
    with pytest.raises(LedgerError, match="damaged"):
        ledger.events("p")


@pytest.mark.parametrize("call", ["open", "write", "fsync", "link", "pwrite"])
@pytest.mark.parametrize("error", [SystemExit, OSError])
def test_a_first_mark_that_is_cut_off_leaves_no_damaged_one(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    error: type[BaseException],
) -> None:
    """A killed process, or a full disk, must not leave a ledger that nobody can use."""
    ledger = grant(database.open())

    def cut(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(f"privacy.ledger_mark.os.{call}", cut)
        with pytest.raises((SystemExit, OutcomeUnknown)):
            reserve(ledger, 0)
    reserve(database.open(), 1)
    assert len(database.open().events("p")) == 2


def test_a_mark_that_cannot_be_read_or_written_is_refused(database: Database) -> None:
    ledger = grant(database.open())
    reserve(ledger, 0)
    mark = database.mark
    mark.unlink()
    mark.mkdir()
    with pytest.raises(LedgerError, match="cannot be read"):
        reserve(ledger, 1)
    exported = ledger.export("p")
    with pytest.raises(LedgerError, match="cannot be written"):
        ledger.restore(exported)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE grants SET epsilon = 'nan'",
        "UPDATE grants SET epsilon = 'lots'",
        "UPDATE grants SET unit = 'person'",
        "UPDATE grants SET relation = 'none'",
        "UPDATE grants SET adversary = 'nobody'",
        "UPDATE grants SET adversary = 'recipients'",
        "UPDATE grants SET rdp_order = 1",
        "UPDATE grants SET granted = '2030-01-01T00:00:00'",
        "UPDATE reservations SET event = '{'",
        "UPDATE reservations SET event = '[]'",
        """UPDATE reservations SET event = '{"kind": "free"}'""",
        "UPDATE reservations SET reserved = 'yesterday'",
    ],
)
def test_damaged_rows_are_refused(database: Database, statement: str) -> None:
    ledger = grant(database.open())
    reserve(ledger, 0)
    database.execute(statement)
    with pytest.raises((LedgerError, EventRefused)):
        reserve(ledger, 1)
