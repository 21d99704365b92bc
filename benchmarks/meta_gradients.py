"""Per-task second-order meta-gradients of a cohort, beside higher, TorchOpt and a plain loop.

The task is the sinusoid regression of Finn et al. (2017, arXiv 1703.03400, section 5.1): a net of
sizes 1-40-40-1 with ReLU, 10 support and 10 query points, one inner step, mean squared error.
Clipping per task needs the meta-gradient of every task, `[B, P]`, not their mean. All contestants
run in turn in this process with the same number of threads, and must agree to 1e-5.
"""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.nn.functional import mse_loss

from benchmarks._common import arguments, in_turn, machine, report, versions
from benchmarks._meta_peers import TOLERANCE, Contestant, against_best, disagreement, peers
from secure_fedmeta.losses import LOSSES
from secure_fedmeta.meta import LEARNERS, Learner, TaskBatch, build_learner
from secure_fedmeta.meta.functional import FunctionalEngine
from secure_fedmeta.meta.inner import InnerLoop
from secure_fedmeta.models import build_model
from secure_fedmeta.vector import ParameterVector

COHORTS = {25: 40, 100: 25}  # tasks -> timed rounds
POINTS = 10
INNER_LR = 0.01


def sinusoids(tasks: int, generator: torch.Generator) -> TaskBatch:
    """Draw y = A sin(x + phase): A in [0.1, 5], phase in [0, pi], x in [-5, 5]."""
    amplitude = 0.1 + 4.9 * torch.rand(tasks, 1, 1, generator=generator)
    phase = torch.pi * torch.rand(tasks, 1, 1, generator=generator)
    x = 10 * torch.rand(tasks, 2 * POINTS, 1, generator=generator) - 5
    y = amplitude * torch.sin(x + phase)
    return TaskBatch(x[:, :POINTS], y[:, :POINTS], x[:, POINTS:], y[:, POINTS:])


def contestants(net: nn.Module, batch: TaskBatch) -> dict[str, Contestant]:
    """Return all contestants by name; ours are the product's default and its general engine."""
    spec = ParameterVector.of(net)
    params = spec.flatten(net)
    ours = build_learner("maml", net, "mse", inner_steps=1, inner_lr=INNER_LR, device="cpu")
    general = Learner(
        LEARNERS.get("maml"),
        FunctionalEngine(net, LOSSES.get("mse")),
        InnerLoop(1, INNER_LR),
        memory_bytes=2**29,
        device=torch.device("cpu"),
    )
    return {
        "secure_fedmeta": lambda: ours.outer_vectors(params, batch),
        "secure_fedmeta_general": lambda: general.outer_vectors(params, batch),
        **peers(net, batch, mse_loss, INNER_LR),
    }


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; 1 if the contestants disagree."""
    options = arguments(__doc__ or "").parse_args(argv)
    generator = torch.Generator().manual_seed(options.seed)
    net = build_model("mlp", 1, 1, (40, 40), seed=options.seed)
    ratios: dict[str, float] = {}
    cohorts: dict[str, object] = {}
    lines = []
    worst = 0.0
    for tasks, rounds in COHORTS.items():
        runs = contestants(net, sinusoids(tasks, generator))
        worst = max(worst, disagreement(runs))
        timings = in_turn(runs, rounds=rounds)
        ratios[f"b{tasks}_vs_best_peer"] = against_best(timings, "secure_fedmeta")
        ratios[f"b{tasks}_general_vs_best_peer"] = against_best(timings, "secure_fedmeta_general")
        cohorts[str(tasks)] = {name: timing.to_json() for name, timing in timings.items()}
        lines += [
            f"B={tasks:4d}  {name:24s} {timing.median * 1e3:9.3f} ms"
            for name, timing in timings.items()
        ]
    result = {
        "benchmark": "meta_gradients",
        "ratios": {name: round(value, 2) for name, value in ratios.items()},
        "cohorts": cohorts,
        "largest_difference": worst,
        "tolerance": TOLERANCE,
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "machine": machine(),
        "versions": versions("torch", "higher", "torchopt", "secure-fedmeta"),
        "seed": options.seed,
    }
    lines.append(f"largest difference {worst:.1e} (allowed {TOLERANCE:.0e})")
    report(result, lines=lines, quiet=options.json)
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
