"""What the server does with a released aggregate: pure functions from state to state.

All of it is post-processing of released sums and costs no privacy. Directions are gradient-like:
they are subtracted. Momentum, Adam and Yogi as server optimisers follow Reddi et al. (2021, arXiv
2003.00295, Algorithm 2); iterate averaging is Polyak and Juditsky (1992), here over a tail that
starts at a public round, because under noise the mean of the last iterates is better than the last
one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from math import isfinite

import torch
from torch import Tensor

from secure_fedmeta.errors import ConfigError
from secure_fedmeta.registry import Registry


@dataclass(frozen=True)
class ServerState:
    """Everything that the next update depends on; tensors are `[P] float64`, never changed.

    Attributes:
        params: the current iterate, at which the next round's outer vectors are taken.
        average: the model to evaluate and hand out: the mean of the tail's iterates so far, or
            `params` before the tail.
        first: the momentum or first moment; zero for plain SGD.
        second: the second moment; zero but for Adam and Yogi.
        rounds: updates done.
        averaged: iterates in `average`; 0 before the tail.
    """

    params: Tensor
    average: Tensor
    first: Tensor
    second: Tensor
    rounds: int
    averaged: int

    def tensors(self) -> dict[str, Tensor]:
        """Return copies of all fields as tensors by name, for a safetensors checkpoint."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: torch.as_tensor(value).clone() for name, value in held.items()}

    @classmethod
    def from_tensors(cls, held: Mapping[str, Tensor]) -> ServerState:
        """Return the state whose `tensors()` these are.

        Raises:
            ConfigError: names, dtypes or shapes that `tensors` never gives, or a value that is
                not finite.
        """
        names = {field.name for field in fields(cls)}
        if set(held) != names:
            raise ConfigError(f"server state holds {sorted(held)}; allowed: {sorted(names)}")
        size = held["params"].numel()
        vectors = {n: _vector(n, held[n], size) for n in ("params", "average", "first", "second")}
        return cls(
            **vectors,
            rounds=_counter("rounds", held["rounds"]),
            averaged=_counter("averaged", held["averaged"]),
        )


@dataclass(frozen=True)
class ServerOptimiser:
    """A rule `(init, update)` with its public constants.

    Attributes:
        name: a name of `SERVER_OPTIMISERS`.
        lr: the step size, greater than 0.
        momentum: decay of `first`, in [0, 1).
        second_decay: beta2 of Adam and Yogi, in [0, 1).
        floor: Adam's epsilon and Yogi's tau, greater than 0.
        average_from: the first round (from 1) whose iterate is averaged; None for no averaging.

    Raises:
        ConfigError: an unknown name or a constant out of range.
    """

    name: str
    lr: float
    momentum: float = 0.9
    second_decay: float = 0.99
    floor: float = 1e-8
    average_from: int | None = None

    def __post_init__(self) -> None:
        SERVER_OPTIMISERS.get(self.name)
        for key, value in [("lr", self.lr), ("floor", self.floor)]:
            if not (isfinite(value) and value > 0):
                raise ConfigError("allowed: greater than 0", key=f"server.{key}", value=value)
        for key, value in [("momentum", self.momentum), ("second_decay", self.second_decay)]:
            if not 0 <= value < 1:
                raise ConfigError("allowed: 0 to below 1", key=f"server.{key}", value=value)
        if self.average_from is not None and self.average_from < 1:
            raise ConfigError(
                "allowed: 1 or more", key="server.average_from", value=self.average_from
            )

    def init(self, params: Tensor) -> ServerState:
        """Return the state before the first round; `params` `[P]` is copied to float64.

        Raises:
            ConfigError: not a vector, or a value that is not finite.
        """
        start = _vector("params", params, params.numel())
        zero = torch.zeros_like(start)
        return ServerState(start, start, zero, zero, rounds=0, averaged=0)

    def update(self, state: ServerState, direction: Tensor) -> ServerState:
        """Return the state after subtracting a step along `direction` `[P]`, any float dtype.

        Raises:
            ConfigError: the direction has another length, or a value that is not finite.
        """
        g = _vector("direction", direction, state.params.numel())
        step, first, second = SERVER_OPTIMISERS.get(self.name)(self, state, g)
        params = state.params - self.lr * step
        rounds = state.rounds + 1
        if self.average_from is None or rounds < self.average_from:
            return ServerState(params, params, first, second, rounds, averaged=0)
        averaged = state.averaged + 1
        before = state.average if state.averaged else params
        average = before + (params - before) / averaged
        return ServerState(params, average, first, second, rounds, averaged)


Step = tuple[Tensor, Tensor, Tensor]  # the step before lr, and the next first and second
Rule = Callable[[ServerOptimiser, ServerState, Tensor], Step]


def sgd(optimiser: ServerOptimiser, state: ServerState, g: Tensor) -> Step:
    """Step along the direction itself."""
    del optimiser
    return g, state.first, state.second


def momentum(optimiser: ServerOptimiser, state: ServerState, g: Tensor) -> Step:
    """Heavy ball: m <- momentum m + g; the step is m."""
    first = optimiser.momentum * state.first + g
    return first, first, state.second


def adam(optimiser: ServerOptimiser, state: ServerState, g: Tensor) -> Step:
    """Kingma and Ba (2015, arXiv 1412.6980), Algorithm 1, with bias correction."""
    t = state.rounds + 1
    first = optimiser.momentum * state.first + (1 - optimiser.momentum) * g
    second = optimiser.second_decay * state.second + (1 - optimiser.second_decay) * g * g
    m = first / (1 - optimiser.momentum**t)
    v = second / (1 - optimiser.second_decay**t)
    return m / (v.sqrt() + optimiser.floor), first, second


def yogi(optimiser: ServerOptimiser, state: ServerState, g: Tensor) -> Step:
    """FedYogi of Reddi et al. (2021), Algorithm 2: the second moment moves by a bounded amount.

    v <- v - (1 - beta2) g^2 sign(v - g^2), from v = tau^2, and the step is m / (sqrt(v) + tau).
    Where gradients become small, v comes down slowly and the step size does not jump, as Adam's
    does. As published, nothing is corrected for the start from zero.
    """
    before = state.second if state.rounds else torch.full_like(g, optimiser.floor**2)
    square = g * g
    first = optimiser.momentum * state.first + (1 - optimiser.momentum) * g
    second = before - (1 - optimiser.second_decay) * square * (before - square).sign()
    return first / (second.sqrt() + optimiser.floor), first, second


SERVER_OPTIMISERS: Registry[Rule] = Registry(
    "server optimiser",
    "server.optimiser",
    "secure_fedmeta.server_optimisers",
    {"sgd": sgd, "momentum": momentum, "adam": adam, "yogi": yogi},
)


def _vector(name: str, tensor: Tensor, size: int) -> Tensor:
    """Return a detached float64 copy of a finite vector."""
    if tensor.shape != (size,) or size == 0:
        raise ConfigError(f"{name} has shape {list(tensor.shape)}; allowed: [{size or 'P'}]")
    if not tensor.is_floating_point():
        raise ConfigError(f"{name} is {tensor.dtype}; allowed: a floating dtype")
    if not bool(torch.isfinite(tensor).all()):
        raise ConfigError(f"{name} holds a value that is not finite")
    return tensor.detach().to(torch.float64, copy=True)


def _counter(name: str, tensor: Tensor) -> int:
    if tensor.shape != () or tensor.dtype != torch.int64 or tensor < 0:
        raise ConfigError(f"server state: {name} must be one int64, 0 or more")
    return int(tensor)
