"""Which members are asked together: sets of t of them, within the answers that one may give.

One set opens the sum. A member in it that adds a multiple of q/T to its answer shifts the sum, and
no linear check can tell. So more sets are asked, until each member of the first was left out of
one: sets that open to the same sum show that none of them deviates alone. Every set needs fresh
smudging, which is counted, so that a member answers in m - t + 1 sets at most: enough for one set
more after each loss. With t members left there is one set and nothing to compare it with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from functools import reduce

from crypto.threshold_messages import Set


def covering(members: Iterable[int], threshold: int) -> tuple[Set, ...]:
    """One or two sets of t that have every member in them; t is more than half of them."""
    listed = sorted(members)
    first, last = tuple(listed[:threshold]), tuple(listed[-threshold:])
    return (first,) if first == last else (first, last)


def opening(members: Iterable[int], threshold: int, asked: Mapping[int, int]) -> Set:
    """The set that is to open the sum: those that were asked least.

    Args:
        members: who is left, t at least.
        threshold: t.
        asked: in how many sets each was asked.
    """
    least = sorted(members, key=lambda k: (asked.get(k, 0), k))
    return tuple(sorted(least[:threshold]))


def comparing(
    members: Collection[int],
    threshold: int,
    asked: Mapping[int, int],
    limit: int,
    complete: Collection[Set],
) -> tuple[Set, ...]:
    """Further sets, until nobody is in all; fewer where members or answers do not suffice.

    Args:
        members: who is left.
        threshold: t.
        asked: in how many sets each was asked.
        limit: in how many each may be.
        complete: the sets that have answered, one at least.
    """
    counts = Counter(asked)
    common = in_all(complete)
    found: list[Set] = []
    while common:
        usable = [k for k in members if counts[k] < limit]
        usable.sort(key=lambda k: (k in common, counts[k], k))
        chosen = tuple(sorted(usable[:threshold]))
        if len(usable) < threshold or common <= set(chosen):
            break
        found.append(chosen)
        common &= set(chosen)
        counts.update(chosen)
    return tuple(found)


def in_all(complete: Collection[Set]) -> frozenset[int]:
    """Members of all these sets: their answers were compared with nothing."""
    return reduce(frozenset.__and__, (frozenset(members) for members in complete))
