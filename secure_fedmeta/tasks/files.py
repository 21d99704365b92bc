"""A person's own files: read whole, from regular files of a bounded size."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from secure_fedmeta.errors import DataError


def read_regular(path: Path, most: int) -> bytes:
    """The bytes of a regular file of at most `most` bytes.

    Raises:
        DataError: it cannot be read, is no regular file, or is larger.
    """
    try:
        # Opening a pipe would otherwise wait for somebody to write into it.
        return read_handle(os.open(path, os.O_RDONLY | os.O_NONBLOCK), str(path), most)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def read_handle(handle: int, name: str, most: int) -> bytes:
    """The bytes of an open file, which is closed.

    Args:
        handle: its descriptor.
        name: its name, for messages.
        most: largest number of bytes.

    Raises:
        DataError: it is no regular file, or larger.
        OSError: it cannot be read.
    """
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise DataError(f"{name}: is no regular file")
        data = file.read(most + 1)
    if len(data) > most:
        raise DataError(f"{name}: is larger than {most:,} bytes, the most that is read")
    return data
