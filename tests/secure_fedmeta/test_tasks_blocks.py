"""The keyed block rule: known answers, spread, and what is too small."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from secure_fedmeta.errors import DataError
from secure_fedmeta.tasks.blocks import (
    SMALL_BLOCK_ROWS,
    SMALL_BLOCKS,
    block_count,
    block_index,
    cut,
    hashed_blocks,
)
from secure_fedmeta.tasks.protocol import Record


def record(name: str, *, client: str = "a", user: str | None = None, y: float = 0.0) -> Record:
    return Record(name, client, user, np.array([y], dtype=np.float32), y)


def test_block_is_hmac_mod_b() -> None:
    domain, name = b"secure-fedmeta/block", b"17"
    message = len(domain).to_bytes(8, "big") + domain + len(name).to_bytes(8, "big") + name
    digest = hmac.new(b"key", message, hashlib.sha256).digest()
    assert block_index(b"key", "17", 93) == int.from_bytes(digest, "big") % 93


@pytest.mark.parametrize(
    ("declared", "per_block", "expected"), [(1310, 14, 93), (60, 14, 4), (13, 14, 1), (0, 14, 1)]
)
def test_block_count_comes_from_the_declared_number(
    declared: int, per_block: int, expected: int
) -> None:
    assert block_count(declared, per_block) == expected


def test_blocks_are_equally_likely() -> None:
    """10,000 ids into 20 blocks: chi-square, 19 degrees of freedom, 0.999 quantile; fixed key."""
    counts = Counter(block_index(b"key", str(i), 20) for i in range(10_000))
    assert sum((counts[i] - 500) ** 2 / 500 for i in range(20)) < stats.chi2.ppf(0.999, 19)


def test_the_stated_share_of_small_blocks() -> None:
    """The module says 11 % of the blocks and 6 % of the records at m = 14 and 10 records."""
    assert stats.poisson.cdf(9, 14) == pytest.approx(0.11, abs=0.005)
    assert stats.poisson.cdf(8, 14) == pytest.approx(0.06, abs=0.005)


def test_another_key_gives_other_blocks() -> None:
    one, two = ([block_index(key, str(i), 50) for i in range(50)] for key in (b"1", b"2"))
    assert one != two


def test_names_of_blocks_sort_by_number() -> None:
    block_of = hashed_blocks(b"key", {"a": 1, "b": 120})
    names = {block_of(record(str(i), client="b")) for i in range(2000)}
    assert sorted(names) == [f"b/{i:03d}" for i in range(120)]
    assert block_of(record("1", client="a")) == "a/000"


def test_small_blocks_are_left_out_and_counted_but_stay_the_clients_rows() -> None:
    records = [record(f"{block}{i}", y=i) for block, n in (("x", 3), ("y", 2)) for i in range(n)]
    blocks = cut(records, names=["a"], block_of=lambda r: r.id[0], min_records=3)
    client = blocks.clients["a"]
    assert [block.id for block in client.blocks] == ["x"]
    assert blocks.excluded == {SMALL_BLOCKS: 1, SMALL_BLOCK_ROWS: 2}
    assert len(client.y) == 5


def test_a_block_names_its_user_only_if_there_is_one() -> None:
    records = [record("1", user="p"), record("2", user="p"), record("3", user="q")]
    one = cut(records[:2], names=["a"], block_of=lambda r: "b", min_records=1).clients["a"]
    two = cut(records, names=["a"], block_of=lambda r: "b", min_records=1).clients["a"]
    assert one.blocks[0].user == "p"
    assert two.blocks[0].user is None


def test_too_few_records_for_one_task_names_client_and_numbers() -> None:
    with pytest.raises(DataError, match=r"'a' has too few .* largest of 1 blocks holds 1, .* 2"):
        cut([record("1")], names=["a"], block_of=lambda r: "b", min_records=2)
