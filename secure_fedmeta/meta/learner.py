"""The learner that a client holds: an algorithm on an engine, within a memory limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from secure_fedmeta.errors import ConfigError
from secure_fedmeta.losses import LOSSES, Loss
from secure_fedmeta.meta.anil import Anil
from secure_fedmeta.meta.batch import TaskBatch
from secure_fedmeta.meta.engine import Engine, engine_for
from secure_fedmeta.meta.fedavg import FedAvg
from secure_fedmeta.meta.inner import InnerLoop
from secure_fedmeta.meta.maml import FirstOrderMaml, Maml
from secure_fedmeta.meta.threads import threads_for
from secure_fedmeta.registry import Registry
from secure_fedmeta.vector import ParameterVector


class MetaLearner(Protocol):
    """One outer vector per task, and adaptation to a task; see `Learner` for the guarantees."""

    @property
    def name(self) -> str:
        """The algorithm's name."""

    @property
    def spec(self) -> ParameterVector:
        """The layout of the vectors."""

    def outer_vectors(self, params: Tensor, batch: TaskBatch) -> Tensor:
        """Return one outer vector per task, `[B, P] float32`."""

    def adapt(self, params: Tensor, x: Tensor, y: Tensor, steps: int | None = None) -> Tensor:
        """Return the parameters `[P]` adapted to one task's rows."""

    def adapt_many(self, params: Tensor, x: Tensor, y: Tensor, steps: int | None = None) -> Tensor:
        """Return the parameters `[B, P]` adapted to each task's rows."""

    def predict(self, params: Tensor, x: Tensor) -> Tensor:
        """Return the outputs `[n, o]` of one model."""

    def predict_many(self, params: Tensor, x: Tensor) -> Tensor:
        """Return the outputs `[B, n, o]` of B models, each on its own rows."""


class Algorithm(Protocol):
    """A meta-learning algorithm over a whole cohort; a new one is one file and one line below."""

    @property
    def name(self) -> str:
        """The name in configs."""

    def outer(self, engine: Engine, loop: InnerLoop, params: Tensor, batch: TaskBatch) -> Tensor:
        """Return outer vectors `[B, P]` at `params` `[P]`, to be subtracted by the server."""

    def adapt(
        self, engine: Engine, loop: InnerLoop, params: Tensor, x: Tensor, y: Tensor
    ) -> Tensor:
        """Return adapted parameters `[B, P]`."""


LEARNERS: Registry[Algorithm] = Registry(
    "learner",
    "learner.algorithm",
    "secure_fedmeta.learners",
    {"maml": Maml(), "fomaml": FirstOrderMaml(), "anil": Anil(), "fedavg": FedAvg()},
)


