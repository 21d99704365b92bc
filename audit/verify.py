"""The verifier: reads a log with nothing from its writer and says whether it can be trusted.

Every entry is checked twice, by the hash chain and by the signed Merkle root, and in the order of
`rules`. A failure names the first entry that cannot be trusted. Entries cut off the end together
with a set-back head show only against a pinned head; `Verified` says what was compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from audit.entry import Entry
from audit.errors import AuditError, ChainBroken, EntryRefused, NoteRefused, VerificationFailed
from audit.merkle import leaf_hash, root_of
from audit.note import Checkpoint, Verifier, read_unverified
from audit.replay import CHECKPOINT, LEAVES, LOG, Replay, split_lines

Trust = Literal["given", "pinned", "none"]


class SpendCheck(Protocol):
    """Recomputes the privacy spend of a log, entry by entry, starting over at a genesis."""

    def observe(self, entry: Entry) -> None:
        """Take the next entry.

        Raises:
            EntryRefused: its figures are not those of the events before it.
        """
        ...


@dataclass(frozen=True)
class Verified:
    """What was verified, and against what.

    Attributes:
        origin: the log's name.
        run: the run that it records; None for an empty log.
        size: entries.
        root: RFC 6962 root, 32 bytes.
        tip: SHA-256 of the last entry; None for an empty log.
        trust: `given` (key from the user), `pinned` (key and an earlier head), or `none` (nobody's
            key: only that the files agree with each other).
        pinned_size: entries that the pinned head covers; None without one.
        released: rounds released.
        aborted: rounds aborted.
        open_round: a round whose outcome is not recorded, or None.
        resumed: how often another process went on with the run.
        ended: whether its report was exported; if not it runs, or was cut off.
        not_private: whether the run declared itself not private.
        not_checked: what this verification cannot say, in sentences for people.
    """

    origin: str
    run: str | None
    size: int
    root: bytes
    tip: bytes | None
    trust: Trust
    pinned_size: int | None
    released: int
    aborted: int
    open_round: int | None
    resumed: int
    ended: bool
    not_private: bool
    not_checked: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The same in plain JSON types, digests as lowercase hex."""
        return {
            "origin": self.origin,
            "run": self.run,
            "size": self.size,
            "root": self.root.hex(),
            "tip": None if self.tip is None else self.tip.hex(),
            "trust": self.trust,
            "pinned_size": self.pinned_size,
            "released": self.released,
            "aborted": self.aborted,
            "open_round": self.open_round,
            "resumed": self.resumed,
            "ended": self.ended,
            "not_private": self.not_private,
            "not_checked": list(self.not_checked),
        }

    def standing(self) -> Iterator[str]:
        """How the run stands, in sentences; nothing of one that ended in one go."""
        if self.resumed:
            times = "time" if self.resumed == 1 else "times"
            yield f"the run was cut off and resumed {self.resumed} {times}"
        if self.open_round is not None:
            yield f"round {self.open_round} is charged and has no outcome"
        if not self.ended:
            yield "the run has not ended: it runs, or was cut off (fedmeta run --resume goes on)"


def verify_log(
    directory: Path, *, vkey: str | None, pinned: bytes | None, spend: SpendCheck | None
) -> Verified:
    """Verify the log in `directory` (log.jsonl and checkpoint).

    Args:
        directory: where the log lies; nothing in it is trusted.
        vkey: the log's key, from the user or a pin, never from the log; None checks no signature.
        pinned: a signed head known from before; it needs the key that signed it.
        spend: recomputes each release's figures; None leaves them unchecked, and says so.

    Raises:
        VerificationFailed: the log cannot be trusted; `index` is the first bad entry.
        AuditError: a pinned head was given without a key.
    """
    if pinned is not None and vkey is None:
        raise AuditError("a pinned head is worth nothing without the key that signed it")
    head, anchor = _read_heads(directory, vkey, pinned)
    lines, torn = split_lines(_read(directory / LOG))
    if torn:
        lines.append(torn)
    _compare_leaves(directory, lines, head)
    if torn:
        raise VerificationFailed(len(lines) - 1, "does not end in a newline")
    replay = _replay(lines, head, anchor, spend)
    if anchor is not None and head.size < anchor.size:
        raise VerificationFailed(head.size, f"is missing: the pinned head covers {anchor.size}")
    order = replay.order
    genesis, open_intent = order.genesis, order.open_intent
    return Verified(
        origin=head.origin,
        run=None if genesis is None else genesis.run,
        size=head.size,
        root=head.root,
        tip=replay.tip,
        trust="none" if vkey is None else "given" if anchor is None else "pinned",
        pinned_size=None if anchor is None else anchor.size,
        released=order.released,
        aborted=order.aborted,
        open_round=None if open_intent is None else open_intent.round,
        resumed=order.resumed,
        ended=order.exported,
        not_private=genesis is not None and genesis.not_private,
        not_checked=_not_checked(vkey, anchor, spend),
    )


