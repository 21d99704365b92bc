"""Durable storage of a log: what is on the disk when a call returns, and after a crash.

`Disk` is the handful of calls that the log makes of a file system, so that tests can lose, tear or
fail any of them. `Store` composes them: append + fsync, and replace by temp -> fsync -> rename ->
fsync of the directory. A failed fsync is never retried: the kernel may have dropped the pages.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from audit.errors import LogCorrupt, LogLocked
from audit.files import naming, write_all


class Disk(Protocol):
    """One directory. Names are plain file names; every call may raise OSError."""

    def read(self, name: str) -> bytes | None:
        """Whole content, or None where there is no such file."""
        ...

    def append(self, name: str, at: int, data: bytes) -> None:
        """Write at the end, which must be at offset `at`; creates the file at 0.

        Raises:
            LogCorrupt: the file is not `at` bytes long.
        """
        ...

    def write(self, name: str, data: bytes) -> None:
        """Create or overwrite the file."""
        ...

    def sync(self, name: str) -> None:
        """Make the file's content durable."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Replace `new` by `old`, atomically."""
        ...

    def sync_directory(self) -> None:
        """Make creations and renames durable."""
        ...

    def close(self) -> None:
        """Give up the lock; no further calls."""
        ...


class OsDisk:
    """A directory of the operating system, locked for one writer while open (flock).

    Raises:
        LogLocked: another writer, in this or another process, has it open.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise LogLocked(f"{directory} has another writer") from None

    def read(self, name: str) -> bytes | None:
        """Whole content, or None where there is no such file."""
        try:
            return (self._directory / name).read_bytes()
        except FileNotFoundError:
            return None

    def append(self, name: str, at: int, data: bytes) -> None:
        """Write at the end, which must be at offset `at`; creates the file at 0."""
        with self._open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as fd:
            size = os.fstat(fd).st_size
            if size != at:
                raise LogCorrupt(f"{name} has {size} bytes where its writer left {at}")
            write_all(fd, data)

    def write(self, name: str, data: bytes) -> None:
        """Create or overwrite the file."""
        with self._open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
            write_all(fd, data)

    def sync(self, name: str) -> None:
        """Make the file's content durable."""
        with self._open(name, os.O_RDONLY) as fd:
            os.fsync(fd)

    def rename(self, old: str, new: str) -> None:
        """Replace `new` by `old`, atomically."""
        (self._directory / old).replace(self._directory / new)

    def sync_directory(self) -> None:
        """Make creations and renames durable."""
        with naming(self._directory):
            os.fsync(self._fd)

    def close(self) -> None:
        """Give up the lock; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @contextlib.contextmanager
    def _open(self, name: str, flags: int) -> Iterator[int]:
        path = self._directory / name
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            with naming(path):
                yield fd
        finally:
            os.close(fd)


class Store:
    """The durable writes of a log, composed of a disk's calls."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def read(self, name: str) -> bytes | None:
        """Whole content, or None where there is no such file."""
        return self._disk.read(name)

    def append(self, name: str, at: int, data: bytes) -> None:
        """Append at offset `at` (bytes); durable on return, unless it raises.

        Raises:
            OSError: the system refused; any prefix of `data` may be on the disk.
            LogCorrupt: the file is not `at` bytes long: someone else has written to it.
        """
        self._disk.append(name, at, data)
        self._disk.sync(name)
        if at == 0:
            self._disk.sync_directory()

    def overwrite(self, name: str, data: bytes) -> None:
        """Put `data` into a file that exists; durable on return, and torn by a crash before.

        Raises:
            OSError: the system refused; the file may hold neither.
        """
        self._disk.write(name, data)
        self._disk.sync(name)

    def append_lazily(self, name: str, at: int, data: bytes) -> None:
        """Append without waiting for the disk: for what can be rebuilt."""
        self._disk.append(name, at, data)

    def replace(self, name: str, data: bytes) -> None:
        """Put `data` in the place of the file; durable on return, unless it raises.

        Raises:
            OSError: the system refused; the file is as before, or new, never in between.
        """
        temporary = name + ".tmp"
        self._disk.write(temporary, data)
        self._disk.sync(temporary)
        self._disk.rename(temporary, name)
        self._disk.sync_directory()

    def close(self) -> None:
        """Give up the lock."""
        self._disk.close()
