"""Rounds of an assessed copy, run where nothing is kept.

Parties, secure sum, aggregator, ledger and log are those of a run, built by the same functions;
ledger and log lie in a temporary folder. Two things differ, and reports say so:

- the server subtracts the decoded sum as it is (sgd with step 1), so that it can be read off;
- what clients sum and what is opened is watched, as nobody in a run could.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray

from audit.log import AuditLog
from audit.note import LogSigner
from crypto.secure_sum import ClientSeat, Done, SecureSum, SumClient, Terms
from privacy.ledger import Ledger
from secure_fedmeta.aggregator import Aggregator
from secure_fedmeta.assessed import Ints, Subject
from secure_fedmeta.client import Client, Holdings, Work
from secure_fedmeta.exchange import Exchange
from secure_fedmeta.outcome import Abort, Release, Standing
from secure_fedmeta.rounds import run_round
from secure_fedmeta.run_log import genesis
from secure_fedmeta.server_opt import ServerOptimiser
from secure_fedmeta.setting import Setting
from secure_fedmeta.transport.memory import Delivery, MemoryTransport

Floats = NDArray[np.float64]
_POPULATION: Final = "assessment"
_NO_LIMIT: Final = 1e9  # of the temporary ledger: what is assessed is no release


@dataclass(frozen=True)
class Opened:
    """One round of the copy.

    Attributes:
        total: the opened sum, int64 [dimension].
        decoded: what the model moved by, float64 [parameters].
        contributors: roster indices of those in the sum.
        vectors: roster index -> the protected integers that this client handed to the secure sum,
            those of a dropped client included.
        clean: gives the same without noise by roster index, rounded anew when it is first asked.
        round: its index.
    """

    total: Ints
    decoded: Floats
    contributors: tuple[int, ...]
    vectors: Mapping[int, Ints]
    clean: Callable[[int], Ints]
    round: int

    def noise(self) -> Ints:
        """What is in the opened sum beside the clipped units: int64 [dimension]."""
        units: Ints = np.sum([self.clean(k) for k in self.contributors], axis=0)
        return self.total - units

    def share(self, client: int) -> Ints:
        """The noise of one client: int64 [dimension]."""
        return self.vectors[client] - self.clean(client)


class _WatchedSum:
    """The configured secure sum; what clients hand to it is kept as well."""

    def __init__(self, inner: SecureSum) -> None:
        self._inner = inner
        self.vectors: dict[int, Ints] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def client(self, terms: Terms, seat: ClientSeat) -> SumClient:
        def watched() -> Ints:
            self.vectors[seat.index] = found = seat.vector()
            return found.copy()

        return self._inner.client(terms, replace(seat, vector=watched))


class _WatchedAggregator(Aggregator):
    """The aggregator; the sum that it opened last is kept."""

    opened: Done | None = None

    def release(self, exchange: Exchange, done: Done) -> Release:
        """Keep the sum, and go on."""
        self.opened = done
        return super().release(exchange, done)


@dataclass
class Rig:
    """One run of a subject in a temporary folder; a context manager.

    Attributes:
        parties: everybody in the run.
        around: what stands between a client, by roster index, and its tasks.
    """

    subject: Subject
    around: Callable[[int, Work], Work] = lambda index, work: work
    _stack: ExitStack = field(default_factory=ExitStack)
    _lost: int | None = None

    def __enter__(self) -> Self:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        parts = self.subject.parts
        signer = LogSigner.generate("secure-fedmeta/assessment", secrets.token_bytes(32))
        self._watched = _WatchedSum(parts.protocol)
        self._works: dict[int, Work] = {}
        protocol = cast(SecureSum, self._watched)
        self.parties = self.subject.found(signer.vkey, self._client, protocol)
        plan = parts.plan
        ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite'}")
        ledger.grant(
            _POPULATION, unit=plan.unit, epsilon=_NO_LIMIT, delta=plan.delta, approver="nobody"
        )
        log = self._stack.enter_context(
            AuditLog.create(folder / "audit", signer, clock=lambda: datetime.now(UTC))
        )
        log.append("genesis", genesis(self.parties.setting, signer.origin, private=False))
        optimiser = ServerOptimiser("sgd", lr=1.0)
        self._aggregator = _WatchedAggregator(
            self.parties.setting,
            identity=self.parties.aggregator,
            standing=Standing.fresh(optimiser, parts.initial(), plan),
            optimiser=optimiser,
            ledger=ledger,
            population=_POPULATION,
            order=None,
            log=log,
            salts=secrets.token_bytes,
            keep_opening=lambda opening: None,
            keep_ending=lambda ending: None,
        )
        self._transport = MemoryTransport(self.parties.endpoints, faults=self._wire)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def round(self, index: int, *, lost: int | None = None) -> Opened | Abort:
        """Run one round.

        Args:
            index: from 1, increasing.
            lost: roster index of a client that falls silent once its vector is made.
        """
        self._lost = lost
        self._watched.vectors.clear()
        before, clip = self._aggregator.model, self._aggregator.clip
        outcome = run_round(self._aggregator, self._transport, round_index=index, attempt=1)
        done = self._aggregator.opened
        if isinstance(outcome, Abort) or done is None:
            return cast(Abort, outcome)
        moved = before.to(torch.float64) - self._aggregator.model.to(torch.float64)
        return Opened(
            total=done.total,
            decoded=moved.numpy(),
            contributors=done.contributors,
            vectors=dict(self._watched.vectors),
            clean=cache(lambda client: self._clean(client, before, index, clip)),
            round=index,
        )

    def _client(self, setting: Setting, holdings: Holdings) -> Client:
        work = self.around(holdings.index, holdings.work)
        self._works[holdings.index] = work
        return self.subject.make_client(setting, replace(holdings, work=work))

    def _clean(self, index: int, model: torch.Tensor, round_index: int, clip: float) -> Ints:
        name = self.parties.setting.roster.members[index - 1].name
        return self.subject.clean(
            self._works[index], name, model, round_index=round_index, clip=clip
        )

    def _wire(self, delivery: Delivery) -> list[Delivery]:
        gone = delivery.client == self._lost and self._lost in self._watched.vectors
        return [] if gone and delivery.upload else [delivery]
