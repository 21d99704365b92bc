"""Merkle tree of RFC 6962 (section 2.1): hashes, roots, inclusion and consistency proofs.

A leaf hash is SHA-256(0x00 || entry), a node SHA-256(0x01 || left || right): the two prefixes
keep a node from ever being presented as an entry. Hashes are 32 bytes everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from audit.canonical import sha256
from audit.errors import ProofRefused

EMPTY_ROOT = sha256(b"")


def leaf_hash(entry: bytes) -> bytes:
    """Hash of a leaf."""
    return sha256(b"\x00" + entry)


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node."""
    return sha256(b"\x01" + left + right)


class Tree:
    """A growing tree that keeps only the roots of its complete subtrees: O(log n) memory."""

    def __init__(self) -> None:
        self.size = 0
        self._subtrees: list[bytes] = []  # largest first, one per set bit of size

    def push(self, leaf: bytes) -> None:
        """Add one leaf hash at the right."""
        carried = leaf
        size = self.size
        while size & 1:
            carried = node_hash(self._subtrees.pop(), carried)
            size >>= 1
        self._subtrees.append(carried)
        self.size += 1

    @property
    def root(self) -> bytes:
        """Root over all leaves so far; of no leaves, SHA-256 of nothing."""
        if not self._subtrees:
            return EMPTY_ROOT
        root = self._subtrees[-1]
        for subtree in reversed(self._subtrees[:-1]):
            root = node_hash(subtree, root)
        return root


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Root over these leaf hashes."""
    tree = Tree()
    for leaf in leaves:
        tree.push(leaf)
    return tree.root


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Audit path from leaf `index` to the root over `leaves`, lowest sibling first (2.1.1).

    Raises:
        ProofRefused: there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise ProofRefused(f"leaf {index} is not among {len(leaves)}")
    if len(leaves) == 1:
        return []
    k = _split(len(leaves))
    if index < k:
        return [*inclusion_proof(leaves[:k], index), root_of(leaves[k:])]
    return [*inclusion_proof(leaves[k:], index - k), root_of(leaves[:k])]


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that `leaf` is number `index` under the root of `size` leaves (RFC 9162, 2.1.3.2).

    Raises:
        ProofRefused: it is not, or the proof has a wrong length.
    """
    _check_hashes([leaf, root, *proof])
    if not 0 <= index < size:
        raise ProofRefused(f"leaf {index} is not among {size}")
    fn, sn, value = index, size - 1, leaf
    for sibling in proof:
        if sn == 0:
            raise ProofRefused("inclusion proof is too long")
        if fn & 1 or fn == sn:
            value = node_hash(sibling, value)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            value = node_hash(value, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise ProofRefused("inclusion proof is too short")
    if value != root:
        raise ProofRefused("inclusion proof leads to another root")


def consistency_proof(leaves: Sequence[bytes], old_size: int) -> list[bytes]:
    """Proof that the first `old_size` leaves are a prefix of `leaves` (2.1.2).

    Raises:
        ProofRefused: `old_size` is negative or larger than the tree.
    """
    if not 0 <= old_size <= len(leaves):
        raise ProofRefused(f"size {old_size} is not within a tree of {len(leaves)}")
    return _subproof(leaves, old_size, whole=True) if old_size else []


def _subproof(leaves: Sequence[bytes], m: int, *, whole: bool) -> list[bytes]:
    n = len(leaves)
    if m == n:
        return [] if whole else [root_of(leaves)]
    k = _split(n)
    if m <= k:
        return [*_subproof(leaves[:k], m, whole=whole), root_of(leaves[k:])]
    return [*_subproof(leaves[k:], m - k, whole=False), root_of(leaves[:k])]


def verify_consistency(
    old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree of `size` leaves extends the one of `old_size` (RFC 9162, 2.1.4.2).

    Every tree extends the empty one, with an empty proof.

    Raises:
        ProofRefused: it does not, or the proof has a wrong length.
    """
    _check_hashes([old_root, root, *proof])
    if not 0 <= old_size <= size:
        raise ProofRefused(f"a tree of {size} leaves cannot extend one of {old_size}")
    if old_size == 0 or old_size == size:
        expected = EMPTY_ROOT if old_size == 0 else root
        if proof or old_root != expected:
            raise ProofRefused("roots of equal or empty trees differ, or the proof is not empty")
        return
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    if not path:
        raise ProofRefused("consistency proof is too short")
    fn, sn = old_size - 1, size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if sn == 0:
            raise ProofRefused("consistency proof is too long")
        if fn & 1 or fn == sn:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            new = node_hash(new, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise ProofRefused("consistency proof is too short")
    if old != old_root or new != root:
        raise ProofRefused("consistency proof leads to another root: the history was rewritten")


def _split(n: int) -> int:
    """The largest power of two smaller than n."""
    return 1 << ((n - 1).bit_length() - 1)


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if any(len(value) != 32 for value in hashes):
        raise ProofRefused("every hash has 32 bytes")
