from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.errors import ProofRefused
from audit.merkle import (
    EMPTY_ROOT,
    Tree,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

# The eight leaves, roots and proofs of the Certificate Transparency implementations' tests
# (github.com/google/certificate-transparency, merkletree; github.com/transparency-dev/merkle).
INPUTS = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
LEAVES = [leaf_hash(bytes.fromhex(text)) for text in INPUTS]


def make_leaves(count: int) -> list[bytes]:
    return [leaf_hash(index.to_bytes(2, "big")) for index in range(count)]


def test_roots_of_certificate_transparency() -> None:
    tree = Tree()
    assert tree.root == EMPTY_ROOT == hashlib.sha256().digest()
    for size, (leaf, root) in enumerate(zip(LEAVES, ROOTS, strict=True), start=1):
        tree.push(leaf)
        assert tree.size == size
        assert tree.root.hex() == root == root_of(LEAVES[:size]).hex()


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_inclusion_proofs_of_certificate_transparency(index: int, size: int) -> None:
    proof = inclusion_proof(LEAVES[:size], index)
    assert [value.hex() for value in proof] == INCLUSION[index, size]
    verify_inclusion(LEAVES[index], index, size, proof, bytes.fromhex(ROOTS[size - 1]))


@pytest.mark.parametrize(("old", "size"), CONSISTENCY)
def test_consistency_proofs_of_certificate_transparency(old: int, size: int) -> None:
    proof = consistency_proof(LEAVES[:size], old)
    assert [value.hex() for value in proof] == CONSISTENCY[old, size]
    old_root, root = bytes.fromhex(ROOTS[old - 1]), bytes.fromhex(ROOTS[size - 1])
    verify_consistency(old, old_root, size, root, proof)


def recursive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return node_hash(recursive_root(leaves[:k]), recursive_root(leaves[k:]))


def test_every_proof_up_to_20_leaves_verifies() -> None:
    for size in range(1, 21):
        leaves = make_leaves(size)
        root = root_of(leaves)
        assert root == recursive_root(leaves)
        for index in range(size):
            verify_inclusion(leaves[index], index, size, inclusion_proof(leaves, index), root)
        for old in range(size + 1):
            proof = consistency_proof(leaves, old)
            verify_consistency(old, root_of(leaves[:old]), size, root, proof)


@given(st.data())
def test_a_changed_inclusion_proof_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 40))
    index = data.draw(st.integers(0, size - 1))
    leaves = make_leaves(size)
    proof, root = inclusion_proof(leaves, index), root_of(leaves)
    other = (
        data.draw(st.integers(0, size - 1).filter(lambda value: value != index))
        if (size > 1)
        else size
    )
    attempts = [
        (leaves[index], other, size, proof, root),
        (leaf_hash(b"other"), index, size, proof, root),
        (leaves[index], index, size, [*proof, root], root),
        (leaves[index], index, size, proof, leaf_hash(b"root")),
        (leaves[index], index, size, [*proof, b"short"], root),
        (leaves[index], -1, size, proof, root),
    ]
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        attempts.append((leaves[index], index, size, proof[:-1], root))
        attempts.append(
            (leaves[index], index, size, [*proof[:at], bytes(32), *proof[at + 1 :]], root)
        )
    for attempt in attempts:
        with pytest.raises(ProofRefused):
            verify_inclusion(*attempt)


@given(st.data())
def test_a_rewritten_history_is_never_consistent(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 40))
    old = data.draw(st.integers(1, size))
    changed = data.draw(st.integers(0, old - 1))
    leaves = make_leaves(size)
    forged = [*leaves[:changed], leaf_hash(b"forged"), *leaves[changed + 1 :]]
    old_root = root_of(leaves[:old])
    with pytest.raises(ProofRefused):
        verify_consistency(old, old_root, size, root_of(forged), consistency_proof(forged, old))
    proof, root = consistency_proof(leaves, old), root_of(leaves)
    for broken in ([*proof, root], proof[:-1] if proof else [root], [*proof, root, root]):
        with pytest.raises(ProofRefused):
            verify_consistency(old, old_root, size, root, broken)


def test_sizes_that_cannot_be_are_refused() -> None:
    leaves = make_leaves(3)
    for call in (
        lambda: inclusion_proof(leaves, 3),
        lambda: inclusion_proof([], 0),
        lambda: consistency_proof(leaves, 4),
        lambda: consistency_proof(leaves, -1),
        lambda: verify_consistency(4, leaves[0], 3, leaves[0], []),
        lambda: verify_consistency(2, leaves[0], 4, leaves[0], []),
        lambda: verify_consistency(3, leaves[0], 4, leaves[0], []),
        lambda: verify_consistency(0, leaves[0], 3, leaves[0], []),
        lambda: verify_consistency(3, leaves[0], 3, leaves[1], []),
        lambda: verify_consistency(3, leaves[0], 3, leaves[0], [leaves[0]]),
    ):
        with pytest.raises(ProofRefused):
            call()


def test_a_node_is_never_a_leaf() -> None:
    left, right = make_leaves(2)
    assert leaf_hash(left + right) != node_hash(left, right)
