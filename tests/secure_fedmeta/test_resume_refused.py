"""What a resumed run finds that is not as it was left is refused in words; nothing is lost."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from audit.log import AuditLog
from audit.pin import PinStore
from secure_fedmeta import state
from secure_fedmeta.checkpoint import FILE, NEXT
from secure_fedmeta.cli_output import Show
from secure_fedmeta.console_progress import display
from secure_fedmeta.errors import (
    ConfigError,
    FedmetaError,
    NothingBegun,
    RunDirectoryError,
    RunEnded,
    StateError,
)
from secure_fedmeta.models import build_model
from secure_fedmeta.tasks import Site
from secure_fedmeta.training import resume, run
from secure_fedmeta.verification import verify_run
from tests.secure_fedmeta.cuts import (
    Killed,
    Mortal,
    check_resumed,
    cut_before,
    mortal,
    short,
)
from tests.secure_fedmeta.federation import default_ledger, entries

__all__ = ["mortal"]


def kinds(directory: Path) -> list[str]:
    return [entry["kind"] for entry in entries(directory / "audit")]


def bodies(directory: Path, kind: str) -> list[dict[str, Any]]:
    return [e["body"] for e in entries(directory / "audit") if e["kind"] == kind]


def refused(directory: Path, error: type[Exception], match: str, **named: Any) -> None:
    """Refused in words, and nothing of the log was changed by it."""
    before = (directory / "audit" / "log.jsonl").read_bytes()
    with pytest.raises(error, match=match):
        resume(directory, **named)
    assert (directory / "audit" / "log.jsonl").read_bytes() == before


@pytest.fixture
def half(tmp_path: Path, mortal: Mortal) -> Path:
    """One round released; the second was opened."""
    config = short({"training.rounds": 3})
    return cut_before(mortal, config, tmp_path, "Checkpoints.put", nth=2)


def test_a_run_that_has_ended(tmp_path: Path) -> None:
    directory = run(short(), out=tmp_path).directory
    refused(directory, RunEnded, "nothing is left to resume")
    with pytest.raises(RunDirectoryError, match="name the directory of a run"):
        resume(tmp_path)


def test_a_directory_in_which_nothing_began(tmp_path: Path) -> None:
    """Cut off before the config, or before the log, was written."""
    directory = tmp_path / "20260131-120000-tiny-0a1b2c"
    directory.mkdir()
    for _ in range(2):
        with pytest.raises(NothingBegun, match="charged nothing"):
            resume(directory)
        (directory / "config.toml").write_text("torn")


def test_other_settings(half: Path) -> None:
    text = (half / "config.toml").read_text()
    (half / "config.toml").write_text(text.replace("rounds = 3", "rounds = 4"))
    refused(half, RunDirectoryError, "config.toml is not the one that the run began with")


def test_other_data(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from secure_fedmeta.tasks.sinusoid import SinusoidSource

    client = SinusoidSource.client

    def changed(self: SinusoidSource, name: str) -> Any:
        found = client(self, name)
        y = found.y.copy()
        y[0] += 1e-3
        return type(found)(found.name, found.blocks, found.x, y)

    monkeypatch.setattr(SinusoidSource, "client", changed)
    refused(half, RunDirectoryError, "the data are not those")


def test_another_network_or_loss(half: Path) -> None:
    refused(half, RunDirectoryError, "the network", module=build_model("linear", 1, 1, (), seed=9))
    own = build_model("linear", 1, 1, (), seed=0)
    refused(half, RunDirectoryError, "began with loss 'mse'", module=own, loss="cross_entropy")


def test_a_network_of_ones_own_is_given_again(tmp_path: Path, mortal: Mortal) -> None:
    torch.manual_seed(3)
    own: nn.Module = nn.Sequential(nn.Linear(1, 2), nn.Tanh(), nn.Linear(2, 1))
    out, directory = tmp_path / "runs", None
    mortal.born(40)
    with pytest.raises(Killed):
        run(short({"training.rounds": 6}), out=out, module=own)
    mortal.born()
    (directory,) = out.iterdir()
    refused(directory, RunDirectoryError, "the network")
    check_resumed(resume(directory, module=own), mortal)


def test_two_at_once(half: Path) -> None:
    with AuditLog.open(half / "audit", signer_of(half), clock=lambda: datetime.now(UTC)):
        refused(half, RunDirectoryError, "another process runs it")


def signer_of(directory: Path) -> Any:
    from secure_fedmeta.training import _signer

    return _signer(directory.name)


def test_a_state_directory_that_does_not_know_it(
    half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(state.runs_path(half.name))
    refused(half, StateError, "does not hold what run")
    monkeypatch.setenv("FEDMETA_STATE_DIR", str(tmp_path / "other"))
    refused(half, StateError, "no pin of run")


def test_a_signing_key_that_was_lost(half: Path) -> None:
    (state.state_directory() / "log-signing.key").unlink()
    refused(half, StateError, "put back log-signing.key")


def test_a_secret_that_others_can_read(half: Path) -> None:
    (state.runs_path(half.name) / "secret").chmod(0o644)
    refused(half, StateError, "others can read")


def test_a_secret_of_another_run(half: Path) -> None:
    path = state.runs_path(half.name) / "secret"
    path.write_bytes(bytes(32))
    refused(half, RunDirectoryError, "the data are not those")  # they are digested under it


def test_an_older_state_directory(half: Path) -> None:
    """It would forget that an attempt was begun, and what its clients have contributed."""
    path = state.runs_path(half.name) / "attempts"
    path.write_bytes(b"1 1\n")
    refused(half, StateError, r"attempts \[\(2, 1\)\] that the state directory does not know")


def test_an_older_run_directory(tmp_path: Path, mortal: Mortal) -> None:
    config = short({"training.rounds": 3})
    directory = cut_before(mortal, config, tmp_path, "Kept.begin", nth=2)
    shutil.copytree(directory, tmp_path / "older")
    mortal.born(dies_before=("Kept.begin", 2))
    with pytest.raises(Killed):
        resume(directory)
    mortal.born()
    newest = tmp_path / "newest"
    directory.rename(newest)
    shutil.copytree(tmp_path / "older", directory)
    refused(directory, RunDirectoryError, "put back from an older copy")
    # The newest log with an older checkpoint is no better.
    shutil.rmtree(directory / "audit")
    shutil.copytree(newest / "audit", directory / "audit")
    shutil.copy(newest / "metrics.jsonl", directory)
    refused(directory, RunDirectoryError, "does not hold the model that the log names")
    for name in (FILE, NEXT):
        (directory / name).unlink(missing_ok=True)
    refused(directory, RunDirectoryError, "the checkpoint is missing")


def test_a_checkpoint_that_was_changed(half: Path) -> None:
    path = half / FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(half, RunDirectoryError, "damaged, or of another run")
    path.write_bytes(whole.replace(b'"version\\": 1', b'"version\\": 2'))
    refused(half, RunDirectoryError, "of another version")


def test_a_damaged_checkpoint_that_the_log_does_not_need(half: Path) -> None:
    (half / NEXT).write_bytes(b"\x10\0\0\0\0\0\0\0" + b"[" * 100_000)
    check_resumed(resume(half), Mortal())


def test_metrics_that_were_changed(tmp_path: Path, mortal: Mortal) -> None:
    config = short({"training.rounds": 3})
    directory = cut_before(mortal, config, tmp_path, "Checkpoints.put", nth=3)
    path = directory / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"round": 1', b'"round": 7'))
    with pytest.raises(RunDirectoryError, match="does not hold the rounds"):
        resume(directory)
    path.write_bytes(whole + b'{"round": 3, "torn')
    check_resumed(resume(directory), mortal)


def test_a_grant_that_has_expired(
    tmp_path: Path, mortal: Mortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = granted_run(tmp_path, mortal, expires=datetime.now(UTC) + timedelta(hours=1))
    later = datetime.now(UTC) + timedelta(hours=2)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return later

    monkeypatch.setattr("secure_fedmeta.budget.datetime", Clock)
    refused(directory, ConfigError, "expired")


def granted_run(tmp_path: Path, mortal: Mortal, **grant: Any) -> Path:
    default_ledger().grant(
        "people", unit="task", epsilon=3.0, delta=1e-5, approver="board", **grant
    )
    mortal.born()
    config = short({"ledger.population": "people"})
    mortal.born(26)
    with pytest.raises(Killed):
        run(config, out=tmp_path / "runs")
    mortal.born()
    (directory,) = (tmp_path / "runs").iterdir()
    return directory


def test_a_grant_that_was_raised_is_logged(tmp_path: Path, mortal: Mortal) -> None:
    directory = granted_run(tmp_path, mortal)
    default_ledger().grant("people", unit="task", epsilon=9.0, delta=1e-5, approver="board")
    result = resume(directory)
    assert [body["epsilon"] for body in bodies(directory, "budget-granted")] == ["3.0", "9.0"]
    assert verify_run(result.directory, key=None, pinned=None, unpinned=False).accepted


def test_what_others_charged_in_between_is_no_charge_of_the_run(
    tmp_path: Path, mortal: Mortal
) -> None:
    directory = granted_run(tmp_path, mortal)
    default_ledger().grant("people", unit="task", epsilon=30.0, delta=1e-5, approver="board")
    other = run(short({"ledger.population": "people"}), out=tmp_path / "other")
    result = resume(directory)
    assert verify_run(result.directory, key=None, pinned=None, unpinned=False).accepted
    total = default_ledger().counts("people")
    assert total == result.charged + other.charged


def test_a_wire_or_display_of_the_command_is_not_needed(half: Path) -> None:
    with display(Show.QUIET, as_json=False) as shown:
        result = resume(half, progress=shown, site=Site())
    assert shown.directory == half.resolve()
    assert json.loads((half / "report.json").read_text()) == result.report


def test_a_full_disk_stops_the_run_and_it_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import audit.files

    replace = audit.files.replace

    def full(path: Path, data: bytes, *, mode: int) -> None:
        if path.name == NEXT:
            raise OSError(28, "No space left on device", str(path))
        replace(path, data, mode=mode)

    with monkeypatch.context() as patch:
        patch.setattr("audit.files.replace", full)
        with pytest.raises(FedmetaError, match=r"No space left on device.*resume"):
            run(short(), out=tmp_path)
    (directory,) = tmp_path.glob("*-tiny-*")
    assert kinds(directory)[-1] == "round-intent"
    result = resume(directory)
    assert sorted(check_resumed(result, Mortal()).released) == [(1, 2)]
    assert PinStore(state.state_directory()).load(directory.name) is not None
