"""Parties of a secure sum that live in a new process for every call, from their saved state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from crypto.keys import Rand
from crypto.secure_sum import Done, Outgoing, Ready, SumAggregator, SumClient, SumOfficer
from tests.crypto.harness import PROTOCOLS, Run, identity, seat, seeded


def restored_client(run: Run, index: int, state: bytes, rand: Rand | None = None) -> SumClient:
    taken = run.client_seat(index, rand or seeded(f"another process {index}"))
    return PROTOCOLS[run.name].restore_client(run.terms, taken, state)


def restored_officer(run: Run, index: int, state: bytes) -> SumOfficer:
    taken = seat(index, seeded(f"another process {index}"))
    return PROTOCOLS[run.name].restore_officer(run.terms, taken, state)


def restored_aggregator(run: Run, state: bytes) -> SumAggregator:
    return PROTOCOLS[run.name].restore_aggregator(run.terms, identity(0), state)


def restore(run: Run, index: int, state: bytes) -> object:
    if index == 0:
        return restored_aggregator(run, state)
    return (restored_officer if index in run.officers else restored_client)(run, index, state)


@dataclass
class Restarting:
    """A client or officer that lives in a new process for every call."""

    run: Run
    index: int
    state: bytes

    def step(self, message: bytes) -> bytes:
        restored = restored_officer if self.index in self.run.officers else restored_client
        party = restored(self.run, self.index, self.state)
        try:
            return party.step(message)
        finally:
            self.state = party.save()

    def save(self) -> bytes:
        return self.state


@dataclass
class RestartingAggregator:
    """An aggregator that lives in a new process for every call."""

    run: Run
    state: bytes

    @property
    def expecting(self) -> frozenset[int]:
        return restored_aggregator(self.run, self.state).expecting

    def begin(self) -> Outgoing:
        with self.process() as aggregator:
            return aggregator.begin()

    def receive(self, sender: int, message: bytes) -> None:
        with self.process() as aggregator:
            aggregator.receive(sender, message)

    def advance(self) -> Outgoing | Ready | Done:
        with self.process() as aggregator:
            return aggregator.advance()

    def authorise(self, intent: bytes, evidence: bytes) -> Outgoing:
        with self.process() as aggregator:
            return aggregator.authorise(intent, evidence)

    def save(self) -> bytes:
        return self.state

    @contextmanager
    def process(self) -> Iterator[SumAggregator]:
        aggregator = restored_aggregator(self.run, self.state)
        try:
            yield aggregator
        finally:
            self.state = aggregator.save()


def restarting(run: Run, who: Iterable[int] | None = None) -> Run:
    """Give parties a new process for every call: the aggregator is 0; None is everybody."""
    chosen = {0, *run.parties} if who is None else set(who)
    for k in chosen & run.clients.keys():
        run.clients[k] = Restarting(run, k, run.clients[k].save())
    for k in chosen & run.officers.keys():
        run.officers[k] = Restarting(run, k, run.officers[k].save())
    if 0 in chosen:
        run.aggregator = RestartingAggregator(run, run.aggregator.save())
    return run
