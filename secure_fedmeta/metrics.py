"""metrics.jsonl: one line per round, durable before the round after it ends."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit import files
from secure_fedmeta.errors import RunDirectoryError


@dataclass(frozen=True)
class Mark:
    """How far metrics had come: bytes, and SHA-256 of them in hexadecimal."""

    size: int
    digest: str


class Metrics:
    """The file and its lines. Make it with `create` or `take_up`.

    Attributes:
        records: the lines so far.
    """

    def __init__(self, path: Path, held: bytes) -> None:
        self.records: list[Mapping[str, Any]] = [json.loads(line) for line in held.splitlines()]
        self._path = path
        self._size = len(held)
        self._hashed = hashlib.sha256(held)

    @classmethod
    def create(cls, path: Path) -> Metrics:
        """A new empty file.

        Raises:
            RunDirectoryError: it cannot be written.
        """
        try:
            files.write_new(path, b"", mode=0o644)
        except OSError as error:
            raise _refusal(path, error) from error
        return cls(path, b"")

    @classmethod
    def take_up(cls, path: Path, mark: Mark) -> Metrics:
        """Go on behind a mark; what lies beyond it goes.

        Raises:
            RunDirectoryError: the file does not begin with what the mark covers.
        """
        try:
            held = path.read_bytes()[: mark.size]
            if (len(held), hashlib.sha256(held).hexdigest()) != (mark.size, mark.digest):
                raise RunDirectoryError(
                    f"{path} does not hold the rounds that the checkpoint counts: put back the "
                    "file that the run wrote"
                )
            os.truncate(path, mark.size)
        except OSError as error:
            raise _refusal(path, error) from error
        return cls(path, held)

    @property
    def mark(self) -> Mark:
        """What there is so far."""
        return Mark(self._size, self._hashed.hexdigest())

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a line; durable on return.

        Raises:
            RunDirectoryError: it cannot be written.
        """
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                files.write_all(fd, line)
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise _refusal(self._path, error) from error
        self._size += len(line)
        self._hashed.update(line)
        self.records.append(record)


def _refusal(path: Path, error: OSError) -> RunDirectoryError:
    return RunDirectoryError(
        f"{path} cannot be used ({error.strerror}): make room, or mend it, and resume the run"
    )
