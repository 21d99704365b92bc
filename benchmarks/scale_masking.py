"""Masked rounds of 100, 1,000 and 10,000 clients, every client and message real.

Up to 100 clients the graph is complete, beyond that a ring whose degree grows slowly. What a client
spends must then grow with its neighbours alone, and what the aggregator holds of the sum not at
all. A tenth of the clients fall silent when they are asked for their vectors; the sum is compared
with the plain one. Clients live in worker processes, their states on the disk. Cost is processor
time, so that it does not depend on what else runs; 10,000 clients take half an hour on two cores.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._common import arguments, machine, report, versions
from benchmarks._rounds import Federation
from crypto.ring import Ring
from crypto.secure_sum import SECURE_SUMS, Done, Outgoing, Ready, Sharing, Terms

VALUES = 10_000
HALF = 1 << 15
DROPPED_PART = 10
STEPS = ("advertise", "share", "masked input", "consistency", "unmask")
PROGRESS_SECONDS = 5.0


class Shard:
    """The clients of one worker process, each saved to a file between any two steps.

    So what is in memory does not grow with them, as if each had a process of its own.

    Args:
        federation: keys, made before the workers start so that all processes have the same.
        seed: of the vectors.
    """

    def __init__(self, federation: Federation, seed: int) -> None:
        self._federation = federation
        self._seed = seed
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._saved: dict[int, tuple[int, int]] = {}

    def step(self, client: int, request: bytes) -> tuple[bytes, float]:
        """A client's answer, and the processor time that it took, in seconds, but for saving."""
        seat = self._federation.seat(client, lambda: vector_of(client, self._seed))
        masking, terms = SECURE_SUMS["masking"], self._federation.terms
        if client in self._saved:
            place, size = self._saved[client]
            self._file.seek(place)
            party = masking.restore_client(terms, seat, self._file.read(size))
            begun = time.process_time()
        else:
            begun = time.process_time()
            party = masking.client(terms, seat)
        answer = party.step(request)
        seconds = time.process_time() - begun
        place = self._file.seek(0, os.SEEK_END)
        self._saved[client] = (place, self._file.write(party.save()))
        return answer, seconds


_SHARDS: dict[int, Shard] = {}


def _step(worker: int, client: int, request: bytes) -> tuple[bytes, float]:
    return _SHARDS[worker].step(client, request)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def vector_of(client: int, seed: int) -> NDArray[np.int64]:
    """A client's vector, [VALUES] int64."""
    return np.random.default_rng([seed, client]).integers(-HALF, HALF, VALUES)


@dataclass(frozen=True)
class Scale:
    """What one round took.

    Attributes:
        sharing: degree and threshold.
        min_survivors: as many as are left.
        max_colluders: as many as the sharing stands.
        client_seconds: processor time of each survivor in all five steps.
        client_bytes: what a median survivor sends and receives, the upload included.
        aggregator_seconds: processor time of the aggregator.
        accumulator_bytes: the array that uploads are added into.
        held_bytes: what the aggregator's process still holds of all that it took in with the
            uploads, by tracemalloc; the accumulator was there before.
        peak_mib: largest resident set of all processes together: aggregator, wire and all clients.
        seconds: wall time.
    """

    sharing: Sharing
    min_survivors: int
    max_colluders: int
    client_seconds: tuple[float, ...]
    client_bytes: int
    aggregator_seconds: float
    accumulator_bytes: int
    held_bytes: int
    peak_mib: float
    seconds: float

    @property
    def neighbour_seconds(self) -> float:
        """Processor time of the median client over its degree."""
        return statistics.median(self.client_seconds) / self.sharing.degree

    def to_json(self) -> dict[str, Any]:
        """In milliseconds, bytes and MiB."""
        client = statistics.median(self.client_seconds)
        return {
            "degree": self.sharing.degree,
            "threshold": self.sharing.threshold,
            "min_survivors": self.min_survivors,
            "max_colluders": self.max_colluders,
            "client_cpu_ms": round(client * 1e3, 2),
            "client_cpu_ms_per_neighbour": round(self.neighbour_seconds * 1e3, 4),
            "client_bytes": self.client_bytes,
            "client_bytes_per_neighbour": round(self.client_bytes / self.sharing.degree),
            "aggregator_cpu_s": round(self.aggregator_seconds, 2),
            "accumulator_bytes": self.accumulator_bytes,
            "held_after_uploads_bytes": self.held_bytes,
            "peak_rss_mib": round(self.peak_mib),
            "wall_s": round(self.seconds, 1),
        }


