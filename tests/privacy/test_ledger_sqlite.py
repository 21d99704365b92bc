"""What only a file can do: be damaged, locked, in a folder that others read; and URLs."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from privacy.errors import LedgerError, LedgerUnavailable
from privacy.ledger import Ledger
from tests.privacy.databases import Sqlite
from tests.privacy.ledgers import EVENT, grant, reserve


@pytest.fixture
def file(tmp_path: Path) -> Sqlite:
    return Sqlite(tmp_path / "ledger.db")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("sqlite://", "in memory would forget"),
        ("sqlite:///:memory:", "in memory would forget"),
        ("sqlite:///x?mode=memory", "without options"),
        ("sqlite://host/x", "without options"),
        ("postgresql://user:secret@host/db", "no password"),
        ("postgresql://user@host/db?password=secret", "no password"),
        ("postgresql://host/db?options=-csynchronous_commit=off", "no option but"),
        ("postgresql://host", "names no database"),
        ("mysql://x:secret@y/z", "allowed is sqlite or postgresql"),
        ("not a url, secret", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_other_databases_are_refused_and_passwords_not_shown(
    url: str, why: str, tmp_path: Path
) -> None:
    with pytest.raises(LedgerError, match=why) as caught:
        Ledger(url, marks=tmp_path)
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_postgresql_needs_a_folder_for_its_mark() -> None:
    with pytest.raises(LedgerError, match="folder for its mark"):
        Ledger("postgresql://host/db")


def test_a_driver_that_is_missing_is_told_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(LedgerError, match=r"pip install 'secure-fedmeta\[postgres\]'"):
        Ledger("postgresql://host/db", marks=tmp_path)


def test_the_directory_is_made_and_files_are_private(tmp_path: Path) -> None:
    file = Sqlite(tmp_path / "state" / "deep" / "ledger.db")
    reserve(grant(file.open()), 0)
    assert stat.S_IMODE(file.file.parent.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE(file.mark.stat().st_mode) == 0o600
    assert file.mark.read_bytes() == b"%020d\n" % 1


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(LedgerError, match="folder cannot be made"):
        Ledger(f"sqlite:///{tmp_path / 'taken' / 'ledger.db'}")


def test_what_is_no_database_is_refused(file: Sqlite) -> None:
    file.put_back(b"not a database" * 100)
    with pytest.raises(LedgerError, match="refused"):
        file.open()


def test_a_torn_or_overwritten_file_is_refused(file: Sqlite) -> None:
    ledger = grant(file.open())
    for index in range(5):
        reserve(ledger, index)
    whole = file.copy()
    assert len(whole) > 3 * 4096
    for damaged in (whole[: len(whole) // 2], whole[:8192] + b"\xff" * 4096 + whole[12288:]):
        file.put_back(damaged)
        with pytest.raises(LedgerError):
            reserve(file.open(), 6)
    file.put_back(whole)
    assert file.open().events("p") == (EVENT,) * 5


def test_a_locked_database_is_refused_after_a_while(
    file: Sqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("privacy.ledger_sqlite.BUSY_SECONDS", 0.05)
    ledger = grant(file.open())
    other = sqlite3.connect(file.file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerUnavailable, match="locked"):
        reserve(ledger, 0)
    other.execute("ROLLBACK")
    other.close()
    assert ledger.events("p") == ()
    reserve(ledger, 0)


def test_a_reader_that_blocks_the_commit_leaves_nothing_charged(
    file: Sqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite writes at the commit alone, and that may be refused."""
    monkeypatch.setattr("privacy.ledger_sqlite.BUSY_SECONDS", 0.05)
    ledger = grant(file.open())
    other = sqlite3.connect(file.file, isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM reservations").fetchall()
    with pytest.raises(LedgerUnavailable):
        reserve(ledger, 0)
    other.execute("ROLLBACK")
    other.close()
    assert ledger.events("p") == ()
    reserve(ledger, 0)
    assert ledger.events("p") == (EVENT,)


def test_a_commit_is_durable_in_the_database_settings(file: Sqlite) -> None:
    ledger = grant(file.open())
    with ledger._store.writing() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("synchronous", "journal_mode", "foreign_keys")
        }
    assert pragmas == {"synchronous": 3, "journal_mode": "delete", "foreign_keys": 1}


def test_a_writer_shuts_others_out_before_it_reads(file: Sqlite) -> None:
    ledger = grant(file.open())
    other = sqlite3.connect(file.file, isolation_level=None, timeout=0.0)
    with ledger._store.writing(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    with ledger._store.reading():
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    other.close()
