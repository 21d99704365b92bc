"""What privacy costs in a round: distributed noise and malicious masking over a plain sum.

One round of 10 clients with 8 tasks each, 5-way 1-shot on images of 28x28 with as many query rows
as support rows (synthetic, from a seed), on a convolutional net of four layers with 1,000,325
parameters. Both sides compute the same second-order MAML meta-gradients, one per task. The plain
side adds them up. The private side clips and rounds each one, adds its noise share, masks and
packs the sum and goes through every step of the secure sum, every message as the bytes that would
go over the network, all ten clients and the aggregator one after the other in this process. The
two sides run in turn, on one thread. Times are processor times of this process, which other load
on the machine changes less; `private_over_plain_wall` is the ratio of wall times.

`stages_ms` are the milliseconds of all ten clients together, each measured by itself on the vectors
of one client; "open" is all that is neither meta-gradients, encoding, masking nor packing: key
agreement, sharing, signatures, and the aggregator.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._common import Timing, arguments, in_turn, machine, report, versions
from benchmarks._rounds import Federation, Round, Vector, masked_round
from crypto.prg import add_stream
from crypto.ring import Ring
from crypto.secure_sum import SECURE_SUMS
from privacy.clip import clip_integers, clip_l2, round_stochastic
from privacy.noise import skellam
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from secure_fedmeta.meta import Learner, TaskBatch, build_learner
from secure_fedmeta.models import build_model

CLIENTS, TASKS, WAYS, SIDE = 10, 8, 5, 28
CHANNELS = (192,) * 4
MIN_SURVIVORS, COLLUDERS = 7, 2
MEMORY_MB = 64  # one task at a time: the fastest on a core
ROUNDS, STAGE_ROUNDS = 5, 11

Units = NDArray[np.float32]


def task_batch(generator: torch.Generator) -> TaskBatch:
    """One client's tasks: a random prototype per class, and noisy copies as rows."""
    classes = torch.rand(TASKS, WAYS, SIDE * SIDE, generator=generator)

    def rows() -> torch.Tensor:
        return classes + 0.3 * torch.randn(classes.shape, generator=generator)

    labels = torch.arange(WAYS).expand(TASKS, WAYS)
    return TaskBatch(rows(), labels, rows(), labels)


def make_plan(parameters: int) -> PrivacyPlan:
    """Unit task; noise for the honest of seven survivors."""
    return PrivacyPlan.from_noise_multiplier(
        noise_multiplier=8.0,
        delta=1e-5,
        rounds=100,
        clip=1.0,
        parameters=parameters,
        expected_units=CLIENTS * TASKS,
        max_units_per_client=TASKS,
        clients=CLIENTS,
        min_survivors=MIN_SURVIVORS,
        max_colluders=COLLUDERS,
        person_units=1,
    )


