"""Keyed streams and draws: known answers, uniformity, refusals."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_fedmeta.errors import ConfigError, DataError
from secure_fedmeta.tasks import TaskBlock, draw, round_key
from secure_fedmeta.tasks.drawing import draw_evenly, keyed, uniforms, words

KEY = bytes(range(32))


def block(size: int, name: str = "a/0") -> TaskBlock:
    """A block whose targets number its records."""
    marks = np.arange(size, dtype=np.float32)
    return TaskBlock(name, None, marks[:, None] * 2, marks)


def test_keyed_is_hmac_of_length_prefixed_parts() -> None:
    message = b"\0\0\0\0\0\0\0\x02ab" + b"\0\0\0\0\0\0\0\x01c"
    assert keyed(KEY, "ab", "c") == hmac.new(KEY, message, hashlib.sha256).digest()


@given(one=st.lists(st.text(max_size=4), max_size=4), two=st.lists(st.text(max_size=4), max_size=4))
def test_no_two_lists_of_parts_collide(one: list[str], two: list[str]) -> None:
    assert (keyed(KEY, *one) == keyed(KEY, *two)) == (one == two)


def test_words_are_the_shake256_stream() -> None:
    stream = hashlib.shake_256(KEY).digest(24)
    expected = [int.from_bytes(stream[i : i + 8], "little") for i in (0, 8, 16)]
    assert words(KEY, 3).tolist() == expected
    assert uniforms(KEY, 3).tolist() == [(word >> 11) / 2**53 for word in expected]
    assert words(KEY, 0).shape == (0,)


def test_every_pair_of_support_and_query_is_equally_likely() -> None:
    """20 ordered pairs of 5 records, 4,000 rounds: chi-square with 19 degrees of freedom.

    The rounds are fixed, so the test is deterministic; its bound 43.8 is the 0.999 quantile. It has
    power: a draw that never takes the last record, or always the first as support, is far above.
    """
    counts = np.zeros((5, 5))
    for number in range(4000):
        _, support, _, query = draw(block(5), 1, 1, key=round_key(KEY, number))
        counts[int(support[0]), int(query[0])] += 1
    assert np.diag(counts).sum() == 0
    observed = counts[~np.eye(5, dtype=bool)]
    assert ((observed - 200) ** 2 / 200).sum() < 43.8


def test_draws_depend_on_key_block_and_round() -> None:
    first = draw(block(30), 5, 5, key=round_key(KEY, 1))[1].tolist()
    assert first == draw(block(30), 5, 5, key=round_key(KEY, 1))[1].tolist()
    assert first != draw(block(30), 5, 5, key=round_key(KEY, 2))[1].tolist()
    assert first != draw(block(30), 5, 5, key=round_key(KEY[::-1], 1))[1].tolist()
    assert first != draw(block(30, "a/1"), 5, 5, key=round_key(KEY, 1))[1].tolist()


def test_a_draw_is_a_copy() -> None:
    held = block(10)
    support_x, *_ = draw(held, 5, 5, key=KEY)
    support_x += 1
    assert np.array_equal(held.x, block(10).x)


def test_a_block_too_small_is_refused_with_the_numbers() -> None:
    with pytest.raises(DataError, match=r"a/0 holds 9 records; support 5 and query 5 need 10"):
        draw(block(9), 5, 5, key=KEY)


@pytest.mark.parametrize(("k_support", "k_query"), [(0, 5), (5, 0), (-1, 5)])
def test_counts_below_one_are_refused(k_support: int, k_query: int) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        draw(block(20), k_support, k_query, key=KEY)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_keys_of_another_length_are_refused_and_not_shown(length: int) -> None:
    key = b"s" * length
    for attempt in (lambda: draw(block(20), 1, 1, key=key), lambda: round_key(key, 0)):
        with pytest.raises(ConfigError, match=f"this one has {length}") as caught:
            attempt()
        assert "sss" not in str(caught.value)


def test_a_negative_round_is_refused() -> None:
    with pytest.raises(ConfigError, match="-1"):
        round_key(KEY, -1)


def labelled(*labels: float) -> TaskBlock:
    """A block whose inputs number its records."""
    marks = np.arange(len(labels), dtype=np.float32)
    return TaskBlock("a/0", None, marks[:, None], np.array(labels, dtype=np.float32))


def test_an_even_draw_takes_as_many_of_each_label() -> None:
    """Seven labels of 2 to 8 records: one of each as support, another of each as query."""
    held = labelled(*(float(label) for label in range(7) for _ in range(2 + label)))
    for number in range(50):
        sx, sy, qx, qy = draw_evenly(held, 7, 7, key=round_key(KEY, number))
        assert sorted(sy) == sorted(qy) == list(range(7))
        taken = [*sx[:, 0].tolist(), *qx[:, 0].tolist()]
        assert len(set(taken)) == 14
        assert [held.y[int(mark)] for mark in taken] == [*sy, *qy]


def test_an_even_draw_is_uniform_inside_each_label() -> None:
    """Pairs of the 4 records of a label, 2,400 rounds: 11 degrees of freedom, 0.999 quantile."""
    counts = np.zeros((4, 4))
    held = labelled(0, 1, 0, 1, 0, 1, 0, 1)
    for number in range(2400):
        sx, sy, qx, qy = draw_evenly(held, 2, 2, key=round_key(KEY, number))
        one = {int(y): int(x) // 2 for x, y in zip(sx[:, 0], sy, strict=True)}
        two = {int(y): int(x) // 2 for x, y in zip(qx[:, 0], qy, strict=True)}
        counts[one[1], two[1]] += 1
    observed = counts[~np.eye(4, dtype=bool)]
    assert np.diag(counts).sum() == 0
    assert ((observed - 200) ** 2 / 200).sum() < 31.3


def test_an_even_draw_takes_what_there_is_of_rare_labels() -> None:
    _, sy, _, qy = draw_evenly(labelled(0, 0, 0, 0, 0, 9), 3, 3, key=KEY)
    assert sorted([*sy, *qy]) == [0, 0, 0, 0, 0, 9]
    assert 9 in sy  # the first of each label comes before the second of any
    with pytest.raises(DataError, match="need 10"):
        draw_evenly(labelled(0, 1, 2), 5, 5, key=KEY)
