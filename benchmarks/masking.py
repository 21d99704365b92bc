"""Masked sums beside Flower's SecAgg+: time of a client and of a round, bytes, and the limit.

Both sides sum the same integers of 16 bits in one process, in turn, on a complete graph with the
same threshold and the same ring, and must give the same exact sum. Ours runs with everything on
that a malicious aggregator makes necessary (signatures, consistency round); Flower has neither.
What is included and left out of Flower's side is said in benchmarks._flower: whatever could be
argued about is left out, in its favour. With drops, 30 % of the clients fall silent when their
vectors are due, after their shares have been dealt.

`mask_vs_limit` is the masking step (signed integers to masked residues) over what cannot be
avoided: as many bare key streams, added to one buffer. `mask_and_pack_vs_limit` also packs the
residues to the bytes that are sent. `payload_bytes_per_value`, `handshake_bytes` (all else that a
client sends and receives) and `handshake_ms` (all that a client does until its vector is asked for
and after its upload is made) are of the case without drops.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from benchmarks._common import Timing, arguments, in_turn, machine, report, versions
from benchmarks._flower import Shamir, flower_round
from benchmarks._rounds import Federation, Round, Vector, masked_round
from crypto.prg import add_stream
from crypto.ring import Ring, Unsigned
from crypto.secure_sum import SECURE_SUMS, Sharing

VALUE_BITS = 16
STREAM_BLOCK = 1 << 18  # bytes: where the bare streams are fastest
MASKING_ROUNDS = 41


@dataclass(frozen=True)
class Case:
    """One size of federation.

    Attributes:
        prefix: of the names of its ratios.
        rounds: timed rounds of each contestant.
        samples: calls of Flower's secret sharing that are really run for each size; None: all.
    """

    prefix: str
    clients: int
    length: int
    dropped: int
    rounds: int
    samples: int | None

    @property
    def name(self) -> str:
        """Name in the result."""
        drops = f", {self.dropped} dropped" if self.dropped else ""
        return f"{self.clients} x {self.length}{drops}"

    @property
    def ring(self) -> Ring:
        """The smallest ring that holds every sum."""
        return Ring.for_sum(
            max_abs=1 << (VALUE_BITS - 1),
            clients=self.clients,
            noise_std=0.0,
            dimension=self.length,
        )

    @property
    def max_colluders(self) -> int:
        """A third of the clients, rounded down."""
        return self.clients // 3

    @property
    def threshold(self) -> int:
        """The smallest that malicious mode allows."""
        return (self.clients + self.max_colluders) // 2 + 1


CASES = (
    Case("", 10, 1_000_000, 0, rounds=7, samples=None),
    Case("drops_", 10, 1_000_000, 3, rounds=7, samples=None),
    Case("n100_", 100, 100_000, 0, rounds=1, samples=2),
    Case("n100_drops_", 100, 100_000, 30, rounds=1, samples=2),
)


def compare(case: Case, vectors: dict[int, Vector], shamir: Shamir) -> dict[str, list[Round]]:
    """Rounds of both contestants in turn; ours also after the last, so that it meets all noise.

    Raises:
        ValueError: a sum is not the plain sum over the survivors.
    """
    gone = range(1, case.dropped + 1)
    federation = Federation.of(
        case.clients,
        ring=case.ring,
        length=case.length,
        sharing=Sharing(case.clients - 1, case.threshold),
        min_survivors=case.threshold,
        max_colluders=case.max_colluders,
    )
    plain = sum((vectors[k] for k in vectors if k not in gone), np.zeros(case.length, np.int64))
    rounds: dict[str, list[Round]] = {"secure_fedmeta": [], "flower": []}

    def ours() -> None:
        rounds["secure_fedmeta"].append(masked_round(federation, vectors, dropped=gone))

    ours()
    for _ in range(case.rounds):
        theirs = flower_round(
            vectors,
            value_bits=VALUE_BITS,
            ring_bits=case.ring.bits,
            threshold=case.threshold,
            dropped=gone,
            shamir=shamir,
        )
        rounds["flower"].append(theirs)
        ours()
    for name, done in rounds.items():
        if not all(np.array_equal(each.total, plain) for each in done):
            raise ValueError(f"{name} gives a wrong sum for {case.name}")
    return rounds


def masking_steps(case: Case, vector: Vector) -> dict[str, Timing]:
    """Time the masking step, with and without packing, and the bare streams, in turn."""
    ring = case.ring
    keys = [os.urandom(32) for _ in range(case.clients)]
    buffer = np.zeros(case.length, dtype=ring.lane)

    def mask() -> Unsigned:
        masked = ring.encode(vector).astype(ring.lane)
        for key in keys:
            add_stream(masked, key)
        ring.reduce(masked)
        return masked

    runs: dict[str, Callable[[], object]] = {
        "mask": mask,
        "mask_and_pack": lambda: ring.pack(mask()),
        "limit": lambda: bare_streams(buffer, keys),
    }
    return in_turn(runs, rounds=MASKING_ROUNDS)


def bare_streams(buffer: Unsigned, keys: list[bytes]) -> None:
    """One AES-256 counter stream per key, added to the buffer: no less work can mask it."""
    width = buffer.dtype.itemsize
    stream = bytearray(STREAM_BLOCK)
    lanes: Unsigned = np.frombuffer(stream, dtype=buffer.dtype)
    zeros = memoryview(bytes(STREAM_BLOCK))
    for key in keys:
        encryptor = Cipher(algorithms.AES(key), modes.GCM(bytes(12))).encryptor()
        for low in range(0, buffer.size, lanes.size):
            part = buffer[low : low + lanes.size]
            encryptor.update_into(zeros[: part.size * width], stream)
            np.add(part, lanes[: part.size], out=part)


def measure(case: Case, vectors: dict[int, Vector], shamir: Shamir) -> dict[str, Any]:
    """All figures of one case."""
    rounds = compare(case, vectors, shamir)
    steps = masking_steps(case, vectors[1])
    limit = steps["limit"].median
    ours, theirs = (Figures.of(rounds[name]) for name in ("secure_fedmeta", "flower"))
    ratios = {
        "client_vs_flower": theirs.client / ours.client,
        "round_vs_flower": theirs.round / ours.round,
        "client_vs_flower_less_sharing": (theirs.client - theirs.client_sharing) / ours.client,
        "round_vs_flower_less_sharing": (theirs.round - theirs.sharing) / ours.round,
        "mask_vs_limit": steps["mask"].median / limit,
        "mask_and_pack_vs_limit": steps["mask_and_pack"].median / limit,
    }
    return {
        "ratios": {case.prefix + name: round(value, 2) for name, value in ratios.items()},
        "secure_fedmeta": ours.to_json(case.length),
        "flower": theirs.to_json(case.length),
        "flower_sharing_calls_run": case.samples or "all",
        "masking_step": {name: timing.to_json() for name, timing in steps.items()},
        "ring_bits": case.ring.bits,
        "threshold": case.threshold,
        "max_colluders": case.max_colluders,
    }


@dataclass(frozen=True)
class Figures:
    """Medians of one contestant's rounds, in seconds and bytes; `sharing` is of Flower alone."""

    rounds: int
    client: float
    round: float
    handshake: float
    handshake_bytes: int
    upload_bytes: int
    client_sharing: float
    sharing: float

    @classmethod
    def of(cls, rounds: list[Round]) -> Figures:
        """Take the medians; a client is the median one of all rounds."""
        median = statistics.median
        return cls(
            rounds=len(rounds),
            client=median(seconds for each in rounds for seconds in each.client_seconds),
            round=median(each.seconds for each in rounds),
            handshake=median(seconds for each in rounds for seconds in each.handshake_seconds),
            handshake_bytes=int(median(size for each in rounds for size in each.other_bytes)),
            upload_bytes=rounds[0].upload_bytes,
            client_sharing=median(each.client_sharing_seconds for each in rounds),
            sharing=median(each.sharing_seconds for each in rounds),
        )

    def to_json(self, values: int) -> dict[str, float]:
        """In milliseconds and bytes; sharing only where it was timed apart."""
        timed = {"client_ms": self.client, "round_ms": self.round, "handshake_ms": self.handshake}
        apart = {"client_sharing_ms": self.client_sharing, "sharing_ms": self.sharing}
        figures = timed | {name: value for name, value in apart.items() if self.sharing}
        return {
            **{name: round(value * 1e3, 3) for name, value in figures.items()},
            "handshake_bytes": self.handshake_bytes,
            "payload_bytes_per_value": round(self.upload_bytes / values, 4),
            "timed_rounds": self.rounds,
        }


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; a wrong sum of any contestant ends it."""
    options = arguments(__doc__ or "").parse_args(argv)
    generator = np.random.default_rng(options.seed)
    half = 1 << (VALUE_BITS - 1)
    cases: dict[str, Any] = {}
    ratios: dict[str, float] = {}
    lines = []
    shamirs: dict[int, Shamir] = {}
    for case in CASES:
        vectors = {
            client: generator.integers(-half, half, case.length)
            for client in range(1, case.clients + 1)
        }
        shamir = shamirs.setdefault(case.clients, Shamir(case.samples))
        figures = measure(case, vectors, shamir)
        ratios |= figures.pop("ratios")
        cases[case.name] = figures
        lines += [
            f"{case.name:24s} {name:14s} client {figures[name]['client_ms']:9.2f} ms"
            f"  round {figures[name]['round_ms']:10.1f} ms"
            for name in ("secure_fedmeta", "flower")
        ]
    ours = cases[CASES[0].name]["secure_fedmeta"]
    result = {
        "benchmark": "masking",
        "ratios": ratios,
        "payload_bytes_per_value": ours["payload_bytes_per_value"],
        "payload_bytes_per_value_limit": CASES[0].ring.bits / 8 * 1.01,
        "handshake_bytes": ours["handshake_bytes"],
        "handshake_ms": ours["handshake_ms"],
        "cases": cases,
        "value_bits": VALUE_BITS,
        "aggregator": SECURE_SUMS["masking"].capabilities().aggregator,
        "machine": machine(),
        "versions": versions("flwr", "cryptography", "numpy", "secure-fedmeta"),
        "seed": options.seed,
    }
    lines += [f"{name:40s} {value:6.2f}" for name, value in ratios.items()]
    report(result, lines=lines, quiet=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
