"""The state directory: keys that only their owner reads, made once."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from secure_fedmeta import state
from secure_fedmeta.errors import StateError
from secure_fedmeta.tasks import Site


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_environment_names_the_directory(state_dir: Path) -> None:
    assert state.state_directory() == state_dir
    assert mode(state_dir) == 0o700
    assert state.ledger_url() == f"sqlite:///{state_dir}/ledger.sqlite"


def test_the_platform_names_it_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDMETA_STATE_DIR", "")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert state.state_directory() == tmp_path / "xdg" / "secure-fedmeta"


def test_a_directory_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("FEDMETA_STATE_DIR", str(file))
    with pytest.raises(StateError, match="set FEDMETA_STATE_DIR to a folder of yours"):
        state.state_directory()


@pytest.mark.parametrize("bits", [0o720, 0o702, 0o777, 0o1777])
def test_a_directory_that_others_can_write_is_refused(state_dir: Path, bits: int) -> None:
    """They could put another ledger, pin or key in the place of this user's."""
    state_dir.mkdir()
    state_dir.chmod(bits)
    with pytest.raises(StateError, match=r"others can write .*: run chmod go-w on it"):
        state.state_directory()
    state_dir.chmod(0o755)
    assert state.state_directory() == state_dir


def test_the_signing_seed_is_made_once_and_private(state_dir: Path) -> None:
    first = state.signing_seed(os.urandom)
    assert state.signing_seed(os.urandom) == first
    assert len(first) == 32
    path = state_dir / "log-signing.key"
    assert mode(path) == 0o600
    assert [file.name for file in state_dir.iterdir()] == [path.name]


def test_the_block_secret_is_another_and_stays(state_dir: Path) -> None:
    first = state.block_secret(os.urandom)
    assert state.block_secret(os.urandom) == first != state.signing_seed(os.urandom)
    assert len(first) == 32
    assert mode(state_dir / "blocks.key") == 0o600
    assert repr(Site()) == "Site(folder=PosixPath('.'))"
    assert Site().block_secret() == first


def test_the_umask_does_not_open_the_key(state_dir: Path) -> None:
    before = os.umask(0)
    try:
        state.signing_seed(os.urandom)
        state.openings_path("run")
    finally:
        os.umask(before)
    assert mode(state_dir / "log-signing.key") == 0o600
    assert mode(state_dir / "openings") == 0o700


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_is_refused(state_dir: Path, bits: int) -> None:
    state.signing_seed(os.urandom)
    (state_dir / "log-signing.key").chmod(bits)
    with pytest.raises(StateError, match="chmod 600"):
        state.signing_seed(os.urandom)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_the_wrong_length_is_refused(state_dir: Path, size: int) -> None:
    path = state.state_directory() / "log-signing.key"
    path.write_bytes(bytes(size))
    path.chmod(0o600)
    with pytest.raises(StateError, match=f"holds {size} bytes, not 32"):
        state.signing_seed(os.urandom)


@pytest.mark.parametrize("name", ["log-signing.key", "blocks.key"])
@pytest.mark.parametrize("what", ["folder", "dangling link", "pipe"])
def test_what_is_no_key_is_refused_in_words(name: str, what: str) -> None:
    path = state.state_directory() / name
    if what == "folder":
        path.mkdir(mode=0o700)
    elif what == "pipe":
        os.mkfifo(path, 0o600)
    else:
        path.symlink_to("gone")
    take = state.signing_seed if name == "log-signing.key" else state.block_secret
    with pytest.raises(StateError, match=rf"{name} (is no regular file|cannot be read: No such)"):
        take(os.urandom)


def test_of_processes_that_race_one_key_stands() -> None:
    ready = threading.Barrier(8)
    found: list[bytes] = []

    def take() -> None:
        ready.wait()
        found.append(state.signing_seed(os.urandom))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert set(found) == {state.signing_seed(os.urandom)}


def test_openings_lie_in_the_state_directory(state_dir: Path) -> None:
    assert state.openings_path("some-run") == state_dir / "openings" / "some-run.jsonl"
