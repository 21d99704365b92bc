"""Errors of the audit package: one tree, so that a caller can catch `AuditError` and mean all."""

from __future__ import annotations


class AuditError(Exception):
    """Base of every error that this package raises on purpose."""


class EntryRefused(AuditError):
    """An entry is malformed, not canonical, or out of order; nothing was written."""


class ChainBroken(EntryRefused):
    """An entry's `prev` is not the SHA-256 of the entry before it: one of the two was changed."""


class NoteRefused(AuditError):
    """A signed note, a key string or a checkpoint is malformed, or its signature is wrong."""


class ProofRefused(AuditError):
    """A Merkle inclusion or consistency proof does not prove what it should."""


class PinRefused(AuditError):
    """A pin would go backwards, change its key, or contradict what is pinned."""


class LogLocked(AuditError):
    """Another writer holds the log."""


class LogCorrupt(AuditError):
    """The stored log contradicts its signed head; opening it for writing would hide that."""


class WriteFailed(AuditError):
    """The log could not be made durable; the entry is not acknowledged and the writer is stopped.

    Reopening the log recovers: an entry that reached the disk whole is kept, a torn one dropped.
    """


class VerificationFailed(AuditError):
    """The log cannot be trusted.

    Attributes:
        index: the first bad entry, counted from 0; the number of stored entries when the first
            missing one is meant; None when the fault lies in the checkpoint or the key and no
            entry can be named. Exact where the stored leaf hashes make the signed root; without
            them, the first entry at which the log contradicts itself, or the first that no
            verified root covers.
        reason: one sentence for people.
    """

    def __init__(self, index: int | None, reason: str) -> None:
        self.index = index
        self.reason = reason
        where = "checkpoint" if index is None else f"entry {index}"
        super().__init__(f"{where}: {reason}")
