"""How many reservations a ledger has ever held: the mark that a restored copy falls short of."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from privacy.errors import LedgerError


class HighWater:
    """A count in a file of its own, which only grows.

    A database put back from an older copy holds fewer reservations, which then shows. It guards
    against a mistake, not against an operator who also rolls this file back: the audit log does
    that. Grants are not counted: an older copy brings back the grants of its time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> int:
        """The mark; 0 where none was ever made."""
        try:
            return self._parse(self._path.read_bytes())
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise LedgerError(f"{self._path} cannot be read: {error}") from error

    def raise_to(self, count: int) -> None:
        """Make the mark at least `count`, durably; it never goes down."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                held = os.pread(descriptor, 64, 0)
                if not held or self._parse(held) < count:
                    os.pwrite(descriptor, b"%020d\n" % count, 0)
                    os.fsync(descriptor)
                    if not held:
                        sync_directory(self._path.parent)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise LedgerError(f"{self._path} cannot be written: {error}") from error

    def _parse(self, held: bytes) -> int:
        if len(held) != 21 or not held[:20].isdigit() or held[20:] != b"\n":
            raise LedgerError(f"{self._path} is damaged: it holds {held[:32]!r}")
        return int(held)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
