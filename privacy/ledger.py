"""Budgets over many runs: grants, and reservations that are durable before anything is opened.

A population's budget is its newest grant (epsilon at a delta, for a unit). Every round reserves
its event first and opens its sum afterwards; `commit` only notes that the sum was opened.
Reserved and committed events count alike: a crash may charge a round that was never opened, and
never leaves an opened one uncharged. Nothing here deletes or refunds an event.

What epsilon a list of events has is asked of `privacy.accountant` each time; none is stored.
Events chosen by looking at what earlier ones released (an adaptive noise, a run whose settings
come from another's result) are outside the composition that this check rests on.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from privacy.accountant import Adversary, Spend, spend_counted
from privacy.errors import BudgetExceeded, LedgerError
from privacy.events import Event
from privacy.ledger_rows import (
    EXPORT_VERSION,
    Grant,
    amount_of,
    delta_of,
    digest_of,
    index_of,
    name_of,
    read_event,
    read_export,
    read_grant,
    unit_of,
    write_event,
)
from privacy.ledger_store import Store, grants, reservations
from privacy.unit import Unit

MAX_AFFORDABLE = 1_000_000


def utc_now() -> datetime:
    """The time of day, in UTC."""
    return datetime.now(UTC)


class Ledger:
    """Grants and reservations in one database, shared by any number of processes.

    Args:
        url: `sqlite:///FILE`; the file is created where it is missing.
        clock: gives the time with a time zone, for what is recorded and for expiry.

    Raises:
        LedgerError: see each method; all of them where the database is locked, damaged, or holds
            fewer reservations than it once did (then `restore` what is missing first).
    """

    def __init__(self, url: str, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._store = Store(url)
        self._clock = clock

    def grant(
        self,
        population: str,
        *,
        unit: Unit,
        epsilon: float,
        delta: float,
        approver: str,
        expires: datetime | None = None,
    ) -> Grant:
        """Set the population's budget; what was spent before stays spent.

        A later grant takes the place of an earlier one, with the same unit and delta.

        Raises:
            LedgerError: an amount that is not a positive normal number, a delta of 1 or more, no
                unit, a name that is empty, over 200 characters or not printable, an expiry that
                has no time zone or has passed, or another unit or delta than the population's.
        """
        now = self._now()
        made = Grant(
            population=name_of("population", population),
            unit=unit_of(unit),
            epsilon=amount_of("epsilon", epsilon),
            delta=delta_of(delta),
            approver=name_of("approver", approver),
            granted=now,
            expires=expires,
        )
        if expires is not None and (expires.tzinfo is None or expires <= now):
            raise LedgerError(f"expiry {expires.isoformat()} lacks a time zone or has passed")
        with self._store.writing() as connection:
            held = _newest_grant(connection, population)
            if held is not None and (held.unit, held.delta) != (made.unit, made.delta):
                raise LedgerError(
                    f"population {population!r} is accounted for unit {held.unit} at delta "
                    f"{held.delta!r}; a grant cannot change them"
                )
            connection.execute(grants.insert().values(**made.to_json()))
        return made

    def grant_of(self, population: str) -> Grant | None:
        """The population's newest grant, expired or not; None where there is none."""
        with self._store.reading() as connection:
            return _newest_grant(connection, population)

    def events(self, population: str) -> tuple[Event, ...]:
        """Every event ever reserved for the population, committed or not, in order."""
        mark = self._store.mark.read()
        with self._store.reading() as connection:
            _check_complete(connection, mark)
            texts = connection.scalars(
                sa.select(reservations.c.event)
                .where(reservations.c.population == population)
                .order_by(reservations.c.sequence)
            ).all()
        return tuple(read_event(text) for text in texts)

    def affordable(
        self, population: str, event: Event, *, adversary: Adversary | None = None
    ) -> int:
        """How many more events like this the grant covers, at most 1,000,000; 0 once it expired.

        Args:
            population: whose budget.
            event: the event that each round would reserve.
            adversary: the one to look at; None: the worst of those that the budget limits.

        Raises:
            LedgerError: no grant in force, or an event that does not fit it.
            EventRefused: an event that cannot be composed with those there.
        """
        mark = self._store.mark.read()
        with self._store.reading() as connection:
            _check_complete(connection, mark)
            grant = _grant_in_force(connection, population)
            counts = _counts(connection, population)
        _check_fits(grant, event)
        if self._has_expired(grant):
            return 0
        return _affordable(counts, event, grant, adversary)

    def reserve(
        self,
        population: str,
        run: str,
        round: int,  # noqa: A002  the protocol's word, as in secure-sum terms and the audit log
        attempt: int,
        event: Event,
        plan_digest: bytes,
    ) -> str:
        """Charge one event; durable when this returns. Only then may its sum be opened.

        Of several processes that ask for the last of a budget, one gets it.

        Returns:
            The reservation's id, to be committed once the sum is open.

        Raises:
            BudgetExceeded: the events with this one would exceed the grant; nothing was written.
            LedgerError: no grant in force, a grant that has expired or is for another unit, or a
                (run, round, attempt) that was reserved before; nothing was written.
            EventRefused: an event that cannot be composed with those there.
        """
        row = {
            "id": secrets.token_hex(16),
            "population": name_of("population", population),
            "run": name_of("run", run),
            "round": index_of("round", round),
            "attempt": index_of("attempt", attempt),
            "event": write_event(event),
            "plan_digest": digest_of(plan_digest),
            "reserved": self._now().isoformat(),
        }
        mark = self._store.mark.read()
        with self._store.writing() as connection:
            total = _check_complete(connection, mark)
            grant = _grant_in_force(connection, population)
            if self._has_expired(grant):
                raise LedgerError(f"the grant of {population!r} expired at {grant.expires}")
            _check_fits(grant, event)
            _check_new(connection, run, round, attempt)
            _check_budget(_counts(connection, population), event, grant)
            connection.execute(reservations.insert().values(**row))
        self._store.mark.raise_to(total + 1)
        return str(row["id"])

    def commit(self, reservation_id: str) -> None:
        """Note that the reserved sum was opened. Doing so again changes nothing.

        Raises:
            LedgerError: no such reservation.
        """
        with self._store.writing() as connection:
            found = connection.execute(
                reservations.update()
                .where(reservations.c.id == reservation_id)
                .values(
                    committed=sa.func.coalesce(reservations.c.committed, self._now().isoformat())
                )
            )
            if found.rowcount != 1:
                raise LedgerError(f"no reservation {reservation_id!r}")

    def export(self, population: str) -> dict[str, Any]:
        """All of one population as plain data: what `restore` takes, and what a backup keeps."""
        with self._store.reading() as connection:
            granted = connection.execute(_of(grants, population)).mappings().all()
            reserved = connection.execute(_of(reservations, population)).mappings().all()
        return {
            "version": EXPORT_VERSION,
            "population": population,
            "grants": [{k: v for k, v in row.items() if k != "sequence"} for row in granted],
            "reservations": [
                {k: json.loads(v) if k == "event" else v for k, v in row.items() if k != "sequence"}
                for row in reserved
            ],
        }

    def restore(self, exported: Mapping[str, Any]) -> int:
        """Add what an export holds and this ledger does not; nothing here is changed or removed.

        A budget in force stays: the export's grants count only where the population has none.

        Returns:
            How many reservations were added.

        Raises:
            LedgerError: not an export, or one that contradicts what is here.
        """
        population, granted, reserved = read_export(exported)
        with self._store.writing() as connection:
            if _newest_grant(connection, population) is None:
                for made in granted:
                    connection.execute(grants.insert().values(**made.to_json()))
            known = {
                row["id"]: row
                for row in connection.execute(_of(reservations, population)).mappings()
            }
            added = [row for row in reserved if row["id"] not in known]
            for row in reserved:
                held = known.get(row["id"])
                if held is not None and any(held[k] != row[k] for k in row if k != "committed"):
                    raise LedgerError(f"reservation {row['id']!r} differs from the one held here")
            for row in added:
                _check_new(connection, row["run"], row["round"], row["attempt"])
                connection.execute(reservations.insert().values(**row))
            total = _total(connection)
        self._store.mark.raise_to(total)
        return len(added)

    def _has_expired(self, grant: Grant) -> bool:
        return grant.expires is not None and grant.expires <= self._now()

    def _now(self) -> datetime:
        now = self._clock()
        if now.tzinfo is None:
            raise LedgerError("the ledger's clock gave a time without time zone")
        return now.astimezone(UTC)


