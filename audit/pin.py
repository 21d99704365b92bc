"""Pins: each log's key and latest known head, kept in the user's state directory.

Cutting off or setting back a log is visible only to whoever remembers a later head. A pin is that
memory; it never goes backwards, never changes its key, never accepts another history.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from audit import files
from audit.canonical import dumps, loads, sha256
from audit.errors import EntryRefused, NoteRefused, PinRefused, ProofRefused
from audit.merkle import verify_consistency
from audit.note import Checkpoint, Verifier


@dataclass(frozen=True)
class Pin:
    """What is remembered of one log: its verifying key and a signed head, checked against it."""

    log_id: str
    vkey: str
    checkpoint: bytes

    @property
    def statement(self) -> Checkpoint:
        """The head's origin, size and root, its signature checked.

        Raises:
            NoteRefused: the pin does not hold a head signed by its key.
        """
        return Verifier.from_vkey(self.vkey).open(self.checkpoint)


class PinStore:
    """Pins under `<state directory>/pins`, one file for each log."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / "pins"

    def load(self, log_id: str) -> Pin | None:
        """The pin of a log, or None where it was never pinned.

        Raises:
            PinRefused: the stored pin is malformed, of another log, or wrongly signed.
        """
        try:
            stored = self._path(log_id).read_bytes()
        except FileNotFoundError:
            return None
        try:
            value = loads(stored)
            pin = Pin(value["log_id"], value["vkey"], value["checkpoint"].encode())
            _ = pin.statement
        except (EntryRefused, NoteRefused, KeyError, TypeError, AttributeError) as error:
            raise PinRefused(f"the pin of {log_id!r} is damaged: {error}") from None
        if pin.log_id != log_id:
            raise PinRefused(f"the pin of {log_id!r} names {pin.log_id!r}")
        return pin

    def save(
        self,
        log_id: str,
        vkey: str,
        checkpoint: bytes,
        *,
        consistency: Sequence[bytes] | None = None,
    ) -> Pin:
        """Remember a head; durable on return. The same head again changes nothing.

        Args:
            log_id: the caller's name for the log.
            vkey: its key; fixed by the first pin.
            checkpoint: a head signed by that key.
            consistency: RFC 6962 proof from the pinned size to this one. A reader passes it, or
                has verified the whole log against the pin just before; the log's own writer,
                whose heads only grow, needs neither.

        Raises:
            PinRefused: wrongly signed, another key, fewer entries than pinned, another root for
                as many, or a proof that does not hold.
        """
        pin = Pin(log_id, vkey, checkpoint)
        try:
            new = pin.statement
        except NoteRefused as error:
            raise PinRefused(f"no valid head to pin: {error}") from None
        with self._lock():
            old = self.load(log_id)
            if old is not None:
                _check_forward(old, pin.vkey, new, consistency)
            content = {"log_id": log_id, "vkey": vkey, "checkpoint": checkpoint.decode()}
            files.replace(self._path(log_id), dumps(content), mode=0o600)
        return pin

    def _path(self, log_id: str) -> Path:
        return self._directory / f"{sha256(log_id.encode()).hex()}.json"

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One process at a time reads, compares and writes."""
        files.make_directories(self._directory, mode=0o700)
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _check_forward(
    old: Pin, vkey: str, new: Checkpoint, consistency: Sequence[bytes] | None
) -> None:
    before = old.statement
    if vkey != old.vkey:
        raise PinRefused(f"log {old.log_id!r} is pinned to another key")
    if new.size < before.size:
        raise PinRefused(f"head of {new.size} entries, pinned are {before.size}: it was set back")
    if new.size == before.size and new.root != before.root:
        raise PinRefused(f"two heads of {new.size} entries differ: the log was forked")
    if consistency is not None:
        try:
            verify_consistency(before.size, before.root, new.size, new.root, consistency)
        except ProofRefused as error:
            raise PinRefused(f"the head does not extend the pinned one: {error}") from None
