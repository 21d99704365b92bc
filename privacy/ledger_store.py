"""Transactions on the ledger's database, whichever it is, and what their failures mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from privacy.errors import LedgerError, LedgerUnavailable, OutcomeUnknown
from privacy.ledger_mark import HighWater
from privacy.ledger_migrations import migrate
from privacy.ledger_tables import SCHEMA_VERSION, metadata, schema

_SQLITE_FULL = "database or disk is full"


class Store(ABC):
    """One database: transactions that exclude other writers and are durable once they ended.

    Args:
        engine: opens a connection of its own for each transaction.
        mark: how many reservations were ever here.

    Raises (all methods):
        LedgerError: a database that is broken, of another schema version, or not to be relied on.
        LedgerUnavailable: it is locked for 30 s, not reachable, or the connection was lost before
            the commit was asked for; nothing was written.
        OutcomeUnknown: the commit was asked for and never answered.
    """

    def __init__(self, engine: sa.Engine, mark: HighWater) -> None:
        self._engine = engine
        self.mark = mark
        with self.reading() as connection:
            version = _version(connection)
        if version != SCHEMA_VERSION:
            self._bring_up_to_date()

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that no other writer can interleave with; undone by an exception."""
        with self._transaction() as connection:
            self._exclude_writers(connection)
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the database."""
        with _as_ledger_errors(self._engine.url), self._engine.connect() as plain:
            connection = plain.execution_options(**self._reading_options())
            with connection.begin():
                yield connection

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        asked = False
        with _as_ledger_errors(self._engine.url), self._engine.connect() as connection:
            try:
                with connection.begin():
                    yield connection
                    asked = True
            except sa.exc.DBAPIError as error:
                if not asked:
                    raise
                reason = _reason(error, self._engine.url)
                raise OutcomeUnknown(
                    f"the ledger's database did not confirm a commit: {reason}"
                ) from error

    def _bring_up_to_date(self) -> None:
        with self._transaction() as connection:
            self._exclude_openers(connection)
            version = _version(connection)
            if version is None:
                metadata.create_all(connection)
                connection.execute(schema.insert().values(version=SCHEMA_VERSION))
            elif version > SCHEMA_VERSION:
                raise LedgerError(
                    f"the ledger has schema {version}, this version of the product knows up to "
                    f"{SCHEMA_VERSION}: upgrade the product; nothing was changed"
                )
            elif version < SCHEMA_VERSION:
                migrate(connection, since=version, kept=self._keep_copy(connection, version))

    @abstractmethod
    def _reading_options(self) -> dict[str, object]:
        """Execution options of a transaction that only reads."""

    @abstractmethod
    def _exclude_writers(self, connection: sa.Connection) -> None:
        """Wait until no other writer is inside, and keep others out until the end."""

    @abstractmethod
    def _exclude_openers(self, connection: sa.Connection) -> None:
        """The same, where the tables may not be there yet."""

    @abstractmethod
    def _keep_copy(self, connection: sa.Connection, version: int) -> str:
        """Before a migration: where a copy of the old state is, or how to have one."""


def _version(connection: sa.Connection) -> int | None:
    """The schema version; None where no ledger was ever made here."""
    if not sa.inspect(connection).has_table(schema.name):
        return None
    versions = connection.scalars(sa.select(schema.c.version)).all()
    if len(versions) != 1:
        raise LedgerError(f"the ledger states {len(versions)} schema versions: it is damaged")
    return int(versions[0])


@contextmanager
def _as_ledger_errors(url: sa.URL) -> Iterator[None]:
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
        raise LedgerUnavailable(f"the ledger's database refused: {_reason(error, url)}") from error
    except sa.exc.SQLAlchemyError as error:
        raise LedgerError(f"the ledger's database refused: {_reason(error, url)}") from error


def _reason(error: sa.exc.SQLAlchemyError, url: sa.URL) -> str:
    """What the database said, on one line; statements and their parameters stay out."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig else error
    said = " ".join(str(cause).split()) or type(cause).__name__
    return f"{said}: make room on the disk of {url.database}" if said == _SQLITE_FULL else said
