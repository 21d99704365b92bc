"""Shakespeare by role: the parser's rules, examples as in LEAF, and blocks of whole speeches."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from scripts.rebuild.shakespeare import parse, speeches
from secure_fedmeta.errors import ConfigError, DataError
from secure_fedmeta.tasks import TaskSource, build_source
from secure_fedmeta.tasks import shakespeare as source_module
from secure_fedmeta.tasks.shakespeare import (
    CHARACTERS,
    LENGTH,
    OTHER_ROLES,
    SHORT_ROLES,
    VOCABULARY,
    chosen_roles,
    declared_characters,
    encode,
    examples,
)
from secure_fedmeta.tasks.shipped import ShippedFile

SMALL: dict[str, Any] = {"roles": 10, "stride": 40}
PLAY = """THE PLAY

Dramatis Personae

FIRST. a person.

ACT I.

SCENE I. A heath.

[Enter KING
and FOOL.]

KING.
My  first line,
  [Aside.] and my second.

A new paragraph of the same speech.

FOOL. [Sings.]
Words.
KING. Not a speaker's line, since words follow.

FIRST LORD.
[Kneeling]
Yes.

Come hither, sir.

SCENE II. Another.

This is nobody's.

KING.
Last. [Exit
"""


@pytest.fixture(scope="module")
def source() -> TaskSource:
    return build_source("shakespeare", SMALL)


def test_speakers_in_capitals_with_a_full_stop() -> None:
    assert list(parse("macbeth", PLAY)) == [
        ("king", "My first line,\nand my second.\nA new paragraph of the same speech."),
        ("fool", "Words.\nKING. Not a speaker's line, since words follow."),
        ("first-lord", "Yes.\nCome hither, sir."),
        ("king", "Last."),
    ]


def test_abbreviated_speakers_come_more_than_once() -> None:
    speeches_of_two = "Ham.\nA.\n\nFirst Clown.\nB.\n\n"
    text = f"ACT I.\n\n{speeches_of_two}Come hither sir.\n\n{speeches_of_two}"
    once = [("ham", "A."), ("first-clown", "B.")]
    expected = [("ham", "A."), ("first-clown", "B.\nCome hither sir."), *once]
    assert list(parse("hamlet", text)) == expected
    assert list(parse("macbeth", text)) == []


def test_speakers_without_a_full_stop_in_one_play_alone() -> None:
    text = (
        "ACT I.\n\nTHESEUS\nNow, fair.\n\nHIPPOLYTA\nFour days.\n\nSCENE II.\n\nQUINCE\nIs all?\n"
    )
    found = list(parse("midsummer-nights-dream", text))
    assert found == [("theseus", "Now, fair."), ("hippolyta", "Four days."), ("quince", "Is all?")]
    assert list(parse("macbeth", text)) == []


def test_roles_need_five_speeches() -> None:
    play = b"ACT I.\n\n" + b"KING.\nYes.\n\nFOOL.\nNo.\n\n" * 4 + b"KING.\nIndeed.\n"
    found = speeches({"texts/king_john_gut.txt": play}).decode().splitlines()
    assert found[0] == "Play,Role,Speech,Text"
    assert found[1:] == [f"king-john,king,{i},{'Yes.' if i < 4 else 'Indeed.'}" for i in range(5)]


def test_the_shipped_roles_are_counted() -> None:
    held = source_module.speeches()
    assert len(held) == 811
    assert len({role.split(".")[0] for role in held}) == 37
    assert sum(len(texts) for texts in held.values()) == 29_264
    assert min(len(texts) for texts in held.values()) == 5
    assert held["hamlet.ber"][:2] == ("Who's there?", "Long live the king!")
    assert len([role for role in held if role.startswith("midsummer-nights-dream.")]) == 17
    assert len(chosen_roles(10_000)) == 618
    assert declared_characters("hamlet.ham") == 64_900


def test_an_example_is_80_characters_and_the_one_that_follows() -> None:
    text = "".join(chr(ord("a") + i % 26) for i in range(200))
    x, y = examples(text, 30)
    assert x.shape == (7, LENGTH)
    for row, target, place in zip(x, y, range(0, 200, 30), strict=True):
        before = text[max(0, place - 80) : place]
        expected = [0] * (80 - len(before)) + [1 + VOCABULARY.index(one) for one in before]
        assert row.tolist() == expected
        assert target == 1 + VOCABULARY.index(text[place])
    assert CHARACTERS == 66 == len(set(VOCABULARY)) + 1
    assert encode("a&\n").tolist() == [1 + VOCABULARY.index("a"), 0, 1]


def test_a_speech_is_in_one_block_with_all_its_examples(source: TaskSource) -> None:
    """Blocks follow from the speeches' names: marked copies show which speech is where."""
    speeches_of = defaultdict(set)
    blocks = defaultdict(set)
    for record in source.records():
        name = source_module.block_of(record.id, source.info.task_bounds[record.client])
        speeches_of[name].add(record.id.rpartition("/")[0])
        blocks[record.id.rpartition("/")[0]].add(name)
        assert record.user == record.client
    assert all(len(names) == 1 for names in blocks.values())
    assert len(speeches_of) > len(source.clients())
    sizes = {
        block.id: len(block) for name in source.clients() for block in source.client(name).blocks
    }
    assert set(sizes) <= set(speeches_of)


def test_roles_follow_a_public_order_and_every_fifth_is_held_out(source: TaskSource) -> None:
    order = chosen_roles(10)
    assert source.clients() == tuple(sorted(order))
    assert chosen_roles(5) == order[:5]
    assert len({role.split(".")[0] for role in order}) >= 5  # plays mix
    assert set(source.info.held_out) == {order[4], order[9]}
    assert source.info.units == {"task", "user", "client"}
    assert source.info.excluded[SHORT_ROLES] + source.info.excluded[OTHER_ROLES] + 10 == 811
    assert source.info.output_dim == 66


def test_bounds_on_tasks_follow_from_declared_characters(source: TaskSource) -> None:
    for role, bound in source.info.task_bounds.items():
        assert declared_characters(role) % 100 == 0
        assert bound == min(8, max(1, declared_characters(role) // 1500))
    tasks = build_source("shakespeare", {**SMALL, "max_tasks": 1}).info
    assert set(tasks.task_bounds.values()) == {1}


def test_characters_outside_the_vocabulary_are_counted() -> None:
    info = build_source("shakespeare", {"roles": 40, "stride": 40}).info
    texts = [text for role in chosen_roles(40) for text in source_module.speeches()[role]]
    expected = sum(one not in VOCABULARY for text in texts for one in text)
    assert info.missing == {"Text": expected}
    assert expected > 0


def test_every_role_fills_a_task_with_the_hardest_options() -> None:
    """618 roles and as many examples for a draw as the options allow."""
    options = {"roles": 618, "stride": 80, "k_support": 6, "k_query": 5}
    source = build_source("shakespeare", options)
    assert source.info.clients == 618
    with pytest.raises(ConfigError, match="exceed the 11 examples"):
        build_source("shakespeare", {**options, "k_query": 6})


def test_a_changed_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "FILE", ShippedFile(source_module.FILE.name, "0" * 64))
    with pytest.raises(DataError, match=r"shakespeare\.csv\.gz: SHA-256 is"):
        source_module.speeches.__wrapped__()


def test_arrays_are_shared_with_the_speech_not_copied(source: TaskSource) -> None:
    record = source.records()[0]
    assert isinstance(record.x, np.ndarray)
    assert record.x.base is not None
