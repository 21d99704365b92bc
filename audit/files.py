"""Small durable files outside a log: keys and pins."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_all(fd: int, data: bytes) -> None:
    """Write every byte; the system may take them in parts."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the system say which file it is about: those of write and fsync do not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def sync_directory(directory: Path) -> None:
    """Make creations and renames inside `directory` durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with naming(directory):
            os.fsync(fd)
    finally:
        os.close(fd)


def make_directories(path: Path, *, mode: int = 0o777) -> None:
    """Make a directory, and those above it that are missing; durable on return."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    for one in reversed(missing):
        sync_directory(one.parent)


def write_new(path: Path, data: bytes, *, mode: int) -> None:
    """Create a file that did not exist, durable on return.

    Raises:
        FileExistsError: `path` exists, whatever it is.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with naming(path):
            write_all(fd, data)
            os.fsync(fd)
    finally:
        os.close(fd)
    sync_directory(path.parent)


def replace(path: Path, data: bytes, *, mode: int) -> None:
    """Put `data` in the place of `path`: after a crash the old content is there or the new.

    The caller keeps others from replacing the same path at the same time.
    """
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    write_new(temporary, data, mode=mode)
    temporary.replace(path)
    sync_directory(path.parent)
