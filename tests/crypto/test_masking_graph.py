"""The ring and the tree of adverts: the same for everybody, in an order that nobody chose."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from crypto.errors import Malformed
from crypto.masking_graph import AdvertTree, Graph, advert_leaf, root_of

MEMBERS = tuple(range(3, 60, 2))
ALPHA = 1e-6


def over(root: bytes = b"", members: tuple[int, ...] = MEMBERS, degree: int = 6) -> Graph:
    return Graph.over(b"ctx1", members, degree, root)


def test_neighbours_are_half_the_degree_on_each_side() -> None:
    graph = over()
    assert sorted(graph.ring) == list(MEMBERS)
    size = len(MEMBERS)
    for place, index in enumerate(graph.ring):
        near = {graph.ring[(place + step) % size] for step in (-3, -2, -1, 1, 2, 3)}
        assert graph.neighbours(index) == tuple(sorted(near))
        assert graph.closed(index) == tuple(sorted({index, *near}))
        assert all(index in graph.neighbours(k) for k in near)
    assert graph.committee == graph.closed(graph.ring[0])


@pytest.mark.parametrize("degree", [28, 29, 200])
def test_a_degree_of_all_others_or_more_is_the_complete_graph(degree: int) -> None:
    graph = over(degree=degree)
    assert graph.committee == graph.closed(3) == MEMBERS
    assert graph.neighbours(3) == MEMBERS[1:]


def test_the_order_follows_from_terms_members_and_root() -> None:
    rings = {
        over().ring,
        over(b"other").ring,
        over(members=MEMBERS[:-1]).ring,
        Graph.over(b"ctx2", MEMBERS, 6, b"").ring,
    }
    assert len(rings) == 4
    # By their places, too: of as many other members the order is another.
    ahead = over(members=tuple(k + 1 for k in MEMBERS)).ring
    assert tuple(k - 1 for k in ahead) != over().ring
    assert over() == over()
    # The same order at every degree: the ring is one, the reach another.
    assert over(degree=8).ring == over().ring


def orders(seeds: int) -> Counter[tuple[int, ...]]:
    return Counter(over(k.to_bytes(4, "little"), (1, 2, 3, 4), 2).ring for k in range(seeds))


def test_every_order_is_equally_likely() -> None:
    """Chi-squared over all 24 orders of 4, alpha 1e-6; an order that favours one is rejected."""
    found = orders(4_800)
    counts = [found[order] for order in permutations((1, 2, 3, 4))]
    assert sum(counts) == 4_800
    assert chisquare(counts).pvalue > ALPHA
    tilted = counts.copy()
    for k in range(1, 24):
        tilted[0] += tilted[k] // 8
        tilted[k] -= tilted[k] // 8
    assert chisquare(tilted).pvalue < ALPHA


def reference(leaves: list[bytes]) -> bytes:
    """The root as RFC 9162 defines it, in its own words."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    joined = reference(leaves[:k]) + reference(leaves[k:])
    return hashlib.sha256(b"fedmeta/masking/v1/adverts\1" + joined).digest()


@given(data=st.data())
def test_the_root_follows_from_some_leaves_and_what_is_missing(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 40))
    leaves = [advert_leaf(k, bytes([k])) for k in range(size)]
    tree = AdvertTree(leaves)
    assert tree.root == reference(leaves)
    places = sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1)))
    proof = tree.proof(places)
    known = {place: leaves[place] for place in places}
    assert root_of(size, known, proof) == tree.root
    if len(places) == size:
        assert proof == []
    with pytest.raises(Malformed, match="more hashes"):
        root_of(size, known, [*proof, bytes(32)])
    if proof:
        with pytest.raises(Malformed, match="missing"):
            root_of(size, known, proof[:-1])
        at = data.draw(st.integers(0, len(proof) - 1))
        changed = [*proof[:at], bytes(32), *proof[at + 1 :]]
        assert root_of(size, known, changed) != tree.root
    place = data.draw(st.sampled_from(places))
    assert root_of(size, {**known, place: bytes(32)}, proof) != tree.root


def test_a_leaf_binds_index_and_advert_and_is_no_node() -> None:
    leaves = {advert_leaf(1, b"a"), advert_leaf(2, b"a"), advert_leaf(1, b"b")}
    assert len(leaves) == 3
    one, two = bytes(32), bytes([1]) * 32
    assert AdvertTree([one, two]).root != advert_leaf(int.from_bytes(one[:4], "little"), one + two)


def test_a_member_outside_has_no_neighbours() -> None:
    with pytest.raises(KeyError):
        over().closed(4)
