"""The learner that a client holds: an algorithm on an engine, within a memory limit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from secure_fedmeta.errors import ConfigError
from secure_fedmeta.losses import LOSSES, Loss
from secure_fedmeta.meta.algorithm import Algorithm
from secure_fedmeta.meta.anil import Anil, AnilHead
from secure_fedmeta.meta.batch import TaskBatch
from secure_fedmeta.meta.engine import Engine, engine_for
from secure_fedmeta.meta.fedavg import FedAvg
from secure_fedmeta.meta.inner import InnerLoop
from secure_fedmeta.meta.maml import FirstOrderMaml, Maml
from secure_fedmeta.meta.meta_sgd import MetaSgd, PerLayer
from secure_fedmeta.meta.reptile import Reptile
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
        """The layout of the vectors: `spec.size` is d."""

    def initial(self, module: nn.Module) -> Tensor:
        """Return the vector `[d] float32` before any training."""

    def outer_vectors(self, params: Tensor, batch: TaskBatch) -> Tensor:
        """Return one outer vector per task, `[B, d] float32`."""

    def adapt(self, params: Tensor, x: Tensor, y: Tensor, steps: int | None = None) -> Tensor:
        """Return the vector `[d]` with the network adapted to one task's rows."""

    def adapt_many(self, params: Tensor, x: Tensor, y: Tensor, steps: int | None = None) -> Tensor:
        """Return the vectors `[B, d]` with the network adapted to each task's rows."""

    def predict(self, params: Tensor, x: Tensor) -> Tensor:
        """Return the outputs `[n, o]` of one model."""

    def predict_many(self, params: Tensor, x: Tensor) -> Tensor:
        """Return the outputs `[B, n, o]` of B models, each on its own rows."""


LEARNERS: Registry[Algorithm] = Registry(
    "learner",
    "learner.algorithm",
    "secure_fedmeta.learners",
    {
        known.name: known
        for known in (
            Maml(),
            FirstOrderMaml(),
            Reptile(),
            MetaSgd(),
            MetaSgd("meta_sgd_layer", PerLayer()),
            Anil(),
            AnilHead(),
            FedAvg(),
        )
    },
)


class Learner:
    """An algorithm, a model and a loss on one device.

    All vectors are `[d]`: the network's trainable parameters, and behind them what else the
    algorithm learns.

    Guarantees: row i of every result depends on task i's rows and on `params` alone, up to the
    rounding of float32, which may differ with the number of tasks in a pass (by about 1e-7 of each
    operation, which a model made for it can magnify), never with what the others hold; splitting a
    cohort to stay below the memory limit does not change which task gives which row; inputs are
    never changed; results are detached and on the device of `params`.
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
        self._spec = engine.spec.extended(algorithm.beside(engine.spec, loop))

    def scheduled(self, *, steps: int, lr: float) -> Learner:
        """Return this learner with another schedule of adaptation, for the same vectors.

        Learned rates are multiples of `lr`; steps beyond those that they were learned for repeat
        the last.

        Raises:
            ConfigError: `steps` below 1 or `lr` not above 0.
        """
        other = copy.copy(self)
        other._loop = replace(self._loop, steps=steps, lr=lr)
        return other

    @property
    def name(self) -> str:
        """The algorithm's name in `LEARNERS`."""
        return self._algorithm.name

    @property
    def spec(self) -> ParameterVector:
        """The layout of the vectors; `spec.size` is d."""
        return self._spec

    @property
    def network(self) -> ParameterVector:
        """The layout of the network's trainable parameters, the first P entries of a vector."""
        return self._engine.spec

    def initial(self, module: nn.Module) -> Tensor:
        """Return the vector `[d] float32` before any training: the parameters of `module`.

        Raises:
            VectorRefused: its parameters are not those that this learner was built for.
        """
        start = self.network.flatten(self._algorithm.network(module))
        return nn.functional.pad(start, (0, self.spec.size - start.numel()))

    def load_into(self, module: nn.Module, params: Tensor) -> None:
        """Copy the network's part of `params` `[d]` into the parameters of `module`, in place.

        Frozen parameters are left as they are.
        """
        self.network.load_into(module, params[: self.network.size])

    def outer_vectors(self, params: Tensor, batch: TaskBatch) -> Tensor:
        """Return each task's outer vector, a gradient-like direction that the server subtracts.

        Args:
            params: the global model, `[d]`, computed with in float32.
            batch: B tasks; B = 0 gives `[0, d]`.

        Returns:
            `[B, d] float32`. A task whose loss overflows has rows that are not finite; clipping
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
        """Return `params` `[d]` adapted to one task, `x` `[n, ...]` and `y` `[n, ...]`.

        `steps` overrides the inner steps; 0 returns a copy.
        """
        return self.adapt_many(params, x.unsqueeze(0), y.unsqueeze(0), steps)[0]

    def adapt_many(self, params: Tensor, x: Tensor, y: Tensor, steps: int | None = None) -> Tensor:
        """Return `[B, d]`: `params` `[d]` adapted to each of B tasks, `x` `[B, n, ...]`.

        What is learned beside the network is given back as it is. `steps` overrides the inner
        steps; 0 returns B copies.
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
        """Return the outputs `[n, o]` of the model `params` `[d]` on `x` `[n, ...]`."""
        return self.predict_many(params, x.unsqueeze(0))[0]

    def predict_many(self, params: Tensor, x: Tensor) -> Tensor:
        """Return outputs `[B, n, o]` on `x` `[B, n, ...]` of the models `[B, d]`, or of one `[d]`.

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
        network = here[..., : self.network.size]
        return self._engine.outputs(network, self._rows(x)).to(params.device)

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
        vectors = (6 + 2 * kept) * self.spec.size * 4
        most = self._memory
        if self._device.type == "cpu" and self._engine.pass_bytes is not None:
            most = min(most, self._engine.pass_bytes)
        return max(1, most // (tapes + vectors))

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
    rate_scale: float = 1.0,
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
        rate_scale: see `InnerLoop`.
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
        engine_for(algorithm.network(module), LOSSES.get(loss) if isinstance(loss, str) else loss),
        InnerLoop(inner_steps, inner_lr, rate_scale),
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
