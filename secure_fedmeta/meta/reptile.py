"""Reptile: move the start towards where descent on a task ends.

Nichol, Achiam and Schulman (2018), arXiv 1803.02999, Algorithm 2 and equation 3: with U_k the
parameters after k steps of size alpha, each on the next minibatch of the task, the server follows
(phi - U_k(phi)) / alpha. What makes it a meta-learner is that the minibatches differ (section 5):
their gradients are made to agree. Here they are the support rows and the query rows in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from secure_fedmeta.meta.algorithm import Algorithm
from secure_fedmeta.meta.batch import TaskBatch
from secure_fedmeta.meta.engine import Engine
from secure_fedmeta.meta.inner import InnerLoop, descend


@dataclass(frozen=True)
class Reptile(Algorithm):
    """The displacement of descent over two minibatches in turn, in units of the gradient."""

    name: str = "reptile"

    def outer(self, engine: Engine, loop: InnerLoop, params: Tensor, batch: TaskBatch) -> Tensor:
        """Return `[B, P]`: (start - end) / lr of the inner steps.

        Step 1 is on the support rows, step 2 on the query rows, and so on. With one step the
        query rows are not used and the result is the gradient of joint training (section 5.1).
        """
        minibatches = (batch.support_x, batch.support_y), (batch.query_x, batch.query_y)
        total = engine.gradient(params, *minibatches[0])
        for step in range(1, loop.steps):
            here = torch.sub(params, total, alpha=loop.lr)
            with engine.reuse():
                total.add_(engine.gradient(here, *minibatches[step % 2]))
        return total

    def adapt(
        self, engine: Engine, loop: InnerLoop, params: Tensor, x: Tensor, y: Tensor
    ) -> Tensor:
        """Return `[B, P]`: `params` after descent on the given rows."""
        return descend(engine, loop, params, x, y)
