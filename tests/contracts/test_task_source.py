"""What every registered task source must keep, whatever its data.

Records are stood in for by marked copies: the mark is the target, so that a block shows which
records it holds without carrying ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fedmeta.errors import DataError
from secure_fedmeta.tasks import (
    SOURCES,
    Record,
    TaskBlock,
    TaskSource,
    round_key,
)
from tests.contracts.sources import OWN, SHIPPED, own_source, rebuilt, small_source

SECRET = bytes(range(32))


@pytest.fixture(params=[*SHIPPED, *OWN], scope="module")
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TaskSource:
    """Each registered source: large ones in a small form, others on small files of one's own."""
    if request.param in SHIPPED:
        return small_source(request.param)
    return own_source(request.param, tmp_path_factory.mktemp("own"))


def test_every_source_that_needs_data_has_some() -> None:
    assert {name for name, _ in OWN.values()} == set(SOURCES.names()) - set(SHIPPED)


def marked(source: TaskSource) -> list[Record]:
    """The source's records with their position as the target."""
    return [replace(record, y=float(i)) for i, record in enumerate(source.records())]


@pytest.fixture(scope="module")
def before(source: TaskSource) -> TaskSource:
    """The source over marked copies of its records."""
    return rebuilt(source, marked(source))


def blocks_of(source: TaskSource) -> dict[str, TaskBlock]:
    """Block id -> block, over all clients."""
    blocks = [block for name in source.clients() for block in source.client(name).blocks]
    assert len({block.id for block in blocks}) == len(blocks)
    return {block.id: block for block in blocks}


def contents(source: TaskSource) -> dict[str, tuple[str | None, bytes, bytes]]:
    """Block id -> all that the block holds, byte for byte."""
    return {
        name: (block.user, block.x.tobytes(), block.y.tobytes())
        for name, block in blocks_of(source).items()
    }


def changed(before: TaskSource, after: TaskSource) -> set[str]:
    """The ids of blocks that are not the same in both."""
    first, second = contents(before), contents(after)
    return {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}


def test_no_record_is_in_two_blocks(before: TaskSource) -> None:
    marks = np.concatenate([block.y for block in blocks_of(before).values()])
    assert len(np.unique(marks)) == len(marks)
    rows = np.concatenate([before.client(name).y for name in before.clients()])
    assert sorted(rows) == [record.y for record in before.records()]


def test_a_block_holds_records_of_its_client_and_its_user(before: TaskSource) -> None:
    records = before.records()
    for name in before.clients():
        for block in before.client(name).blocks:
            held = [records[int(mark)] for mark in block.y]
            assert {record.client for record in held} == {name}
            if block.user is not None:
                assert {record.user for record in held} == {block.user}


def test_unit_user_needs_one_user_for_each_block(source: TaskSource) -> None:
    if "user" not in source.info.units:
        assert source.info.units <= {"record", "task", "client"}
        return
    assert all(block.user is not None for block in blocks_of(source).values())


@settings(max_examples=3)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_the_records_does_not_matter(source: TaskSource, seed: int) -> None:
    records = list(source.records())
    order = np.random.default_rng(seed).permutation(len(records))
    assert changed(source, rebuilt(source, [records[i] for i in order])) == set()


@pytest.mark.parametrize(
    "relabel",
    [
        pytest.param(lambda record: replace(record, y=1.0 - record.y), id="targets"),
        pytest.param(lambda record: replace(record, x=-record.x), id="inputs"),
    ],
)
def test_labels_and_inputs_do_not_choose_the_block(
    source: TaskSource, relabel: Callable[[Record], Record]
) -> None:
    sizes = {name: len(block) for name, block in blocks_of(source).items()}
    other = rebuilt(source, [relabel(record) for record in source.records()])
    assert {name: len(block) for name, block in blocks_of(other).items()} == sizes


@settings(max_examples=3)
@given(position=st.integers(0, 10**6))
def test_removing_a_record_changes_its_block_only(before: TaskSource, position: int) -> None:
    records = list(before.records())
    gone = records[position % len(records)]
    own = {name for name, block in blocks_of(before).items() if gone.y in block.y}
    after = rebuilt(before, [record for record in records if record.id != gone.id])
    assert changed(before, after) == own
    assert after.info.task_bounds == before.info.task_bounds


@settings(max_examples=3)
@given(position=st.integers(0, 10**6))
def test_replacing_a_record_changes_its_block_only(before: TaskSource, position: int) -> None:
    records = list(before.records())
    old = records[position % len(records)]
    own = {name for name, block in blocks_of(before).items() if old.y in block.y}
    new = replace(old, y=-1.0, x=old.x + np.float32(1))
    after = rebuilt(before, [new if record.id == old.id else record for record in records])
    assert changed(before, after) == own
    assert blocks_of(before).keys() == blocks_of(after).keys()


@settings(max_examples=3)
@given(position=st.integers(0, 10**6))
def test_adding_a_record_changes_at_most_one_block(before: TaskSource, position: int) -> None:
    records = before.records()
    model = records[position % len(records)]
    new = replace(model, id=f"{model.id}-new", y=-1.0)
    assert len(changed(before, rebuilt(before, [*records, new]))) <= 1


