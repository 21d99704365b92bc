"""What only a server can do: promise what it does not keep, and serve several at once."""

from __future__ import annotations

import time
from pathlib import Path

import psycopg
import pytest

from privacy.errors import LedgerError, LedgerUnavailable
from privacy.ledger import Ledger
from tests.privacy.databases import Postgres
from tests.privacy.ledgers import EVENT, grant, reserve
from tests.privacy.postgres import Cluster


@pytest.fixture
def postgres(cluster: Cluster, tmp_path: Path) -> Postgres:
    return Postgres(cluster, tmp_path / "marks")


def test_a_server_that_does_not_sync_is_refused(postgres: Postgres) -> None:
    ledger = grant(postgres.open())
    postgres.cluster.set("fsync", "off")
    try:
        deadline = time.monotonic() + 30
        while postgres.cluster.shown("fsync") != "off":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(LedgerError, match="fsync = off"):
            reserve(ledger, 0)
    finally:
        postgres.cluster.set("fsync", "on")
    while postgres.cluster.shown("fsync") != "on":
        time.sleep(0.05)
    assert ledger.events("p") == ()


def test_a_commit_is_durable_whatever_the_database_has_as_its_default(postgres: Postgres) -> None:
    name = postgres.url.split("?")[0].rpartition("/")[2]
    postgres.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    ledger = grant(postgres.open())
    with ledger._store.writing() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"


def test_a_writer_shuts_others_out_before_it_reads(postgres: Postgres) -> None:
    ledger = grant(postgres.open())
    with postgres.cluster.at(postgres.url) as other:
        other.execute("SET lock_timeout = '50ms'")
        with ledger._store.writing(), pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute("UPDATE grants SET epsilon = '9.0'")
        with ledger._store.reading():
            other.execute("UPDATE grants SET approver = 'y'")


def test_a_locked_ledger_is_refused_after_a_while(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("privacy.ledger_postgres.WAIT_SECONDS", 1)
    ledger = grant(postgres.open())
    with postgres.cluster.at(postgres.url) as other:
        other.autocommit = False
        other.execute("LOCK TABLE reservations IN SHARE ROW EXCLUSIVE MODE")
        with pytest.raises(LedgerUnavailable, match="lock"):
            reserve(ledger, 0)
        assert ledger.events("p") == ()
        other.rollback()
    reserve(ledger, 0)


def test_each_machine_keeps_a_mark_of_what_it_has_seen(postgres: Postgres, tmp_path: Path) -> None:
    here = grant(postgres.open())
    there = Ledger(postgres.url, marks=tmp_path / "another machine")
    reserve(here, 0)
    copy = postgres.copy()
    reserve(there, 1)
    postgres.put_back(copy)
    with pytest.raises(LedgerError, match="once held 2"):
        there.events("p")
    assert here.events("p") == (EVENT,)


def test_another_database_of_the_same_server_has_a_mark_of_its_own(
    postgres: Postgres, tmp_path: Path
) -> None:
    reserve(grant(postgres.open()), 0)
    second = Ledger(postgres.cluster.database(), marks=postgres.marks)
    assert grant(second).events("p") == ()