def _read_heads(
    directory: Path, vkey: str | None, pinned: bytes | None
) -> tuple[Checkpoint, Checkpoint | None]:
    try:
        verifier = None if vkey is None else Verifier.from_vkey(vkey)
    except NoteRefused as error:
        raise VerificationFailed(None, f"key: {error}") from None
    note = _read(directory / CHECKPOINT)
    try:
        head = read_unverified(note) if verifier is None else verifier.open(note)
    except NoteRefused as error:
        raise VerificationFailed(None, str(error)) from None
    if verifier is None or pinned is None:
        return head, None
    try:
        return head, verifier.open(pinned)
    except NoteRefused as error:
        raise VerificationFailed(None, f"pinned head: {error}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise VerificationFailed(None, f"{path.name} cannot be read: {error.strerror}") from None


def _compare_leaves(directory: Path, lines: list[bytes], head: Checkpoint) -> None:
    """Find the first changed entry by the stored leaf hashes, where they make the signed root.

    Without usable leaf hashes nothing is lost but precision: the replay rejects what this would.
    """
    path = directory / LEAVES
    stored = path.read_bytes() if path.is_file() else b""
    if len(stored) < 32 * head.size:
        return
    leaves = [stored[at : at + 32] for at in range(0, 32 * head.size, 32)]
    if root_of(leaves) != head.root:
        return
    for index, leaf in enumerate(leaves):
        if index >= len(lines):
            raise VerificationFailed(index, f"is missing: the signed head covers {head.size}")
        found = leaf_hash(lines[index])
        if found in leaves and found != leaf:
            raise VerificationFailed(index, f"entry {leaves.index(found)} stands in its place")
        if found != leaf:
            raise VerificationFailed(index, "was changed after it was signed")


def _replay(
    lines: list[bytes], head: Checkpoint, anchor: Checkpoint | None, spend: SpendCheck | None
) -> Replay:
    """Check every entry forward, then the roots.

    Raises:
        VerificationFailed: at the first entry that cannot be trusted.
    """
    replay = Replay(head.origin)
    anchor_root = replay.root if anchor is not None and anchor.size == 0 else None
    for index, raw in enumerate(lines[: head.size]):
        try:
            entry = replay.take(raw)
            if spend is not None:
                spend.observe(entry)
        except ChainBroken as error:
            raise VerificationFailed(_changed(index, lines, head), str(error)) from None
        except EntryRefused as error:
            raise VerificationFailed(index, str(error)) from None
        if anchor is not None and anchor.size == replay.size:
            anchor_root = replay.root
    if len(lines) < head.size:
        raise VerificationFailed(len(lines), f"is missing: the signed head covers {head.size}")
    anchored = anchor is not None and anchor_root == anchor.root
    if replay.root != head.root:
        first = anchor.size if anchor is not None and anchored else 0
        raise VerificationFailed(first, "this or a later entry was changed: the root differs")
    if anchor is not None and anchor.size <= head.size and not anchored:
        raise VerificationFailed(0, "the history was rewritten: the pinned head has another root")
    if len(lines) > head.size:
        raise VerificationFailed(
            head.size, "is not covered by the signed head (its writer runs, or was cut off)"
        )
    return replay


def _changed(index: int, lines: list[bytes], head: Checkpoint) -> int:
    """Which end of a broken link `index - 1 -> index` was changed.

    Where the leaf hashes make the signed root, every line is known to be as signed, so the writer
    itself wrote a wrong `prev`. Otherwise the entry before comes first among those in doubt.
    """
    signed = root_of([leaf_hash(raw) for raw in lines[: head.size]]) == head.root
    return index if signed else index - 1


def _not_checked(
    vkey: str | None, anchor: Checkpoint | None, spend: SpendCheck | None
) -> tuple[str, ...]:
    """What a reader might take for verified and is not."""
    notes = []
    if vkey is None:
        notes.append("signature: no key was given, anybody could have written this log")
    if anchor is None:
        notes.append("rollback: no pinned head, so a log set back to an earlier head looks whole")
    if spend is None:
        notes.append("privacy spend: not recomputed")
    notes.append("membership: cohort, survivor and contribution roots are not opened")
    return tuple(notes)
