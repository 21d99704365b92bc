"""What somebody who watches a run knows of it: figures told so far, and the time that is left.

Every figure is one of the metrics lines, or a sum or mean of them; nothing is measured but time.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from secure_fedmeta.progress import Started

RECENT: Final = 10
"""Rounds whose mean time is the estimate for those that are left."""
_TREND: Final = 24
"""Scores that are kept for the trend."""


@dataclass(frozen=True)
class Score:
    """A held-out score between rounds; None for a mean that is no number."""

    metric: str
    adapted: float | None
    unadapted: float | None


@dataclass(frozen=True)
class Spent:
    """The claim against the worst budgeted adversary, and the grant."""

    epsilon: float
    granted: float
    adversary: str


class Seen:
    """Takes what a run tells, in its order.

    Args:
        clock: seconds that only grow.

    Attributes:
        facts: the start; None before it.
        doing: the stage.
        done: rounds that ended, released or not.
        aborted: number and reason of each round that did not release.
        survivors: clients in the last sum, and clients asked; None before the first.
        score: the last one; None before it.
        spent: after the last release; None before it.
        trend: adapted scores so far, the last of them last.
        sent: bytes of the average client in the last round.
        sent_in_all: bytes of the average client in all rounds.
        received: like `sent`; `received_in_all` like `sent_in_all`.
        affordable: rounds that the grants still allow; None: without limit, or not known.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.facts: Started | None = None
        self.doing = ""
        self.done = 0
        self.aborted: list[tuple[int, str]] = []
        self.survivors: tuple[int, int] | None = None
        self.score: Score | None = None
        self.spent: Spent | None = None
        self.trend: deque[float] = deque(maxlen=_TREND)
        self.sent = self.received = self.sent_in_all = self.received_in_all = 0
        self.affordable: int | None = None
        self._clock = clock
        self._began = self._stage_began = self._round_began = clock()
        self._recent: deque[float] = deque(maxlen=RECENT)

    @property
    def directory(self) -> Path | None:
        """Where the run leaves its files; None before it has begun."""
        return None if self.facts is None else self.facts.directory

    @property
    def left(self) -> int:
        """Rounds that are still planned; 0 before the start."""
        return 0 if self.facts is None else max(0, self.facts.rounds - self.done)

    @property
    def seconds(self) -> float:
        """Since the first thing was told."""
        return self._clock() - self._began

    @property
    def stage_seconds(self) -> float:
        """Since the stage began."""
        return self._clock() - self._stage_began

    def seconds_left(self) -> float | None:
        """For the rounds that are left, at the mean pace of the recent ones; None before any.

        The time that the current round has taken already is taken off, and the work after the last
        round is not in it: nothing before it says how long that takes.
        """
        if not self._recent or self.left == 0:
            return None
        mean = sum(self._recent) / len(self._recent)
        return max(0.0, mean * self.left - min(mean, self._clock() - self._round_began))

    def warning(self) -> str | None:
        """In words, when the grants do not allow all rounds that are left; None when they do."""
        if self.affordable is None or self.affordable >= self.left:
            return None
        rounds = "round" if self.left == 1 else "rounds"
        many = "none" if self.affordable == 0 else f"only {self.affordable}"
        return f"the grants allow {many} of the {self.left} {rounds} left"

    def start(self, facts: Started) -> None:
        """The run begins, or goes on after the rounds that it has records of."""
        self.facts = facts
        for record in facts.records:
            self._take(record)
        self._round_began = self._clock()

    def stage(self, text: str) -> None:
        """A stage begins; one that only counts on keeps its time."""
        if _name(text) != _name(self.doing):
            self._stage_began = self._clock()
        self.doing = text

    def round_done(self, record: Mapping[str, Any]) -> None:
        """A round ended now."""
        now = self._clock()
        self._recent.append(now - self._round_began)
        self._round_began = now
        self._take(record)

    def _take(self, record: Mapping[str, Any]) -> None:
        self.done += 1
        if record["status"] == "aborted":
            self.aborted.append((record["round"], record["reason"]))
        elif record["status"] == "released":
            self.survivors = record["survivors"], record["selected"]
            by = record["epsilon_by_adversary"]
            self.spent = Spent(record["epsilon"], record["granted"], max(by, key=by.__getitem__))
        if "bytes" in record:
            self.sent, self.received = record["bytes"]["sent"], record["bytes"]["received"]
            self.sent_in_all += self.sent
            self.received_in_all += self.received
        limit = record.get("affordable")
        charged = int(record.get("charged", True))
        self.affordable = None if limit is None else max(0, limit - charged)
        if "metric" in record:
            self.score = Score(record["metric"], record["adapted"], record["unadapted"])
            if record["adapted"] is not None:
                self.trend.append(record["adapted"])


def _name(stage: str) -> str:
    """A stage without its count, such as `ciphertext 3 of 9`."""
    return re.sub(r" \d+ of \d+$", "", stage)


def lasting(seconds: float) -> str:
    """A time in words, no finer than it is known: 8 s, 3 min 20 s, 1 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
