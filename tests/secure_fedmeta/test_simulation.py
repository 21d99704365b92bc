"""One pass over a cohort gives each client what it would have computed alone, and only that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from secure_fedmeta.errors import ConfigError, DataError
from secure_fedmeta.meta import Learner, TaskBatch
from secure_fedmeta.pipeline import Parts, assemble
from secure_fedmeta.simulation import CohortWork
from secure_fedmeta.tasks import ClientData, TaskBlock, round_key
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

    def counting(self: CohortWork, group: object, model: object, round_index: int) -> object:
        calls.append(round_index)
        return compute(self, group, model, round_index)  # type: ignore[arg-type]

    monkeypatch.setattr(CohortWork, "_compute", counting)
    model = parts.initial()
    for name in parts.training:
        work.outer_vectors(name, model, round_index=1)
    assert calls == [1]
    again = work.outer_vectors(parts.training[0], model, round_index=2)
    other = work.outer_vectors(parts.training[0], model + 1, round_index=2)
    assert calls == [1, 2, 2]
    assert not np.array_equal(again, other)


def test_groups_of_clients_give_what_all_together_give(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for two clients: groups of two in the roster's order, each computed once in a round."""
    place = 4 * (parts.learner.spec.size + 6 * 2)
    room = {"loss": parts.loss, "group_bytes": 2 * BOUND * place + place - 1}
    grouped = CohortWork(parts.learner, parts.source, keys(parts), **room)  # type: ignore[arg-type]
    together = CohortWork(parts.learner, parts.source, keys(parts), loss=parts.loss)
    computed: list[object] = []
    compute = CohortWork._compute

    def counting(self: CohortWork, group: object, model: object, round_index: int) -> object:
        computed.append(group)
        return compute(self, group, model, round_index)  # type: ignore[arg-type]

    asked = {"round_index": 2, "names": ("query_loss",)}
    model = parts.initial()
    for name in parts.training:
        expected = together.outer_vectors(name, model, round_index=2)
        losses = together.measured(name, model, **asked)  # type: ignore[arg-type]
        with monkeypatch.context() as patch:
            patch.setattr(CohortWork, "_compute", counting)
            found = grouped.outer_vectors(name, model, round_index=2)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        measured = grouped.measured(name, model, **asked)  # type: ignore[arg-type]
        np.testing.assert_allclose(measured, losses, rtol=1e-5)
    assert computed == [parts.training[:2], parts.training[2:]]
    alone = CohortWork(parts.learner, parts.source, keys(parts), loss=parts.loss, group_bytes=1)
    assert list(alone._groups.values()) == [(name,) for name in parts.training]


def test_groups_follow_from_the_declared_bounds(parts: Parts) -> None:
    whole = holding((0, 1, 2, 3, 4), parts)
    for kept in ((0,), (1, 4)):
        assert holding(kept, parts)._grouped(1000) == whole._grouped(1000)
    assert len(set(whole._grouped(1000).values())) == 2


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


# --- the same shape whatever a client holds -----------------------------------------------------

BOUND = 5


def holding(blocks: tuple[int, ...], parts: Parts) -> CohortWork:
    """Work of all clients, the first of which holds only these of its five tasks."""
    whole = SinusoidSource.client

    def fewer(self: SinusoidSource, name: str) -> ClientData:
        data = whole(self, name)
        kept = tuple(data.blocks[i] for i in blocks)
        return replace(data, blocks=kept) if name == parts.training[0] else data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SinusoidSource, "client", fewer)
        return CohortWork(parts.learner, parts.source, keys(parts), loss=parts.loss)


@pytest.fixture(params=[("linear", []), ("mlp", [64]), ("mlp_tanh", [90, 90])], ids=str)
def cohort(request: pytest.FixtureRequest) -> Parts:
    """The last one needs several passes of some tasks each: a client's lie across their borders."""
    name, hidden = request.param
    changes = {"model.name": name, "model.hidden": hidden, "compute.memory_mb": 1}
    return assemble(tiny(changes))