def test_the_number_of_blocks_does_not_follow_the_number_of_records(before: TaskSource) -> None:
    """With an eighth of the records gone the others stay in the blocks that they were in."""
    after = rebuilt(before, [record for i, record in enumerate(before.records()) if i % 8])
    assert after.info.task_bounds == before.info.task_bounds
    old = blocks_of(before)
    for name, block in blocks_of(after).items():
        assert set(block.y) == {mark for mark in old[name].y if mark % 8}


def test_draws_are_deterministic_and_differ_from_round_to_round(source: TaskSource) -> None:
    info = source.info
    blocks = list(blocks_of(source).values())[:20]
    first, again, later = (
        [
            b"".join(
                part.tobytes()
                for part in source.draw(
                    block, info.k_support, info.k_query, key=round_key(SECRET, number)
                )
            )
            for block in blocks
        ]
        for number in (1, 1, 2)
    )
    assert first == again
    # A block of exactly k_support + k_query records gives another order; equal draws are a fault.
    assert all(one != other for one, other in zip(first, later, strict=True))


def test_a_draw_stays_inside_its_block_and_never_takes_a_record_twice(before: TaskSource) -> None:
    k_support, k_query = before.info.k_support, before.info.k_query
    for block in list(blocks_of(before).values())[:50]:
        support_x, support_y, query_x, query_y = before.draw(
            block, k_support, k_query, key=round_key(SECRET, 7)
        )
        assert support_x.shape == (k_support, before.info.input_dim)
        assert query_x.shape == (k_query, before.info.input_dim)
        taken = np.concatenate([support_y, query_y])
        assert len(set(taken)) == k_support + k_query
        assert set(taken) <= set(block.y)
        rows = {mark: row.tobytes() for mark, row in zip(block.y, block.x, strict=True)}
        for mark, row in zip(taken, np.concatenate([support_x, query_x]), strict=True):
            assert rows[mark] == row.tobytes()


def test_one_changed_record_leaves_the_draws_of_other_blocks(before: TaskSource) -> None:
    after = rebuilt(before, list(before.records()[1:]))
    others = blocks_of(after)
    (own,) = changed(before, after) or {""}
    key = round_key(SECRET, 3)
    k_support, k_query = before.info.k_support, before.info.k_query
    for name, block in list(blocks_of(before).items())[:50]:
        if name != own:
            ours = before.draw(block, k_support, k_query, key=key)
            theirs = after.draw(others[name], k_support, k_query, key=key)
            assert all(np.array_equal(one, two) for one, two in zip(ours, theirs, strict=True))


def test_arrays_are_finite_float32_inside_the_declared_bounds(source: TaskSource) -> None:
    low, high = source.info.input_bounds
    for name in source.clients():
        client = source.client(name)
        for holder in (client, *client.blocks):
            assert holder.x.dtype == holder.y.dtype == np.float32
            assert holder.x.shape == (len(holder.y), source.info.input_dim)
            assert np.isfinite(holder.x).all()
            assert np.isfinite(holder.y).all()
            assert holder.x.min() >= low
            assert holder.x.max() <= high
            if source.info.loss == "cross_entropy":
                assert set(np.unique(holder.y)) <= set(range(max(2, source.info.output_dim)))


def test_counts_are_what_the_clients_hold(source: TaskSource) -> None:
    info = source.info
    clients = [source.client(name) for name in source.clients()]
    assert info.clients == len(clients) == len(info.task_bounds)
    assert info.rows == sum(len(client.y) for client in clients) == len(source.records())
    assert info.tasks == sum(len(client.blocks) for client in clients)
    assert all(0 < len(client.blocks) <= info.task_bounds[client.name] for client in clients)
    smallest = min(len(block) for block in blocks_of(source).values())
    assert smallest >= info.k_support + info.k_query
    assert list(source.clients()) == sorted(source.clients())
    assert set(info.held_out) <= set(source.clients())


def test_shipped_files_are_the_declared_ones_and_their_provenance_is_told(
    source: TaskSource,
) -> None:
    data = resources.files("secure_fedmeta.data")
    told = data.joinpath("PROVENANCE.md").read_text(encoding="utf-8")
    for name, digest in source.info.files.items():
        assert hashlib.sha256(data.joinpath(name).read_bytes()).hexdigest() == digest
        assert name in told
        assert digest in told
    assert source.info.provenance
    assert source.info.licence


def test_an_unknown_client_is_refused_with_the_known_ones(source: TaskSource) -> None:
    with pytest.raises(DataError, match=source.clients()[0]):
        source.client("nobody")


def test_a_record_twice_is_refused(source: TaskSource) -> None:
    records = list(source.records())
    with pytest.raises(DataError, match="twice"):
        rebuilt(source, [*records, records[0]])


def test_a_record_of_no_declared_client_is_refused(source: TaskSource) -> None:
    first, *rest = source.records()
    with pytest.raises(DataError, match="'nobody'"):
        rebuilt(source, [replace(first, client="nobody"), *rest])


def test_a_client_without_records_is_refused(source: TaskSource) -> None:
    name = source.clients()[0]
    with pytest.raises(DataError, match=f"'{name}' has no record"):
        rebuilt(source, [record for record in source.records() if record.client != name])


def test_a_client_with_too_few_records_for_one_task_is_refused(source: TaskSource) -> None:
    name = source.clients()[0]
    needed = source.info.k_support + source.info.k_query
    few = [record for record in source.records() if record.client == name][: needed - 1]
    others = [record for record in source.records() if record.client != name]
    with pytest.raises(DataError, match=f"a task needs {needed}"):
        rebuilt(source, [*few, *others])
