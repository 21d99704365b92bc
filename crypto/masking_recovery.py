"""Recovering a shared secret when some shares may be wrong: no secret is believed unchecked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from math import comb
from typing import Final

from crypto.shamir import combine

MAX_SUBSETS: Final = 2048


def recover(
    shares: Mapping[int, bytes],
    *,
    threshold: int,
    order: Sequence[int],
    accept: Callable[[bytes], bool],
) -> tuple[bytes, tuple[int, ...]] | None:
    """Find a subset of shares that gives a secret which `accept` recognises.

    Tries every subset if there are at most MAX_SUBSETS, else that many pseudorandom ones: with
    e wrong shares among r, one subset is right with probability C(r-e, t) / C(r, t).

    Args:
        shares: shares by holder (position 1 to 255), at least `threshold` of them.
        threshold: number of shares that make the secret.
        order: all holders, those whose shares were right before first.
        accept: whether this is the secret that was committed to.

    Returns:
        The secret and the holders whose shares gave it, or None.
    """
    for subset in _subsets(order, threshold):
        secret = combine({holder: shares[holder] for holder in subset}, threshold=threshold)
        if accept(secret):
            return secret, subset
    return None


def _subsets(order: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    if comb(len(order), size) <= MAX_SUBSETS:
        yield from combinations(order, size)
        return
    yield tuple(order[:size])
    for attempt in range(1, MAX_SUBSETS):
        yield tuple(sorted(order, key=lambda holder: _mix(attempt, holder))[:size])


def _mix(attempt: int, holder: int) -> bytes:
    return hashlib.sha256(attempt.to_bytes(4, "little") + holder.to_bytes(4, "little")).digest()
