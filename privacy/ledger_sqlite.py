"""The ledger in one SQLite file, for any number of processes of one machine."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import sqlalchemy as sa

from privacy.errors import LedgerError
from privacy.ledger_mark import HighWater, sync_directory
from privacy.ledger_store import Store

BUSY_SECONDS = 30.0


class SqliteStore(Store):
    """Writers exclude each other from the first statement on (BEGIN IMMEDIATE).

    So what a writer reads cannot change before it writes. `synchronous = EXTRA` also syncs the
    directory after a commit: SQLite's FULL can lose the last commit at a power cut. The file's
    pages are checked when it is opened; what a row says is checked when it is read.
    """

    def __init__(self, url: sa.URL) -> None:
        path = url.database
        if not path or path == ":memory:" or url.host or url.query:
            raise LedgerError(
                f"ledger URL {url.render_as_string()!r}: allowed is sqlite:///FILE without options "
                "(a ledger in memory would forget what was spent)"
            )
        self._file = Path(path)
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise LedgerError(f"the ledger's folder cannot be made: {error}") from error
        engine = sa.create_engine(
            url,
            poolclass=sa.pool.NullPool,
            connect_args={"timeout": BUSY_SECONDS},
            hide_parameters=True,
        )
        sa.event.listen(engine, "connect", _configure)
        sa.event.listen(engine, "begin", _begin)
        super().__init__(engine, HighWater(self._file.with_name(self._file.name + ".high-water")))
        with self.reading() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if found != "ok":
            raise LedgerError(f"{self._file} is damaged: {found}; restore() its exports elsewhere")

    def _reading_options(self) -> dict[str, object]:
        return {"reads_only": True}

    def _exclude_writers(self, connection: sa.Connection) -> None:
        """BEGIN IMMEDIATE has done so."""

    def _exclude_openers(self, connection: sa.Connection) -> None:
        """BEGIN IMMEDIATE has done so."""

    def _keep_copy(self, connection: sa.Connection, version: int) -> str:
        copy = self._file.with_name(f"{self._file.name}.schema-{version}")
        # No other process can write while this one is inside, and this one has not written yet.
        try:
            copy.write_bytes(self._file.read_bytes())
            copy.chmod(0o600)
            descriptor = os.open(copy, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync_directory(copy.parent)
        except OSError as error:
            raise LedgerError(f"no copy could be kept before the migration: {error}") from error
        return f"a copy from before is {copy}"


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    # The driver must not begin transactions by itself: _begin decides which kind.
    connection.isolation_level = None
    for pragma in ("journal_mode = DELETE", "synchronous = EXTRA", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    reads_only = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")
