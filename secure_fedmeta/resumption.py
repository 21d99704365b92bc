"""From where a run goes on, and what is told of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from privacy.ledger_limits import MAX_AFFORDABLE
from secure_fedmeta import __version__
from secure_fedmeta.budget import Budget
from secure_fedmeta.metrics import Mark
from secure_fedmeta.outcome import Standing
from secure_fedmeta.pipeline import Parts
from secure_fedmeta.told import Moment

NOTHING = Mark(0, hashlib.sha256(b"").hexdigest())


@dataclass(frozen=True)
class CutOff:
    """An attempt that neither a release nor an abort of its own ended.

    Attributes:
        round, attempt: which.
        charged: whether the budget was charged for it.
    """

    round: int
    attempt: int
    charged: bool


@dataclass(frozen=True, eq=False)
class Start:
    """From where a run goes on.

    Attributes:
        done: rounds that have ended.
        attempts: round -> highest attempt that was begun.
        standing: of the aggregator.
        traffic: bytes sent and received by each party, in roster order: `[parties, 2]` int64.
        seconds: that the rounds took so far.
        pending: the metrics line of the last round that ended, if it is not in the file yet; its
            scores are missing.
        metrics: how far metrics.jsonl counts.
        cut_off: attempts that were cut off.
    """

    done: int
    attempts: Mapping[int, int]
    standing: Standing
    traffic: torch.Tensor
    seconds: float
    pending: Mapping[str, object] | None
    metrics: Mark
    cut_off: tuple[CutOff, ...]

    @classmethod
    def fresh(cls, parts: Parts, budget: Budget, *, parties: int) -> Start:
        """Before the first round of a new run."""
        standing = Standing.fresh(parts.optimiser, parts.initial(), parts.plan, budget.prior)
        nothing = torch.zeros((parties, 2), dtype=torch.int64)
        return cls(0, {}, standing, nothing, 0.0, None, NOTHING, ())

    def attempt(self, round_index: int) -> int:
        """Which attempt at a round comes next, from 1."""
        return self.attempts.get(round_index, 0) + 1


@dataclass(frozen=True)
class Found:
    """What a resumed run found, for whoever resumed it.

    Attributes:
        run_id: the run.
        entries: of its log.
        released, aborted: rounds that have ended so.
        planned: rounds in all.
        cut_off: attempts that were cut off.
        next: round and attempt that come next; None where attempts that were cut off have used up
            all charges of the plan, or all rounds have ended.
        affordable: how many more rounds the grants allow; None: not known.
        spent: epsilon of the population by the ledger, other runs included; None: not known.
        granted: epsilon of the first grant.
        population: whose budget it is.
        began_with: version of the product that began the run.
        other_code: whether this is other code than began it.
    """

    run_id: str
    entries: int
    released: int
    aborted: int
    planned: int
    cut_off: tuple[CutOff, ...]
    next: Moment | None
    affordable: int | None
    spent: float | None
    granted: float
    population: str
    began_with: str
    other_code: bool

    def lines(self) -> Iterator[str]:
        """The same in sentences."""
        yield f"resuming {self.run_id}: {self.entries} log entries, checked against the pin"
        yield f"{self.released} of {self.planned} rounds released, {self.aborted} aborted"
        for one in self.cut_off:
            fate = "stays charged" if one.charged else "was not charged"
            yield f"attempt {one.attempt} at round {one.round} was cut off; it {fate}"
        if not self.cut_off:
            yield "no attempt was cut off"
        if self.next is not None:
            yield f"goes on with round {self.next[0]}, attempt {self.next[1]}"
        elif self.released + self.aborted == self.planned:
            yield "all rounds have ended: what is left is the report"
        else:
            yield "no charge of the plan is left: what is left is the report"
        of = f"of epsilon {self.granted:g} granted to {self.population}"
        if self.spent is None or self.affordable is None:
            yield f"budget: the ledger cannot tell how much {of} is spent"
        else:
            rounds = "1 more round" if self.affordable == 1 else f"{self.affordable} more rounds"
            if self.affordable >= MAX_AFFORDABLE:
                rounds = "any number of rounds"
            yield f"budget: {self.spent:.4g} {of} spent, room for {rounds}"
        if self.began_with != __version__:
            yield f"begun with version {self.began_with}, goes on with {__version__}; it is logged"
        elif self.other_code:
            yield "begun with other code of the same version; it is logged"
