"""Rounds per second of simulated cohorts of 10 to 10,000 clients, and what a round spends.

Sinusoid regression by an MLP of 1,761 parameters (Finn et al. 2017): each person is one task of 10
support and 10 query points, each client has 1 to 8 people, of at most 8 that it may have. Outer
vectors are second-order meta-gradients, by the simulator of the product: batched tensor programs
over groups of clients of bounded size. Three kinds of rounds, by the same functions as in a run:

plain    the mean of all outer vectors, without privacy, and the server's step;
private  every client clips and encodes its own units in integers and adds its own noise share;
         the sum runs modulo 2^b as that of the masked inputs would, is decoded, moves the model,
         and is charged: event, and epsilon per adversary over all rounds so far;
masked   the same with every message of the secure sum, ledger and audit log, by all clients and
         the aggregator one after the other, for 10 and 100 clients.

In `private` no keys are agreed, nothing is shared, signed, masked or packed, nobody drops out and
nothing is logged: masks cancel in the sum, which is the same integers without them. What masking
costs each of 10,000 clients is measured by `benchmarks.scale_masking`.

Everything runs on one thread. Each size runs in a process of its own, whose largest resident set
is `peak_mb`: data, clients, model and torch itself included. Stages are measured without those
inside them; `other` is the rest, such as the loop itself. The decoded sum of the first private
round must be off the mean of the clipped vectors by the plan's noise, or the command fails.
"""

from __future__ import annotations

import json
import os
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audit.log import AuditLog
from audit.note import LogSigner
from benchmarks._common import arguments, machine, report, versions
from benchmarks._people import Federation
from crypto.keys import Identity, Member, Roster
from crypto.secure_sum import SECURE_SUMS
from privacy.accountant import spend_counted
from privacy.clip import clip_l2
from privacy.events import Event
from privacy.ledger import Ledger
from privacy.rng import SecureRandom
from privacy.stages import Stage, observed, stage
from secure_fedmeta.aggregator import Aggregator
from secure_fedmeta.charge import Uncounted
from secure_fedmeta.client import Client, Holdings, contribution
from secure_fedmeta.outcome import Release, Standing
from secure_fedmeta.rounds import run_round
from secure_fedmeta.run_log import genesis
from secure_fedmeta.server_opt import ServerOptimiser
from secure_fedmeta.setting import Setting
from secure_fedmeta.simulation import CohortWork
from secure_fedmeta.transport.memory import MemoryTransport

SIZES = (10, 100, 1_000, 10_000)
MASKED_UP_TO = 100
SECONDS, MOST_ROUNDS, LEAST_ROUNDS = 20.0, 40, 3
SERVER_LR = 0.1


@dataclass
class Clock:
    """Seconds by stage, those of inner stages not included; an observer of `privacy.stages`."""

    seconds: Counter[str] = field(default_factory=Counter)
    _inner: list[float] = field(default_factory=list)

    @contextmanager
    def __call__(self, name: Stage) -> Iterator[None]:
        """Measure one stage."""
        self._inner.append(0.0)
        begun = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - begun
            self.seconds[str(name)] += elapsed - self._inner.pop()
            if self._inner:
                self._inner[-1] += elapsed


@dataclass
class Rounds:
    """Rounds of one kind: seconds of each, and of their stages together."""

    seconds: list[float] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)

    def time(self, call: Callable[[], object]) -> None:
        """One more round."""
        begun = time.perf_counter()
        with observed(self.clock):
            call()
        self.seconds.append(time.perf_counter() - begun)

    def to_json(self) -> dict[str, Any]:
        """Rounds per second by the median round, and the share of every stage."""
        whole = sum(self.seconds)
        shares = {name: value / whole for name, value in self.clock.seconds.items()}
        shares["other"] = 1.0 - sum(shares.values())
        return {
            "rounds_per_second": float(f"{1.0 / statistics.median(self.seconds):.4g}"),
            "rounds": len(self.seconds),
            "slowest_over_fastest": round(max(self.seconds) / min(self.seconds), 2),
            "shares": {
                name: round(share, 4)
                for name, share in sorted(shares.items(), key=lambda item: -item[1])
            },
        }


