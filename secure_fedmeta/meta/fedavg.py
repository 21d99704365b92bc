"""Federated averaging with fine-tuning: the baseline that does not learn to adapt.

McMahan et al. (2017), arXiv 1602.05629: each unit descends on all its rows, and the server moves
towards the mean of the results. A task is served by fine-tuning, as in Jiang et al. (2019),
arXiv 1909.12488.
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
class FedAvg(Algorithm):
    """The displacement of local descent, in units of the gradient."""

    name: str = "fedavg"

    def outer(self, engine: Engine, loop: InnerLoop, params: Tensor, batch: TaskBatch) -> Tensor:
        """Return `[B, P]`: (start - end) / lr of the inner steps over support and query rows.

        It is the sum of the gradients on the way; with one step, plain federated SGD.
        """
        x = torch.cat([batch.support_x, batch.query_x], dim=1)
        y = torch.cat([batch.support_y, batch.query_y], dim=1)
        total = engine.gradient(params, x, y)
        for _ in range(loop.steps - 1):
            here = torch.sub(params, total, alpha=loop.lr)
            with engine.reuse():
                total.add_(engine.gradient(here, x, y))
        return total

    def adapt(
        self, engine: Engine, loop: InnerLoop, params: Tensor, x: Tensor, y: Tensor
    ) -> Tensor:
        """Return `[B, P]`: `params` fine-tuned on the given rows."""
        return descend(engine, loop, params, x, y)
