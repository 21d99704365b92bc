"""The user's state directory: signing key, block secret, pins, ledger. Never inside a run."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_state_path

from audit.files import make_directories, naming, sync_directory
from secure_fedmeta.errors import StateError

SECRET_BYTES = 32


def state_directory() -> Path:
    """`$FEDMETA_STATE_DIR`, or the platform's directory for user state; made with mode 0700.

    Raises:
        StateError: it cannot be made, or others could replace what lies in it.
    """
    path = Path(os.environ.get("FEDMETA_STATE_DIR") or user_state_path("secure-fedmeta"))
    try:
        make_directories(path, mode=0o700)
    except OSError as error:
        raise StateError(
            f"the state directory {path} cannot be made: {error.strerror}; "
            "set FEDMETA_STATE_DIR to a folder of yours"
        ) from error
    if stat.S_IMODE(path.stat().st_mode) & 0o022:
        raise StateError(f"others can write the state directory {path}: run chmod go-w on it")
    return path


def ledger_url() -> str:
    """The default ledger: SQLite in the state directory."""
    return f"sqlite:///{state_directory() / 'ledger.sqlite'}"


def openings_path(run_id: str) -> Path:
    """The salts of a run's commitments: deleting a client's salt erases its participation."""
    directory = state_directory() / "openings"
    make_directories(directory, mode=0o700)
    return directory / f"{run_id}.jsonl"


def runs_path(run_id: str) -> Path:
    """What a run keeps until it has ended, so that it can be resumed; see `kept`."""
    return state_directory() / "resume" / run_id


def signing_seed(rand: Callable[[int], bytes]) -> bytes:
    """The 32-byte Ed25519 seed of this user's logs; made on first use, readable by the owner alone.

    Raises:
        StateError: the file is readable by others or of the wrong length.
    """
    return _kept("log-signing.key", rand)


def block_secret(rand: Callable[[int], bytes]) -> bytes:
    """The 32-byte secret that keys the blocks of confidential records, kept in the same way.

    With another secret the same records make other tasks, so that budgets of runs before and after
    are no longer about the same tasks: keep it as long as the data are used.

    Raises:
        StateError: the file is readable by others or of the wrong length.
    """
    return _kept("blocks.key", rand)


def _kept(name: str, rand: Callable[[int], bytes]) -> bytes:
    path = state_directory() / name
    if not path.exists():
        draft = path.with_name(f"{path.name}.{rand(8).hex()}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with naming(draft), os.fdopen(handle, "wb") as file:
            file.write(rand(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first: its secret stands
            os.link(draft, path)
        draft.unlink()
        sync_directory(path.parent)
    return _read_kept(path)


def _read_kept(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise StateError(f"{path} is no regular file: restore it, or move it away")
        if stat.S_IMODE(mode) & 0o077:
            raise StateError(f"others can read {path}: run chmod 600 on it")
        secret = path.read_bytes()
    except OSError as error:
        raise StateError(
            f"{path} cannot be read: {error.strerror}; restore it, or what it leads to"
        ) from error
    if len(secret) != SECRET_BYTES:
        raise StateError(f"{path} holds {len(secret)} bytes, not {SECRET_BYTES}: restore it")
    return secret
