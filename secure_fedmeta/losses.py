"""Losses with their first and second derivatives in the outputs of the model.

`value` is what is trained and measured. `slope` and `curvature` are its exact derivatives; where
they are given, stacks of linear layers get their meta-gradients in closed form (`meta.stack`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from secure_fedmeta.errors import ConfigError
from secure_fedmeta.registry import Registry


@dataclass(frozen=True)
class Loss:
    """The mean loss of one task's rows, and optionally its derivatives for whole cohorts.

    Attributes:
        name: the name in configs and reports.
        value: `(outputs [n, o], targets [n, ...]) -> scalar`, the mean over the rows.
        slope: `(outputs [B, n, o], targets [B, n, ...]) -> [B, n, o]`: the derivative of each
            task's `value` in its outputs; None if the loss has no closed form here.
        curvature: `(outputs, targets, v [B, n, o]) -> [B, n, o]`: the Hessian of each task's
            `value` in its outputs, times `v`; None together with `slope`.
    """

    name: str
    value: Callable[[Tensor, Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor] | None = None
    curvature: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error over all entries; targets `[n]` or `[n, o]`."""
    return functional.mse_loss(outputs, _like(outputs, targets))


def mse_slope(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return 2 (z - y) / (n o)."""
    return (outputs - _like(outputs, targets)).mul_(_mse_scale(outputs))


def mse_curvature(outputs: Tensor, targets: Tensor, v: Tensor) -> Tensor:
    """Return 2 v / (n o)."""
    return v * _mse_scale(outputs)


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of labels under logits.

    One output per row is the logit of label 1 (targets 0 or 1, any dtype); o >= 2 outputs are the
    logits of classes 0 to o-1 (targets `[n]`, integers). A label that names no class makes this
    task's loss NaN, and ends nobody else's pass.
    """
    if outputs.shape[-1] == 1:
        return functional.binary_cross_entropy_with_logits(outputs, _like(outputs, targets))
    labels, known = _labels(outputs, targets)
    return functional.cross_entropy(outputs, labels) * torch.where(known.all(), 1.0, math.nan)


def cross_entropy_slope(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return (p - y) / n, with p the probabilities and y the labels, one-hot for o >= 2.

    As for the value, a label that names no class makes all of its task NaN.
    """
    rows = outputs.shape[-2]
    if outputs.shape[-1] == 1:
        return (outputs.sigmoid() - _like(outputs, targets)) / rows
    labels, known = _labels(outputs, targets)
    ones = torch.full_like(labels, -1, dtype=outputs.dtype).unsqueeze(-1)
    slope = outputs.softmax(-1).scatter_add_(-1, labels.unsqueeze(-1), ones).div_(rows)
    return slope.masked_fill_(~known.all(-1)[..., None, None], math.nan)


def cross_entropy_curvature(outputs: Tensor, targets: Tensor, v: Tensor) -> Tensor:
    """Return p (1 - p) v / n for one output, else (diag(p) - p p^T) v / n."""
    rows = outputs.shape[-2]
    if outputs.shape[-1] == 1:
        p = outputs.sigmoid()
        return p * (1 - p) * v / rows
    p = outputs.softmax(-1)
    return p * (v - (p * v).sum(-1, keepdim=True)) / rows


LOSSES: Registry[Loss] = Registry(
    "loss",
    "loss",
    "secure_fedmeta.losses",
    {
        "mse": Loss("mse", mse, mse_slope, mse_curvature),
        "cross_entropy": Loss(
            "cross_entropy", cross_entropy, cross_entropy_slope, cross_entropy_curvature
        ),
    },
)


def _mse_scale(outputs: Tensor) -> float:
    return 2.0 / (outputs.shape[-2] * outputs.shape[-1])


def _labels(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return class numbers, 0 where a target names no class, and which targets name one."""
    known = (targets >= 0) & (targets < outputs.shape[-1])
    return torch.where(known, targets, 0).to(torch.int64), known


def _like(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return targets with the shape and dtype of the outputs, never broadcast."""
    if targets.numel() != outputs.numel():
        raise ConfigError(
            f"targets of shape {tuple(targets.shape)} for outputs of shape {tuple(outputs.shape)}"
        )
    return targets.reshape(outputs.shape).to(outputs.dtype)
