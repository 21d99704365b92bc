"""What the ledger asks of its tables, each inside a transaction of its caller's."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from privacy.errors import LedgerError
from privacy.events import Event
from privacy.ledger_rows import Grant, read_event, read_grant, time_of
from privacy.ledger_tables import grants, reservations

BEGINNING = datetime.min.replace(tzinfo=UTC)


def rows_of(table: sa.Table, population: str) -> sa.Select[Any]:
    """All rows of a population, oldest first."""
    return sa.select(table).where(table.c.population == population).order_by(table.c.sequence)


def total(connection: sa.Connection) -> int:
    """How many reservations there are, of all populations."""
    return int(connection.scalar(sa.select(sa.func.count()).select_from(reservations)) or 0)


def check_complete(connection: sa.Connection, mark: int) -> int:
    """How many reservations there are. The mark must have been read before the transaction.

    Raises:
        LedgerError: fewer than the mark.
    """
    count = total(connection)
    if count < mark:
        raise LedgerError(
            f"the ledger holds {count} reservations and once held {mark}: it was put back from an "
            "older copy; restore the exports that hold the missing ones (fedmeta ledger restore)"
        )
    return count


def newest_grants(connection: sa.Connection, population: str) -> tuple[Grant, ...]:
    """The newest grant for each adversary, the worst adversary's first."""
    newest = {
        grant.adversary: grant
        for grant in map(read_grant, connection.execute(rows_of(grants, population)).mappings())
    }
    if newest and None not in newest:
        raise LedgerError(f"population {population!r} has no grant for the worst adversary")
    return tuple(newest[who] for who in sorted(newest, key=lambda who: who or ""))


def grants_in_force(connection: sa.Connection, population: str) -> tuple[Grant, ...]:
    """The same; at least one.

    Raises:
        LedgerError: none was granted.
    """
    held = newest_grants(connection, population)
    if not held:
        raise LedgerError(f"population {population!r} has no grant")
    return held


def counts_of(connection: sa.Connection, population: str) -> Counter[Event]:
    """Every event of a population with how often it was reserved."""
    rows = connection.execute(
        sa.select(reservations.c.event, sa.func.count())
        .where(reservations.c.population == population)
        .group_by(reservations.c.event)
        .order_by(reservations.c.event)
    )
    return Counter({read_event(text): int(count) for text, count in rows})


def newest_time(connection: sa.Connection, population: str) -> datetime:
    """When the newest reservation was made, in year 1 where there is none."""
    text = connection.scalar(
        sa.select(reservations.c.reserved)
        .where(reservations.c.population == population)
        .order_by(reservations.c.sequence.desc())
        .limit(1)
    )
    try:
        return BEGINNING if text is None else time_of(text)
    except ValueError as error:
        raise LedgerError(f"a reservation is damaged: {error}") from error


def check_new(
    connection: sa.Connection,
    run: str,
    round: int,  # noqa: A002  the protocol's word
    attempt: int,
) -> None:
    """Raises LedgerError where this attempt was reserved, for whatever population."""
    key = (
        (reservations.c.run == run)
        & (reservations.c.round == round)
        & (reservations.c.attempt == attempt)
    )
    if connection.scalar(sa.select(reservations.c.id).where(key)) is not None:
        raise LedgerError(f"run {run!r} round {round} attempt {attempt} was reserved before")
