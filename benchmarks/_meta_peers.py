"""Per-task second-order meta-gradients of one inner step, as others compute them.

Clipping per task needs the meta-gradient of every task, `[B, P]`, not their mean, so that all of
these go over the tasks one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import higher  # type: ignore[import-untyped]
import torch
import torchopt
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks._common import Timing
from secure_fedmeta.meta import TaskBatch

PEERS = ("autograd_loop", "higher", "torchopt")
TOLERANCE = 1e-5

Contestant = Callable[[], Tensor]
Criterion = Callable[[Tensor, Tensor], Tensor]


def peers(net: nn.Module, batch: TaskBatch, loss: Criterion, lr: float) -> dict[str, Contestant]:
    """Return all peers by name."""
    return {
        "autograd_loop": lambda: autograd_loop(net, batch, loss, lr),
        "higher": lambda: with_higher(net, batch, loss, lr),
        "torchopt": lambda: with_torchopt(net, batch, loss, lr),
    }


def autograd_loop(net: nn.Module, batch: TaskBatch, loss: Criterion, lr: float) -> Tensor:
    """One task at a time: `torch.autograd.grad` through `functional_call`."""
    params: dict[str, Tensor] = dict(net.named_parameters())
    rows = []
    for sx, sy, qx, qy in _tasks(batch):
        inner = loss(functional_call(net, params, (sx,)), sy)
        gradients = torch.autograd.grad(inner, list(params.values()), create_graph=True)
        adapted = {
            name: value - lr * gradient
            for (name, value), gradient in zip(params.items(), gradients, strict=True)
        }
        outer = loss(functional_call(net, adapted, (qx,)), qy)
        rows.append(_flat(torch.autograd.grad(outer, list(params.values()))))
    return torch.stack(rows)


def with_higher(net: nn.Module, batch: TaskBatch, loss: Criterion, lr: float) -> Tensor:
    """Return what `higher.innerloop_ctx` gives, as in its MAML example."""
    optimiser = torch.optim.SGD(net.parameters(), lr=lr)
    rows = []
    for sx, sy, qx, qy in _tasks(batch):
        with higher.innerloop_ctx(net, optimiser, copy_initial_weights=False) as (model, inner):
            inner.step(loss(model(sx), sy))
            outer = loss(model(qx), qy)
            rows.append(_flat(torch.autograd.grad(outer, list(net.parameters()))))
    return torch.stack(rows)


def with_torchopt(net: nn.Module, batch: TaskBatch, loss: Criterion, lr: float) -> Tensor:
    """Return what `torchopt.MetaSGD` gives, as in its MAML example."""
    inner = torchopt.MetaSGD(net, lr=lr)
    net_state = torchopt.extract_state_dict(net, by="reference")
    inner_state = torchopt.extract_state_dict(inner, by="reference")
    start = list(net.parameters())
    rows = []
    for sx, sy, qx, qy in _tasks(batch):
        inner.step(loss(net(sx), sy))
        rows.append(_flat(torch.autograd.grad(loss(net(qx), qy), start)))
        torchopt.recover_state_dict(net, net_state)
        torchopt.recover_state_dict(inner, inner_state)
    return torch.stack(rows)


def disagreement(runs: Mapping[str, Contestant]) -> float:
    """Return the largest absolute difference of any contestant from the plain loop."""
    expected = runs["autograd_loop"]()
    return max(float((run() - expected).abs().max()) for run in runs.values())


def against_best(timings: Mapping[str, Timing], name: str) -> float:
    """Return the fastest peer's median over the median of `name`."""
    return min(timings[peer].median for peer in PEERS) / timings[name].median


def _tasks(batch: TaskBatch) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    columns = (batch.support_x, batch.support_y, batch.query_x, batch.query_y)
    return list(zip(*columns, strict=True))


def _flat(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([gradient.reshape(-1) for gradient in gradients])
