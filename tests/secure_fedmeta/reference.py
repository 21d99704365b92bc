"""A plain autograd loop over tasks, written from the papers: what vectorised passes must equal."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from secure_fedmeta.losses import Loss
from secure_fedmeta.meta import TaskBatch
from secure_fedmeta.vector import ParameterVector


def outer_vectors(
    name: str,
    module: nn.Module,
    loss: Loss,
    params: Tensor,
    batch: TaskBatch,
    steps: int,
    lr: float,
) -> Tensor:
    """One task, one graph at a time."""
    rows = [
        _outer(name, _Risk(module, loss), params, task, steps, lr)
        for task in zip(batch.support_x, batch.support_y, batch.query_x, batch.query_y, strict=True)
    ]
    return torch.stack(rows)


def adapt(
    name: str,
    module: nn.Module,
    loss: Loss,
    params: Tensor,
    x: Tensor,
    y: Tensor,
    steps: int,
    lr: float,
) -> Tensor:
    """Inner steps of one task."""
    risk = _Risk(module, loss)
    here = params
    for _ in range(steps):
        here = here - lr * risk.inner_mask(name) * risk.gradient(here, x, y)
    return here.detach()


class _Risk:
    def __init__(self, module: nn.Module, loss: Loss) -> None:
        self.module, self.loss, self.spec = module, loss, ParameterVector.of(module)

    def gradient(self, at: Tensor, x: Tensor, y: Tensor, *, keep: bool = False) -> Tensor:
        point = at if at.requires_grad else at.detach().requires_grad_()
        value = self.loss.value(functional_call(self.module, self.spec.unflatten(point), (x,)), y)
        return torch.autograd.grad(value, point, create_graph=keep)[0]

    def inner_mask(self, name: str) -> Tensor:
        mask = torch.ones(self.spec.size)
        if name == "anil":
            mask[: self.spec.head.start] = 0
        return mask


def _outer(
    name: str, risk: _Risk, params: Tensor, task: tuple[Tensor, ...], steps: int, lr: float
) -> Tensor:
    sx, sy, qx, qy = task
    start = params.detach().requires_grad_()
    here = start
    if name == "fedavg":
        x, y = torch.cat([sx, qx]), torch.cat([sy, qy])
        total = torch.zeros_like(params)
        for _ in range(steps):
            gradient = risk.gradient(here, x, y)
            total, here = total + gradient, here - lr * gradient
        return total.detach()
    second = name in ("maml", "anil")
    for _ in range(steps):
        here = here - lr * risk.inner_mask(name) * risk.gradient(here, sx, sy, keep=second)
    if not second:
        return risk.gradient(here.detach(), qx, qy)
    value = risk.loss.value(functional_call(risk.module, risk.spec.unflatten(here), (qx,)), qy)
    return torch.autograd.grad(value, start)[0]
