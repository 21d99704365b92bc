"""ANIL: MAML whose inner steps move the head only.

Raghu, Raghu, Bengio and Vinyals (2020), arXiv 1909.09157, section 4. The head is the last
parameterised layer (`ParameterVector.head`). The outer gradient is exact and covers all
parameters, the mixed second derivatives of head and body included.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from secure_fedmeta.meta.batch import TaskBatch
from secure_fedmeta.meta.engine import Engine
from secure_fedmeta.meta.inner import InnerLoop, descend, second_order


@dataclass(frozen=True)
class Anil:
    """The exact meta-gradient when adaptation moves the head only."""

    name: str = "anil"

    def outer(self, engine: Engine, loop: InnerLoop, params: Tensor, batch: TaskBatch) -> Tensor:
        """Return each task's meta-gradient `[B, P]` at `params` `[P]`."""
        return second_order(engine, loop, params, batch, engine.spec.head)

    def adapt(
        self, engine: Engine, loop: InnerLoop, params: Tensor, x: Tensor, y: Tensor
    ) -> Tensor:
        """Return `[B, P]`: `params` after inner steps on the head; the body is unchanged."""
        return descend(engine, loop, params, x, y, engine.spec.head)
