"""How many reservations a ledger has ever held: the mark that a restored copy falls short of."""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
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
            if not self._path.exists():
                self._create()
            descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if self._parse(os.pread(descriptor, 64, 0)) < count:
                    os.pwrite(descriptor, _written(count), 0)
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise LedgerError(f"{self._path} cannot be written: {error}") from error

    def _create(self) -> None:
        """Begin at 0, whole or not at all: a process killed in between leaves no empty mark."""
        draft = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, _written(0))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            with suppress(FileExistsError):  # another process was first: its mark stands
                os.link(draft, self._path)
        finally:
            draft.unlink(missing_ok=True)
        sync_directory(self._path.parent)

    def _parse(self, held: bytes) -> int:
        if len(held) != 21 or not held[:20].isdigit() or held[20:] != b"\n":
            raise LedgerError(f"{self._path} is damaged: it holds {held[:32]!r}")
        return int(held)


def _written(count: int) -> bytes:
    return b"%020d\n" % count


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
