"""Pads that members add to their answers, and that cancel in each set: no answer tells by itself.

Each two members share a key: both drew one half and sealed it to the other beside its share. In an
answer the lower one adds the stream of that key and the higher one subtracts it. So the answers of
the members of a set are uniform but for their sum, to whoever lacks one of the keys between them.

Without pads an answer could be set against the shares of members that are not in the set. It is
r c1 s + smudging with a known r that is a quotient of Lagrange coefficients, a / b modulo q, and
not 1: b times the answer shows a v modulo b, v the noise of the sum, whatever the smudging. With
three members of seven b = 2025 is more than all of v, and with v the key is known (a test shows
it). The sum of the answers of a set has c1 s in it once, and smudging hides v there.

A stream is for one set of members and one question, which is the context: members that were asked
about different things have pads that do not cancel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from crypto.codec import Writer
from crypto.keys import Rand, Secret, derive
from crypto.progress import Ticker
from crypto.residues import Words, add, column, subtract, uniform

_LABEL: Final = "fedmeta/threshold/v1/pad"
_COUNTER: Final = bytes(16)


def pair_key(context: bytes, halves: Mapping[int, bytes]) -> Secret:
    """The key of two members.

    Args:
        context: of the dealings, 32 bytes.
        halves: what each of the two drew, 32 bytes, by roster index.
    """
    low, high = sorted(halves)
    ends = Writer().u32(low).u32(high).done()
    return Secret(derive(halves[low] + halves[high], _LABEL + " key", context, ends))


def pad_of(
    member: int,
    keys: Mapping[int, Secret],
    members: Sequence[int],
    context: bytes,
    shape: tuple[int, int, int],
    primes: Sequence[int],
) -> Words:
    """A member's pad for its answer in one set; those of all members add up to zero.

    Args:
        member: roster index of this one.
        keys: pair keys, by the other member.
        members: the set.
        context: of the question, 32 bytes.
        shape: of the answer, (count, primes, N).
        primes: of the answer.

    Returns:
        [count, primes, N] words.
    """
    total = np.zeros(shape, dtype=np.uint64)
    asked = Writer().indices(members).done()
    ticker = Ticker("drawing pads: member", len(members))
    for other in members:
        ticker.add(1)
        if other == member:
            continue
        stream = _stream(derive(keys[other].reveal(), _LABEL, context, asked))
        words = uniform(stream, shape[:1], primes, shape[2])
        combine = add if member < other else subtract
        total = combine(total, words, column(primes))
    return total


def _stream(key: bytes) -> Rand:
    """AES-256 in counter mode; the key is for this one stream, so that the counter begins at 0."""
    encryptor = Cipher(algorithms.AES(key), modes.CTR(_COUNTER)).encryptor()
    return lambda length: encryptor.update(bytes(length))
