"""Where the key of an agent file comes from: files that their owner alone can read.

A passphrase is never an argument of a command, where other users of the machine could read it, nor
an environment variable, which child processes and crash reports inherit.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from crypto.locked_file import FileKey, Passphrase
from secure_fedmeta.errors import AgentError
from secure_fedmeta.tasks.files import read_handle

_MOST: Final = 4096


def passphrase_in(path: Path) -> Passphrase:
    """The passphrase on the one line of a file.

    Raises:
        AgentError: it cannot be read, others can read it, or it is not one line of UTF-8.
        DataError: it is no regular file, or larger than 4 KiB.
        KeyRefused: the passphrase is too short.
    """
    try:
        text = _read(path).decode()
    except UnicodeDecodeError:
        raise AgentError(f"{path} is not UTF-8 text") from None
    line = text.removesuffix("\n").removesuffix("\r")
    if "\n" in line or "\r" in line:
        raise AgentError(f"{path} has more than one line; a passphrase is one")
    return Passphrase(line)


def key_in(path: Path) -> FileKey:
    """The 32 bytes of a key file.

    Raises:
        AgentError: it cannot be read, or others can read it.
        DataError: it is no regular file, or larger than 4 KiB.
        KeyRefused: it does not have 32 bytes.
    """
    return FileKey(_read(path))


def _read(path: Path) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        mode = os.fstat(handle).st_mode
        if stat.S_ISREG(mode) and stat.S_IMODE(mode) & 0o077:
            os.close(handle)
            raise AgentError(f"others can read {path}: run chmod 600 on it")
        return read_handle(handle, str(path), _MOST)
    except OSError as error:
        raise AgentError(f"{path} cannot be read ({error.strerror})") from error
