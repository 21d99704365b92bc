"""The ledger's tables and its transactions, and the mark that a restored copy falls short of."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from privacy.errors import LedgerError

SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0

metadata = sa.MetaData()
schema = sa.Table("ledger_schema", metadata, sa.Column("version", sa.Integer, primary_key=True))
grants = sa.Table(
    "grants",
    metadata,
    sa.Column("sequence", sa.Integer, primary_key=True),
    sa.Column("population", sa.Text, nullable=False, index=True),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("epsilon", sa.Text, nullable=False),
    sa.Column("delta", sa.Text, nullable=False),
    sa.Column("approver", sa.Text, nullable=False),
    sa.Column("granted", sa.Text, nullable=False),
    sa.Column("expires", sa.Text, nullable=True),
)
reservations = sa.Table(
    "reservations",
    metadata,
    sa.Column("sequence", sa.Integer, primary_key=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("population", sa.Text, nullable=False, index=True),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("round", sa.BigInteger, nullable=False),
    sa.Column("attempt", sa.BigInteger, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("plan_digest", sa.Text, nullable=False),
    sa.Column("reserved", sa.Text, nullable=False),
    sa.Column("committed", sa.Text, nullable=True),
    sa.UniqueConstraint("run", "round", "attempt"),
)


class Store:
    """Transactions on the ledger's database, each durable once its block has ended.

    Writers exclude each other from the first statement on (BEGIN IMMEDIATE), so that what a
    writer reads cannot change before it writes. `synchronous = EXTRA` also syncs the directory
    after a commit: SQLite's FULL can lose the last commit at a power cut.

    Raises (all methods):
        LedgerError: a database that is missing, locked for 30 s, broken, of another schema
            version, or of a kind that is not supported.
    """

    def __init__(self, url: str) -> None:
        with _as_ledger_errors():
            parsed = sa.make_url(url)
        path = parsed.database
        if parsed.get_backend_name() != "sqlite" or not path or path == ":memory:":
            raise LedgerError(
                f"ledger URL {parsed.render_as_string()!r}: allowed is sqlite:///FILE "
                "(a ledger in memory would forget what was spent)"
            )
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.mark = HighWater(file.with_name(file.name + ".high-water"))
        self._engine = sa.create_engine(
            parsed, poolclass=sa.pool.NullPool, connect_args={"timeout": BUSY_SECONDS}
        )
        sa.event.listen(self._engine, "connect", _configure)
        sa.event.listen(self._engine, "begin", _begin)
        with self.writing() as connection:
            metadata.create_all(connection)
            version = connection.scalar(sa.select(schema.c.version))
            if version is None:
                connection.execute(schema.insert().values(version=SCHEMA_VERSION))
            elif version != SCHEMA_VERSION:
                raise LedgerError(f"ledger has schema {version}; this is for {SCHEMA_VERSION}")

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that no other writer can interleave with; undone by an exception."""
        with _as_ledger_errors(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the database."""
        with _as_ledger_errors(), self._engine.connect() as plain:
            connection = plain.execution_options(reads_only=True)
            with connection.begin():
                yield connection


class HighWater:
    """How many reservations the ledger beside it has ever held, in a file of its own.

    A database file put back from an older copy holds fewer, which then shows. It guards against
    a mistake, not against an operator who also rolls this file back: the audit log does that.
    Grants are not counted: an older copy brings back the grant of its time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> int:
        """The mark; 0 where none was ever made."""
        try:
            return self._parse(self._path.read_bytes())
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise LedgerError(f"{self._path} cannot be read: {error}") from error

    def raise_to(self, count: int) -> None:
        """Make the mark at least `count`, durably; it never goes down."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                held = os.pread(descriptor, 64, 0)
                if not held or self._parse(held) < count:
                    os.pwrite(descriptor, b"%020d\n" % count, 0)
                    os.fsync(descriptor)
                    if not held:
                        _sync_directory(self._path.parent)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise LedgerError(f"{self._path} cannot be written: {error}") from error

    def _parse(self, held: bytes) -> int:
        if len(held) != 21 or not held[:20].isdigit() or held[20:] != b"\n":
            raise LedgerError(f"{self._path} is damaged: it holds {held[:32]!r}")
        return int(held)


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    # The driver must not begin transactions by itself: _begin decides which kind.
    connection.isolation_level = None
    for pragma in ("journal_mode = DELETE", "synchronous = EXTRA", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    reads_only = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


@contextmanager
def _as_ledger_errors() -> Iterator[None]:
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        raise LedgerError(f"the ledger's database refused: {error}") from error


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
