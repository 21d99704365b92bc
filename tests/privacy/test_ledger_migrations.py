"""Older schemas are brought up to date with every row as it was; newer ones are refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from privacy.errors import LedgerError
from privacy.ledger_tables import SCHEMA_VERSION, metadata
from tests.privacy.databases import Database, Sqlite
from tests.privacy.ledgers import DIGEST, EVENT, grant, reserve

VERSION_1 = """
CREATE TABLE ledger_schema (version INTEGER NOT NULL PRIMARY KEY);
CREATE TABLE grants (sequence {key}, population TEXT NOT NULL, unit TEXT NOT NULL,
 epsilon TEXT NOT NULL, delta TEXT NOT NULL, approver TEXT NOT NULL, granted TEXT NOT NULL,
 expires TEXT);
CREATE INDEX ix_grants_population ON grants (population);
CREATE TABLE reservations (sequence {key}, id TEXT NOT NULL UNIQUE,
 population TEXT NOT NULL, run TEXT NOT NULL, round BIGINT NOT NULL,
 attempt BIGINT NOT NULL, event TEXT NOT NULL, plan_digest TEXT NOT NULL,
 reserved TEXT NOT NULL, committed TEXT, UNIQUE (run, round, attempt));
CREATE INDEX ix_reservations_population ON reservations (population);
INSERT INTO ledger_schema VALUES (1);
INSERT INTO grants (population, unit, epsilon, delta, approver, granted, expires) VALUES
 ('p', 'task', '3.0', '1e-05', 'the board', '2026-01-01T00:00:00+00:00', NULL),
 ('p', 'task', '2.5', '1e-05', 'the board', '2026-02-01T00:00:00+00:00',
  '2999-01-01T00:00:00+00:00'),
 ('r', 'record', '1.0', '1e-05', 'x', '2026-01-01T00:00:00+00:00', NULL),
 ('c', 'client', '1.0', '1e-05', 'x', '2026-01-01T00:00:00+00:00', NULL);
INSERT INTO reservations (id, population, run, round, attempt, event, plan_digest, reserved,
 committed) VALUES
 ('id0', 'p', 'old', 0, 0, '{event}', '{digest}', '2026-03-01T00:00:00+00:00', NULL),
 ('id1', 'p', 'old', 1, 0, '{event}', '{digest}', '2026-03-01T00:00:01+00:00',
  '2026-03-01T00:00:02+00:00')
"""


def make_version_1(database: Database) -> list[tuple[Any, ...]]:
    """A ledger as version 1 left it, two charges in it; the charges' rows."""
    filled = {
        "key": "INTEGER NOT NULL PRIMARY KEY"
        if isinstance(database, Sqlite)
        else "SERIAL PRIMARY KEY",
        "event": json.dumps(EVENT.to_json(), sort_keys=True, separators=(",", ":")),
        "digest": DIGEST.hex(),
    }
    for statement in VERSION_1.split(";"):
        database.execute(statement.format(**filled))
    return rows(database, "reservations")


def rows(database: Database, table: str) -> list[tuple[Any, ...]]:
    """Every row of a table, with the types that are stored."""
    engine = sa.create_engine(
        database.url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.pool.NullPool
    )
    with engine.connect() as connection:
        statement = f"SELECT * FROM {table} ORDER BY 1"  # noqa: S608
        return [tuple(row) for row in connection.exec_driver_sql(statement)]


def shape(database: Database) -> dict[str, Any]:
    """Columns, keys and indexes of every table, as the database describes them."""
    engine = sa.create_engine(
        database.url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.pool.NullPool
    )
    inspector = sa.inspect(engine)
    return {
        name: {
            "columns": [
                (c["name"], str(c["type"]), c["nullable"], c["default"])
                for c in inspector.get_columns(name)
            ],
            "indexes": sorted(
                (tuple(i["column_names"]), i["unique"]) for i in inspector.get_indexes(name)
            ),
        }
        for name in metadata.tables
    }


def test_a_ledger_of_version_1_is_migrated_with_its_rows_byte_for_byte(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    charged = make_version_1(database)
    granted = rows(database, "grants")
    with caplog.at_level(logging.WARNING):
        ledger = database.open()
    assert "event=ledger-migrated from=1 to=2" in caplog.text
    assert rows(database, "reservations") == charged
    assert [row[: len(granted[0])] for row in rows(database, "grants")] == granted
    assert rows(database, "ledger_schema") == [(SCHEMA_VERSION,)]
    (held,) = ledger.grants_of("p")
    assert (held.epsilon, held.adversary, held.order) == (2.5, None, None)
    assert [ledger.grants_of(p)[0].relation for p in "prc"] == [
        "add_remove", "replace_one", "zero_out",
    ]  # fmt: skip
    assert ledger.events("p") == (EVENT, EVENT)
    reserve(ledger, 0)
    assert len(database.open().events("p")) == 3


def test_a_migrated_ledger_is_shaped_like_a_new_one(database: Database) -> None:
    make_version_1(database)
    database.open()
    migrated = shape(database)
    database.remove()
    database.open()
    assert migrated == shape(database)


def test_a_copy_from_before_is_kept_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = Sqlite(tmp_path / "ledger.db")
    make_version_1(file)
    before = file.copy()
    with caplog.at_level(logging.WARNING):
        file.open()
    copy = tmp_path / "ledger.db.schema-1"
    assert str(copy) in caplog.text
    assert copy.read_bytes() == before


def test_a_migration_that_fails_leaves_the_old_schema(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    charged = make_version_1(database)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("the machine is gone")

    monkeypatch.setattr("privacy.ledger_migrations._log.warning", fail)
    with pytest.raises(OSError, match="gone"):
        database.open()
    assert rows(database, "ledger_schema") == [(1,)]
    assert rows(database, "reservations") == charged
    monkeypatch.undo()
    assert database.open().events("p") == (EVENT, EVENT)


def test_a_newer_ledger_is_refused_untouched(database: Database) -> None:
    reserve(grant(database.open()), 0)
    database.execute("UPDATE ledger_schema SET version = version + 1")
    with pytest.raises(LedgerError, match=f"schema {SCHEMA_VERSION + 1}.*upgrade the product"):
        database.open()
    assert rows(database, "ledger_schema") == [(SCHEMA_VERSION + 1,)]


def test_a_version_from_which_nothing_leads_is_refused(database: Database) -> None:
    database.open()
    database.execute("UPDATE ledger_schema SET version = 0")
    with pytest.raises(LedgerError, match="no migration leads"):
        database.open()


@pytest.mark.parametrize(
    "statement", ["DELETE FROM ledger_schema", "INSERT INTO ledger_schema VALUES (7)"]
)
def test_a_ledger_that_states_no_version_or_two_is_refused(
    database: Database, statement: str
) -> None:
    database.open()
    database.execute(statement)
    with pytest.raises(LedgerError, match="schema versions"):
        database.open()
