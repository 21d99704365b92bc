"""Per-task meta-gradients of a convolutional net, beside higher, TorchOpt and a plain loop.

The form of Omniglot in Finn et al. (2017, arXiv 1703.03400, section 5.2): images of 28x28, four
blocks of 64 3x3 filters with stride 2, 5 ways and 1 shot, one query image of each class as in the
authors' code, 32 tasks in a meta-batch, one inner step of size 0.4. In place of batch
normalisation, which mixes tasks' rows, stands group normalisation, for all contestants. The images
are noise: what they show changes no time. All contestants run in turn in this process with the
same number of threads, and must agree to 1e-5; on a GPU as well, where there is one.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks._common import arguments, in_turn, machine, report, versions
from benchmarks._meta_peers import TOLERANCE, Contestant, against_best, disagreement, peers
from secure_fedmeta.meta import TaskBatch, build_learner
from secure_fedmeta.models import build_model

TASKS, WAYS, SIDE = 32, 5, 28
FILTERS = (64, 64, 64, 64)
INNER_LR = 0.4
ROUNDS = {"cpu": 9, "cuda": 60}


def images(seed: int) -> TaskBatch:
    """Draw 5-way 1-shot tasks of noise: one support and one query image of every class."""
    g = torch.Generator().manual_seed(seed)
    support, query = torch.rand(2, TASKS, WAYS, SIDE * SIDE, generator=g)
    labels = torch.arange(WAYS).expand(TASKS, WAYS)
    return TaskBatch(support, labels, query, labels)


def contestants(net: nn.Module, batch: TaskBatch, device: str) -> dict[str, Contestant]:
    """Return all contestants by name, each with model and tasks on the device."""
    net = copy.deepcopy(net).to(device)
    there = TaskBatch(
        *(
            part.to(device)
            for part in (batch.support_x, batch.support_y, batch.query_x, batch.query_y)
        )
    )
    ours = build_learner(
        "maml",
        net,
        "cross_entropy",
        inner_steps=1,
        inner_lr=INNER_LR,
        memory_mb=4096,
        device=device,
    )
    params = ours.initial(net)
    runs: dict[str, Contestant] = {
        "secure_fedmeta": lambda: ours.outer_vectors(params, there),
        **peers(net, there, cross_entropy, INNER_LR),
    }
    return {name: _finished(run) for name, run in runs.items()} if device == "cuda" else runs


def _finished(run: Contestant) -> Callable[[], Tensor]:
    """Wait for the device, so that what is timed has happened."""

    def waiting() -> Tensor:
        result = run()
        torch.cuda.synchronize()
        return result

    return waiting


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; 1 if the contestants disagree."""
    options = arguments(__doc__ or "").parse_args(argv)
    net = build_model("conv", SIDE * SIDE, WAYS, FILTERS, seed=options.seed)
    batch = images(options.seed)
    ratios: dict[str, float | None] = {"cpu_vs_best_peer": None, "gpu_vs_best_peer": None}
    devices: dict[str, object] = {"cuda": "unavailable: torch finds no CUDA device"}
    lines, worst = [], 0.0
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        runs = contestants(net, batch, device)
        worst = max(worst, disagreement(runs))
        timings = in_turn(runs, rounds=ROUNDS[device])
        ratios[f"{'cpu' if device == 'cpu' else 'gpu'}_vs_best_peer"] = round(
            against_best(timings, "secure_fedmeta"), 2
        )
        devices[device] = {name: timing.to_json() for name, timing in timings.items()}
        lines += [
            f"{device:4s}  {name:16s} {timing.median * 1e3:9.2f} ms"
            for name, timing in timings.items()
        ]
    result = {
        "benchmark": "conv_meta",
        "ratios": ratios,
        "devices": devices,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "largest_difference": worst,
        "tolerance": TOLERANCE,
        "tasks": TASKS,
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "machine": machine(),
        "versions": versions("torch", "higher", "torchopt", "secure-fedmeta"),
        "seed": options.seed,
    }
    lines.append(f"largest difference {worst:.1e} (allowed {TOLERANCE:.0e})")
    if not torch.cuda.is_available():
        lines.append("GPU: unavailable")
    report(result, lines=lines, quiet=options.json)
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
