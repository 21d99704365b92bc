"""Per-task second-order meta-gradients of a cohort, beside higher, TorchOpt and a plain loop.

The task is the sinusoid regression of Finn et al. (2017, arXiv 1703.03400, section 5.1): a net of
sizes 1-40-40-1 with ReLU, 10 support and 10 query points, one inner step, mean squared error.
Clipping per task needs the meta-gradient of every task, `[B, P]`, not their mean. All contestants
run in turn in this process with the same number of threads, and must agree to 1e-5.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import higher  # type: ignore[import-untyped]
import torch
import torchopt
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import mse_loss

from benchmarks._common import Timing, arguments, in_turn, machine, report, versions
from secure_fedmeta.losses import LOSSES
from secure_fedmeta.meta import LEARNERS, Learner, TaskBatch, build_learner
from secure_fedmeta.meta.functional import FunctionalEngine
from secure_fedmeta.meta.inner import InnerLoop
from secure_fedmeta.models import build_model
from secure_fedmeta.vector import ParameterVector

COHORTS = {25: 40, 100: 25}  # tasks -> timed rounds
POINTS = 10
INNER_LR = 0.01
TOLERANCE = 1e-5
PEERS = ("autograd_loop", "higher", "torchopt")

Contestant = Callable[[], Tensor]


def sinusoids(tasks: int, generator: torch.Generator) -> TaskBatch:
    """Draw y = A sin(x + phase): A in [0.1, 5], phase in [0, pi], x in [-5, 5]."""
    amplitude = 0.1 + 4.9 * torch.rand(tasks, 1, 1, generator=generator)
    phase = torch.pi * torch.rand(tasks, 1, 1, generator=generator)
    x = 10 * torch.rand(tasks, 2 * POINTS, 1, generator=generator) - 5
    y = amplitude * torch.sin(x + phase)
    return TaskBatch(x[:, :POINTS], y[:, :POINTS], x[:, POINTS:], y[:, POINTS:])


def autograd_loop(net: nn.Module, batch: TaskBatch) -> Tensor:
    """One task at a time: `torch.autograd.grad` through `functional_call`."""
    params: dict[str, Tensor] = dict(net.named_parameters())
    rows = []
    for sx, sy, qx, qy in _tasks(batch):
        inner = mse_loss(functional_call(net, params, (sx,)), sy)
        gradients = torch.autograd.grad(inner, list(params.values()), create_graph=True)
        adapted = {
            name: value - INNER_LR * gradient
            for (name, value), gradient in zip(params.items(), gradients, strict=True)
        }
        outer = mse_loss(functional_call(net, adapted, (qx,)), qy)
        rows.append(_flat(torch.autograd.grad(outer, list(params.values()))))
    return torch.stack(rows)


def with_higher(net: nn.Module, batch: TaskBatch) -> Tensor:
    """Return what `higher.innerloop_ctx` gives, as in its MAML example."""
    optimiser = torch.optim.SGD(net.parameters(), lr=INNER_LR)
    rows = []
    for sx, sy, qx, qy in _tasks(batch):
        with higher.innerloop_ctx(net, optimiser, copy_initial_weights=False) as (model, inner):
            inner.step(mse_loss(model(sx), sy))
            outer = mse_loss(model(qx), qy)
            rows.append(_flat(torch.autograd.grad(outer, list(net.parameters()))))
    return torch.stack(rows)


def with_torchopt(net: nn.Module, batch: TaskBatch) -> Tensor:
    """Return what `torchopt.MetaSGD` gives, as in its MAML example."""
    inner = torchopt.MetaSGD(net, lr=INNER_LR)
    net_state = torchopt.extract_state_dict(net, by="reference")
    inner_state = torchopt.extract_state_dict(inner, by="reference")
    start = list(net.parameters())
    rows = []
    for sx, sy, qx, qy in _tasks(batch):
        inner.step(mse_loss(net(sx), sy))
        rows.append(_flat(torch.autograd.grad(mse_loss(net(qx), qy), start)))
        torchopt.recover_state_dict(net, net_state)
        torchopt.recover_state_dict(inner, inner_state)
    return torch.stack(rows)


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
        "autograd_loop": lambda: autograd_loop(net, batch),
        "higher": lambda: with_higher(net, batch),
        "torchopt": lambda: with_torchopt(net, batch),
    }


def disagreement(runs: dict[str, Contestant]) -> float:
    """Return the largest absolute difference of any contestant from the plain loop."""
    expected = runs["autograd_loop"]()
    return max(float((run() - expected).abs().max()) for run in runs.values())


def against_best(timings: dict[str, Timing], name: str) -> float:
    """Return the fastest peer's median over the median of `name`."""
    return min(timings[peer].median for peer in PEERS) / timings[name].median


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


def _tasks(batch: TaskBatch) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    columns = (batch.support_x, batch.support_y, batch.query_x, batch.query_y)
    return list(zip(*columns, strict=True))


def _flat(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


if __name__ == "__main__":
    sys.exit(main())