def _of(table: sa.Table, population: str) -> sa.Select[Any]:
    return sa.select(table).where(table.c.population == population).order_by(table.c.sequence)


def _total(connection: sa.Connection) -> int:
    return int(connection.scalar(sa.select(sa.func.count()).select_from(reservations)) or 0)


def _check_complete(connection: sa.Connection, mark: int) -> int:
    """How many reservations there are. The mark must have been read before the transaction."""
    total = _total(connection)
    if total < mark:
        raise LedgerError(
            f"the ledger holds {total} reservations and once held {mark}: it was put back from an "
            "older copy; restore() the exports that hold the missing ones"
        )
    return total


def _newest_grant(connection: sa.Connection, population: str) -> Grant | None:
    rows = connection.execute(_of(grants, population)).mappings().all()
    return read_grant(rows[-1]) if rows else None


def _grant_in_force(connection: sa.Connection, population: str) -> Grant:
    grant = _newest_grant(connection, population)
    if grant is None:
        raise LedgerError(f"population {population!r} has no grant")
    return grant


def _counts(connection: sa.Connection, population: str) -> Counter[Event]:
    rows = connection.execute(
        sa.select(reservations.c.event, sa.func.count())
        .where(reservations.c.population == population)
        .group_by(reservations.c.event)
        .order_by(reservations.c.event)
    )
    return Counter({read_event(text): int(count) for text, count in rows})


