"""What a run keeps in the state directory until it has ended, so that it can be resumed.

Three files under `resume/<run id>`, for the owner alone:

    secret      32 bytes: identities and drawing keys of the simulated parties follow from it, and
                the key that seals checkpoints
    facts.json  where data were read, and digests of what must be the same again
    attempts    one line `ROUND ATTEMPT` for each attempt, durable before its first message leaves

None of it may lie in the run directory: that one is copied, published and put back from backups.
Noise, coins, masks and rounding follow from nothing that is kept. The folder is locked while a
process runs the run: the log's own lock is in the run directory, and a copy would have another.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final, Self

from audit import files
from crypto.keys import derive
from secure_fedmeta import state
from secure_fedmeta.errors import NothingBegun, RunDirectoryError, StateError
from secure_fedmeta.randomness import Founding

VERSION: Final = 1
_SECRET, _FACTS, _ATTEMPTS = "secret", "facts.json", "attempts"
_LINE = re.compile(rb"(\d+) (\d+)\n")


@dataclass(frozen=True)
class Facts:
    """What a resumed run must find again, and where.

    Attributes:
        folder: where relative paths in the source's options start.
        model: digest of the initial model, hexadecimal.
        data: digest of all records and blocks under the run's secret, hexadecimal.
        loss: name of the task loss; None for the caller's own.
    """

    folder: str
    model: str
    data: str
    loss: str | None


class Kept:
    """The folder of one run, locked until it is closed. Make it with `create` or `open`.

    Attributes:
        facts: what was noted when the run began.
        attempts: (round, attempt) of every attempt that was begun, in order.
    """

    def __init__(self, folder: Path, secret: bytes, facts: Facts) -> None:
        self.facts = facts
        self.attempts: list[tuple[int, int]] = []
        self._folder = folder
        self._secret = secret
        self._size = 0
        self._lock = _locked(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the lock; a second call does nothing."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __repr__(self) -> str:
        return f"Kept({self._folder.name!r}, redacted)"

    @classmethod
    def create(cls, run_id: str, secret: bytes, facts: Facts) -> Kept:
        """Keep secret and facts of a new run, durably.

        Args:
            run_id: the run's name.
            secret: 32 fresh bytes.
            facts: see Facts.

        Raises:
            StateError: the state directory cannot be written, or holds such a run.
        """
        folder = state.runs_path(run_id)
        with _writing(folder):
            files.make_directories(folder.parent, mode=0o700)
            folder.mkdir(mode=0o700)
            files.write_new(folder / _SECRET, secret, mode=0o600)
            text = json.dumps({"version": VERSION, **asdict(facts)})
            files.write_new(folder / _FACTS, text.encode(), mode=0o600)
            files.sync_directory(folder.parent)
        return cls(folder, secret, facts)

    @classmethod
    def open(cls, run_id: str) -> Kept:
        """What a run left that was cut off.

        Raises:
            StateError: it is not there, is damaged, or others can read it.
            RunDirectoryError: another process runs it.
        """
        folder = state.runs_path(run_id)
        if not (folder / _SECRET).is_file() or not (folder / _FACTS).is_file():
            raise StateError(
                f"{folder} does not hold what run {run_id} kept: it can be resumed only where, and "
                "as the user by whom, it was begun, with the same FEDMETA_STATE_DIR"
            )
        for path in (folder, folder / _SECRET):
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                raise StateError(f"others can read {path}: run chmod go= on it")
        secret = (folder / _SECRET).read_bytes()
        if len(secret) != state.SECRET_BYTES:
            raise StateError(f"{folder / _SECRET} is damaged: restore it")
        kept = cls(folder, secret, _read_facts(folder / _FACTS))
        try:
            kept._read_attempts()
        except BaseException:
            kept.close()
            raise
        return kept

    @staticmethod
    def check_begun(run_id: str) -> None:
        """Refuse a run of which there is nothing to resume.

        Raises:
            NothingBegun: it was cut off before `ready`.
        """
        folder = state.runs_path(run_id)
        if folder.exists() and not (folder / _ATTEMPTS).exists():
            raise NothingBegun(
                f"run {run_id} was cut off before its first round, and charged nothing: start it "
                "again with fedmeta run"
            )

    @property
    def secret(self) -> bytes:
        """The 32 bytes that everything here follows from."""
        return self._secret

    @property
    def founding(self) -> Founding:
        """Gives identities and drawing keys of the parties, the same each time."""
        return Founding(self._secret)

    @property
    def seal_key(self) -> bytes:
        """Seals checkpoints: 32 bytes."""
        return derive(self._secret, "fedmeta/checkpoint/v1")

    def ready(self) -> None:
        """The log has its first entries: from now on there is something to resume."""
        with _writing(self._folder):
            files.write_new(self._folder / _ATTEMPTS, b"", mode=0o600)

    def begin(self, round_index: int, attempt: int) -> None:
        """Note an attempt; durable on return, and only then may a message of it leave.

        Raises:
            StateError: it is not known to be durable.
        """
        with _writing(self._folder):
            line = b"%d %d\n" % (round_index, attempt)
            fd = os.open(self._folder / _ATTEMPTS, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.ftruncate(fd, self._size)  # a torn line that was never acted on
                os.lseek(fd, self._size, os.SEEK_SET)
                files.write_all(fd, line)
                os.fsync(fd)
            finally:
                os.close(fd)
        self._size += len(line)
        self.attempts.append((round_index, attempt))

    @staticmethod
    def forget(run_id: str) -> None:
        """The run has ended: remove what was kept of it, the secret first."""
        folder = state.runs_path(run_id)
        # Under its own name it would be, half removed, what a run leaves that never began.
        ended = folder.with_name(f"{folder.name}.ended")
        with _writing(folder):
            if folder.exists():
                (folder / _SECRET).unlink(missing_ok=True)
                files.sync_directory(folder)
                folder.rename(ended)
            if ended.exists():
                shutil.rmtree(ended)

    def _read_attempts(self) -> None:
        """Read the notes; a torn last one was never acted on."""
        path = self._folder / _ATTEMPTS
        stored = path.read_bytes()
        whole = stored[: stored.rfind(b"\n") + 1]
        lines = whole.splitlines(keepends=True)
        found = [_LINE.fullmatch(line) for line in lines]
        for line, match in zip(lines, found, strict=True):
            if match is None:
                raise StateError(f"{path} is damaged at {line!r}: restore it")
            self.attempts.append((int(match[1]), int(match[2])))
        self._size = len(whole)


def _locked(folder: Path) -> int:
    """A descriptor that holds the folder's lock.

    Raises:
        RunDirectoryError: another one holds it.
    """
    with _writing(folder):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise RunDirectoryError(
                f"run {folder.name} is in use: another process runs it, or a copy of it. Wait for "
                "it, or stop it"
            ) from None
        except BaseException:
            os.close(fd)
            raise
    return fd


def _read_facts(path: Path) -> Facts:
    try:
        held = json.loads(path.read_bytes())
        version = held.pop("version")
        if version == VERSION and set(held) == {field.name for field in fields(Facts)}:
            return Facts(**held)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateError(f"{path} is damaged ({error}): restore it") from error
    raise StateError(f"{path} is of version {version!r}; this release reads {VERSION}: update it")


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateError(
            f"{folder} cannot be written ({error.strerror}), so that the run does not go on: make "
            "room, or mend it, and resume the run"
        ) from error
