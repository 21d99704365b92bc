"""The order that entries must keep: one state machine, run by the writer and by the verifier.

Entry 0 is the genesis; it holds the plan that `plan_digest` names. At most one round is open;
(round, attempt) strictly grows. A release names the open intent, an intent is closed once, by its
release or its abort, and the charge of an opened round stays. A run is resumed where no round is
open, and from an attempt that was never begun. Each release starts from the model that the last one
ended with. The clip bound of a round is that of the plan, or where the plan moves
it, the one that follows from the figures of the releases before (see `_Clip`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from audit.canonical import dumps, parse_decimal, sha256
from audit.entry import (
    Entry,
    Genesis,
    ReportExported,
    Resumed,
    RoundAbort,
    RoundIntent,
    RoundRelease,
)
from audit.errors import EntryRefused

MAX_CLIP_RATIO: Final = 1024.0
CLIP_TOLERANCE: Final = 1e-9
"""Relative difference that exponentials of two machines may have, added up over a long run."""


@dataclass(frozen=True)
class OpenIntent:
    """A round whose sum may have been opened and whose outcome is not recorded yet."""

    round: int
    attempt: int
    digest: bytes


class Order:
    """What has happened so far, and whether an entry may come next."""

    def __init__(self) -> None:
        self.genesis: Genesis | None = None
        self.open_intent: OpenIntent | None = None
        self.released = 0
        self.aborted = 0
        self.resumed = 0
        self.exported = False
        self._earliest: tuple[int, int] | None = None
        self._last: tuple[int, int] | None = None
        self._last_released: int | None = None
        self._model: str | None = None
        self._reservations: set[str] = set()
        self._clip = _Clip({})

    def apply(self, entry: Entry) -> None:
        """Take the next entry; a refused one changes nothing.

        Raises:
            EntryRefused: it may not come here.
        """
        body = entry.body
        if isinstance(body, Genesis):
            self._genesis(entry, body)
            return
        if self.genesis is None:
            raise EntryRefused(f"the first entry is a genesis, not {entry.kind}")
        if entry.run != self.genesis.run:
            raise EntryRefused(f"run {entry.run!r} in the log of run {self.genesis.run!r}")
        if isinstance(body, RoundIntent):
            self._intent(entry, body, self.genesis)
        elif isinstance(body, RoundRelease):
            self._release(body)
        elif isinstance(body, RoundAbort):
            self._abort(body)
        elif isinstance(body, Resumed):
            self._resumed(entry, body)
        elif isinstance(body, ReportExported):
            self.exported = True

    def _genesis(self, entry: Entry, body: Genesis) -> None:
        if self.genesis is not None:
            raise EntryRefused("a log has one genesis")
        if entry.run != body.run:
            raise EntryRefused(f"run {body.run!r} in an envelope of run {entry.run!r}")
        if sha256(dumps(body.plan)).hex() != body.plan_digest:
            raise EntryRefused("plan_digest is not the SHA-256 of the plan in canonical JSON")
        self._clip = _Clip(body.plan)
        self.genesis = body

    def _intent(self, entry: Entry, body: RoundIntent, genesis: Genesis) -> None:
        self._check_new_round(body.round, body.attempt)
        if body.config_digest != genesis.config_digest or body.plan_digest != genesis.plan_digest:
            raise EntryRefused("config or plan is not the one of the genesis")
        self._clip.check(body.clip)
        if body.reservation in self._reservations:
            raise EntryRefused(f"reservation {body.reservation!r} was used by an earlier intent")
        _check_cohort(body, genesis)
        self._reservations.add(body.reservation)
        self._last = (body.round, body.attempt)
        self.open_intent = OpenIntent(body.round, body.attempt, entry.digest)

    def _release(self, body: RoundRelease) -> None:
        self._check_open(body.round, body.attempt, body.intent)
        if self._model is not None and body.model_before != self._model:
            raise EntryRefused("model_before is not the model that the last release ended with")
        self._clip.move(body.clip_error)
        self.open_intent = None
        self.released += 1
        self._last_released = body.round
        self._model = body.model_after

    def _abort(self, body: RoundAbort) -> None:
        if body.intent is None:
            self._check_new_round(body.round, body.attempt)
            if body.charged != (body.event is not None):
                raise EntryRefused("an abort without intent states its event if it was charged")
        else:
            self._check_open(body.round, body.attempt, body.intent)
            if not body.charged or body.event is not None:
                raise EntryRefused("after an intent the charge stays, with the intent's event")
        self.open_intent = None
        self.aborted += 1
        self._last = (body.round, body.attempt)

    def _resumed(self, entry: Entry, body: Resumed) -> None:
        self._check_new_round(body.round, body.attempt)
        if self.exported:
            raise EntryRefused("the run had ended: its report was exported")
        if body.entries > entry.index:
            raise EntryRefused(f"resumed from {body.entries} entries, after only {entry.index}")
        self._earliest = (body.round, body.attempt)
        self.resumed += 1

    def _check_new_round(self, round_: int, attempt: int) -> None:
        if self.open_intent is not None:
            raise EntryRefused(f"round {self.open_intent.round} is open: release or abort it first")
        if self._last is not None and (round_, attempt) <= self._last:
            raise EntryRefused(f"(round, attempt) {(round_, attempt)} is not after {self._last}")
        if self._earliest is not None and (round_, attempt) < self._earliest:
            raise EntryRefused(
                f"(round, attempt) {(round_, attempt)}; the run was resumed from {self._earliest}"
            )
        if self._last_released is not None and round_ <= self._last_released:
            raise EntryRefused(f"round {round_} was released already")

    def _check_open(self, round_: int, attempt: int, intent: str) -> None:
        if self.open_intent is None:
            raise EntryRefused("no intent is open: it is missing, or closed already")
        if self.open_intent.digest.hex() != intent:
            raise EntryRefused("names another intent than the open one")
        if (self.open_intent.round, self.open_intent.attempt) != (round_, attempt):
            raise EntryRefused(f"(round, attempt) {(round_, attempt)} is not its intent's")


class _Clip:
    """The clip bound of the next round, as the plan and the releases so far give it.

    Where the plan's `extras` have an `adaptive_clip`, each release with error e moves the bound C
    to C exp(-speed * e), within MAX_CLIP_RATIO of the first. Else it stays, and no release has e.
    """

    def __init__(self, plan: Mapping[str, Any]) -> None:
        extras = plan.get("extras")
        rule = extras.get("adaptive_clip") if isinstance(extras, dict) else None
        self._stated = plan.get("clip")
        self._speed: float | None = None
        if rule is None:
            return
        if not isinstance(rule, dict) or not isinstance(self._stated, str):
            raise EntryRefused("the plan moves a clip bound that it does not state")
        self._speed = parse_decimal(_text(rule, "speed"))
        self._first = self._now = parse_decimal(self._stated)

    def check(self, clip: str) -> None:
        """Refuse an intent with another bound."""
        if self._speed is None:
            if self._stated is not None and clip != self._stated:
                raise EntryRefused(f"clip {clip}; the plan's is {self._stated}")
        elif not math.isclose(parse_decimal(clip), self._now, rel_tol=CLIP_TOLERANCE):
            raise EntryRefused(f"clip {clip}; the releases before give {self._now!r}")

    def move(self, error: str | None) -> None:
        """Take the error of a release."""
        if (error is None) != (self._speed is None):
            raise EntryRefused("a release has a clip error where the plan moves the clip, or none")
        if error is None or self._speed is None:
            return
        power = max(-50.0, min(50.0, -self._speed * parse_decimal(error)))
        low, high = self._first / MAX_CLIP_RATIO, self._first * MAX_CLIP_RATIO
        self._now = min(max(self._now * math.exp(power), low), high)


def _text(rule: Mapping[str, Any], name: str) -> str:
    found = rule.get(name)
    if not isinstance(found, str):
        raise EntryRefused(f"the plan's adaptive clip has no {name}")
    return found


def _check_cohort(body: RoundIntent, genesis: Genesis) -> None:
    """Survivors stay within the clients that reported, and above the plan's minimum."""
    counts = body.counts
    if max(counts.reported, counts.dropped) > counts.selected:
        raise EntryRefused(f"more clients reported or dropped than the {counts.selected} selected")
    survivors = body.event.get("survivors")
    if not isinstance(survivors, int) or isinstance(survivors, bool):
        return  # an event without survivors is judged by whoever recomputes the spend
    if survivors > counts.reported:
        raise EntryRefused(f"{survivors} survivors of {counts.reported} that reported")
    minimum = genesis.plan.get("min_survivors")
    if isinstance(minimum, int) and survivors < minimum:
        raise EntryRefused(f"{survivors} survivors; the plan's minimum is {minimum}")
