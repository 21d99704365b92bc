"""What the log of a run tells about it: where it stands, and what it was charged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audit.canonical import loads
from audit.entry import (
    BudgetGranted,
    BudgetSpent,
    Entry,
    Genesis,
    ReportExported,
    RoundAbort,
    RoundIntent,
    RoundRelease,
    decode_entry,
)
from audit.replay import split_lines
from privacy.events import Event, event_from_json
from secure_fedmeta.outcome import ENDED_AT_STEP

Moment = tuple[int, int]
"""Round and attempt."""


@dataclass
class Told:
    """A verified log, read from its first entry to its last.

    Attributes:
        genesis: entry 0; None of an empty log.
        grants: adversary -> the newest grant, as stated.
        prior: what the population was charged before the run.
        charged: what the run charged it.
        released: attempt -> its release.
        aborted: attempt -> its abort.
        open: attempt and digest of the intent without an outcome; None where there is none.
        exported: whether the report of the run was logged, and so the run has ended.
    """

    genesis: Genesis | None = None
    grants: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    prior: Counter[Event] = field(default_factory=Counter)
    charged: Counter[Event] = field(default_factory=Counter)
    released: dict[Moment, RoundRelease] = field(default_factory=dict)
    aborted: dict[Moment, RoundAbort] = field(default_factory=dict)
    open: tuple[Moment, bytes] | None = None
    exported: bool = False

    @classmethod
    def by(cls, log: Path, *, size: int) -> Told:
        """What the first `size` entries of this file tell; they were verified."""
        told = cls()
        for raw in split_lines(log.read_bytes())[0][:size]:
            told._take(decode_entry(raw))
        return told

    @property
    def population(self) -> str | None:
        """Whose budget the run charges."""
        return next((str(body["population"]) for body in self.grants.values()), None)

    @property
    def last_release(self) -> tuple[Moment, RoundRelease] | None:
        """The newest release."""
        return max(self.released.items()) if self.released else None

    @property
    def last_ended(self) -> Moment:
        """The newest attempt that ended by itself, of which there is a checkpoint; (0, 0): none.

        The checkpoint of one that the budget ended is not looked for: not every such attempt has
        one.
        """
        aborted = (m for m, one in self.aborted.items() if one.reason.startswith(ENDED_AT_STEP))
        return max((*self.released, *aborted), default=(0, 0))

    @property
    def moments(self) -> frozenset[Moment]:
        """Every attempt that is spoken of."""
        opened = () if self.open is None else (self.open[0],)
        return frozenset((*self.released, *self.aborted, *opened))

    def _take(self, entry: Entry) -> None:
        body = entry.body
        if isinstance(body, Genesis):
            self.genesis = body
        elif isinstance(body, BudgetGranted):
            self.grants[body.adversary] = loads(entry.raw)["body"]
        elif isinstance(body, BudgetSpent):
            for item in body.prior:
                self.prior[event_from_json(item.event)] += item.count
        elif isinstance(body, RoundIntent):
            self.charged[event_from_json(body.event)] += 1
            self.open = ((body.round, body.attempt), entry.digest)
        elif isinstance(body, RoundRelease):
            self.released[body.round, body.attempt] = body
            self.open = None
        elif isinstance(body, RoundAbort):
            if body.event is not None:
                self.charged[event_from_json(body.event)] += 1
            self.aborted[body.round, body.attempt] = body
            self.open = None
        elif isinstance(body, ReportExported):
            self.exported = True
