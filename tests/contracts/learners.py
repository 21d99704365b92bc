"""Models, losses and tasks that every learner is tried on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from secure_fedmeta.losses import LOSSES
from secure_fedmeta.meta import LEARNERS, Learner, TaskBatch
from secure_fedmeta.meta.engine import Engine, engine_for
from secure_fedmeta.meta.functional import FunctionalEngine, one_by_one
from secure_fedmeta.meta.inner import InnerLoop
from secure_fedmeta.models import build_model
from secure_fedmeta.vector import ParameterVector
from tests.secure_fedmeta import reference

TASKS, STEPS, LR = 5, 3, 0.1
CPU = torch.device("cpu")


class Recurrent(nn.Module):
    """Reads a row of four numbers one after the other."""

    def __init__(self, kind: type[nn.RNNBase], outputs: int) -> None:
        super().__init__()
        self.recurrent = kind(1, 5, num_layers=2, batch_first=True)  # type: ignore[call-arg]
        self.head = nn.Linear(5, outputs)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.recurrent(x.unsqueeze(-1))
        return self.head(states[:, -1])


class Residual(nn.Module):
    """Not a stack: a skip connection, a constant buffer, layer norm and a convolution."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(1, 3, kernel_size=3, padding=1)
        self.norm = nn.LayerNorm(12)
        self.body = nn.Linear(12, 12)
        self.head = nn.Linear(12, outputs)
        self.register_buffer("centre", torch.full((4,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        features = self.mix((x - self.centre).unsqueeze(-2)).flatten(-2)
        hidden = torch.nn.functional.gelu(self.body(self.norm(features))) + features
        return self.head(hidden)


@dataclass(frozen=True)
class Case:
    """A model, a loss and tasks that fit both."""

    model: Callable[[], nn.Module]
    loss: str
    outputs: int
    classes: int | None

    def batch(self, *, seed: int = 0, tasks: int = TASKS) -> TaskBatch:
        g = torch.Generator().manual_seed(seed)

        def targets(rows: int) -> Tensor:
            if self.classes is None:
                return torch.randn(tasks, rows, self.outputs, generator=g)
            return torch.randint(0, self.classes, (tasks, rows), generator=g)

        return TaskBatch(
            torch.randn(tasks, 6, 4, generator=g),
            targets(6),
            torch.randn(tasks, 9, 4, generator=g),
            targets(9),
        )


def _seeded(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        return build()


CASES = {
    "linear": Case(lambda: build_model("linear", 4, 1, seed=1), "cross_entropy", 1, 2),
    "relu": Case(lambda: build_model("mlp", 4, 2, (8, 5), seed=1), "mse", 2, None),
    "tanh": Case(lambda: build_model("mlp_tanh", 4, 1, (8, 5), seed=1), "mse", 1, None),
    "binary": Case(lambda: build_model("mlp_tanh", 4, 1, (7,), seed=1), "cross_entropy", 1, 2),
    "classes": Case(lambda: build_model("mlp", 4, 3, (8,), seed=1), "cross_entropy", 3, 3),
    "conv": Case(lambda: build_model("conv", 4, 3, (6, 5), seed=1), "cross_entropy", 3, 3),
    "residual": Case(lambda: _seeded(lambda: Residual(3)), "cross_entropy", 3, 3),
    "lstm": Case(lambda: _seeded(lambda: Recurrent(nn.LSTM, 3)), "cross_entropy", 3, 3),
    "gru": Case(lambda: _seeded(lambda: Recurrent(nn.GRU, 1)), "mse", 1, None),
}
GENERAL = {"conv", "residual", "lstm", "gru"}  # modules for which there is no closed form
ENGINES = [
    pytest.param(case, kind, id=f"{case}-{kind}")
    for case in CASES
    for kind in ("chosen", "general", "loop")
    if kind == "chosen" or case not in (GENERAL if kind == "general" else ("lstm", "gru"))
]


def make(
    algorithm: str, case: str, kind: str, *, steps: int = STEPS, memory_bytes: int = 2**29
) -> tuple[Learner, nn.Module]:
    rule, loss = LEARNERS.get(algorithm), LOSSES.get(CASES[case].loss)
    module = rule.network(CASES[case].model())
    engine: Engine = engine_for(module, loss)
    if kind != "chosen":
        engine = FunctionalEngine(module, loss, each=one_by_one if kind == "loop" else None)
    loop = InnerLoop(steps, LR, reference.RATE_SCALE)
    return Learner(rule, engine, loop, memory_bytes=memory_bytes, device=CPU), module


def at_rest(learner: Learner, module: nn.Module) -> Tensor:
    """The start of training, but for the numbers behind the network: they are not zero here."""
    params = learner.initial(module)
    size = ParameterVector.of(module).size
    g = torch.Generator().manual_seed(4)
    params[size:] = torch.randn(len(params) - size, generator=g)
    return params
