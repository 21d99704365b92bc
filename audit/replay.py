"""Replay a log's stored lines: chain, tree and order, as the writer and the verifier both see them.

Two bindings are kept on every entry and both must hold: `prev`, the SHA-256 of the entry before,
and the RFC 6962 leaf under the signed root. Checking only one of them let another product accept
forged logs (CVE-2022-36111).
"""

from __future__ import annotations

from audit.entry import Entry, Genesis, decode_entry
from audit.errors import ChainBroken, EntryRefused
from audit.merkle import Tree, leaf_hash
from audit.rules import Order

LOG = "log.jsonl"
CHECKPOINT = "checkpoint"
LEAVES = "leaves"
PENDING = "pending"


class Replay:
    """State after the entries taken so far."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self.order = Order()
        self.tip: bytes | None = None
        self.leaves: list[bytes] = []
        self._tree = Tree()

    @property
    def size(self) -> int:
        """How many entries were taken."""
        return len(self.leaves)

    @property
    def root(self) -> bytes:
        """RFC 6962 root over the entries taken, 32 bytes."""
        return self._tree.root

    def take(self, raw: bytes) -> Entry:
        """Check the next entry (stored bytes, no newline) and go on; a refused one changes nothing.

        Raises:
            ChainBroken: its `prev` is not the SHA-256 of the entry taken before.
            EntryRefused: malformed, of another place or log, or out of order.
        """
        entry = decode_entry(raw)
        if entry.index != self.size:
            raise EntryRefused(f"index {entry.index} in the place of entry {self.size}")
        if entry.prev != (None if self.tip is None else self.tip.hex()):
            raise ChainBroken("prev is not the SHA-256 of the entry before")
        if isinstance(entry.body, Genesis) and entry.body.origin != self._origin:
            raise EntryRefused(f"the genesis names another log than {self._origin!r}")
        self.order.apply(entry)
        leaf = leaf_hash(raw)
        self._tree.push(leaf)
        self.leaves.append(leaf)
        self.tip = entry.digest
        return entry


def split_lines(data: bytes) -> tuple[list[bytes], bytes]:
    """The complete lines of a stored log, without newlines, and what follows the last newline."""
    *lines, rest = data.split(b"\n")
    return lines, rest
