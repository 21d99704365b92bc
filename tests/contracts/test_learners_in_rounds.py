"""Every learner in a round of every source, under every unit and kind of noise that a run takes.

The learner decides how long a vector is and what stands in it; all that follows must hold for it:
the round releases, the server moves every coordinate by the decoded sum and nothing else, and
whatever a task's rows are, the task moves the sum by no more than the plan's bound.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from secure_fedmeta.assessed import Signal, displacement
from secure_fedmeta.meta import LEARNERS, TaskBatch
from secure_fedmeta.outcome import Release
from secure_fedmeta.pipeline import assemble
from tests.contracts.sources import SHIPPED, options_of, small_source
from tests.secure_fedmeta.federation import Federation, tiny

NOISE: dict[str, dict[str, object]] = {
    "distributed": {"privacy.unit": "task"},
    "local": {
        "privacy.unit": "task",
        "privacy.noise": "local",
        "privacy.mechanism": "gaussian",
        "training.local_steps": 2,
    },
}
"""Who adds the noise: with every learner on sources of every kind."""
UNITS: dict[str, dict[str, object]] = {
    "sampled": {"privacy.unit": "task", "privacy.rate": 0.5},
    "record": {"privacy.unit": "record"},
    "user": {"privacy.unit": "user"},
    "client": {"privacy.unit": "client"},
    "discrete-gaussian": {"privacy.unit": "task", "privacy.mechanism": "discrete-gaussian"},
}
"""Other units and draws: with every learner on sinusoids, which promise all of them."""
MODES = NOISE | UNITS
KINDS = ("sinusoid", "heart", "vowels")
"""A source for each loss and form of output: with every learner. All others with one learner, since
a learner sees no more of a source than that."""


def met_by(algorithm: str) -> list[str]:
    """The sources that a learner is tried on."""
    return [source for source in SHIPPED if source in KINDS or algorithm == "maml"]


combinations = pytest.mark.parametrize(
    ("algorithm", "source", "mode"),
    [
        pytest.param(algorithm, source, mode, id=f"{algorithm}-{source}-{mode}")
        for algorithm in LEARNERS.names()
        for source in met_by(algorithm)
        for mode in (MODES if source == "sinusoid" else NOISE)
    ],
)


def changes(algorithm: str, source: str, mode: str) -> dict[str, object]:
    """A config of one hidden layer on this source, with as many survivors as there are clients."""
    info = small_source(source).info
    clients = info.clients - len(info.held_out)
    return {
        "data.source": source,
        "data.options": options_of(source),
        "model": {"name": "mlp_tanh", "hidden": [3]},
        "learner.algorithm": algorithm,
        "learner.inner_steps": 2,
        "server": {"optimiser": "sgd", "lr": 1.0},
        "privacy.epsilon": None,
        "privacy.noise_multiplier": 1.0,
        "privacy.min_survivors": clients,
        **MODES[mode],
    }


def test_every_source_is_of_a_kind_that_all_learners_meet() -> None:
    def kind(source: str) -> tuple[str, bool]:
        info = small_source(source).info
        return info.loss, info.output_dim > 1

    assert {kind(source) for source in SHIPPED} == {kind(source) for source in KINDS}


@combinations
def test_a_round_moves_the_model_by_the_opened_sum(
    algorithm: str, source: str, mode: str, tmp_path: Path
) -> None:
    federation = Federation(tmp_path, changes(algorithm, source, mode))
    parts, before = federation.parts, federation.aggregator.model
    assert parts.plan.parameters == parts.learner.spec.size == len(before)
    assert isinstance(federation.round(1), Release)
    assert federation.refused == []
    federation.spy.check_sums()
    ((_, done),) = federation.spy.sums
    expected = before - torch.from_numpy(parts.plan.decode(done.total, round_index=1)).float()
    torch.testing.assert_close(federation.aggregator.model, expected)
    moved = federation.aggregator.model - before
    assert bool(torch.isfinite(moved).all())
    network = parts.learner.network.size
    for part in (moved[:network], moved[network:]):  # noise everywhere; an integer may still be 0
        assert int((part == 0).sum()) <= len(part) // 4


@pytest.mark.parametrize(
    ("algorithm", "source"),
    [(algorithm, source) for algorithm in LEARNERS.names() for source in met_by(algorithm)],
)
def test_one_task_moves_the_sum_within_the_bound_whatever_its_rows(
    algorithm: str, source: str
) -> None:
    parts = assemble(tiny(changes(algorithm, source, "distributed") | {"privacy.clip": 1e-3}))
    held = parts.source
    block = held.client(parts.training[0]).blocks[0]
    draw = held.draw(block, held.info.k_support, held.info.k_query, key=bytes(32))
    wild = [tuple(np.float32(size) * part for part in draw) for size in (1e3, -1e6, 1e30)]
    wild += [tuple(np.full_like(part, value) for part in draw) for value in (np.inf, np.nan)]
    if held.info.loss == "cross_entropy":  # targets are labels
        wild = [(sx, draw[1], qx, np.roll(draw[3], 1)) for sx, _, qx, _ in wild]
    rows = parts.learner.outer_vectors(parts.initial(), TaskBatch.stack([draw, *wild])).numpy()
    lengths = []
    for row in rows:
        moved = displacement(parts.plan, Signal(row[None]), bytes(32), round_index=1)
        assert moved.shape == (parts.plan.dimension,)
        lengths.append(float(np.linalg.norm(moved.astype(np.float64))))
    assert max(lengths) <= parts.plan.l2
    assert lengths[0] > 0.9 * parts.plan.clip * parts.plan.scale  # the bound was reached
