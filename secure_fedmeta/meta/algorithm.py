"""What a meta-learning algorithm is: one outer vector per task, and adaptation to a task.

An algorithm decides what is *shared*: what the clients' vectors are about, what the server moves
and what is released. Its layout is the network's trainable parameters, `[P]`, and behind them
whatever else the algorithm learns, `[d]` in all. All of it is clipped, noised and summed as one
vector, so that no part needs a bound of its own.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from secure_fedmeta.meta.batch import TaskBatch
from secure_fedmeta.meta.engine import Engine
from secure_fedmeta.meta.inner import InnerLoop
from secure_fedmeta.vector import ParameterVector, Shapes


class Algorithm(Protocol):
    """A meta-learning algorithm over a whole cohort.

    A new one is one file and one line in `LEARNERS`. Inherit from this class: `network` and
    `beside` then share the network's parameters and nothing else.
    """

    @property
    def name(self) -> str:
        """The name in configs."""

    def network(self, module: nn.Module) -> nn.Module:
        """Return what is trained: `module`, or a copy of which some parameters are frozen.

        Frozen parameters are not shared. They stay as they are in `module`, which is public.
        """
        return module

    def beside(self, model: ParameterVector, loop: InnerLoop) -> Shapes:
        """Return names and shapes of what is shared behind the parameters; it starts at zero."""
        del model, loop
        return {}

    def outer(self, engine: Engine, loop: InnerLoop, params: Tensor, batch: TaskBatch) -> Tensor:
        """Return outer vectors `[B, d]` at `params` `[d]`, to be subtracted by the server."""

    def adapt(
        self, engine: Engine, loop: InnerLoop, params: Tensor, x: Tensor, y: Tensor
    ) -> Tensor:
        """Return `params` `[d]` with the network adapted to each task's rows: `[B, d]`."""