def _check_fits(grant: Grant, event: Event) -> None:
    if event.unit is not grant.unit:
        raise LedgerError(f"an event of unit {event.unit} under a grant for unit {grant.unit}")


def _check_new(
    connection: sa.Connection,
    run: str,
    round: int,  # noqa: A002
    attempt: int,
) -> None:
    key = (
        (reservations.c.run == run)
        & (reservations.c.round == round)
        & (reservations.c.attempt == attempt)
    )
    if connection.scalar(sa.select(reservations.c.id).where(key)) is not None:
        raise LedgerError(f"run {run!r} round {round} attempt {attempt} was reserved before")


def _check_budget(counts: Counter[Event], event: Event, grant: Grant) -> None:
    requested = spend_counted(counts + Counter([event]), delta=grant.delta).worst
    if not requested <= grant.epsilon:
        affordable = _affordable(counts, event, grant, None)
        raise BudgetExceeded(
            f"population {grant.population!r} would have spent epsilon {requested:.4f} of "
            f"{grant.epsilon!r} at delta {grant.delta!r}; {affordable} more such rounds fit",
            requested=requested,
            granted=grant.epsilon,
            affordable_rounds=affordable,
        )


def _affordable(
    counts: Counter[Event], event: Event, grant: Grant, adversary: Adversary | None
) -> int:
    def fits(rounds: int) -> bool:
        total = spend_counted(counts + Counter({event: rounds}), delta=grant.delta)
        return _epsilon(total, adversary) <= grant.epsilon

    low, high = 0, 1
    while high <= MAX_AFFORDABLE and fits(high):
        low, high = high, 2 * high
    high = min(high, MAX_AFFORDABLE + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _epsilon(total: Spend, adversary: Adversary | None) -> float:
    return total.worst if adversary is None else total.adversaries[adversary].claimed
