"""A connection that is lost in the middle of a reservation: charged or not, and never opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

import privacy.ledger
from privacy.errors import LedgerUnavailable, OutcomeUnknown
from privacy.ledger import Ledger
from tests.privacy.databases import Database, Postgres
from tests.privacy.ledgers import EVENT, Open, grant, reserve
from tests.privacy.postgres import Cluster


@pytest.fixture
def postgres(cluster: Cluster, request: pytest.FixtureRequest) -> Postgres:
    return Postgres(cluster, request.getfixturevalue("tmp_path") / "marks")


@contextmanager
def at_commit(ledger: Ledger, happens: Callable[[sa.Connection], None]) -> Iterator[None]:
    """Once: what happens when the ledger asks for a commit, before the database hears of it."""
    engine = ledger._store._engine
    done = False

    def once(connection: sa.Connection) -> None:
        nonlocal done
        if not done:
            done = True
            happens(connection)

    sa.event.listen(engine, "commit", once)
    try:
        yield
    finally:
        sa.event.remove(engine, "commit", once)


def durable(connection: sa.Connection) -> None:
    """The database has committed, and goes on as if the answer were still to come."""
    driver = connection.connection.dbapi_connection
    assert driver is not None
    driver.commit()
    driver.execute("SELECT 1")


def terminate(postgres: Postgres) -> None:
    with postgres.cluster.at(postgres.url) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_a_backend_that_ends_inside_the_transaction_has_charged_nothing(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = grant(postgres.open())
    with monkeypatch.context() as patch:
        patch.setattr(privacy.ledger, "check_budget", lambda *_: terminate(postgres))
        with pytest.raises(LedgerUnavailable, match="refused"):
            reserve(ledger, 0)
    assert ledger.events("p") == ()
    reserve(ledger, 0)
    assert ledger.events("p") == (EVENT,)


def test_a_backend_that_ends_before_the_commit_has_charged_nothing(postgres: Postgres) -> None:
    ledger = grant(postgres.open())
    with (
        at_commit(ledger, lambda _: terminate(postgres)),
        pytest.raises(LedgerUnavailable, match="nothing was charged") as caught,
    ):
        reserve(ledger, 0)
    assert not isinstance(caught.value, OutcomeUnknown)
    assert ledger.events("p") == ()
    reserve(ledger, 0)
    assert ledger.events("p") == (EVENT,)


def test_a_commit_whose_answer_is_lost_is_found_again_and_charged_once(
    postgres: Postgres,
) -> None:
    ledger = grant(postgres.open())

    def lose(connection: sa.Connection) -> None:
        durable(connection)
        terminate(postgres)

    with at_commit(ledger, lose):
        name = reserve(ledger, 0)
    ledger.commit(name)
    assert ledger.events("p") == (EVENT,)
    assert int(postgres.mark.read_text()) == 1


@pytest.mark.parametrize("committed", [True, False])
def test_where_nobody_can_be_asked_it_counts_as_charged_and_nothing_is_opened(
    postgres: Postgres, committed: bool
) -> None:
    ledger = grant(postgres.open())

    def go_down(connection: sa.Connection) -> None:
        if committed:
            durable(connection)
        postgres.cluster.control("stop", "-m", "immediate")

    try:
        with (
            at_commit(ledger, go_down),
            pytest.raises(OutcomeUnknown, match="counts as charged, and nothing is opened"),
        ):
            reserve(ledger, 0)
    finally:
        postgres.cluster.start()
    assert ledger.events("p") == ((EVENT,) if committed else ())


def test_a_commit_that_reports_an_error_is_looked_up(database: Database) -> None:
    """A full disk or a locked file at the last moment: the database itself says what holds."""
    ledger = grant(database.open())

    def fail(connection: sa.Connection) -> None:
        raise sa.exc.OperationalError("COMMIT", {}, Exception("disk I/O error"))

    def fail_after(connection: sa.Connection) -> None:
        driver = connection.connection.dbapi_connection
        assert driver is not None
        driver.execute("COMMIT") if connection.dialect.name == "sqlite" else driver.commit()
        fail(connection)

    with at_commit(ledger, fail), pytest.raises(LedgerUnavailable, match="nothing was charged"):
        reserve(ledger, 0)
    assert ledger.events("p") == ()
    with at_commit(ledger, fail_after):
        ledger.commit(reserve(ledger, 0))
    assert ledger.events("p") == (EVENT,)


def test_the_look_up_waits_until_the_lost_transaction_has_ended(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked too early, a commit that is still on its way would be taken for none."""
    monkeypatch.setattr("privacy.ledger_postgres.WAIT_SECONDS", 1)
    ledger = grant(postgres.open())
    with postgres.cluster.at(postgres.url) as stuck:
        stuck.autocommit = False
        stuck.execute("LOCK TABLE reservations IN SHARE ROW EXCLUSIVE MODE")
        lost = OutcomeUnknown("lost")
        with pytest.raises(OutcomeUnknown, match="counts as charged"):
            ledger._look_up("0" * 32, lost)
        stuck.rollback()
    with pytest.raises(LedgerUnavailable, match="nothing was charged"):
        ledger._look_up("0" * 32, lost)


def test_an_unreachable_server_is_told_and_charges_nothing(postgres: Postgres) -> None:
    ledger = grant(postgres.open())
    postgres.cluster.control("stop", "-m", "fast")
    try:
        for ask in (
            lambda: reserve(ledger, 0),
            lambda: ledger.events("p"),
            lambda: grant(ledger),
            lambda: ledger.commit("x"),
            postgres.open,
        ):
            with pytest.raises(LedgerUnavailable, match="refused"):
                ask()
    finally:
        postgres.cluster.start()
    assert ledger.events("p") == ()


def test_opening_and_reading_wait_for_no_writer(opened: Open) -> None:
    ledger = grant(opened())
    with ledger._store.writing():
        assert opened().events("p") == ()
        assert opened().affordable("p", EVENT) == 5
