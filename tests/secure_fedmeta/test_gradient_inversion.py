"""Gradient inversion: the rows of a task stand in its outer vector, and in nothing one is given.

A hidden unit's row of the first layer's gradient is a sum of inputs, weighted by that unit's bias
gradient. Behind a ReLU some units are on for one example alone, and weight / bias of such a unit is
the example (Phong et al. 2017; Zhu, Liu and Han 2019 for the idea). Units that agree give it away.

What the aggregator sees is attacked with more help than it has: it is told 20 rows drawn alike, one
of which is the victim's support row, and only has to say which (the row that some unit's gradient
is closest to in angle). If its view says nothing, every rank is as likely, so that in 30 rounds the
number of right answers is Binomial(30, 1/20): exactly, whatever the model. An attack counts as
successful from 11 right answers on.

Alpha: P(Bin(30, 1/20) >= 11) < 1e-6. Power: an attack that is right three times in four passes with
probability > 1 - 1e-5. `test_alpha_and_power` has both. In weakened builds it is right every time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from crypto.ring import Ring
from privacy.noise import SAMPLERS
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from secure_fedmeta.meta import TaskBatch, build_learner
from secure_fedmeta.models import build_model
from tests.crypto.harness import Run, input_step, make_terms, payload_of

FEATURES, HIDDEN = 16, 256
CLIENTS, VICTIM = 3, 2
ROUNDS, ROWS, SUCCESS = 30, 20, 11
LEARNER = {
    name: build_learner(
        name, build_model("mlp", FEATURES, 1, (HIDDEN,), seed=7), "mse", inner_lr=0.5, device="cpu"
    )
    for name in ("maml", "fomaml", "fedavg")
}
MODEL = LEARNER["maml"].spec.flatten(build_model("mlp", FEATURES, 1, (HIDDEN,), seed=7))
# Epsilon 3 in a single round: as much as a whole run is usually given.
PLAN = PrivacyPlan.calibrated(
    epsilon=3.0,
    delta=1e-6,
    rounds=1,
    clip=1.0,
    parameters=MODEL.numel(),
    expected_units=CLIENTS,
    max_units_per_client=1,
    clients=CLIENTS,
    min_survivors=CLIENTS,
    max_colluders=0,
    person_units=1,
)
RING = Ring.for_sum(
    max_abs=PLAN.max_abs,
    clients=CLIENTS,
    noise_std=PLAN.noise_std(CLIENTS),
    dimension=PLAN.dimension,
)
Vector = NDArray[np.float64]


def task(rows: Vector, rng: np.random.Generator) -> TaskBatch:
    """One task: the first row is its support, the rest its query."""
    x = torch.as_tensor(rows, dtype=torch.float32)[None]
    y = torch.as_tensor(rng.normal(size=(1, len(rows))), dtype=torch.float32)
    return TaskBatch(x[:, :1], y[:, :1], x[:, 1:], y[:, 1:])


def outer(batch: TaskBatch, algorithm: str = "maml") -> NDArray[np.float32]:
    return LEARNER[algorithm].outer_vectors(MODEL, batch).numpy()


def first_layer(vector: Vector) -> tuple[Vector, Vector]:
    """Gradients of the first layer's weights [hidden, features] and biases [hidden]."""
    named = LEARNER["maml"].spec.unflatten(torch.as_tensor(vector, dtype=torch.float64))
    weights, biases, *_ = named.values()
    assert weights.shape == (HIDDEN, FEATURES)
    return weights.numpy(), biases.numpy()


# --- from a plain vector --------------------------------------------------------------------------


def inverted(vector: Vector, tolerance: float) -> list[Vector]:
    """Examples that stand in an outer vector: inputs on which five units or more agree.

    Nothing but the vector and the model's layout is used.
    """
    weights, biases = first_layer(vector)
    alive = np.abs(biases) > 1e-3 * np.abs(biases).max()
    inputs = weights[alive] / biases[alive, None]
    found: list[Vector] = []
    for one in inputs:
        near = np.linalg.norm(inputs - one, axis=1) < tolerance * np.linalg.norm(one)
        example = np.median(inputs[near], axis=0)
        if near.sum() >= 5 and all(np.linalg.norm(example - e) > 0.1 for e in found):
            found.append(example)
    return found


def nearest(found: list[Vector], row: Vector) -> float:
    """Relative distance of a row to the nearest of the examples found."""
    return min((np.linalg.norm(e - row) / np.linalg.norm(row) for e in found), default=np.inf)


