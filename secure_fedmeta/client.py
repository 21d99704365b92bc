"""A client as a state machine: its data and unmasked updates never leave this object.

Everything that protects it comes from its own setting: plan, roster, thresholds, ring. From the
aggregator it takes the model and the order of the steps, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from crypto.errors import MessageRefused
from crypto.keys import Identity
from crypto.secure_sum import SumClient
from privacy.rng import SecureRandom
from secure_fedmeta.messages import RoundOpen, decode, from_wire
from secure_fedmeta.setting import Setting


class Work(Protocol):
    """The local computation of a client: one outer vector per unit of privacy."""

    def outer_vectors(
        self, client: str, model: torch.Tensor, *, round_index: int
    ) -> NDArray[np.float32]:
        """Outer vectors of all the client's units: `[units, d] float32`."""
        ...


class Client:
    """One member of the roster.

    Args:
        setting: the run's public facts, as this client read them.
        index: its place in the roster, from 1.
        identity: its signing key.
        work: computes its outer vectors.
        noise: its source of noise.
        rand: its source of keys and seeds.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        index: int,
        identity: Identity,
        work: Work,
        noise: SecureRandom,
        rand: Callable[[int], bytes],
    ) -> None:
        self._setting = setting
        self._index = index
        self._identity = identity
        self._work = work
        self._noise = noise
        self._rand = rand
        self._last = (0, 0)
        self._machine: SumClient | None = None

    def __repr__(self) -> str:
        return f"Client(index={self._index}, last={self._last})"

    def handle(self, message: bytes) -> bytes:
        """Answer one message.

        Raises:
            MessageRefused: malformed, of another round or attempt, or refused by the secure sum.
        """
        envelope = decode(message)
        moment = (envelope.round, envelope.attempt)
        if isinstance(envelope, RoundOpen):
            if moment <= self._last:
                raise MessageRefused(
                    None, "round-open", f"{moment} is not after {self._last}: never answered twice"
                )
            machine = self._open(envelope)
            reply = machine.step(envelope.body)  # refused unless the aggregator signed this moment
            self._last, self._machine = moment, machine
            return reply
        if self._machine is None or moment != self._last:
            raise MessageRefused(None, "sum-step", f"{moment} is not the open attempt {self._last}")
        return self._machine.step(envelope.body)

    def _open(self, envelope: RoundOpen) -> SumClient:
        plan = self._setting.plan
        model = from_wire(envelope.model, plan.dimension)
        terms = self._setting.terms(
            round_index=envelope.round, attempt=envelope.attempt, model=model
        )

        def protected_sum() -> NDArray[np.int64]:
            name = self._setting.roster.members[self._index - 1].name
            units = self._work.outer_vectors(name, model, round_index=envelope.round)
            return plan.encode(units, self._noise)

        return self._setting.protocol.client(
            terms,
            index=self._index,
            identity=self._identity,
            vector=protected_sum,
            rand=self._rand,
        )