class Cohort:
    """The clients' tasks, the model and the seconds that meta-gradients have taken so far."""

    def __init__(self, learner: Learner, params: torch.Tensor, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._learner, self._params = learner, params
        self._batches = {k: task_batch(generator) for k in range(1, CLIENTS + 1)}
        self.seconds = 0.0

    def units(self, client: int) -> Units:
        """Meta-gradients [TASKS, d] of one client, computed anew."""
        start = time.process_time()
        units: Units = self._learner.outer_vectors(self._params, self._batches[client]).numpy()
        self.seconds += time.process_time() - start
        return units

    def plain(self) -> NDArray[np.float64]:
        """The sum of all meta-gradients."""
        total = np.zeros(self._params.numel())
        for client in self._batches:
            total += self.units(client).sum(axis=0)
        return total


class Contributions(Mapping[int, Vector]):
    """What each client contributes, computed when it is asked for, and the seconds of it."""

    def __init__(self, cohort: Cohort, plan: PrivacyPlan) -> None:
        self._cohort, self._plan = cohort, plan
        self._rng = {k: SecureRandom.from_os() for k in range(1, CLIENTS + 1)}
        self.encoding = 0.0

    def __getitem__(self, client: int) -> Vector:
        units = self._cohort.units(client)
        start = time.process_time()
        vector = self._plan.encode(units, self._rng[client], round_index=0)
        self.encoding += time.process_time() - start
        return vector

    def __iter__(self) -> Iterator[int]:
        return iter(self._rng)

    def __len__(self) -> int:
        return len(self._rng)


def stages(plan: PrivacyPlan, ring: Ring, units: Units) -> dict[str, Timing]:
    """One client's stages, each by itself."""
    rng = SecureRandom.from_os()
    scaled = [clip_l2(unit[None, :], plan.clip) * plan.scale for unit in units]
    rounded = [round_stochastic(row, rng) for row in scaled]
    vector = plan.encode(units, rng, round_index=0)
    keys = [os.urandom(32) for _ in range(CLIENTS)]
    residues = ring.encode(vector).astype(ring.lane)

    def clip() -> None:
        for unit in units:
            clip_l2(unit[None, :], plan.clip)

    def rounding() -> None:
        for row in scaled:
            round_stochastic(row, rng)

    def adding() -> None:
        total = np.zeros(units.shape[1], dtype=np.int64)
        for row in rounded:
            total += clip_integers(np.clip(row, -plan.cap, plan.cap), plan.l2)[0]

    def mask() -> None:
        masked = ring.encode(vector).astype(ring.lane)
        for key in keys:
            add_stream(masked, key)
        ring.reduce(masked)

    calls: dict[str, Callable[[], object]] = {
        "clip": clip,
        "round": rounding,
        "sum": adding,
        "noise": lambda: skellam(plan.share_variance, plan.dimension, rng),
        "mask": mask,
        "pack": lambda: ring.pack(residues),
    }
    return in_turn(calls, rounds=STAGE_ROUNDS, clock=time.process_time)


def check(plan: PrivacyPlan, cohort: Cohort, total: Vector) -> None:
    """Compare the opened sum, decoded, with the plain sum of the clipped meta-gradients.

    Raises:
        ValueError: what is left is not the noise of the plan, within 1 %.
    """
    clipped = sum(clip_l2(cohort.units(k), plan.clip).sum(axis=0) for k in range(1, CLIENTS + 1))
    left = plan.decode(total, round_index=0) * plan.expected_units - clipped
    ratio = float(left.std()) * plan.scale / plan.noise_std(CLIENTS)
    if not 0.99 < ratio < 1.01:
        raise ValueError(f"the noise of the sum is {ratio:.4f} of the plan's")


def measure(seed: int) -> dict[str, Any]:
    """Time both sides in turn, then the stages."""
    net = build_model("conv", SIDE * SIDE, WAYS, CHANNELS, seed=seed)
    learner = build_learner(
        "maml", net, "cross_entropy", inner_lr=0.1, memory_mb=MEMORY_MB, device="cpu"
    )
    plan = make_plan(learner.spec.size)
    ring = Ring.for_sum(
        max_abs=plan.max_abs,
        clients=CLIENTS,
        noise_std=plan.noise_std(CLIENTS),
        dimension=plan.dimension,
    )
    protocol = SECURE_SUMS["masking"]
    federation = Federation.of(
        CLIENTS,
        ring=ring,
        length=plan.dimension,
        sharing=protocol.sharing(CLIENTS, COLLUDERS, MIN_SURVIVORS),
        min_survivors=MIN_SURVIVORS,
        max_colluders=COLLUDERS,
    )
    cohort = Cohort(learner, learner.spec.flatten(net), seed)
    contributions = Contributions(cohort, plan)
    rounds: list[tuple[Round, float, float]] = []
    busy: dict[str, list[float]] = {"plain": [], "private": []}

    def plain() -> None:
        begun = time.process_time()
        cohort.plain()
        busy["plain"].append(time.process_time() - begun)

    def private() -> None:
        begun = time.process_time()
        learned, encoded = cohort.seconds, contributions.encoding
        done = masked_round(federation, contributions, dropped=())
        rounds.append((done, cohort.seconds - learned, contributions.encoding - encoded))
        busy["private"].append(time.process_time() - begun)

    wall = in_turn({"plain": plain, "private": private}, rounds=ROUNDS, warmup=1)
    check(plan, cohort, rounds[-1][0].total)
    timings = {name: Timing(tuple(seconds[1:])) for name, seconds in busy.items()}
    whole = timings["private"].median
    parts = {
        name: timing.median * CLIENTS
        for name, timing in stages(plan, ring, cohort.units(1)).items()
    }
    learning, encoding = (statistics.median(each[k] for each in rounds[1:]) for k in (1, 2))
    parts |= {"open": whole - learning - encoding - parts["mask"] - parts["pack"]}
    per_turn = [
        private / plain
        for private, plain in zip(timings["private"].seconds, timings["plain"].seconds, strict=True)
    ]
    return {
        "ratios": {
            "private_over_plain": round(whole / timings["plain"].median, 3),
            "private_over_plain_wall": round(wall["private"].median / wall["plain"].median, 3),
            "private_over_plain_each_turn": [round(ratio, 3) for ratio in per_turn],
        },
        "rounds": {name: timing.to_json() for name, timing in timings.items()},
        "stages_ms": {
            name: round(seconds * 1e3, 2)
            for name, seconds in {"meta_gradients": learning, **parts, "encode": encoding}.items()
        },
        "parameters": plan.parameters,
        "ring_bits": ring.bits,
        "l2": plan.l2,
        "share_std": plan.share_variance**0.5,
    }


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; a sum without the plan's noise ends it."""
    options = arguments(__doc__ or "").parse_args(argv)
    torch.set_num_threads(1)
    figures = measure(options.seed)
    result = {
        "benchmark": "round_overhead",
        **figures,
        "clients": CLIENTS,
        "tasks_per_client": TASKS,
        "machine": machine(),
        "versions": versions("torch", "numpy", "cryptography", "secure-fedmeta"),
        "seed": options.seed,
    }
    lines = [f"{name:16s} {value:10.1f} ms" for name, value in figures["stages_ms"].items()]
    lines.append(f"private over plain {figures['ratios']['private_over_plain']:.3f}")
    report(result, lines=lines, quiet=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
