"""One pass over a cohort gives each client what it would have computed alone, and only that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from secure_fedmeta.errors import DataError
from secure_fedmeta.meta import TaskBatch
from secure_fedmeta.pipeline import Parts, assemble
from secure_fedmeta.simulation import CohortWork
from secure_fedmeta.tasks import ClientData, round_key
from secure_fedmeta.tasks.sinusoid import SinusoidSource
from tests.secure_fedmeta.federation import tiny


@pytest.fixture(scope="module")
def parts() -> Parts:
    return assemble(tiny())


def keys(parts: Parts) -> dict[str, bytes]:
    return {name: bytes([number]) * 32 for number, name in enumerate(parts.training)}


def test_each_client_gets_what_it_would_compute_alone(parts: Parts) -> None:
    together = CohortWork(parts.learner, parts.source, keys(parts), loss=parts.loss)
    model = parts.initial()
    for name, key in keys(parts).items():
        alone = CohortWork(parts.learner, parts.source, {name: key}, loss=parts.loss)
        expected = alone.outer_vectors(name, model, round_index=3)
        found = together.outer_vectors(name, model, round_index=3)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        assert found.dtype == np.float32
        assert found.shape == (together.units(name), parts.plan.dimension)


def test_a_row_is_the_outer_vector_of_one_block(parts: Parts) -> None:
    work = CohortWork(parts.learner, parts.source, keys(parts), loss=parts.loss)
    name, model = parts.training[1], parts.initial()
    found = work.outer_vectors(name, model, round_index=2)
    draw_key = round_key(keys(parts)[name], 2)
    for row, block in zip(found, parts.source.client(name).blocks, strict=True):
        batch = TaskBatch.stack([parts.source.draw(block, 3, 3, key=draw_key)])
        expected = parts.learner.outer_vectors(model, batch)[0].numpy()
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


def test_a_model_is_computed_once_per_round(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    work = CohortWork(parts.learner, parts.source, keys(parts), loss=parts.loss)
    calls: list[int] = []
    compute = CohortWork._compute

    def counting(self: CohortWork, model: torch.Tensor, round_index: int) -> object:
        calls.append(round_index)
        return compute(self, model, round_index)

    monkeypatch.setattr(CohortWork, "_compute", counting)
    model = parts.initial()
    for name in parts.training:
        work.outer_vectors(name, model, round_index=1)
    assert calls == [1]
    again = work.outer_vectors(parts.training[0], model, round_index=2)
    other = work.outer_vectors(parts.training[0], model + 1, round_index=2)
    assert calls == [1, 2, 2]
    assert not np.array_equal(again, other)


def test_support_and_query_are_redrawn_each_round(parts: Parts) -> None:
    work = CohortWork(parts.learner, parts.source, keys(parts), loss=parts.loss)
    name, model = parts.training[0], parts.initial()
    first, second = (work.outer_vectors(name, model, round_index=index) for index in (1, 2))
    assert not np.array_equal(first, second)


def test_the_draw_is_keyed_by_the_clients_own_secret(parts: Parts) -> None:
    name, model = parts.training[0], parts.initial()
    drawn = [
        CohortWork(parts.learner, parts.source, {name: key * 32}, loss=parts.loss).outer_vectors(
            name, model, round_index=1
        )
        for key in (b"a", b"b")
    ]
    assert not np.array_equal(*drawn)


def test_a_client_without_a_task_is_named(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = SinusoidSource.client

    def without(self: SinusoidSource, name: str) -> ClientData:
        data = whole(self, name)
        return replace(data, blocks=()) if name == "client-002" else data

    monkeypatch.setattr(SinusoidSource, "client", without)
    with pytest.raises(DataError, match="'client-002' has no task with 6 examples"):
        CohortWork(parts.learner, parts.source, keys(parts), loss=parts.loss)