class Simulated:
    """Plain and private rounds of one cohort."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation
        self._names = federation.source.clients()
        keys = {name: secrets.token_bytes(32) for name in self._names}
        learner, source = federation.learner, federation.source
        self._work = CohortWork(learner, source, keys, loss="mse")
        self._optimiser = ServerOptimiser("sgd", lr=SERVER_LR)
        self._initial = learner.initial(federation.module)
        self._plain = self._private = self._optimiser.init(self._initial)
        self._noise = {name: SecureRandom.from_os() for name in self._names}
        self._charged: Counter[Event] = Counter()
        self._round = 0

    def plain(self) -> None:
        """The mean of all outer vectors, and a step along it."""
        model = self._plain.params.to(torch.float32)
        self._round += 1
        total, tasks = np.zeros(model.numel()), 0
        for name in self._names:
            vectors = self._work.outer_vectors(name, model, round_index=self._round)
            with stage(Stage.SUM):
                total += vectors.sum(axis=0)
                tasks += len(vectors)
        with stage(Stage.SERVER):
            mean = torch.from_numpy(total / tasks)
            self._plain = self._optimiser.update(self._plain, mean)

    def private(self) -> None:
        """Every client's own integers and noise, their sum modulo 2^b, a step, and its charge."""
        plan, ring = self._federation.plan, self._federation.ring
        model = self._private.params.to(torch.float32)
        self._round += 1
        total = np.zeros(plan.dimension, dtype=ring.lane)
        for name in self._names:
            vector = contribution(
                self._work,
                name,
                model,
                plan=plan,
                round_index=self._round,
                noise=self._noise[name],
            )
            with stage(Stage.SUM):
                ring.add_into(total, ring.encode(vector).astype(ring.lane))
        with stage(Stage.OPEN):
            opened = ring.decode(total)
        with stage(Stage.CHARGE):
            self._charged[plan.event(len(self._names))] += 1
            spend_counted(self._charged, delta=plan.delta, order=None)
        with stage(Stage.SERVER):
            average = torch.from_numpy(plan.decode(opened, round_index=self._round))
            self._private = self._optimiser.update(self._private, average)

    def check(self) -> float:
        """The noise of one private round over the plan's.

        Raises:
            ValueError: they differ by more than the sampling error, once in 10^9 checks.
        """
        before = self._private.params.clone()
        self.private()
        plan, model = self._federation.plan, before.to(torch.float32)
        clipped = np.zeros(plan.parameters)
        for name in self._names:
            vectors = self._work.outer_vectors(name, model, round_index=self._round)
            clipped += clip_l2(vectors, plan.clip).sum(axis=0)
        moved = (before - self._private.params).to(torch.float64).numpy() / SERVER_LR
        left = moved * plan.expected_units - clipped
        ratio = float(left.std()) * plan.scale / plan.noise_std(len(self._names))
        allowed = 6.2 / (2.0 * plan.parameters) ** 0.5
        if abs(ratio - 1.0) > allowed:
            raise ValueError(f"the noise of the sum is {ratio:.4f} of the plan's")
        return ratio


@contextmanager
def masked(federation: Federation) -> Iterator[Callable[[], None]]:
    """Rounds with every party, message, charge and log entry, in a temporary folder."""
    plan, names = federation.plan, federation.source.clients()
    protocol = SECURE_SUMS["masking"]
    aggregator = Identity.generate(os.urandom)
    identities = {name: Identity.generate(os.urandom) for name in names}
    keys = {name: secrets.token_bytes(32) for name in names}
    work = CohortWork(federation.learner, federation.source, keys, loss="mse")
    signer = LogSigner.generate("secure-fedmeta/benchmark", secrets.token_bytes(32))
    roster = Roster(aggregator.public, tuple(Member(n, k.public) for n, k in identities.items()))
    setting = Setting(
        run=secrets.token_bytes(32),
        config_digest=bytes(32),
        plan=plan,
        roster=roster,
        log_key=signer.vkey,
        spec=federation.learner.spec,
        protocol=protocol,
        ring=federation.ring,
        sharing=protocol.sharing(plan.clients, plan.max_colluders, plan.min_survivors),
        committee=protocol.committee(5, 3),
    )
    clients = {
        index: Client(
            setting,
            Holdings(
                index,
                identities[name],
                work,
                lambda _: SecureRandom.from_os(),
                os.urandom,
                Uncounted(),
            ),
        )
        for index, name in enumerate(names, start=1)
    }
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(f"sqlite:///{folder}/ledger.sqlite")
        ledger.grant("people", unit="task", epsilon=1e9, delta=plan.delta, approver="nobody")
        with AuditLog.create(
            Path(folder) / "audit", signer, clock=lambda: datetime.now(UTC)
        ) as log:
            log.append("genesis", genesis(setting, signer.origin, private=True))
            optimiser = ServerOptimiser("sgd", lr=SERVER_LR)
            server = Aggregator(
                setting,
                identity=aggregator,
                standing=Standing.fresh(
                    optimiser, federation.learner.initial(federation.module), plan
                ),
                optimiser=optimiser,
                ledger=ledger,
                population="people",
                order=None,
                log=log,
                salts=secrets.token_bytes,
                keep_opening=lambda opening: None,
                keep_ending=lambda ending: None,
            )
            transport, done = MemoryTransport(clients), iter(range(1, plan.rounds + 1))

            def one() -> None:
                outcome = run_round(server, transport, round_index=next(done), attempt=1)
                if not isinstance(outcome, Release) or outcome.survivors != len(names):
                    raise ValueError(f"a masked round did not end with all clients: {outcome}")

            yield one


