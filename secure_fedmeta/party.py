"""What every party does with messages, whatever its part: each attempt is answered once, in order.

Nothing that protects a party is read from a message: the terms of an attempt come from the
party's own setting, its round and its model from an envelope that the aggregator's signature
inside has to match. That signature is checked before anything is made for an attempt.

With a vault a party outlives its process. What it needs to go on, and the answer itself, are
durable before the answer is handed to the transport. After a restart the same message gets the
stored answer, byte for byte, never a new one: two answers to one step, with fresh noise under the
same masks, would give away the difference. A step that was not answered goes on. An attempt that
does not fit the party's setting any more is over; its round and attempt stay spent.
"""

from __future__ import annotations

import hashlib
import logging
import struct
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from crypto.codec import MAX_U32
from crypto.errors import CryptoError, MessageRefused, OutOfOrder, StateRefused
from crypto.secure_sum import SumParty, Terms
from privacy.errors import PlanRefused
from privacy.stages import Stage, stage
from secure_fedmeta.intent import LogWatch
from secure_fedmeta.messages import RoundOpen, SumStep, decode, from_wire, to_wire
from secure_fedmeta.party_state import PartyState
from secure_fedmeta.setting import Setting
from secure_fedmeta.vault import Vault

_log = logging.getLogger(__name__)


class Handout:
    """What one attempt is computed at; its model until the vector at it was computed.

    Args:
        model: parameters `[d]`; None once they were taken.
        clip: the clip bound, as this party's own plan allows it.
    """

    def __init__(self, model: torch.Tensor | None, clip: float) -> None:
        self._model = model
        self.clip = clip

    def take(self) -> torch.Tensor:
        """The model, once.

        Raises:
            StateRefused: it was taken before.
        """
        if self._model is None:
            raise StateRefused("the model of this attempt was used already")
        model, self._model = self._model, None
        return model

    def wire(self) -> bytes:
        """The model as on the wire; empty once it was taken."""
        return b"" if self._model is None else to_wire(self._model)


@dataclass(frozen=True)
class Attempt:
    """The open attempt: digest of its handout, the handout, and this party's side of the sum."""

    model_digest: bytes
    model: Handout
    machine: SumParty


