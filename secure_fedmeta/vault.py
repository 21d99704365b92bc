"""Where a party keeps what must outlive its process: sealed, whole and durable before it answers.

A vault shows no age: whoever can write where it lies can put an older state back, and the party
would then answer a step twice. Keep it on a disk of the party's own and out of its backups.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from audit.errors import LogLocked
from audit.store import Disk, OsDisk, Store
from crypto.sealed_state import StateSealer
from secure_fedmeta.errors import StateError

FILE: Final = "party.state"


class Vault(Protocol):
    """Keeps the state of one party in one run."""

    def get(self) -> bytes:
        """The state that was put last, and will be found after a crash; empty if none ever was.

        Raises:
            StateError: it cannot be read.
            StateRefused: it is not this party's, or was changed.
        """
        ...

    def put(self, state: bytes) -> None:
        """Keep a state in place of the one before; durable on return.

        Raises:
            StateError: it is not known to be durable; nothing may be answered on the strength of
                it.
        """
        ...


class MemoryVault:
    """Keeps a state in this process: for a transport that makes parties anew, and for tests."""

    def __init__(self) -> None:
        self._state = b""

    def get(self) -> bytes:
        """The state that was put last."""
        return self._state

    def put(self, state: bytes) -> None:
        """Keep a state."""
        self._state = state


class FileVault:
    """Keeps a sealed state in a directory: temporary file, fsync, rename, fsync of the directory.

    One process at a time: the directory is locked while it is open. After a write that failed it
    takes no more, since nobody knows what is on the disk; open it again.

    Args:
        disk: the directory, exclusively.
        sealer: of this party in this run.
    """

    def __init__(self, disk: Disk, sealer: StateSealer) -> None:
        self._store = Store(disk)
        self._sealer = sealer
        self._failed = False

    @classmethod
    def create(cls, directory: Path, sealer: StateSealer) -> FileVault:
        """A vault for a party that joins a run; the directory is made if there is none.

        Raises:
            StateError: the directory holds a state already, is in use, or cannot be written.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(f"{directory} cannot be made: {error.strerror}") from error
        vault = cls(_lock(directory), sealer)
        if vault._read() is not None:
            vault.close()
            raise StateError(
                f"{directory / FILE} exists: open it to go on with it. A party that starts anew in"
                " the same run could answer a round twice"
            )
        vault.put(b"")
        return vault

    @classmethod
    def open(cls, directory: Path, sealer: StateSealer) -> FileVault:
        """The vault of a party that goes on.

        Raises:
            StateError: there is no state, or the directory is in use.
        """
        if not (directory / FILE).exists():
            raise StateError(
                f"{directory / FILE} does not exist. Put it back; a party that never took part in"
                " this run creates its vault instead"
            )
        return cls(_lock(directory), sealer)

    def __repr__(self) -> str:
        return f"FileVault(party={self._sealer.index}, redacted)"

    def get(self) -> bytes:
        """The state, written once more: what was read may not have reached the disk before."""
        sealed = self._read()
        if sealed is None:
            raise StateError(f"{FILE} is missing from the vault: put it back")
        state = self._sealer.open(sealed)
        self._write(sealed)
        return state

    def put(self, state: bytes) -> None:
        """Seal a state and make it durable."""
        self._write(self._sealer.seal(state))

    def close(self) -> None:
        """Let another process open it."""
        self._store.close()

    def _read(self) -> bytes | None:
        try:
            return self._store.read(FILE)
        except OSError as error:
            raise StateError(f"{FILE} cannot be read: {error.strerror}") from error

    def _write(self, sealed: bytes) -> None:
        if self._failed:
            raise StateError("the vault failed before: mend its disk and open it again")
        try:
            self._store.replace(FILE, sealed)
        except OSError as error:
            self._failed = True
            raise StateError(
                f"the party's state is not durable ({error.strerror}), so that it does not answer:"
                " make room on its disk, or mend it, and start the party again"
            ) from error


def _lock(directory: Path) -> Disk:
    try:
        return OsDisk(directory)
    except LogLocked:
        raise StateError(
            f"{directory} is in use: another process runs this party. Stop one of the two"
        ) from None
    except OSError as error:
        raise StateError(f"{directory} cannot be opened: {error.strerror}") from error