def measure(clients: int, seed: int) -> dict[str, Any]:
    """All kinds of rounds of one size, plain and private in turn."""
    federation = Federation.of(clients, seed)
    simulated = Simulated(federation)
    noise = simulated.check()
    simulated.plain()
    plain, private = Rounds(), Rounds()
    while _goes_on(plain, private):
        plain.time(simulated.plain)
        private.time(simulated.private)
    found: dict[str, Any] = {"plain": plain.to_json(), "private": private.to_json()}
    found["private_over_plain"] = round(
        statistics.median(private.seconds) / statistics.median(plain.seconds), 2
    )
    if clients <= MASKED_UP_TO:
        rounds = Rounds()
        with masked(federation) as one:
            one()
            while _goes_on(rounds):
                rounds.time(one)
        found["masked"] = rounds.to_json()
    return found | {
        "tasks": federation.source.info.tasks,
        "noise_over_plan": round(noise, 4),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6),
    }


def _goes_on(*kinds: Rounds) -> bool:
    """Whether there is time for another round of each kind."""
    done, spent = len(kinds[0].seconds), sum(sum(kind.seconds) for kind in kinds)
    return done < LEAST_ROUNDS or (done < MOST_ROUNDS and spent < SECONDS)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark, each size in a process of its own; a wrong sum ends it."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--clients", type=int, nargs="+", default=SIZES, help="sizes of cohorts")
    parser.add_argument("--here", action="store_true", help="measure one size in this process")
    options = parser.parse_args(argv)
    if options.here:
        torch.set_num_threads(1)
        (clients,) = options.clients
        print(json.dumps(measure(clients, options.seed)))
        return 0
    begun = time.perf_counter()
    found: dict[int, dict[str, Any]] = {}
    lines = []
    for clients in options.clients:
        print(f"{clients} clients ...", file=sys.stderr, flush=True)
        own = ["--here", "--clients", str(clients), "--seed", str(options.seed)]
        child = subprocess.run(
            [sys.executable, "-m", "benchmarks.simulation", *own],
            stdout=subprocess.PIPE,
            check=True,
        )
        found[clients] = json.loads(child.stdout)
        for kind in ("plain", "private", "masked"):
            if kind in found[clients]:
                lines.append(_line(clients, kind, found[clients]))
    result = {
        "benchmark": "simulation",
        "cohorts": {str(clients): figures for clients, figures in found.items()},
        **{f"peak_mb_{clients}": figures["peak_mb"] for clients, figures in found.items()},
        "seconds": round(time.perf_counter() - begun, 1),
        "machine": machine(),
        "versions": versions("torch", "numpy", "secure-fedmeta"),
        "seed": options.seed,
    }
    report(result, lines=lines, quiet=options.json)
    return 0


def _line(clients: int, kind: str, found: dict[str, Any]) -> str:
    shares = ", ".join(
        f"{name} {share:.0%}" for name, share in found[kind]["shares"].items() if share >= 0.01
    )
    speed = found[kind]["rounds_per_second"]
    return f"{clients:6d} {kind:8s} {speed:9.3g} rounds/s  {found['peak_mb']:5d} MB  {shares}"


if __name__ == "__main__":
    sys.exit(main())
