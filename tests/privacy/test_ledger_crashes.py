"""Processes that are killed, processes that race, and a model of the ledger that never forgets."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from privacy.accountant import spend
from privacy.errors import BudgetExceeded, LedgerError
from privacy.events import Event, event_from_json
from privacy.ledger import Ledger
from tests.privacy.databases import Database, Postgres, Sqlite
from tests.privacy.ledgers import EVENT, PLAN, grant, reserve
from tests.privacy.postgres import Cluster

EVENTS = [PLAN.event(survivors) for survivors in (8, 9, 10)]

CHILD = """
import json, os, signal, sys
from pathlib import Path
from privacy.errors import BudgetExceeded
from privacy.events import event_from_json
from privacy.ledger import Ledger

url, marks, run, step, body = sys.argv[1:]
ledger = Ledger(url, marks=Path(marks))
event = event_from_json(json.loads(body))
if step == "inside":
    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)
    import sqlalchemy
    sqlalchemy.event.listen(ledger._store._engine, "commit", die)
sys.stdin.readline()
try:
    name = ledger.reserve("p", run, 0, 0, event, bytes(32))
except BudgetExceeded:
    sys.exit(7)
if step == "after":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def start(database: Database, run: str, step: str) -> subprocess.Popen[str]:
    words = [database.url, str(database.marks), run, step, json.dumps(EVENT.to_json())]
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *words], stdin=subprocess.PIPE, text=True, cwd=root
    )


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def ended(child: subprocess.Popen[str]) -> int:
    code = child.wait(timeout=120)
    assert child.stdin is not None
    child.stdin.close()
    return code


@pytest.fixture
def nearly_spent(database: Database) -> Database:
    """One round is left of five."""
    ledger = grant(database.open())
    for index in range(4):
        reserve(ledger, index, run="first")
    return database


def test_of_processes_racing_for_the_last_of_a_budget_exactly_one_wins(
    nearly_spent: Database,
) -> None:
    children = [start(nearly_spent, f"run{i}", "none") for i in range(3)]
    for child in children:
        go(child)
    assert sorted(ended(child) for child in children) == [0, 7, 7]
    ledger = nearly_spent.open()
    assert len(ledger.events("p")) == 5
    assert ledger.affordable("p", EVENT) == 0


def test_a_process_killed_after_reserving_has_spent(nearly_spent: Database) -> None:
    child = start(nearly_spent, "killed", "after")
    go(child)
    assert ended(child) == -signal.SIGKILL
    ledger = nearly_spent.open()
    assert len(ledger.events("p")) == 5
    with pytest.raises(BudgetExceeded):
        reserve(ledger, 0, run="next")
    with pytest.raises(LedgerError, match="reserved before"):
        reserve(ledger, 0, run="killed")


def test_a_process_killed_before_the_write_is_durable_has_not_and_blocks_nobody(
    nearly_spent: Database,
) -> None:
    child = start(nearly_spent, "killed", "inside")
    go(child)
    assert ended(child) == -signal.SIGKILL
    ledger = nearly_spent.open()
    assert len(ledger.events("p")) == 4
    reserve(ledger, 0, run="killed")
    assert len(ledger.events("p")) == 5


class Crash(Exception):
    """The process is gone at this point."""


@contextmanager
def crashing(ledger: Ledger, when: str | None) -> Iterator[None]:
    """The process ends at its commit: before it is durable, or after and before it is told."""

    def crash(connection: sa.Connection) -> None:
        if when == "after":
            driver = connection.connection.dbapi_connection
            assert driver is not None
            # SQLite's driver leaves transactions to whoever says BEGIN, which is the ledger.
            driver.execute("COMMIT") if connection.dialect.name == "sqlite" else driver.commit()
        raise Crash

    engine = ledger._store._engine
    if when is None:
        yield
        return
    sa.event.listen(engine, "commit", crash)
    try:
        yield
    finally:
        sa.event.remove(engine, "commit", crash)


def reserve_there(url: str, marks: Path | None, key: tuple[str, int, int], event: Any) -> str:
    """In another process: "charged", or which error it was."""
    try:
        Ledger(url, marks=marks).reserve("p", *key, event_from_json(event), bytes(32))
    except (BudgetExceeded, LedgerError) as error:
        return type(error).__name__
    return "charged"


