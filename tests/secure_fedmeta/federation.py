"""A tiny federation in one process: four clients, linear models, a spy on every secure sum."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import secure_fedmeta.registry
from audit.log import AuditLog
from audit.note import LogSigner
from crypto.keys import Identity
from crypto.secure_sum import (
    SECURE_SUMS,
    ClientSeat,
    Done,
    Outgoing,
    Ready,
    SecureSum,
    SumAggregator,
    SumClient,
    Terms,
)
from privacy.events import Event
from privacy.ledger import Ledger
from secure_fedmeta import state
from secure_fedmeta.aggregator import Aggregator
from secure_fedmeta.charge import Charge
from secure_fedmeta.config import Config, parse_config
from secure_fedmeta.outcome import Abort, Ending, Release, Standing
from secure_fedmeta.pipeline import Parts, assemble, found_parties
from secure_fedmeta.randomness import Randomness
from secure_fedmeta.rounds import run_round
from secure_fedmeta.tasks import SourceInfo, TaskSource
from secure_fedmeta.tasks.sinusoid import SinusoidSource
from secure_fedmeta.transport.memory import Faults, MemoryTransport, no_faults

Vector = NDArray[np.int64]
CLIENTS = 4
POPULATION = "people"
LOG_KEY = LogSigner.generate("test/federation", bytes(32)).vkey

_TREE: dict[str, Any] = {
    "name": "tiny",
    "data": {
        "source": "sinusoid",
        "options": {
            "clients": CLIENTS,
            "held_out_clients": 2,
            "persons": 5,
            "points": 8,
            "k_support": 3,
            "k_query": 3,
        },
    },
    "model": {"name": "linear", "hidden": []},
    "learner": {"algorithm": "fomaml"},
    "training": {"rounds": 3, "evaluate_every": 2},
    "privacy": {"epsilon": 3.0, "expected_units": 20, "min_survivors": 3, "max_colluders": 1},
    "evaluation": {"repeats": 1, "local_steps": 2, "fedavg_inner_steps": 1},
}


def settings(changes: Mapping[str, object] | None = None) -> dict[str, Any]:
    """The tree of the tiny config with `section.key` changed; None removes a key."""
    return changed(_TREE, changes or {}, separator=".")


def changed(
    tree: Mapping[str, Any], changes: Mapping[str, object], *, separator: str
) -> dict[str, Any]:
    """A copy of the tree with keys changed, their parts separated so; None removes a key."""
    copied = copy.deepcopy(dict(tree))
    for key, value in changes.items():
        *path, last = key.split(separator)
        table = copied
        for part in path:
            table = table.setdefault(part, {})
        if value is None:
            table.pop(last, None)
        else:
            table[last] = value
    return copied


def register(monkeypatch: pytest.MonkeyPatch, *sources: type[TaskSource]) -> None:
    """Make these sources known by their names, and no other ones from entry points."""
    group = "secure_fedmeta.task_sources"
    points = EntryPoints(
        [EntryPoint(one.name, f"{one.__module__}:{one.__name__}", group) for one in sources]
    )
    monkeypatch.setattr(
        secure_fedmeta.registry, "entry_points", lambda group: points.select(group=group)
    )


def tiny(changes: Mapping[str, object] | None = None) -> Config:
    """The tiny config, changed."""
    return parse_config(settings(changes))


class PrivateSource(SinusoidSource):
    """The same people, whose data are not declared public."""

    name = "private"

    @property
    def info(self) -> SourceInfo:
        return replace(super().info, public=False)


@dataclass
class SpySum:
    """A secure sum that remembers what went into each vector and what came out of each sum."""

    inner: SecureSum
    vectors: dict[tuple[int, int, int], Vector] = field(default_factory=dict)
    sums: list[tuple[Terms, Done]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.inner.name

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def client(self, terms: Terms, seat: ClientSeat) -> SumClient:
        return self.inner.client(terms, self._remembering(terms, seat))

    def restore_client(self, terms: Terms, seat: ClientSeat, state: bytes) -> SumClient:
        return self.inner.restore_client(terms, self._remembering(terms, seat), state)

    def _remembering(self, terms: Terms, seat: ClientSeat) -> ClientSeat:
        def remembered() -> Vector:
            found = seat.vector()
            self.vectors[terms.round, terms.attempt, seat.index] = found.copy()
            return found

        return replace(seat, vector=remembered)

    def aggregator(self, terms: Terms, identity: Identity) -> SumAggregator:
        return _SpyAggregator(self, terms, self.inner.aggregator(terms, identity))

    def check_sums(self) -> None:
        """Every opened sum is the plain sum of exactly its contributors' vectors."""
        for terms, done in self.sums:
            parts = [self.vectors[terms.round, terms.attempt, i] for i in done.contributors]
            np.testing.assert_array_equal(done.total, np.sum(parts, axis=0))


