"""What every party does with messages, whatever its part: each attempt is answered once, in order.

Nothing that protects a party is read from a message: the terms of an attempt come from the
party's own setting, its round and its model from an envelope that the aggregator's signature
inside has to match.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Protocol

import torch

from crypto.codec import MAX_U32
from crypto.errors import MessageRefused
from crypto.secure_sum import Terms
from secure_fedmeta.intent import LogWatch
from secure_fedmeta.messages import RoundOpen, decode, from_wire
from secure_fedmeta.setting import Setting


class Machine(Protocol):
    """A party's side of one attempt at a secure sum."""

    def step(self, message: bytes) -> bytes:
        """Answer the aggregator's message."""
        ...


class Party(ABC):
    """A client or an officer of the roster.

    Args:
        setting: the run's public facts, as this party read them.
        index: its place in the roster, from 1.
    """

    def __init__(self, setting: Setting, *, index: int) -> None:
        self._setting = setting
        self._index = index
        self._watch = LogWatch(setting)
        self._last = (0, 0)
        self._machine: Machine | None = None
        self._turn = threading.Lock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(index={self._index}, last={self._last})"

    def handle(self, message: bytes) -> bytes:
        """Answer one message; of several at the same time, one after the other.

        A transport with threads could otherwise have a step answered twice, by two messages that
        both found it open.

        Raises:
            MessageRefused: malformed, of another round or attempt, or refused by the secure sum.
        """
        with self._turn:
            return self._answer(message)

    def _answer(self, message: bytes) -> bytes:
        envelope = decode(message)
        moment = (envelope.round, envelope.attempt)
        if envelope.round > MAX_U32:
            raise MessageRefused(
                None, "envelope", f"round {envelope.round}; allowed: up to {MAX_U32}"
            )
        if isinstance(envelope, RoundOpen):
            if moment <= self._last:
                raise MessageRefused(
                    None, "round-open", f"{moment} is not after {self._last}: never answered twice"
                )
            model = from_wire(envelope.model, self._setting.plan.parameters)
            terms = self._setting.terms(
                round_index=envelope.round, attempt=envelope.attempt, model=model
            )
            machine = self._machine_for(terms, model)
            reply = machine.step(envelope.body)  # refused unless the aggregator signed this moment
            self._last, self._machine = moment, machine
            return reply
        if self._machine is None or moment != self._last:
            raise MessageRefused(None, "sum-step", f"{moment} is not the open attempt {self._last}")
        return self._machine.step(envelope.body)

    @abstractmethod
    def _machine_for(self, terms: Terms, model: torch.Tensor) -> Machine:
        """This party's side of an attempt under these terms at this model."""
