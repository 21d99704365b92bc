"""MAML: learn a start from which a few gradient steps on a task do well.

Finn, Abbeel and Levine (2017), arXiv 1703.03400, Algorithm 1; the first-order variant drops the
Hessian terms (section 5.2).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from secure_fedmeta.meta.algorithm import Algorithm
from secure_fedmeta.meta.batch import TaskBatch
from secure_fedmeta.meta.engine import Engine
from secure_fedmeta.meta.inner import InnerLoop, descend, first_order, second_order


@dataclass(frozen=True)
class Maml(Algorithm):
    """The exact meta-gradient of the query loss after adaptation on the support rows."""

    name: str = "maml"

    def outer(self, engine: Engine, loop: InnerLoop, params: Tensor, batch: TaskBatch) -> Tensor:
        """Return each task's meta-gradient `[B, P]` at `params` `[P]`."""
        return second_order(engine, loop, params, batch)

    def adapt(
        self, engine: Engine, loop: InnerLoop, params: Tensor, x: Tensor, y: Tensor
    ) -> Tensor:
        """Return `[B, P]`: `params` after inner steps on all parameters."""
        return descend(engine, loop, params, x, y)


@dataclass(frozen=True)
class FirstOrderMaml(Algorithm):
    """The query gradient at the adapted parameters, taken as if adaptation were the identity."""

    name: str = "fomaml"

    def outer(self, engine: Engine, loop: InnerLoop, params: Tensor, batch: TaskBatch) -> Tensor:
        """Return each task's first-order meta-gradient `[B, P]` at `params` `[P]`."""
        return first_order(engine, loop, params, batch)

    def adapt(
        self, engine: Engine, loop: InnerLoop, params: Tensor, x: Tensor, y: Tensor
    ) -> Tensor:
        """Return `[B, P]`: `params` after inner steps on all parameters."""
        return descend(engine, loop, params, x, y)