def scale_round(clients: int, *, colluders: int, workers: int, seed: int) -> Scale:
    """One masked round.

    Raises:
        ValueError: the sum is not the plain sum over the survivors.
    """
    gone = frozenset(range(1, clients // DROPPED_PART + 1))
    survivors = clients - len(gone)
    sharing = SECURE_SUMS["masking"].sharing(clients, colluders, survivors)
    ring = Ring.for_sum(max_abs=HALF, clients=clients, noise_std=0.0, dimension=VALUES)
    federation = Federation.of(
        clients,
        ring=ring,
        length=VALUES,
        sharing=sharing,
        min_survivors=survivors,
        max_colluders=colluders,
    )
    begun = time.perf_counter()
    with ExitStack() as stack:
        pools = [stack.enter_context(_worker(k, federation, seed)) for k in range(workers)]
        drive = _Drive(federation, gone, pools)
        done = drive.run()
        peak = _peak_mib() + sum(pool.submit(_peak_mib).result() for pool in pools)
    total = np.zeros(VALUES, dtype=np.int64)
    for client in done.contributors:
        total += vector_of(client, seed)
    if len(done.contributors) != survivors or not np.array_equal(done.total, total):
        raise ValueError(f"wrong sum of {clients} clients")
    return Scale(
        sharing=sharing,
        min_survivors=survivors,
        max_colluders=colluders,
        client_seconds=tuple(drive.spent[client] for client in done.contributors),
        client_bytes=int(statistics.median(drive.traffic[k] for k in done.contributors)),
        aggregator_seconds=drive.aggregator_seconds,
        accumulator_bytes=drive.accumulator_bytes,
        held_bytes=drive.held_bytes,
        peak_mib=peak,
        seconds=time.perf_counter() - begun,
    )


def _worker(number: int, federation: Federation, seed: int) -> ProcessPoolExecutor:
    _SHARDS[number] = Shard(federation, seed)
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))


class _Drive:
    """The aggregator, the wire, and the books over both."""

    def __init__(
        self, federation: Federation, gone: frozenset[int], pools: list[ProcessPoolExecutor]
    ) -> None:
        terms: Terms = federation.terms
        self._terms, self._gone, self._pools = terms, gone, pools
        self._aggregator = SECURE_SUMS["masking"].aggregator(terms, federation.aggregator)
        self.spent = dict.fromkeys(terms.cohort, 0.0)
        self.traffic = dict.fromkeys(terms.cohort, 0)
        self.aggregator_seconds = 0.0
        self.held_bytes = 0
        self.accumulator_bytes = np.zeros(terms.length, dtype=terms.ring.lane).nbytes

    def run(self) -> Done:
        """All steps."""
        begun = time.process_time()
        step: Outgoing | Ready | Done = self._aggregator.begin()
        for name in STEPS:
            if isinstance(step, Ready):
                step = self._aggregator.authorise(self._terms.run, self._terms.run)
            if not isinstance(step, Outgoing):
                raise TypeError(f"{name}: the round is over")
            uploads = name == "masked input"
            if uploads:
                gc.collect()
                tracemalloc.start()
            self._deliver(name, step.messages)
            if uploads:
                self.held_bytes = tracemalloc.get_traced_memory()[0]
                tracemalloc.stop()
            step = self._aggregator.advance()
        self.aggregator_seconds = time.process_time() - begun
        if not isinstance(step, Done):
            raise TypeError("the round is not over")
        return step

    def _deliver(self, name: str, messages: Mapping[int, bytes]) -> None:
        """Every request to its client, and its answer back; a few of each worker on their way."""
        silent = self._gone if STEPS.index(name) >= 2 else frozenset()
        asked = [client for client in messages if client not in silent]
        told = time.perf_counter()
        for at, (client, (answer, seconds), sent) in enumerate(self._answers(asked, messages)):
            self.spent[client] += seconds
            self.traffic[client] += sent + len(answer)
            self._aggregator.receive(client, answer)
            if time.perf_counter() - told > PROGRESS_SECONDS:
                told = time.perf_counter()
                print(f"{len(messages)} clients: {name} {at + 1}", file=sys.stderr, flush=True)

    def _answers(
        self, asked: list[int], messages: Mapping[int, bytes]
    ) -> Iterator[tuple[int, tuple[bytes, float], int]]:
        workers = len(self._pools)
        waiting: list[tuple[int, Any, int]] = []
        for client in asked:
            request, number = messages[client], client % workers
            future = self._pools[number].submit(_step, number, client, request)
            waiting.append((client, future, len(request)))
            if len(waiting) >= 4 * workers:
                first, answered, sent = waiting.pop(0)
                yield first, answered.result(), sent
        for first, answered, sent in waiting:
            yield first, answered.result(), sent


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; a wrong sum ends it."""
    parser = arguments(__doc__ or "")
    parser.add_argument(
        "--clients", type=int, nargs="+", default=[100, 1_000, 10_000], help="sizes of cohorts"
    )
    parser.add_argument(
        "--colluders", type=int, default=10, help="per cent of the clients that may collude"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that clients live in")
    options = parser.parse_args(argv)
    found: dict[int, Scale] = {}
    lines = []
    for clients in options.clients:
        colluders = clients * options.colluders // 100
        found[clients] = scale_round(
            clients, colluders=colluders, workers=options.workers, seed=options.seed
        )
        told = found[clients].to_json()
        lines.append(
            f"{clients:6d} clients  degree {told['degree']:3d}  client {told['client_cpu_ms']:8.1f}"
            f" ms  {told['client_cpu_ms_per_neighbour']:.3f} ms per neighbour"
        )
    costs = [scale.neighbour_seconds for scale in found.values()]
    accumulators = [scale.accumulator_bytes for scale in found.values()]
    result = {
        "benchmark": "scale_masking",
        "ratios": {
            "cost_per_neighbour_max_over_min": round(max(costs) / min(costs), 3),
            "accumulator_max_over_min": round(max(accumulators) / min(accumulators), 3),
        },
        "cohorts": {str(clients): scale.to_json() for clients, scale in found.items()},
        "values": VALUES,
        "dropped_per_cent": 100 // DROPPED_PART,
        "colluders_per_cent": options.colluders,
        "machine": machine(),
        "versions": versions("cryptography", "numpy", "secure-fedmeta"),
        "seed": options.seed,
    }
    report(result, lines=lines, quiet=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
