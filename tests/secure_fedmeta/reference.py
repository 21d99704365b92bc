"""A plain autograd loop over tasks, written from the papers: what vectorised passes must equal.

Meta-SGD's inner step restates `meta_sgd_update` of learn2learn (Arnold et al. 2020, arXiv
2008.12284; learn2learn/algorithms/meta_sgd.py): p - lr_p * grad_p, tensor by tensor, and autograd
does the rest. Reptile's outer vector restates its examples/vision/reptile_miniimagenet.py, where
the gradient of a task is p - l, with l the parameters after the steps; here over the inner rate.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call

from secure_fedmeta.losses import Loss
from secure_fedmeta.meta import TaskBatch
from secure_fedmeta.vector import ParameterVector

RATE_SCALE = 1.7


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
    size = risk.spec.size
    here, w = params[:size], params[size:]
    for step in range(steps):
        rate = risk.rate(name, lr, w, step)
        here = here - rate * risk.inner_mask(name) * risk.gradient(here, x, y)
    return torch.cat([here, w]).detach()


class _Risk:
    def __init__(self, module: nn.Module, loss: Loss) -> None:
        self.module, self.loss, self.spec = module, loss, ParameterVector.of(module)

    def rate(self, name: str, lr: float, w: Tensor, step: int) -> Tensor:
        """The rate of every parameter as the numbers `w` have it: lr softplus(c + scale w)."""
        if not name.startswith("meta_sgd"):
            return torch.full((self.spec.size,), lr)
        learned = lr * torch.log1p(torch.exp(math.log(math.e - 1) + RATE_SCALE * w))
        if name == "meta_sgd":
            return learned
        owners = [name.rpartition(".")[0] for name in self.spec.names]
        layers = list(dict.fromkeys(owners))
        table = learned.reshape(-1, len(layers))
        row = table[step] if step < len(table) else table[-1]
        sizes = [math.prod(shape) for shape in self.spec.shapes]
        return torch.cat(
            [row[layers.index(o)].expand(n) for o, n in zip(owners, sizes, strict=True)]
        )

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
    here, w = start[: risk.spec.size], start[risk.spec.size :]
    if name == "fedavg":
        x, y = torch.cat([sx, qx]), torch.cat([sy, qy])
        total = torch.zeros_like(params)
        for _ in range(steps):
            gradient = risk.gradient(here, x, y)
            total, here = total + gradient, here - lr * gradient
        return total.detach()
    if name == "reptile":
        for step in range(steps):
            x, y = (qx, qy) if step % 2 else (sx, sy)
            here = (here - lr * risk.gradient(here, x, y)).detach()
        return (params - here) / lr
    second = name != "fomaml"
    for step in range(steps):
        rate = risk.rate(name, lr, w, step)
        here = here - rate * risk.inner_mask(name) * risk.gradient(here, sx, sy, keep=second)
    if not second:
        return risk.gradient(here.detach(), qx, qy)
    value = risk.loss.value(functional_call(risk.module, risk.spec.unflatten(here), (qx,)), qy)
    return torch.autograd.grad(value, start)[0]
