"""Budgets over many runs: grants, and reservations that are durable before anything is opened.

A population's budget is its grants: one for the worst adversary, and where somebody wants it
tighter, one for a single adversary. Every round reserves its event first and opens its sum
afterwards; `commit` only notes that the sum was opened. Reserved and committed events count alike:
a crash may charge a round that was never opened, and never leaves an opened one uncharged. Nothing
here deletes or refunds an event.

What epsilon a list of events has is asked of `privacy.accountant` each time; none is stored. A
grant without an order adds up events of plans that were fixed beforehand. Events chosen by looking
at what earlier ones released (an adaptive noise, a run whose settings come from another's result)
need a grant at one declared Renyi order, which then is a filter.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from privacy.accountant import Adversary
from privacy.errors import LedgerError, LedgerUnavailable, OutcomeUnknown
from privacy.events import Event
from privacy.ledger_limits import affordable, check_budget, check_fits, spent_of, turns_left
from privacy.ledger_postgres import PostgresStore
from privacy.ledger_queries import (
    check_complete,
    check_new,
    counts_of,
    grants_in_force,
    newest_grants,
    newest_time,
    rows_of,
)
from privacy.ledger_queries import total as total_of
from privacy.ledger_rows import (
    EXPORT_VERSION,
    Account,
    Charged,
    Grant,
    amount_of,
    delta_of,
    digest_of,
    index_of,
    name_of,
    order_of,
    read_event,
    read_export,
    relation_of,
    unit_of,
    write_event,
)
from privacy.ledger_sqlite import SqliteStore
from privacy.ledger_store import Store
from privacy.ledger_tables import grants, reservations
from privacy.unit import Unit


def utc_now() -> datetime:
    """The time of day, in UTC."""
    return datetime.now(UTC)


class Ledger:
    """Grants and reservations in one database, shared by any number of processes.

    Args:
        url: `sqlite:///FILE`, which is created where it is missing, or `postgresql://HOST/DATABASE`.
        marks: folder for the mark of a PostgreSQL ledger; SQLite's lies beside its file.
        clock: gives the time with a time zone, for what is recorded and for expiry. It is not
            believed where it is behind the newest entry of a population.

    Raises:
        LedgerError: see each method; all of them where the database is damaged, of another schema
            version, or holds fewer reservations than it once did (then `restore` what is missing
            first).
        LedgerUnavailable: all of them where it is locked, unreachable or cut off; nothing was
            written.
    """

    def __init__(
        self, url: str, *, marks: Path | None = None, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._store = _open(url, marks)
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
        adversary: Adversary | None = None,
        order: int | None = None,
    ) -> Grant:
        """Set the population's budget; what was spent before stays spent.

        A later grant takes the place of an earlier one for the same adversary, with the same
        unit, delta and order. The order is part of the claim: chosen after the fact, or changed,
        it would claim the best of several.

        Raises:
            LedgerError: an amount that is not a positive normal number, a delta of 1 or more, no
                unit, a name that is empty, over 200 characters or not printable, an expiry that
                has no time zone or has passed, an order outside 2 to 512, another unit, delta or
                order than the population's, or a first grant that is not for the worst adversary.
        """
        granted = unit_of(unit)
        made = Grant(
            population=name_of("population", population),
            unit=granted,
            relation=relation_of(granted),
            adversary=adversary,
            epsilon=amount_of("epsilon", epsilon),
            delta=delta_of(delta),
            order=order_of(order),
            approver=name_of("approver", approver),
            granted=self._now(),
            expires=expires,
        )
        if expires is not None and (expires.tzinfo is None or expires <= made.granted):
            raise LedgerError(f"expires {expires.isoformat()} lacks a time zone or has passed")
        with self._store.writing() as connection:
            held = newest_grants(connection, population)
            if not held and adversary is not None:
                raise LedgerError(
                    f"the first grant of {population!r} must be for the worst adversary; one for "
                    f"{adversary} alone would leave the others without limit"
                )
            if held and held[0].family != made.family:
                unit_, relation, delta_, order_ = held[0].family
                raise LedgerError(
                    f"population {population!r} is accounted for unit {unit_} under {relation} at "
                    f"delta {delta_!r} and order {order_}; a grant cannot change them"
                )
            connection.execute(grants.insert().values(**made.to_json()))
        return made

    def grants_of(self, population: str) -> tuple[Grant, ...]:
        """The newest grant for each adversary, expired or not, the worst adversary's first."""
        with self._store.reading() as connection:
            return newest_grants(connection, population)

    def populations(self) -> tuple[str, ...]:
        """Every population that was ever granted or charged anything, by name."""
        names = sa.union(sa.select(grants.c.population), sa.select(reservations.c.population))
        with self._store.reading() as connection:
            return tuple(sorted(connection.scalars(names)))

    def events(self, population: str) -> tuple[Event, ...]:
        """Every event ever reserved for the population, committed or not, in order."""
        mark = self._store.mark.read()
        with self._store.reading() as connection:
            check_complete(connection, mark)
            texts = connection.scalars(
                sa.select(reservations.c.event)
                .where(reservations.c.population == population)
                .order_by(reservations.c.sequence)
            ).all()
        return tuple(read_event(text) for text in texts)

    def counts(self, population: str) -> Counter[Event]:
        """The same, counted: each event with how often it was reserved."""
        mark = self._store.mark.read()
        with self._store.reading() as connection:
            check_complete(connection, mark)
            return counts_of(connection, population)

    def attempts(self, run: str, population: str) -> dict[tuple[int, int], Charged]:
        """What one run was charged for this population: (round, attempt) -> charge, in order."""
        mark = self._store.mark.read()
        with self._store.reading() as connection:
            check_complete(connection, mark)
            rows = connection.execute(
                rows_of(reservations, population).where(reservations.c.run == run)
            ).mappings()
            return {(row["round"], row["attempt"]): Charged.of(row) for row in rows}

    def account(self, population: str) -> Account:
        """Where the population stands; nothing is written.

        Raises:
            EventRefused: events there that cannot be composed.
        """
        mark = self._store.mark.read()
        with self._store.reading() as connection:
            check_complete(connection, mark)
            held = newest_grants(connection, population)
            counts = counts_of(connection, population)
            newest = newest_time(connection, population)
            rows = connection.execute(rows_of(reservations, population)).mappings().all()
        last = read_event(rows[-1]["event"]) if rows else None
        fits: int | None = None
        if held and last is not None:
            expired = any(self._has_expired(grant, newest) for grant in held)
            fits = 0 if expired else affordable(held, counts, last)
        return Account(
            grants=held,
            spent=tuple(spent_of(grant, counts) for grant in held),
            charged=len(rows),
            opened=sum(row["committed"] is not None for row in rows),
            last=last,
            affordable=fits,
            turns_left=None if last is None else turns_left(counts, last),
        )

    def affordable(self, population: str, event: Event) -> int:
        """How many more events like this the grants cover, at most 1,000,000; 0 once one expired.

        Raises:
            LedgerError: no grant in force, or an event that does not fit it.
            EventRefused: an event that cannot be composed with those there.
        """
        mark = self._store.mark.read()
        with self._store.reading() as connection:
            check_complete(connection, mark)
            held = grants_in_force(connection, population)
            counts = counts_of(connection, population)
            newest = newest_time(connection, population)
        check_fits(held[0], event)
        if any(self._has_expired(grant, newest) for grant in held):
            return 0
        return affordable(held, counts, event)

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

        Of several processes that ask for the last of a budget, one gets it. Where the database
        does not confirm the write, it is asked again for the reservation by its id, once the lost
        transaction has ended.

        Returns:
            The reservation's id, to be committed once the sum is open.

        Raises:
            BudgetExceeded: the events with this one would exceed a grant; nothing was written.
            LedgerError: no grant in force, a grant that has expired or is for another unit, or a
                (run, round, attempt) that was reserved before; nothing was written.
            EventRefused: an event that cannot be composed with those there.
            OutcomeUnknown: nobody can say whether it was written, or it was and the mark was not:
                it counts as charged, and nothing may be opened for it.
        """
        row = {
            "id": secrets.token_hex(16),
            "population": name_of("population", population),
            "run": name_of("run", run),
            "round": index_of("round", round),
            "attempt": index_of("attempt", attempt),
            "event": write_event(event),
            "plan_digest": digest_of(plan_digest),
        }
        mark = self._store.mark.read()
        try:
            with self._store.writing() as connection:
                total = check_complete(connection, mark) + 1
                held = grants_in_force(connection, population)
                now = max(self._now(), newest_time(connection, population))
                for grant in held:
                    if self._has_expired(grant, now):
                        raise LedgerError(
                            f"the grant of {population!r} expired at {grant.expires}: grant anew"
                        )
                check_fits(held[0], event)
                check_new(connection, run, round, attempt)
                check_budget(held, counts_of(connection, population), event)
                connection.execute(reservations.insert().values(**row, reserved=now.isoformat()))
        except OutcomeUnknown as lost:
            total = self._look_up(str(row["id"]), lost)
        try:
            self._store.mark.raise_to(total)
        except LedgerError as error:
            raise OutcomeUnknown(f"reservation {row['id']} is charged, but {error}") from error
        return str(row["id"])

    def _look_up(self, reservation_id: str, lost: OutcomeUnknown) -> int:
        """After an unconfirmed commit: how many reservations there are, this one among them."""
        mine = sa.select(reservations.c.id).where(reservations.c.id == reservation_id)
        try:
            # Whoever may write knows that the lost transaction has ended, in one way or the other.
            with self._store.writing() as connection:
                found = connection.scalar(mine)
                total = total_of(connection)
        except LedgerError as error:
            raise OutcomeUnknown(
                f"{lost}; whether reservation {reservation_id} was written cannot be told "
                f"({error}): it counts as charged, and nothing is opened for it"
            ) from error
        if found is None:
            raise LedgerUnavailable(f"{lost}; nothing was charged, try again") from lost
        return total

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
            granted = connection.execute(rows_of(grants, population)).mappings().all()
            reserved = connection.execute(rows_of(reservations, population)).mappings().all()
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
            if not newest_grants(connection, population):
                for made in granted:
                    connection.execute(grants.insert().values(**made.to_json()))
            known = {
                row["id"]: row
                for row in connection.execute(rows_of(reservations, population)).mappings()
            }
            added = [row for row in reserved if row["id"] not in known]
            for row in reserved:
                held = known.get(row["id"])
                if held is not None and any(held[k] != row[k] for k in row if k != "committed"):
                    raise LedgerError(f"reservation {row['id']!r} differs from the one held here")
            for row in added:
                check_new(connection, row["run"], row["round"], row["attempt"])
                connection.execute(reservations.insert().values(**row))
            total = total_of(connection)
        self._store.mark.raise_to(total)
        return len(added)

    def _has_expired(self, grant: Grant, newest: datetime) -> bool:
        """Whether it has, by the clock or by what is recorded: a clock set back revives nothing."""
        return grant.expires is not None and grant.expires <= max(newest, self._now())

    def _now(self) -> datetime:
        now = self._clock()
        if now.tzinfo is None:
            raise LedgerError("the ledger's clock gave a time without time zone")
        return now.astimezone(UTC)


def _open(url: str, marks: Path | None) -> Store:
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:  # what it says repeats the URL
        raise LedgerError(
            "the ledger's URL cannot be read: allowed are sqlite:///FILE and "
            "postgresql://[USER@]HOST[:PORT]/DATABASE"
        ) from None
    if parsed.get_backend_name() == "sqlite":
        return SqliteStore(parsed)
    if parsed.get_backend_name() == "postgresql":
        return PostgresStore(parsed, marks)
    raise LedgerError(
        f"ledger database {parsed.get_backend_name()!r}: allowed is sqlite or postgresql"
    )