class _SpyAggregator:
    def __init__(self, spy: SpySum, terms: Terms, inner: SumAggregator) -> None:
        self._spy, self._terms, self._inner = spy, terms, inner

    @property
    def expecting(self) -> frozenset[int]:
        return self._inner.expecting

    def begin(self) -> Outgoing:
        return self._inner.begin()

    def receive(self, sender: int, message: bytes) -> None:
        self._inner.receive(sender, message)

    def advance(self) -> Outgoing | Ready | Done:
        step = self._inner.advance()
        if isinstance(step, Done):
            self._spy.sums.append((self._terms, step))
        return step

    def authorise(self, intent: bytes, evidence: bytes) -> Outgoing:
        self._spy.events.append("authorise")
        return self._inner.authorise(intent, evidence)


@lru_cache(maxsize=32)
def _assembled(tree: str) -> Parts:
    """Parts hold no state, and calibrating a plan takes a while."""
    return assemble(parse_config(json.loads(tree)))


class Federation:
    """Aggregator, clients, ledger and log of one run, driven round by round.

    Args:
        folder: where log, ledger and salts go.
        changes: of the tiny config.
        faults: of the wire.
        granted: epsilon of the population; None grants what the plan claims.
        seed: of every secret; None takes the operating system's.
        charges: client name -> where it charges its contributions.
    """

    def __init__(
        self,
        folder: Path,
        changes: Mapping[str, object] | None = None,
        *,
        faults: Faults = no_faults,
        granted: float | None = None,
        seed: int | None = 1,
        charges: Mapping[str, Charge] | None = None,
    ) -> None:
        self.parts = _assembled(json.dumps(settings(changes), sort_keys=True))
        self.plan = self.parts.plan
        self.spy = SpySum(SECURE_SUMS[self.parts.protocol.name])
        self.parts = replace(self.parts, protocol=self.spy)
        randomness = Randomness(seed)
        self.run_id = randomness.stream("run")(32)
        self.signer = LogSigner.generate("test/federation", bytes(32))
        self.parties = found_parties(
            self.parts, self.run_id, randomness, log_key=self.signer.vkey, charges=charges
        )
        self.ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite'}")
        epsilon = self.plan.worst_epsilon() if granted is None else granted
        self.ledger.grant(
            POPULATION, unit=self.plan.unit, epsilon=epsilon, delta=self.plan.delta, approver="test"
        )
        self.audit = folder / "audit"
        self.openings: list[Mapping[str, object]] = []
        self.endings: list[Ending] = []
        self.log = AuditLog.create(self.audit, self.signer, clock=lambda: datetime.now(UTC))
        self._begin_log(epsilon)
        self.aggregator = Aggregator(
            self.parties.setting,
            identity=self.parties.aggregator,
            standing=Standing.fresh(self.parts.optimiser, self.parts.initial(), self.plan),
            optimiser=self.parts.optimiser,
            ledger=self.ledger,
            population=POPULATION,
            order=None,
            log=self.log,
            salts=randomness.stream("salts"),
            keep_opening=self.openings.append,
            keep_ending=self.endings.append,
        )
        self.refused: list[tuple[int, Exception]] = []
        self.transport = MemoryTransport(
            self.parties.endpoints,
            faults=faults,
            refused=lambda client, error: self.refused.append((client, error)),
        )

    def round(self, index: int, attempt: int = 1) -> Release | Abort:
        return run_round(self.aggregator, self.transport, round_index=index, attempt=attempt)

    def entries(self) -> list[dict[str, Any]]:
        return entries(self.audit)

    def events(self) -> tuple[Event, ...]:
        return self.ledger.events(POPULATION)

    def _begin_log(self, epsilon: float) -> None:
        setting = self.parties.setting
        self.log.append(
            "genesis",
            {
                "run": setting.run.hex(),
                "origin": self.signer.origin,
                "config_digest": setting.config_digest.hex(),
                "plan_digest": setting.plan.digest().hex(),
                "plan": setting.plan.to_json(),
                "roster_digest": setting.roster.digest.hex(),
                "code_digest": "00" * 32,
                "lock_digest": "00" * 32,
                "not_private": True,
                "product_version": "test",
                "unprotected": [],
            },
        )
        self.log.append(
            "budget-granted",
            {
                "population": POPULATION,
                "unit": "task",
                "adversary": "worst",
                "epsilon": repr(epsilon),
                "delta": repr(self.plan.delta),
                "order": None,
                "approver": "test",
                "expires": None,
            },
        )


def entries(audit: Path) -> list[dict[str, Any]]:
    """The entries of a log as they stand on the disk."""
    return [json.loads(line) for line in (audit / "log.jsonl").read_text().splitlines()]


def default_ledger() -> Ledger:
    """The ledger of the test's state directory."""
    return Ledger(state.ledger_url())
