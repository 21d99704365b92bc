"""Processes that are killed, processes that race, and a model of the ledger that never forgets."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from privacy.accountant import spend
from privacy.errors import BudgetExceeded, LedgerError
from privacy.events import Event
from privacy.ledger import Ledger
from privacy.unit import Unit
from tests.privacy.plans import calibrated

PLAN = calibrated(rounds=5)
EVENTS = [PLAN.event(survivors) for survivors in (8, 9, 10)]

CHILD = """
import json, os, signal, sys
from privacy.errors import BudgetExceeded
from privacy.events import event_from_json
from privacy.ledger import Ledger

url, run, step, body = sys.argv[1:]
ledger = Ledger(url)
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


def start(url: str, run: str, step: str, event: Event) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", CHILD, url, run, step, json.dumps(event.to_json())]
    root = Path(__file__).parents[2]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, text=True, cwd=root)


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def ended(child: subprocess.Popen[str]) -> int:
    code = child.wait(timeout=60)
    assert child.stdin is not None
    child.stdin.close()
    return code


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    ledger = Ledger(url)
    ledger.grant("p", unit=Unit.TASK, epsilon=3.0, delta=1e-5, approver="x")
    for index in range(4):
        ledger.reserve("p", "first", index, 0, EVENTS[0], bytes(32))
    return url


def test_of_processes_racing_for_the_last_of_a_budget_exactly_one_wins(url: str) -> None:
    children = [start(url, f"run{i}", "none", EVENTS[0]) for i in range(3)]
    for child in children:
        go(child)
    assert sorted(ended(child) for child in children) == [0, 7, 7]
    ledger = Ledger(url)
    assert len(ledger.events("p")) == 5
    assert ledger.affordable("p", EVENTS[0]) == 0


def test_a_process_killed_after_reserving_has_spent(url: str) -> None:
    child = start(url, "killed", "after", EVENTS[0])
    go(child)
    assert ended(child) == -signal.SIGKILL
    ledger = Ledger(url)
    assert len(ledger.events("p")) == 5
    with pytest.raises(BudgetExceeded):
        ledger.reserve("p", "next", 0, 0, EVENTS[0], bytes(32))
    with pytest.raises(LedgerError, match="reserved before"):
        ledger.reserve("p", "killed", 0, 0, EVENTS[0], bytes(32))


def test_a_process_killed_before_the_write_is_durable_has_not_and_blocks_nobody(url: str) -> None:
    child = start(url, "killed", "inside", EVENTS[0])
    go(child)
    assert ended(child) == -signal.SIGKILL
    ledger = Ledger(url)
    assert len(ledger.events("p")) == 4
    ledger.reserve("p", "killed", 0, 0, EVENTS[0], bytes(32))
    assert len(ledger.events("p")) == 5


class LedgerMachine(RuleBasedStateMachine):
    """Against a list that only ever grows: crashes, restores and refusals lose nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.file = Path(self.directory.name) / "ledger.db"
        self.charged: list[Event] = []
        self.taken: set[tuple[str, int, int]] = set()
        self.open: list[str] = []
        self.exports: list[dict[str, object]] = []
        self.copies: list[bytes] = []
        self.limit = 0.0

    def teardown(self) -> None:
        self.directory.cleanup()

    @initialize(epsilon=st.sampled_from([0.5, 2.0, 3.0]))
    def begin(self, epsilon: float) -> None:
        self.ledger = Ledger(f"sqlite:///{self.file}")
        self.approve(epsilon)

    @rule(epsilon=st.sampled_from([0.5, 1.5, 3.0, 4.0]))
    def approve(self, epsilon: float) -> None:
        self.ledger.grant("p", unit=Unit.TASK, epsilon=epsilon, delta=1e-5, approver="x")
        self.limit = epsilon

    @rule(
        event=st.sampled_from(EVENTS),
        key=st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.integers(0, 1)),
        crash=st.booleans(),
    )
    def reserve(self, event: Event, key: tuple[str, int, int], crash: bool) -> None:
        affordable = spend([*self.charged, event], delta=1e-5).worst <= self.limit
        try:
            name = self.ledger.reserve("p", *key, event, bytes(32))
        except BudgetExceeded:
            assert not affordable
            assert key not in self.taken
        except LedgerError:
            assert key in self.taken
        else:
            assert affordable
            assert key not in self.taken
            self.taken.add(key)
            self.charged.append(event)
            if crash:
                self.restart()
            else:
                self.open.append(name)

    @rule()
    def commit(self) -> None:
        if self.open:
            self.ledger.commit(self.open.pop())

    @rule()
    def restart(self) -> None:
        """The process is gone: what it held in memory with it."""
        self.ledger = Ledger(f"sqlite:///{self.file}")

    @rule()
    def back_up(self) -> None:
        self.exports.append(json.loads(json.dumps(self.ledger.export("p"))))
        self.copies.append(self.file.read_bytes())

    @rule(data=st.data())
    def restore_an_export(self, data: st.DataObject) -> None:
        if self.exports:
            assert self.ledger.restore(data.draw(st.sampled_from(self.exports))) == 0

    @rule(data=st.data())
    def put_an_old_file_back(self, data: st.DataObject) -> None:
        if not self.copies:
            return
        now, held = self.ledger.export("p"), len(self.charged)
        self.file.write_bytes(data.draw(st.sampled_from(self.copies)))
        self.restart()
        fewer = len(self.ledger.export("p")["reservations"]) < held
        if fewer:
            with pytest.raises(LedgerError, match="older copy"):
                self.ledger.events("p")
            assert self.ledger.restore(now) > 0
        grant = self.ledger.grant_of("p")
        assert grant is not None
        self.limit = grant.epsilon

    @invariant()
    def everything_is_still_charged(self) -> None:
        if hasattr(self, "ledger"):
            held = self.ledger.events("p")
            assert sorted(map(repr, held)) == sorted(map(repr, self.charged))
            left = self.ledger.affordable("p", EVENTS[0])
            total = [*self.charged, *[EVENTS[0]] * left]
            assert left == 0 or spend(total, delta=1e-5).worst <= self.limit
            assert spend([*total, EVENTS[0]], delta=1e-5).worst > self.limit


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