@pytest.mark.parametrize("kept", [(0, 1, 2, 3), (1, 2, 3, 4), (0, 3), (2,)])
def test_a_task_more_changes_no_bit_of_another(
    cohort: Parts, kept: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An aggregator can send a model that magnifies the last bit to any size.

    The other tasks' places have one distribution with the task and without it: here they are taken
    to be the same.
    """
    name, other = cohort.training[:2]
    whole, part = holding((0, 1, 2, 3, 4), cohort), holding(kept, cohort)
    places = whole._drawn_places(name, 1)
    drawn = CohortWork._drawn_places

    def coupled(self: CohortWork, client: str, round_index: int) -> object:
        if (self, client) == (part, name):
            return places[list(kept)]
        return drawn(self, client, round_index)

    monkeypatch.setattr(CohortWork, "_drawn_places", coupled)
    asked = {"round_index": 1, "names": ("query_loss", "query_loss_unadapted")}
    model = cohort.initial()
    for client, rows in ((name, list(kept)), (other, [0, 1, 2, 3, 4])):
        before = whole.outer_vectors(client, model, round_index=1)[rows]
        assert np.array_equal(part.outer_vectors(client, model, round_index=1), before)
        assert np.any(before)
        measured = whole.measured(client, model, **asked)[rows]  # type: ignore[arg-type]
        assert np.array_equal(part.measured(client, model, **asked), measured)  # type: ignore[arg-type]


def test_the_largest_network_needs_several_passes_for_one_client() -> None:
    changes = {"model.name": "mlp_tanh", "model.hidden": [90, 90], "compute.memory_mb": 1}
    parts = assemble(tiny(changes))
    work = holding((0,), parts)
    batch = work._batch(parts.training, work._rows(parts.training, 1), 1)
    assert isinstance(parts.learner, Learner)
    at_once = parts.learner._chunk(batch.support_x, batch.support_y, 1)
    assert at_once < BOUND
    assert BOUND % at_once


@pytest.mark.parametrize("what", ["dtype", "shape"])
def test_the_first_task_decides_nothing_for_the_others(
    what: str, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels of a first task that are integers would cut off those of all others."""
    plain = SinusoidSource.draw
    first = holding((0,), parts)._blocks[parts.training[0]][0].id

    def odd(self: SinusoidSource, block: TaskBlock, *rest: int, key: bytes) -> tuple[object, ...]:
        sx, sy, qx, qy = plain(self, block, *rest, key=key)
        if block.id == first:
            sy = sy.astype(np.int64) if what == "dtype" else sy[:1]
        return sx, sy, qx, qy

    monkeypatch.setattr(SinusoidSource, "draw", odd)
    work = CohortWork(parts.learner, parts.source, keys(parts), loss=parts.loss)
    with pytest.raises(ConfigError, match="one shape and dtype"):
        work.outer_vectors(parts.training[0], parts.initial(), round_index=1)


def test_the_shape_of_a_pass_follows_from_the_declared_bounds(parts: Parts) -> None:
    clients = len(parts.training)
    for kept in ((0,), (1, 4), (0, 1, 2, 3, 4)):
        work = holding(kept, parts)
        for names, round_index in ((parts.training, 1), (parts.training[:1], 2)):
            batch = work._batch(names, work._rows(names, round_index), round_index)
            assert batch.tasks == BOUND * len(names)
            filled = (batch.support_x != 0).flatten(1).any(1)
            assert int(filled.sum()) == len(kept) + BOUND * (len(names) - 1)
        rows = work._rows(parts.training, 1)
        assert len(set(np.concatenate(list(rows.values())))) == len(kept) + BOUND * (clients - 1)
        assert rows[parts.training[1]].min() >= BOUND


def test_places_are_drawn_anew_by_round_and_secret(parts: Parts) -> None:
    name, work = parts.training[0], holding((0, 1, 2, 3, 4), parts)
    seen = {tuple(work._drawn_places(name, index)) for index in range(200)}
    assert len(seen) > 60  # of 120; 200 draws give fewer than 70 once in 10^9
    assert tuple(work._drawn_places(name, 7)) == tuple(work._drawn_places(name, 7))
    others = [work._drawn_places(other, 1) for other in parts.training]
    assert len({tuple(places) for places in others}) > 1


def test_more_tasks_than_declared_are_refused(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = SinusoidSource.client

    def more(self: SinusoidSource, name: str) -> ClientData:
        data = whole(self, name)
        return replace(data, blocks=(*data.blocks, data.blocks[0]))

    monkeypatch.setattr(SinusoidSource, "client", more)
    with pytest.raises(DataError, match="has 6 tasks, more than the 5 that source 'sinusoid'"):
        CohortWork(parts.learner, parts.source, keys(parts), loss=parts.loss)


def test_a_client_without_a_task_is_named(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = SinusoidSource.client

    def without(self: SinusoidSource, name: str) -> ClientData:
        data = whole(self, name)
        return replace(data, blocks=()) if name == "client-002" else data

    monkeypatch.setattr(SinusoidSource, "client", without)
    with pytest.raises(DataError, match="'client-002' has no task with 6 examples"):
        CohortWork(parts.learner, parts.source, keys(parts), loss=parts.loss)