class Learner:
    """An algorithm, a model and a loss on one device.

    Guarantees: row i of every result depends on task i's rows and on `params` alone, up to the
    rounding of float32, which may differ with the number of tasks in a pass (relative differences
    of about 1e-7), never with what the others hold; splitting a cohort to stay below the memory
    limit does not change which task gives which row; inputs are never changed; results are
    detached and on the device of `params`.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        engine: Engine,
        loop: InnerLoop,
        *,
        memory_bytes: int,
        device: torch.device,
    ) -> None:
        self._algorithm = algorithm
        self._engine = engine
        self._loop = loop
        self._memory = memory_bytes
        self._device = device

    @property
    def name(self) -> str:
        """The algorithm's name in `LEARNERS`."""
        return self._algorithm.name

    @property
    def spec(self) -> ParameterVector:
        """The layout of the vectors; `spec.size` is P."""
        return self._engine.spec

    def outer_vectors(self, params: Tensor, batch: TaskBatch) -> Tensor:
        """Return each task's outer vector, a gradient-like direction that the server subtracts.

        Args:
            params: the global model, `[P]`, computed with in float32.
            batch: B tasks; B = 0 gives `[0, P]`.

        Returns:
            `[B, P] float32`. A task whose loss overflows has rows that are not finite; clipping
            turns those into zero.

        Raises:
            ConfigError: shapes that do not fit the model or each other.
        """
        here = self._one(params)

        def chunk(start: int, stop: int) -> Tensor:
            part = batch[start:stop]
            there = TaskBatch(
                self._rows(part.support_x),
                part.support_y.to(self._device),
                self._rows(part.query_x),
                part.query_y.to(self._device),
            )
            return self._algorithm.outer(self._engine, self._loop, here, there)

        size = self._chunk(batch.support_x, batch.support_y, self._loop.steps)
        size = min(size, self._chunk(batch.query_x, batch.query_y, 1))
        return self._in_chunks(chunk, batch.tasks, size, params)

    def adapt(self, params: Tensor, x: Tensor, y: Tensor, steps: int | None = None) -> Tensor:
        """Return `params` `[P]` adapted to one task, `x` `[n, ...]` and `y` `[n, ...]`.

        `steps` overrides the inner steps; 0 returns a copy.
        """
        return self.adapt_many(params, x.unsqueeze(0), y.unsqueeze(0), steps)[0]

    def adapt_many(self, params: Tensor, x: Tensor, y: Tensor, steps: int | None = None) -> Tensor:
        """Return `[B, P]`: `params` `[P]` adapted to each of B tasks, `x` `[B, n, ...]`.

        `steps` overrides the inner steps; 0 returns B copies.
        """
        here = self._one(params)
        if steps == 0:
            return params.detach().to(torch.float32).expand(x.shape[0], -1).clone()
        loop = self._loop if steps is None else replace(self._loop, steps=steps)

        def chunk(start: int, stop: int) -> Tensor:
            rows, labels = self._rows(x[start:stop]), y[start:stop].to(self._device)
            return self._algorithm.adapt(self._engine, loop, here, rows, labels)

        return self._in_chunks(chunk, x.shape[0], self._chunk(x, y, 1), params)

    def predict(self, params: Tensor, x: Tensor) -> Tensor:
        """Return the outputs `[n, o]` of the model `params` `[P]` on `x` `[n, ...]`."""
        return self.predict_many(params, x.unsqueeze(0))[0]

    def predict_many(self, params: Tensor, x: Tensor) -> Tensor:
        """Return outputs `[B, n, o]` on `x` `[B, n, ...]` of the models `[B, P]`, or of one `[P]`.

        Raises:
            ConfigError: `params` has neither shape.
        """
        if params.ndim == 1:
            here = self._one(params)
        elif params.shape == (x.shape[0], self.spec.size):
            here = params.detach().to(self._device, torch.float32)
        else:
            raise ConfigError(
                f"params of shape {list(params.shape)}; allowed: [{self.spec.size}] or "
                f"[{x.shape[0]}, {self.spec.size}]"
            )
        return self._engine.outputs(here, self._rows(x)).to(params.device)

    def _rows(self, x: Tensor) -> Tensor:
        """Return inputs on the device: floats as float32, integers (tokens) as they are."""
        return x.to(self._device, torch.float32 if x.is_floating_point() else x.dtype)

    def _one(self, params: Tensor) -> Tensor:
        if params.shape != (self.spec.size,):
            raise ConfigError(f"params of shape {list(params.shape)}; allowed: [{self.spec.size}]")
        return params.detach().to(self._device, torch.float32)

    def _chunk(self, x: Tensor, y: Tensor, kept: int) -> int:
        """Return how many tasks fit into the memory limit, at least 1."""
        if x.shape[0] == 0:
            return 1
        tapes = kept * self._engine.task_bytes(self._rows(x[:1]), y[:1].to(self._device))
        vectors = (6 + kept) * self.spec.size * 4
        return max(1, self._memory // (tapes + vectors))

    def _in_chunks(
        self, chunk: Callable[[int, int], Tensor], tasks: int, size: int, params: Tensor
    ) -> Tensor:
        result = torch.empty(tasks, self.spec.size, device=params.device)
        for start in range(0, tasks, size):
            stop = min(start + size, tasks)
            with threads_for((stop - start) * self.spec.size), self._engine.reuse():
                result[start:stop] = chunk(start, stop)
        return result


def build_learner(
    name: str,
    module: nn.Module,
    loss: str | Loss,
    *,
    inner_steps: int = 1,
    inner_lr: float = 0.01,
    memory_mb: int = 512,
    device: str = "auto",
) -> Learner:
    """Build the learner called `name` for a module and a loss.

    Args:
        name: a name of `LEARNERS`.
        module: any module that `models.check_module` accepts; it is read, not kept.
        loss: a name of `losses.LOSSES`, or a `Loss` of the caller's own.
        inner_steps: steps of adaptation, 1 or more.
        inner_lr: the size of a step, greater than 0.
        memory_mb: MiB that one pass may hold at once; cohorts that need more run in parts. One
            task is always attempted.
        device: "auto" (CUDA where there is one), "cpu" or "cuda".

    Raises:
        ConfigError: a value out of range, or a module that is refused.
    """
    algorithm = LEARNERS.get(name)
    if memory_mb < 1:
        raise ConfigError("allowed: 1 or more", key="memory_mb", value=memory_mb)
    return Learner(
        algorithm,
        engine_for(module, LOSSES.get(loss) if isinstance(loss, str) else loss),
        InnerLoop(inner_steps, inner_lr),
        memory_bytes=memory_mb * 2**20,
        device=resolve_device(device),
    )


def resolve_device(name: str) -> torch.device:
    """Return the torch device for "auto", "cpu" or "cuda".

    Raises:
        ConfigError: another name, or "cuda" where there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError("allowed: auto, cpu, cuda", key="device", value=name)
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("torch finds no CUDA device", key="device", value=name)
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")
