"""What an algorithm may ask of a model: outputs, gradients and Hessian-vector products.

Every meta-learner here is written in these operations, for a cohort at once. Reverse-mode
differentiation through inner steps theta' = theta - lr grad L(theta) needs no more: the outer
gradient is pulled back by g <- g - lr H(theta) g, with H the Hessian of the support loss (Finn et
al. 2017, arXiv 1703.03400, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor, nn

from secure_fedmeta.losses import Loss
from secure_fedmeta.meta.functional import FunctionalEngine
from secure_fedmeta.meta.stack import StackEngine
from secure_fedmeta.vector import ParameterVector

PullBack = Callable[[Tensor, Tensor, float], None]


class Engine(Protocol):
    """One model and one loss over a cohort of B tasks.

    `params` is `[P]` (the same for all tasks) or `[B, P]`; `x` is `[B, n, ...]`, `y` is
    `[B, n, ...]`. All results are detached and of the dtype of `params`.
    """

    spec: ParameterVector
    pass_bytes: int | None
    """What one pass on a CPU should hold at most, to be fast; None: as much as it may."""

    def reuse(self) -> AbstractContextManager[None]:
        """Return a block within which results may live in memory kept from earlier blocks.

        They are valid until the block ends: what is needed longer must be copied. Blocks nest.
        Outside of any block every result is memory of its own.
        """

    def outputs(self, params: Tensor, x: Tensor) -> Tensor:
        """Return the model's outputs `[B, n, o]`."""

    def gradient(self, params: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return the gradient `[B, P]` of each task's mean loss."""

    def linearise(self, params: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, PullBack]:
        """Return the gradient, and the pull-back through a step along it.

        `pull_back(outer, v, lr)` subtracts lr H v from `outer` in place, with H the Hessian of
        each task's loss at `params`; `outer` and `v` are `[B, P]` and may be one tensor. It may
        be called once; it holds what it needs until then.
        """

    def task_bytes(self, x: Tensor, y: Tensor) -> int:
        """Return an upper estimate, in bytes, of what `linearise` holds for one task."""


def engine_for(module: nn.Module, loss: Loss) -> Engine:
    """Return the closed form where the module is a plain stack of layers, else torch.func."""
    stack = StackEngine.of(module, loss)
    return stack if stack is not None else FunctionalEngine(module, loss)
