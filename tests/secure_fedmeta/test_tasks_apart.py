"""Whatever one task of a pass holds, no bit of another's outer vector or prediction changes.

Rounding included: the claim bounds what one row of the outer vectors may do, and says nothing of a
row that follows from two tasks.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from secure_fedmeta.errors import ConfigError
from secure_fedmeta.losses import LOSSES
from secure_fedmeta.meta import LEARNERS, Learner, TaskBatch, build_learner
from secure_fedmeta.meta.functional import Each, FunctionalEngine, one_by_one, vectorised
from secure_fedmeta.models import build_model

TOKENS, CLASSES, WIDTH = 7, 3, 16
HONEST, ROWS = 4, 3
ATEN = torch.ops.aten
Fill = tuple[float | None, float | None]


class Table(nn.Module):
    """A bag of embeddings, looked up through the layer or through a function."""

    def __init__(self, look_up: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.table = nn.Embedding(TOKENS, 4)
        self.head = nn.Linear(4, CLASSES)
        self._look_up = look_up

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.to(torch.int64)
        found = self.table(tokens)
        if self._look_up is not None:
            found = self._look_up(tokens, self.table.weight)
        out: Tensor = self.head(found.mean(1))
        return out


class Normed(nn.Module):
    """Layers that take means over a row, and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.Tanh())
        self.conv = nn.Sequential(nn.Conv1d(1, 4, 3), nn.InstanceNorm1d(4), nn.GELU())
        self.head = nn.Linear(4 * (WIDTH - 2), CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.conv(self.body(x).unsqueeze(1)).flatten(1))
        return out


KINDS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: build_model("linear", WIDTH, CLASSES, seed=1),
    "mlp_tanh": lambda: build_model("mlp_tanh", WIDTH, CLASSES, (8,), seed=1),
    "conv": lambda: build_model("conv", WIDTH, CLASSES, (4,), seed=1),
    "normed": Normed,
    "char_gru": lambda: build_model("char_gru", WIDTH, TOKENS, (3,), seed=1),
    "table": Table,
    "table-by-function": lambda: Table(functional.embedding),
    "table-by-operation": lambda: Table(lambda tokens, weight: torch.embedding(weight, tokens)),
    "table-by-aten": lambda: Table(lambda tokens, weight: ATEN.embedding.default(weight, tokens)),
}
BAD: tuple[tuple[Fill, ...], ...] = (
    ((0.0, 0.0), (math.nan, None), (math.inf, None), (3e38, 1.0)),
    ((1e20, None), (1e-42, None), (None, math.nan), (None, -1.0)),
    ((float(TOKENS), None), (-1.0, None), (None, float(TOKENS)), (None, -100.0)),
)
"""What the tasks behind the honest ones hold, in turn: (inputs, targets); None: as it was."""


def learner_of(kind: str, algorithm: str) -> tuple[Learner, Tensor]:
    torch.manual_seed(5)
    net = KINDS[kind]()
    learner = build_learner(algorithm, net, "cross_entropy", inner_steps=2, device="cpu")
    return learner, learner.initial(net)


def cohort(kind: str, bad: tuple[Fill, ...]) -> TaskBatch:
    """The same honest tasks, with these behind them: float32 rows, as sources give them."""
    torch.manual_seed(6)
    tokens = kind.startswith(("char", "table"))
    tasks, width = HONEST + len(BAD[0]), 4 if tokens else WIDTH
    parts = []
    for _ in ("support", "query"):
        x = torch.randint(0, TOKENS, (tasks, ROWS, width)).float()
        x = x if tokens else torch.randn(tasks, ROWS, width)
        y = torch.randint(0, CLASSES, (tasks, ROWS)).float()
        for row, (inputs, targets) in enumerate(bad, start=HONEST):
            x[row] = x[row] if inputs is None else inputs
            y[row] = y[row] if targets is None else targets
        parts += [x, y]
    return TaskBatch(*parts)


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [(kind, name) for kind in ("mlp_tanh", "table") for name in LEARNERS.names()]
    + [(kind, "maml") for kind in KINDS if kind not in ("mlp_tanh", "table")],
)
def test_what_one_task_holds_changes_no_bit_of_another(kind: str, algorithm: str) -> None:
    learner, model = learner_of(kind, algorithm)

    def rows_of(batch: TaskBatch) -> list[Tensor]:
        adapted = learner.adapt_many(model, batch.support_x, batch.support_y)
        every = [
            learner.outer_vectors(model, batch),
            adapted,
            learner.predict_many(adapted, batch.query_x),
            learner.predict_many(model, batch.query_x),
        ]
        return [found[:HONEST] for found in every]

    before = rows_of(cohort(kind, ()))
    assert all(bool(found.isfinite().all()) and bool(found.any()) for found in before)
    for bad in BAD:
        for found, expected in zip(rows_of(cohort(kind, bad)), before, strict=True):
            assert torch.equal(found, expected)
    # Nor is anything left in memory that a later pass takes up.
    assert all(map(torch.equal, rows_of(cohort(kind, ())), before))


@pytest.mark.parametrize("kind", ["table", "char_gru"])
def test_a_number_beside_the_table_makes_its_own_task_zero(kind: str) -> None:
    learner, model = learner_of(kind, "maml")
    rows = learner.outer_vectors(model, cohort(kind, BAD[2]))
    assert rows.isfinite().all(1).tolist() == [True] * HONEST + [False] * len(BAD[2])


