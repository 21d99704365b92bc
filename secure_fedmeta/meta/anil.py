"""ANIL: MAML whose inner steps move the head only.

Raghu, Raghu, Bengio and Vinyals (2020), arXiv 1909.09157, section 4. The head is the last
parameterised layer (`ParameterVector.head`). The outer gradient is exact and covers all
parameters, the mixed second derivatives of head and body included.

`AnilHead` shares the head alone. The body stays at its public start and learns nothing; the vector,
and with it the norm of the noise, is only as long as the head.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import Tensor, nn

from secure_fedmeta.meta.algorithm import Algorithm
from secure_fedmeta.meta.batch import TaskBatch
from secure_fedmeta.meta.engine import Engine
from secure_fedmeta.meta.inner import InnerLoop, descend, second_order
from secure_fedmeta.meta.maml import Maml
from secure_fedmeta.vector import ParameterVector


@dataclass(frozen=True)
class Anil(Algorithm):
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


@dataclass(frozen=True)
class AnilHead(Maml):
    """MAML of the head on a frozen body, which is not shared: `params` are the head's alone."""

    name: str = "anil_head"

    def network(self, module: nn.Module) -> nn.Module:
        """Return a copy of `module` in which only the last parameterised layer is trainable."""
        shared = set(ParameterVector.of(module).head_names)
        result = copy.deepcopy(module)
        for name, parameter in result.named_parameters():
            if name not in shared:
                parameter.requires_grad_(False)
        return result