class LedgerMachine(RuleBasedStateMachine):
    """Against a list that only ever grows: crashes, restores and refusals lose nothing.

    Two processes use the ledger: this one, which also crashes, and another.
    """

    def __init__(self, make: Callable[[], Database], there: ProcessPoolExecutor) -> None:
        super().__init__()
        self.database = make()
        self.there = there
        self.charged: list[Event] = []
        self.taken: set[tuple[str, int, int]] = set()
        self.open: list[str] = []
        self.exports: list[dict[str, object]] = []
        self.copies: list[Any] = []
        self.limit = 0.0

    @initialize(epsilon=st.sampled_from([0.5, 2.0, 3.0]))
    def begin(self, epsilon: float) -> None:
        self.ledger = self.database.open()
        self.approve(epsilon)

    @rule(epsilon=st.sampled_from([0.5, 1.5, 3.0, 4.0]))
    def approve(self, epsilon: float) -> None:
        grant(self.ledger, epsilon=epsilon)
        self.limit = epsilon

    @rule(
        event=st.sampled_from(EVENTS),
        key=st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.integers(0, 1)),
        crash=st.sampled_from([None, None, "before", "after"]),
    )
    def reserve(self, event: Event, key: tuple[str, int, int], crash: str | None) -> None:
        affordable = self._affords(event)
        try:
            with crashing(self.ledger, crash):
                name = self.ledger.reserve("p", *key, event, bytes(32))
        except BudgetExceeded:
            assert not affordable
            assert key not in self.taken
        except LedgerError:
            assert key in self.taken
        except Crash:
            assert affordable
            if crash == "after":
                self._charge(key, event)
            self.restart()
        else:
            assert affordable
            assert crash is None
            self._charge(key, event)
            self.open.append(name)

    @rule(
        event=st.sampled_from(EVENTS),
        key=st.tuples(st.sampled_from("bc"), st.integers(0, 3), st.integers(0, 1)),
    )
    def reserve_in_another_process(self, event: Event, key: tuple[str, int, int]) -> None:
        affordable = self._affords(event)
        asked = (self.database.url, self.database.marks, key, event.to_json())
        found = self.there.submit(reserve_there, *asked).result(timeout=120)
        if key in self.taken:
            assert found == "LedgerError"
        elif affordable:
            assert found == "charged"
            self._charge(key, event)
        else:
            assert found == "BudgetExceeded"

    @rule()
    def commit(self) -> None:
        if self.open:
            self.ledger.commit(self.open.pop())

    @rule()
    def restart(self) -> None:
        """The process is gone: what it held in memory with it."""
        self.ledger = self.database.open()

    @rule()
    def back_up(self) -> None:
        self.exports.append(json.loads(json.dumps(self.ledger.export("p"))))
        self.copies.append(self.database.copy())

    @rule(data=st.data())
    def restore_an_export(self, data: st.DataObject) -> None:
        if self.exports:
            assert self.ledger.restore(data.draw(st.sampled_from(self.exports))) == 0

    @rule(data=st.data())
    def put_an_old_copy_back(self, data: st.DataObject) -> None:
        if not self.copies:
            return
        now = self.ledger.export("p")
        self.database.put_back(data.draw(st.sampled_from(self.copies)))
        self.restart()
        held = len(self.ledger.export("p")["reservations"])
        # A process that crashed after its commit never raised the mark: one may go unnoticed.
        if held < len(self.charged):
            marked = int(self.database.mark.read_text())
            if held < marked:
                with pytest.raises(LedgerError, match="older copy"):
                    self.ledger.events("p")
            assert self.ledger.restore(now) > 0
        (found,) = self.ledger.grants_of("p")
        self.limit = found.epsilon

    def _affords(self, event: Event) -> bool:
        return spend([*self.charged, event], delta=1e-5).worst <= self.limit

    def _charge(self, key: tuple[str, int, int], event: Event) -> None:
        self.taken.add(key)
        self.charged.append(event)

    @invariant()
    def everything_is_still_charged(self) -> None:
        if hasattr(self, "ledger"):
            held = self.ledger.events("p")
            assert sorted(map(repr, held)) == sorted(map(repr, self.charged))
            left = self.ledger.affordable("p", EVENTS[0])
            total = [*self.charged, *[EVENTS[0]] * left]
            assert left == 0 or spend(total, delta=1e-5).worst <= self.limit
            assert spend([*total, EVENTS[0]], delta=1e-5).worst > self.limit


@pytest.fixture(scope="module")
def there() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        yield executor


def drive(make: Callable[[], Database], there: ProcessPoolExecutor, examples: int) -> None:
    run_state_machine_as_test(
        lambda: LedgerMachine(make, there),
        settings=settings(max_examples=examples, stateful_step_count=20, deadline=None),
    )


def test_whatever_happens_in_sqlite_everything_stays_charged(
    there: ProcessPoolExecutor, tmp_path_factory: pytest.TempPathFactory
) -> None:
    drive(lambda: Sqlite(tmp_path_factory.mktemp("ledger") / "ledger.db"), there, 15)


def test_whatever_happens_in_postgresql_everything_stays_charged(
    there: ProcessPoolExecutor, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    drive(lambda: Postgres(cluster, tmp_path_factory.mktemp("marks")), there, 8)