FILLS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "method": lambda found, rows: found.index_fill(0, rows, 1.0),
    "in place": lambda found, rows: (found + 0.0).index_fill_(0, rows, 1.0),
    "function": lambda found, rows: torch.index_fill(found, 0, rows, 1.0),
    "aten": lambda found, rows: ATEN.index_fill.int_Scalar(found, 0, rows, 1.0),
}


@pytest.mark.parametrize("how", FILLS)
def test_writing_by_number_into_the_rows_of_all_tasks_is_refused(how: str) -> None:
    def look_up(tokens: Tensor, weight: Tensor) -> Tensor:
        return FILLS[how](functional.embedding(tokens, weight), tokens[:, 0])

    learner = build_learner("maml", Table(look_up), "cross_entropy", device="cpu")
    batch = cohort("table", ())
    with pytest.raises(ConfigError, match=r"index_fill reaches from one task to another"):
        learner.outer_vectors(torch.zeros(learner.spec.size), batch)


@pytest.mark.parametrize("label", [math.nan, math.inf, -1.0, -100.0, 3.0, 1e30])
def test_a_label_of_no_class_makes_its_own_task_nan(label: float) -> None:
    loss = LOSSES.get("cross_entropy")
    assert loss.slope is not None
    outputs = torch.randn(2, ROWS, CLASSES, generator=torch.Generator().manual_seed(0))
    clean = torch.tensor([[0.0, 1.0, 2.0], [2.0, 2.0, 0.0]])
    bad = clean.clone()
    bad[1, 2] = label
    found = loss.slope(outputs, bad)
    assert torch.equal(found[0], loss.slope(outputs, clean)[0])
    assert bool(found[1].isnan().all())
    asked = outputs[1].clone().requires_grad_()
    value = loss.value(asked, bad[1])
    assert math.isnan(value.item())
    assert bool(torch.autograd.grad(value, asked)[0].isnan().all())


class Keeping(nn.Module):
    """Keeps something in a plain attribute, which no buffer and no digest shows."""

    def __init__(self, how: Callable[[Any, Tensor], object], held: object) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, CLASSES)
        self.how, self.held = how, held

    def forward(self, x: Tensor) -> Tensor:
        self.how(self, x.detach())
        out: Tensor = self.layer(x)
        return out


class Cache:
    """What a network may carry along beside its parameters."""

    def __init__(self) -> None:
        self.rows: list[Tensor] = []


KEEPING = {
    "the rows before": (lambda net, x: setattr(net, "held", x), None),
    "a new attribute": (lambda net, x: setattr(net, "last", x), None),
    "a list": (lambda net, x: net.held.append(x), []),
    "inside a dict": (lambda net, x: net.held["a"].add(x.ndim), {"a": {0}}),
    "in an object": (lambda net, x: net.held.rows.append(x), Cache()),
    "in a queue": (lambda net, x: net.held.append(x), deque(maxlen=1)),
    "in training": (lambda net, _: net.train(not net.training), None),
    "another in its place": (
        lambda net, x: net.__dict__.update(last=x) or net.__dict__.pop("held", 0),
        0,
    ),
    "a counter": (lambda net, _: setattr(net, "held", net.held + 1), 0),
    "in place": (lambda net, _: net.held.add_(1), torch.zeros(3)),
}


@pytest.mark.parametrize("each", [vectorised, one_by_one])
@pytest.mark.parametrize("kept", KEEPING)
def test_a_module_that_remembers_is_refused(kept: str, each: Each) -> None:
    how, held = KEEPING[kept]
    engine = FunctionalEngine(Keeping(how, held), LOSSES.get("cross_entropy"), each=each)
    batch = cohort("linear", ())
    with pytest.raises(
        ConfigError,
        match=r"changes (held|last|held, last|layer.training, training) in its forward pass",
    ):
        engine.gradient(torch.zeros(engine.spec.size), batch.support_x, batch.support_y)


def test_attributes_that_stay_as_they_are_are_no_state() -> None:
    """Objects that hold each other, and loggers, which change whenever they are asked."""
    loop: dict[str, object] = {"numbers": [1, 2.0, "a"], "cache": Cache()}
    loop["itself"] = loop
    logger = logging.getLogger(__name__)

    def how(net: Any, _: Tensor) -> None:
        logger.isEnabledFor(logging.CRITICAL)
        assert net.held["itself"] is net.held

    net = Keeping(how, loop)
    net.logger = logger  # type: ignore[assignment]
    engine = FunctionalEngine(net, LOSSES.get("cross_entropy"))
    batch = cohort("linear", ())
    for _ in range(2):
        engine.gradient(torch.ones(engine.spec.size), batch.support_x, batch.support_y)


def test_how_a_cohort_is_split_does_not_follow_from_what_a_task_holds() -> None:
    class Longer(nn.Module):
        """Keeps more for the way back where its rows are large; by itself it may."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.layer(x)
            for _ in range(50 if bool(x.sum() > 100) else 1):
                out = out.sin()
            return out

    held = [
        FunctionalEngine(Longer(), LOSSES.get("mse"), each=one_by_one).task_bytes(
            torch.full((1, 4, 2), size), torch.zeros(1, 4, 1)
        )
        for size in (1.0, 1e3)
    ]
    assert held[0] == held[1] > 0


def test_the_type_of_one_task_is_not_that_of_all() -> None:
    single = tuple(torch.ones(2, n).numpy() for n in (3, 1, 3, 1))
    double = (single[0].astype("float64"), *single[1:])
    with pytest.raises(ConfigError, match="equal dtypes"):
        TaskBatch.stack([single, double])