@pytest.mark.parametrize("algorithm", ["maml", "fedavg"])
@pytest.mark.parametrize("seed", range(3))
def test_a_plain_vector_gives_back_its_support_and_query_rows(algorithm: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(2, FEATURES))
    found = inverted(outer(task(rows, rng), algorithm)[0], tolerance=1e-3)
    assert nearest(found, rows[0]) < 1e-4
    assert nearest(found, rows[1]) < 1e-4
    # In a single step of fedavg, units that are on for both rows agree too: on one mixture.
    assert len(found) == (3 if algorithm == "fedavg" else 2)


def test_first_order_vectors_give_back_query_rows_only() -> None:
    """No first-layer gradient of a support row is in it; the step on that row moved the point."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, FEATURES))
    found = inverted(outer(task(rows, rng), "fomaml")[0], tolerance=1e-3)
    assert nearest(found, rows[1]) < 1e-4
    assert nearest(found, rows[0]) > 0.3


# --- from what the aggregator is given ------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """What a round of masking shows of the victim, and what was to be kept from it."""

    upload: Vector
    total: Vector
    rows: Vector
    support: int


def played(seed: int) -> View:
    """A round of three clients with one task each; the upload is read as if it were a vector."""
    rng = np.random.default_rng([77, seed])
    rows = rng.normal(size=(ROWS, FEATURES))
    support = int(rng.integers(ROWS))
    vectors = {}
    for client in range(1, CLIENTS + 1):
        own = rng.normal(size=(2, FEATURES))
        if client == VICTIM:
            own[0] = rows[support]
        noise = SecureRandom.from_key(rng.bytes(32))
        vectors[client] = PLAN.encode(outer(task(own, rng)), noise, round_index=0)
    terms = make_terms(CLIENTS, length=PLAN.dimension, bits=RING.bits)
    run = Run("masking", terms, vectors, seed)
    done = run.drive()
    assert done.contributors == terms.cohort
    sent = payload_of(run.answers[input_step("masking")][VICTIM])
    packed = sent[-RING.packed_size(PLAN.dimension) :]
    upload = RING.decode(RING.unpack(packed, PLAN.dimension)) / PLAN.scale
    return View(upload, PLAN.decode(done.total, round_index=0), rows, support)


def guess(vector: Vector, rows: Vector) -> int:
    """The row that comes closest in angle to some hidden unit's gradient."""
    weights = first_layer(vector)[0]
    norms = np.linalg.norm(weights, axis=1)
    weights = weights[norms > 1e-2 * norms.max()]
    cosines = (
        weights @ rows.T / np.outer(np.linalg.norm(weights, axis=1), np.linalg.norm(rows, axis=1))
    )
    return int(np.argmax(np.abs(cosines).max(axis=0)))


def hits(look: Callable[[View], Vector]) -> int:
    """How often the victim's support row is guessed."""
    views = [played(seed) for seed in range(ROUNDS)]
    return sum(guess(look(view), view.rows) == view.support for view in views)


def without_masks(patch: pytest.MonkeyPatch) -> None:
    """A build whose streams are empty: the sum is right, and uploads are in clear."""
    patch.setattr("crypto.prg._blocks", lambda accumulator, key: iter(()))


def without_noise(patch: pytest.MonkeyPatch) -> None:
    """A build that forgets the noise."""
    silent = dict.fromkeys(SAMPLERS, lambda variance, size, rng: np.zeros(size, np.int64))
    patch.setattr("privacy.plan.SAMPLERS", silent)


def test_alpha_and_power() -> None:
    assert stats.binom.sf(SUCCESS - 1, ROUNDS, 1 / ROWS) < 1e-6
    assert stats.binom.cdf(SUCCESS - 1, ROUNDS, 0.75) < 1e-5


def test_a_masked_upload_says_nothing_about_a_support_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks alone: noise is switched off, so that nothing else can hide the row."""
    without_noise(monkeypatch)
    assert hits(lambda view: view.upload) < SUCCESS
    with monkeypatch.context() as weakened:
        without_masks(weakened)
        assert hits(lambda view: view.upload) == ROUNDS
        view = played(0)
        found = inverted(view.upload, tolerance=0.05)
        assert nearest(found, view.rows[view.support]) < 0.02


def test_the_noisy_sum_says_nothing_about_a_support_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise alone: the sum is what everybody learns. Without noise masks do not help."""
    assert hits(lambda view: view.total) < SUCCESS
    with monkeypatch.context() as weakened:
        without_noise(weakened)
        assert hits(lambda view: view.total) == ROUNDS
