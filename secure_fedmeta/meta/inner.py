"""The inner loop that all algorithms share, and the exact way back through it."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from secure_fedmeta.errors import ConfigError
from secure_fedmeta.meta.batch import TaskBatch
from secure_fedmeta.meta.engine import Engine


@dataclass(frozen=True)
class InnerLoop:
    """Full-batch gradient descent.

    Attributes:
        steps: 1 or more.
        lr: the size of a step, greater than 0; learned rates start there.
        rate_scale: public factor, greater than 0, between what is shared of a learned rate and
            what it does; see `meta_sgd`. Algorithms without learned rates do not use it.
    """

    steps: int
    lr: float
    rate_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError("allowed: 1 or more", key="learner.inner_steps", value=self.steps)
        for key, value in (("inner_lr", self.lr), ("rate_scale", self.rate_scale)):
            if not (isfinite(value) and value > 0):
                raise ConfigError("allowed: greater than 0", key=f"learner.{key}", value=value)


WHOLE = slice(None)


def descend(
    engine: Engine, loop: InnerLoop, params: Tensor, x: Tensor, y: Tensor, part: slice = WHOLE
) -> Tensor:
    """Return `[B, P]`: `params` after the loop's steps on `(x, y)`, moving only `part`."""
    here = params.expand(x.shape[0], params.shape[-1]).clone()
    at = params  # one vector for all tasks takes cheaper products than equal rows
    for _ in range(loop.steps):
        with engine.reuse():
            here[:, part].sub_(engine.gradient(at, x, y)[:, part], alpha=loop.lr)
        at = here
    return here


def first_order(
    engine: Engine, loop: InnerLoop, params: Tensor, batch: TaskBatch, part: slice = WHOLE
) -> Tensor:
    """Return `[B, P]`: the query gradient at the adapted parameters."""
    adapted = descend(engine, loop, params, batch.support_x, batch.support_y, part)
    return engine.gradient(adapted, batch.query_x, batch.query_y)


def second_order(
    engine: Engine, loop: InnerLoop, params: Tensor, batch: TaskBatch, part: slice = WHOLE
) -> Tensor:
    """Return `[B, P]`: the gradient of the query loss after adaptation, in the start `params`.

    One step is theta' = theta - lr M grad L(theta), with M the projection onto `part`; its
    transposed Jacobian is I - lr H M, applied from the last step to the first.
    """
    pull_backs = []
    for _ in range(loop.steps):
        gradient, pull_back = engine.linearise(params, batch.support_x, batch.support_y)
        pull_backs.append(pull_back)
        params = _step(params, gradient, loop.lr, part)
    outer = engine.gradient(params, batch.query_x, batch.query_y)
    while pull_backs:
        pull_backs.pop()(outer, _project(outer, part), loop.lr)
    return outer


def _step(params: Tensor, gradient: Tensor, lr: float, part: slice) -> Tensor:
    """Return params - lr M gradient, in the memory of `gradient`."""
    moved = _project(gradient, part)
    return torch.sub(params, moved, alpha=lr, out=gradient)


def _project(vectors: Tensor, part: slice) -> Tensor:
    """Return M v: the vectors with zeros outside of `part`."""
    if part == WHOLE:
        return vectors
    result = torch.zeros_like(vectors)
    result[:, part] = vectors[:, part]
    return result
