"""One process of a run: forked from one that has imported all, killed or left to end."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from secure_fedmeta import training
from secure_fedmeta.errors import NothingBegun, RunEnded
from secure_fedmeta.results import read_report
from tests.chaos.calls import Call, Calls, When
from tests.chaos.scenarios import Scenario
from tests.chaos.witness import Message, Told, Witness

HANGS_AFTER = 120.0
OUTPUT = "output.txt"
Plant = Callable[[], AbstractContextManager[None]]
Act = Callable[[Witness], None]


@dataclass(frozen=True)
class AtTime:
    """SIGKILL so many seconds after the start."""

    seconds: float


@dataclass(frozen=True)
class AtCall:
    """SIGKILL at the n-th point at the disk, from 1."""

    point: int


@dataclass(frozen=True)
class AtPromise:
    """SIGKILL right after a promise of this kind was told for the n-th time, from 1."""

    what: str
    time: int


@dataclass(frozen=True)
class Full:
    """From the n-th call that needs room on, there is none: each such call fails with ENOSPC."""

    point: int


Ending = AtTime | AtCall | AtPromise | Full | None


@dataclass(frozen=True)
class Life:
    """What one process left behind.

    Attributes:
        told: its messages, in order.
        killed: whether SIGKILL ended it.
        seconds: how long it lived.
    """

    told: tuple[Message, ...]
    killed: bool
    seconds: float

    @property
    def last(self) -> Message:
        """What it said at the end, if it came to one."""
        return self.told[-1] if self.told else {"what": "nothing"}

    def of(self, what: str) -> list[Message]:
        """Its messages of one kind."""
        return [message for message in self.told if message["what"] == what]


def live(place: Path, act: Act, *, ending: Ending = None, plant: Plant = nullcontext) -> Life:
    """Do something in a process of its own until it ends or is killed.

    Args:
        place: holds state, ledgers and runs.
        act: what the process does, such as `run_or_resume`.
        ending: what stops it; None: nothing.
        plant: put around everything in that process.
    """
    reader, writer = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(place, act, ending, plant, writer)
    os.close(writer)
    deadline = began + ending.seconds if isinstance(ending, AtTime) else None
    told = b""
    hung = False
    while True:
        now = time.monotonic()
        until = began + HANGS_AFTER if deadline is None else deadline
        ready, _, _ = select.select([reader], [], [], max(0.0, until - now))
        if ready:
            part = os.read(reader, 65536)
            if not part:
                break
            told += part
            continue
        hung = deadline is None
        os.kill(child, signal.SIGKILL)
        deadline = began + HANGS_AFTER  # now it only has to be read to its end
    os.close(reader)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and not hung
    messages = tuple(json.loads(line) for line in told.splitlines())
    return Life(messages, killed, time.monotonic() - began)


def run_directories(place: Path) -> list[Path]:
    """The runs of a place, oldest first: a run that had not begun when killed is started again.

    An empty directory, which its process had made last, is no run.
    """
    found = [path.parent for path in place.glob("runs-*/*-*/config.toml")]
    return sorted(found, key=lambda path: path.parent.name)


def run_or_resume(scenario: Scenario, place: Path) -> Act:
    """A run; where one is in the place already, its resumption."""

    def act(witness: Witness) -> None:
        found = run_directories(place)
        witness.tell("started", resumes=bool(found))
        with scenario.drawing():
            try:
                if found:
                    training.resume(found[-1], progress=Told(witness))
            except RunEnded:  # it had said all, and only the process had not ended
                pass
            except NothingBegun:
                witness.tell("anew")
                found.append(_run(scenario, place, witness))
            if not found:
                found.append(_run(scenario, place, witness))
        witness.tell("ended", status=read_report(found[-1])["status"])

    return act


def _run(scenario: Scenario, place: Path, witness: Witness) -> Path:
    out = place / f"runs-{len(list(place.glob('runs-*')))}"
    return training.run(scenario.config(place), out=out, progress=Told(witness)).directory


def _child(place: Path, act: Act, ending: Ending, plant: Plant, pipe: int) -> NoReturn:
    """Never returns: the parent's interpreter must not be ended twice."""
    code = 1
    try:
        _redirect(place / OUTPUT)
        os.environ["FEDMETA_STATE_DIR"] = str(place / "state")
        points = Points(ending)
        witness = Witness(pipe, Calls(place, points.observe))
        if isinstance(ending, AtPromise):
            witness.kill_after(ending.what, ending.time)
        with plant(), witness.watching():
            try:
                act(witness)
                code = 0
            except BaseException as error:
                traceback.print_exc()
                witness.tell("failed", error=str(error), type=type(error).__name__)
        witness.tell("points", disk=points.count, needing_room=points.sites)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Points:
    """The calls at the disk, counted, and stopped where the ending says.

    Attributes:
        count: points so far.
        sites: name and path of each call that needed room.
    """

    def __init__(self, ending: Ending) -> None:
        self.count = 0
        self.sites: list[tuple[str, str]] = []
        self._ending = ending

    def observe(self, call: Call, when: When) -> None:
        """One point."""
        self.count += 1
        if isinstance(self._ending, AtCall) and self.count == self._ending.point:
            os.kill(os.getpid(), signal.SIGKILL)
        if not call.needs_room or when == "after":
            return
        if when == "before":
            self.sites.append((call.name, call.path))
        if isinstance(self._ending, Full) and len(self.sites) >= self._ending.point:
            # Half of what is written still finds room, where this is the first to find none.
            first = len(self.sites) == self._ending.point and when == "before"
            if not (first and call.name == "write"):
                raise no_room(call)


def no_room(call: Call) -> Exception:
    """What the system, or SQLite, says of a full disk."""
    if call.name.startswith("sqlite"):
        return sqlite3.OperationalError("database or disk is full")
    named = () if call.name in ("write", "fsync") else (call.path,)  # as the system does
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *named)


def _redirect(path: Path) -> None:
    """Give the process an output of its own, kept for whoever looks into a failure.

    It goes on behind what is there, over blanks that were put there while the disk had room.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.lseek(fd, len(path.read_bytes().rstrip(b" ")), os.SEEK_SET)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
