"""Keyed draws: support and query inside one block, and the streams of generated data.

A draw depends on its key, the block's id and the block's records, on nothing else; in particular
not on other blocks, and not on the order in which blocks are drawn. Randomness is SHAKE-256 over a
32-byte key made by HMAC-SHA256, a pseudo-random function of key and label. It chooses which records
of a block are used; it adds no noise and no privacy claim rests on it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from secure_fedmeta.errors import ConfigError, DataError

if TYPE_CHECKING:
    from secure_fedmeta.tasks.protocol import Draw, TaskBlock

KEY_BYTES = 32


def keyed(key: bytes, *parts: str) -> bytes:
    """HMAC-SHA256 of the parts, each preceded by its length, so that no two lists collide.

    Args:
        key: any length.
        parts: a domain first, then what is identified inside it.

    Returns:
        32 bytes.
    """
    encoded = [part.encode() for part in parts]
    message = b"".join(len(part).to_bytes(8, "big") + part for part in encoded)
    return hmac.digest(key, message, "sha256")


def words(key: bytes, count: int) -> NDArray[np.uint64]:
    """`[count] uint64` words of the stream of a 32-byte key, the same on every machine."""
    stream = hashlib.shake_256(key).digest(8 * count)
    return np.frombuffer(stream, dtype="<u8").astype(np.uint64)


def uniforms(key: bytes, count: int) -> NDArray[np.float64]:
    """`[count] float64` in [0, 1), multiples of 2^-53, from the stream of a 32-byte key."""
    return (words(key, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def round_key(secret: bytes, round_number: int) -> bytes:
    """The key of one round's draws, 32 bytes; the same for all blocks.

    Args:
        secret: the client's 32-byte draw secret.
        round_number: at least 0.

    Raises:
        ConfigError: the secret is not 32 bytes long, or the round is negative.
    """
    _check_key(secret)
    if round_number < 0:
        raise ConfigError(f"round is {round_number}, must be at least 0")
    return keyed(secret, "secure-fedmeta/draw/round", str(round_number))


def draw(block: TaskBlock, k_support: int, k_query: int, *, key: bytes) -> Draw:
    """Support and query of one block: a uniform choice without replacement.

    The block's id is mixed into the key, so one key serves all blocks of a round.

    Args:
        block: the records to draw from.
        k_support: number of support records, at least 1.
        k_query: number of query records, at least 1.
        key: 32 bytes, another for each round (`round_key`).

    Returns:
        support_x `[k_support, features]`, support_y `[k_support]`, query_x `[k_query, features]`,
        query_y `[k_query]`, all float32 copies; support and query share no record.

    Raises:
        ConfigError: the key is not 32 bytes long, or a count is below 1.
        DataError: the block holds fewer than k_support + k_query records.
    """
    return _take(block, _order(block, k_support, k_query, key), k_support, k_query)


def draw_evenly(block: TaskBlock, k_support: int, k_query: int, *, key: bytes) -> Draw:
    """Support and query of one block, each as even over the labels as the block allows.

    Where a block holds `s + q` records or more of each of N labels, s N support records are s of
    each label and q N query records are q of each, chosen uniformly. Labels decide which records
    of the block are drawn, never which block a record is in.

    Args, returns and errors are those of `draw`.
    """
    order = evenly(_order(block, k_support, k_query, key), block.y)
    return _take(block, order, k_support, k_query)


def evenly(order: NDArray[np.intp], labels: NDArray[np.generic]) -> NDArray[np.intp]:
    """The order, but the first record of each label before the second of any, and so on.

    Args:
        order: positions of records, `[n]`.
        labels: their labels by position, `[n]`.
    """
    seen: Counter[float] = Counter()
    ranks = []
    for label in labels[order].tolist():
        ranks.append(seen[label])
        seen[label] += 1
    return order[np.argsort(ranks, kind="stable")]


def _order(block: TaskBlock, k_support: int, k_query: int, key: bytes) -> NDArray[np.intp]:
    """The block's records in a uniform order; enough of them, else it is refused."""
    _check_key(key)
    if k_support < 1 or k_query < 1:
        raise ConfigError(f"support {k_support} and query {k_query} must both be at least 1")
    if len(block) < k_support + k_query:
        raise DataError(
            f"block {block.id} holds {len(block)} records; support {k_support} and query {k_query} "
            f"need {k_support + k_query}"
        )
    return np.argsort(words(keyed(key, "secure-fedmeta/draw/block", block.id), len(block)))


def _take(block: TaskBlock, order: NDArray[np.intp], k_support: int, k_query: int) -> Draw:
    support, query = order[:k_support], order[k_support : k_support + k_query]
    return block.x[support], block.y[support], block.x[query], block.y[query]


def _check_key(key: bytes) -> None:
    if len(key) != KEY_BYTES:
        raise ConfigError(f"a draw key has {KEY_BYTES} bytes, this one has {len(key)}")
