"""The vowels: episodes of N vowels, K examples each, and labels that are a task's own."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from secure_fedmeta.errors import ConfigError, DataError
from secure_fedmeta.tasks import SOURCES, Site, TaskSource, build_source, check_options, round_key
from secure_fedmeta.tasks.vowels import LEFT_OVER, SPEAKERS, VowelOptions, block_of, label_in

KEY = bytes(range(32))


def source(**options: Any) -> TaskSource:
    return build_source("vowels", options)


def test_the_shipped_table_is_15_speakers_of_11_vowels_six_times() -> None:
    found = source()
    assert found.info.rows == 990
    assert found.clients() == SPEAKERS
    assert found.info.excluded == {}
    assert found.info.clipped == found.info.missing == {}
    for name in SPEAKERS:
        assert Counter(found.client(name).y.tolist()) == dict.fromkeys(range(11), 6)
    first = next(record for record in found.records() if record.id == "speaker-00/0/00")
    # The table's first row: -3.639 on [-6, 0], 0.418 on [-2, 6], -0.67 on [-3, 3].
    assert first.x[:3] == pytest.approx([-0.213, -0.3955, -0.67 / 3], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "tasks", "left_over"),
    [
        ({}, 45, 0),
        ({"ways": 5}, 90, 90),
        ({"ways": 5, "repetitions": 6}, 30, 90),
        ({"ways": 4, "repetitions": 4}, 30, 990 - 15 * 8 * 4),
        ({"ways": 2, "repetitions": 2, "permuted": True}, 225, 90),
    ],
)
def test_blocks_are_pairs_of_groups_and_the_rest_is_counted(
    options: dict[str, Any], tasks: int, left_over: int
) -> None:
    found = source(**options)
    info, chosen = found.info, VowelOptions(**options)
    assert (info.tasks, info.rows) == (tasks, 990 - left_over)
    assert info.excluded.get(LEFT_OVER, 0) == left_over
    assert set(info.task_bounds.values()) == {tasks // 15}
    for name in found.clients():
        for block in found.client(name).blocks:
            held = Counter(block.y.tolist())
            assert list(held.values()) == [chosen.repetitions] * chosen.ways
            if chosen.permuted:
                assert set(held) == set(range(chosen.ways))


def test_a_draw_is_n_way_k_shot() -> None:
    found = source(ways=5, repetitions=6, shots=2, queries=3)
    assert (found.info.k_support, found.info.k_query) == (10, 15)
    for block in found.client("speaker-03").blocks:
        for number in range(5):
            _, sy, _, qy = found.draw(block, 10, 15, key=round_key(KEY, number))
            assert set(Counter(sy.tolist()).values()) == {2}
            assert set(Counter(qy.tolist()).values()) == {3}


def test_speakers_have_cuts_of_their_own() -> None:
    groups = {
        tuple(
            block_of(f"{name}/0/{vowel:02d}", VowelOptions(ways=5)) is None for vowel in range(11)
        )
        for name in SPEAKERS
    }
    assert len(groups) > 1


def test_permuted_labels_follow_from_the_block_s_name_alone() -> None:
    """Relabelled by the keyed permutation, the recordings are those of the plain source."""
    options = VowelOptions(ways=5, permuted=True)
    plain, permuted = source(ways=5), source(ways=5, permuted=True)
    vowel = {record.id: int(record.y) for record in plain.records()}
    rows = {record.id: record.x for record in plain.records()}
    assert len(vowel) == len(permuted.records())
    for record in permuted.records():
        block = block_of(record.id, options)
        assert record.user == block
        assert record.y == label_in(str(block), vowel[record.id], options)
        assert np.array_equal(record.x, rows[record.id])


def test_permuted_labels_say_nothing_of_the_vowel() -> None:
    """450 labels of 90 blocks against vowels: chi-square, 0.999 quantile.

    Given a vowel each of five labels is as likely: 44 degrees of freedom, 78.7. Labels in the
    vowels' own order would put vowel 0 at label 0 always.
    """
    permuted = source(ways=5, permuted=True)
    counts = np.zeros((11, 5))
    pairs = {
        (str(record.user), int(record.id[-2:]), int(record.y)) for record in permuted.records()
    }
    assert len(pairs) == 450
    for _, vowel, label in pairs:
        counts[vowel, label] += 1
    expected = counts.sum(axis=1, keepdims=True) / 5
    assert ((counts - expected) ** 2 / expected).sum() < 78.7


def test_units_are_those_that_such_blocks_carry() -> None:
    """Cut by vowel, so never record; made-up users of one speaker are no persons."""
    plain, permuted = source(), source(permuted=True)
    assert plain.info.units == {"task", "user", "client"}
    assert permuted.info.units == {"task", "client"}
    assert {block.user for block in plain.client("speaker-07").blocks} == {"speaker-07"}
    assert plain.info.output_dim == 11
    assert source(ways=5, permuted=True).info.output_dim == 5


def test_options_that_no_speaker_can_fill_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"shots 2 . queries 1 exceed repetitions 2"):
        source(shots=2)


@pytest.mark.parametrize(
    ("name", "message"),
    [("speaker-00/0", "ids are"), ("speaker-00/x/01", "ids are"), (None, "no task with these")],
)
def test_records_that_no_task_uses_are_refused(name: str | None, message: str) -> None:
    options = {"ways": 5}
    unused = [f"speaker-00/0/{vowel:02d}" for vowel in range(11)]
    unused = [one for one in unused if block_of(one, VowelOptions(ways=5)) is None]
    first, *rest = source(**options).records()
    stray = type(first)(name or unused[0], first.client, first.user, first.x, first.y)
    with pytest.raises(DataError, match=message):
        SOURCES.get("vowels")(check_options("vowels", options), site=Site(), records=[stray, *rest])