class Party(ABC):
    """A client or an officer of the roster.

    Args:
        setting: the run's public facts, as this party read them.
        index: its place in the roster, from 1.
        vault: where its state outlives the process. None: the party ends with the process, and a
            message that was answered is refused when it comes again.

    Raises:
        StateError: the vault cannot be read.
        StateRefused: what is in it is not this party's state in this run.
    """

    def __init__(self, setting: Setting, *, index: int, vault: Vault | None) -> None:
        self._setting = setting
        self._index = index
        self._vault = vault
        self._watch = LogWatch(setting)
        self._last = (0, 0)
        self._contributions = 0
        self._attempt: Attempt | None = None
        self._asked = self._reply = b""
        self._waiting: PartyState | None = None
        self._turn = threading.Lock()
        kept = b"" if vault is None else vault.get()
        if kept:
            self._take_up(PartyState.decode(kept, setting.run, index))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(index={self._index}, last={self._last})"

    def handle(self, message: bytes) -> bytes:
        """Answer one message; of several at the same time, one after the other.

        A transport with threads could otherwise have a step answered twice, by two messages that
        both found it open.

        Raises:
            MessageRefused: malformed, of another round or attempt, or refused by the secure sum.
            OutOfOrder: the open attempt has answered its last step.
            StateError: the answer could not be made durable, and is not given.
        """
        with self._turn, stage(Stage.MASK):
            return self._answer(message)

    def _answer(self, message: bytes) -> bytes:
        asked = b"" if self._vault is None else hashlib.sha256(message).digest()
        if asked and asked == self._asked:
            return self._reply
        envelope = decode(message)
        if envelope.round > MAX_U32:
            raise MessageRefused(
                None, "envelope", f"round {envelope.round}; allowed: up to {MAX_U32}"
            )
        if self._waiting is not None:
            self._attempt, self._waiting = self._resumed(self._waiting), None
        reply = self._open(envelope) if isinstance(envelope, RoundOpen) else self._go_on(envelope)
        self._keep(asked, reply)
        return reply

    def _open(self, envelope: RoundOpen) -> bytes:
        moment = (envelope.round, envelope.attempt)
        if moment <= self._last:
            raise MessageRefused(
                None, "round-open", f"{moment} is not after {self._last}: never answered twice"
            )
        model = from_wire(envelope.model, self._setting.plan.parameters)
        clip = self._checked_clip(envelope.clip)
        digest = self._setting.handout_digest(model, clip)
        terms = self._setting.terms(
            round_index=envelope.round, attempt=envelope.attempt, model_digest=digest
        )
        self._setting.protocol.check_invitation(terms, index=self._index, message=envelope.body)
        handout = Handout(model, clip)
        machine = self._machine_for(terms, handout)
        reply = self._step(moment, machine, envelope.body)
        self._last, self._attempt = moment, Attempt(digest, handout, machine)
        return reply

    def _checked_clip(self, clip: float) -> float:
        """The bound that the aggregator names, if this party's own plan allows it."""
        try:
            return self._setting.plan.checked_clip(clip)
        except PlanRefused as error:
            raise MessageRefused(None, "round-open", str(error)) from error

    def _go_on(self, envelope: SumStep) -> bytes:
        moment = (envelope.round, envelope.attempt)
        if self._attempt is None or moment != self._last:
            raise MessageRefused(None, "sum-step", f"{moment} is not the open attempt {self._last}")
        return self._step(moment, self._attempt.machine, envelope.body)

    def _step(self, moment: tuple[int, int], machine: SumParty, body: bytes) -> bytes:
        """The machine's answer; whatever else it ends with, but a refusal, ends the attempt.

        An interrupt in the middle of a step does too: a restart must not bring back what is over,
        a key that was used up, a vector that was asked for. Of a message that is refused, what it
        showed of the log stays known.
        """
        seen, over = self._watch.seen, True
        try:
            reply = machine.step(body)
            over = False
        except (MessageRefused, OutOfOrder):
            over = False
            if self._watch.seen != seen:
                self._keep(self._asked, self._reply)
            raise
        finally:
            if over:
                self._last, self._attempt = moment, None
                self._keep(b"", b"")
        return reply

    def _keep(self, asked: bytes, reply: bytes) -> None:
        """Make state and answer durable; only then may the answer be given, now or again."""
        if self._vault is None:
            return
        attempt = self._attempt
        state = PartyState(
            last=self._last,
            contributions=self._contributions,
            seen=self._watch.seen or b"",
            asked=asked,
            reply=reply,
            model_digest=b"" if attempt is None else attempt.model_digest,
            clip=b"" if attempt is None else struct.pack("<d", attempt.model.clip),
            model=b"" if attempt is None else attempt.model.wire(),
            machine=b"" if attempt is None else attempt.machine.save(),
        )
        self._asked = self._reply = b""
        self._vault.put(state.encode(self._setting.run, self._index))
        self._asked, self._reply = asked, reply

    def _take_up(self, state: PartyState) -> None:
        self._last, self._contributions = state.last, state.contributions
        self._watch.seen = state.seen or None
        self._asked, self._reply = state.asked, state.reply
        self._waiting = state if state.machine else None

    def _resumed(self, state: PartyState) -> Attempt | None:
        """The attempt that was open, or None where it does not fit this party's setting."""
        try:
            model = None
            if state.model:
                model = from_wire(state.model, self._setting.plan.parameters)
            terms = self._setting.terms(
                round_index=state.last[0], attempt=state.last[1], model_digest=state.model_digest
            )
            handout = Handout(model, self._kept_clip(state.clip))
            machine = self._restored(terms, handout, state.machine)
        except CryptoError as error:
            _log.warning("event=attempt-given-up party=%d error=%s", self._index, error)
            return None
        return Attempt(state.model_digest, handout, machine)

    def _kept_clip(self, kept: bytes) -> float:
        if len(kept) != 8:
            raise StateRefused(f"a clip bound of {len(kept)} bytes; allowed: 8")
        return self._checked_clip(struct.unpack("<d", kept)[0])

    @abstractmethod
    def _machine_for(self, terms: Terms, model: Handout) -> SumParty:
        """This party's side of an attempt under these terms at this model."""

    @abstractmethod
    def _restored(self, terms: Terms, model: Handout, state: bytes) -> SumParty:
        """This party's side of an attempt that a former process began."""
