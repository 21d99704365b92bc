"""One attempt at one round, between the aggregator and whatever carries its messages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from crypto.errors import MessageRefused
from crypto.secure_sum import Done, Outgoing, Ready, SumAggregator
from privacy.events import Event
from privacy.stages import Stage, stage
from secure_fedmeta.messages import RoundOpen, SumStep, encode

MAX_REASONS = 32
OTHER_REASONS = "other reasons"


@dataclass(frozen=True)
class Intent:
    """A durable intent: digest of its log entry, 32 bytes, and the evidence that parties check."""

    digest: bytes
    evidence: bytes


@dataclass
class Exchange:
    """One attempt at one round: envelopes around the secure sum, refusals counted by reason.

    Reasons tell lengths that a sender chooses, and an entry of the log has a largest size: beyond
    MAX_REASONS different ones they are counted together, so that no sender can outgrow it.

    Attributes:
        intent: digest of the logged intent, once there is one.
        unlogged: an event that was, or may have been, charged and that no intent records yet.
    """

    round: int
    attempt: int
    clip: float
    model: bytes
    machine: SumAggregator
    rejected: dict[str, int] = field(default_factory=dict)
    uploads: dict[int, bytes] = field(default_factory=dict)
    intent: bytes | None = None
    unlogged: Event | None = None
    _opened: set[int] = field(default_factory=set)

    def begin(self) -> Mapping[int, bytes]:
        """The opening messages: the model and the first step of the secure sum."""
        with stage(Stage.SUM):
            return self._wrap(self.machine.begin())

    @property
    def expecting(self) -> frozenset[int]:
        """Parties that have not answered the current step."""
        return self.machine.expecting

    def receive(self, sender: int, message: bytes) -> None:
        """Take one reply; what the secure sum refuses is counted and otherwise ignored."""
        try:
            with stage(self._stage):
                self.machine.receive(sender, message)
        except MessageRefused as refusal:
            known = refusal.reason in self.rejected or len(self.rejected) < MAX_REASONS
            reason = refusal.reason if known else OTHER_REASONS
            self.rejected[reason] = self.rejected.get(reason, 0) + 1
            return
        self.uploads[sender] = hashlib.sha256(self.uploads.get(sender, b"") + message).digest()

    def advance(self) -> Mapping[int, bytes] | Ready | Done:
        """Close the step with what has arrived; raises SumAborted below the thresholds."""
        with stage(self._stage):
            result = self.machine.advance()
            return self._wrap(result) if isinstance(result, Outgoing) else result

    def authorise(self, intent: Intent) -> Mapping[int, bytes]:
        """The first request towards the opening, bound to the logged intent."""
        with stage(Stage.OPEN):
            return self._wrap(self.machine.authorise(intent.digest, intent.evidence))

    @property
    def _stage(self) -> Stage:
        return Stage.SUM if self.intent is None else Stage.OPEN

    def _wrap(self, outgoing: Outgoing) -> Mapping[int, bytes]:
        """Each party's first message of the attempt carries the model."""
        wrapped = {
            party: encode(
                SumStep(self.round, self.attempt, message)
                if party in self._opened
                else RoundOpen(self.round, self.attempt, self.clip, self.model, message)
            )
            for party, message in outgoing.messages.items()
        }
        self._opened |= wrapped.keys()
        return wrapped
