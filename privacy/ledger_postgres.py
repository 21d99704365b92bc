"""The ledger in a PostgreSQL database, for teams on several machines."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from privacy.errors import LedgerError
from privacy.ledger_mark import HighWater
from privacy.ledger_store import Store
from privacy.ledger_tables import grants, reservations

WAIT_SECONDS = 30
"""How long a writer waits for the others, and how long a dead connection may hold its locks."""

_ALLOWED = {"host", "port", "service", "sslcert", "sslkey", "sslmode", "sslrootcert"}
_OPENERS = 0x6665646D657461  # "fedmeta": the advisory lock of those who make or migrate tables


class PostgresStore(Store):
    """Writers take SHARE ROW EXCLUSIVE locks on both tables before they read.

    The lock excludes every other writer, of other programs too, until the commit has ended, and a
    statement of READ COMMITTED sees all that was committed before it. So what a writer reads
    cannot change before it writes, and whoever gets the lock after a lost connection knows that
    the lost transaction has ended. Readers see one snapshot and wait for nobody.

    A server that answers before a commit is durable (fsync or synchronous_commit off) is refused.
    A database in recovery or a replica that lags is not noticed as such: writing to it fails, and
    a failover that loses commits falls short of the mark.

    Args:
        url: `postgresql://[USER@]HOST[:PORT]/DATABASE`. A password in it would end up in configs
            and messages: it is refused. libpq reads it from ~/.pgpass, PGPASSFILE or a service.
        marks: folder for the mark of this database on this machine. Each machine that reserves
            keeps its own, and notices a database set back behind what it has seen.
    """

    def __init__(self, url: sa.URL, marks: Path | None) -> None:
        if url.password is not None or not set(url.query) <= _ALLOWED:
            unknown = sorted(set(url.query) - _ALLOWED)
            raise LedgerError(
                f"a ledger URL holds no password and no option but {', '.join(sorted(_ALLOWED))}"
                + (f" (found {', '.join(unknown)})" if unknown else "")
                + ": put passwords into ~/.pgpass"
            )
        if marks is None:
            raise LedgerError("a ledger in PostgreSQL needs a folder for its mark")
        if not url.database and "service" not in url.query:
            raise LedgerError(f"ledger URL {url.render_as_string()!r} names no database")
        try:
            marks.mkdir(parents=True, exist_ok=True, mode=0o700)
            engine = _engine(url)
        except OSError as error:
            raise LedgerError(f"the folder of the ledger's mark cannot be made: {error}") from error
        except ModuleNotFoundError as error:
            raise LedgerError(
                "PostgreSQL needs its driver: pip install 'secure-fedmeta[postgres]'"
            ) from error
        sa.event.listen(engine, "connect", _check_durable)
        super().__init__(engine, HighWater(marks / f"ledger-{_name(url)}.high-water"))

    def _reading_options(self) -> dict[str, object]:
        return {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}

    def _exclude_writers(self, connection: sa.Connection) -> None:
        tables = f"{grants.name}, {reservations.name}"
        connection.exec_driver_sql(f"LOCK TABLE {tables} IN SHARE ROW EXCLUSIVE MODE")

    def _exclude_openers(self, connection: sa.Connection) -> None:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_OPENERS)))

    def _keep_copy(self, connection: sa.Connection, version: int) -> str:
        return "the migration is one transaction; pg_dump the database before an upgrade"


def _engine(url: sa.URL) -> sa.Engine:
    settings = {
        "synchronous_commit": "on",
        "lock_timeout": f"{WAIT_SECONDS}s",
        "idle_in_transaction_session_timeout": f"{WAIT_SECONDS}s",
        "client_min_messages": "error",
    }
    return sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        poolclass=sa.pool.NullPool,
        isolation_level="READ COMMITTED",
        use_native_hstore=False,
        hide_parameters=True,
        connect_args={
            "connect_timeout": 10,
            "keepalives_idle": WAIT_SECONDS,
            "tcp_user_timeout": 1000 * WAIT_SECONDS,
            "application_name": "secure-fedmeta ledger",
            "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
        },
    )


def _check_durable(connection: Any, _record: object) -> None:
    """Refuse a server that says "committed" before it is on the disk."""
    for name in ("fsync", "synchronous_commit"):
        found = connection.execute(f"SHOW {name}").fetchone()[0]
        connection.rollback()
        if found == "off":
            raise LedgerError(
                f"the PostgreSQL server runs with {name} = off, so a charge would not be durable: "
                "set it to on"
            )


def _name(url: sa.URL) -> str:
    """What tells this database from others of the same machine."""
    where = [url.host, url.port, url.database, *sorted(url.query.items())]
    return hashlib.sha256(repr(where).encode()).hexdigest()[:16]
