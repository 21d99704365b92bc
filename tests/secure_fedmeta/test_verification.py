"""`fedmeta verify`: whatever is changed in a log is found, and the entry is named."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.canonical import dumps, loads
from audit.log import AuditLog
from audit.note import LogSigner
from audit.pin import PinStore
from secure_fedmeta.errors import RunDirectoryError
from secure_fedmeta.training import RunResult, run
from secure_fedmeta.verification import Outcome, verify_run
from tests.secure_fedmeta.federation import tiny

ENTRIES = 7  # genesis, grant, 2 x (intent, release), report


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, Path]:
    """A finished run and the state directory that remembers it."""
    home = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDMETA_STATE_DIR", str(home))
        config = tiny({"training.rounds": 2, "evaluation.repeats": 1})
        return run(config, out=tmp_path_factory.mktemp("runs")), home


@pytest.fixture
def result(original: tuple[RunResult, Path], tmp_path: Path, state_dir: Path) -> Path:
    """A copy of the run under its own name, and of what this user remembers."""
    found, home = original
    shutil.copytree(home, state_dir)
    return Path(shutil.copytree(found.directory, tmp_path / found.directory.name))


def verify(directory: Path, key: str | None = None, unpinned: bool = False) -> Outcome:
    return verify_run(directory, key=key, pinned=None, unpinned=unpinned)


def vkey(directory: Path) -> str:
    found: str = json.loads((directory / "report.json").read_text())["audit"]["vkey"]
    return found


def test_the_pin_of_the_run_vouches_for_it(result: Path) -> None:
    outcome = verify(result)
    assert (outcome.accepted, outcome.failure, outcome.entry) == (True, None, None)
    assert outcome.verified is not None
    assert (outcome.verified.trust, outcome.verified.size) == ("pinned", ENTRIES)
    assert "privacy spend: not recomputed" not in " ".join(outcome.verified.not_checked)
    lines = list(outcome.lines())
    assert lines[-1] == "verified"
    assert "rounds:  2 released, 0 aborted" in lines
    assert outcome.to_json()["verified"]["released"] == 2


def test_a_key_from_elsewhere_vouches_for_it(result: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDMETA_STATE_DIR", str(result.parent / "other"))
    outcome = verify(result, key=vkey(result))
    assert outcome.accepted
    assert outcome.verified is not None
    assert outcome.verified.trust == "given"


def test_a_pinned_checkpoint_from_elsewhere(result: Path) -> None:
    kept = result.parent / "kept"
    shutil.copy(result / "audit" / "checkpoint", kept)
    outcome = verify_run(result, key=vkey(result), pinned=kept, unpinned=False)
    assert outcome.accepted
    assert outcome.verified is not None
    assert outcome.verified.pinned_size == ENTRIES
    assert verify_run(result, key=None, pinned=kept, unpinned=False).accepted  # the key is pinned
    with pytest.raises(RunDirectoryError, match="cannot be read"):
        verify_run(result, key=None, pinned=result.parent / "nothing", unpinned=False)


def test_an_empty_file_is_no_pinned_checkpoint(result: Path) -> None:
    """The pin of the run itself does not silently take its place."""
    empty = result.parent / "empty"
    empty.touch()
    outcome = verify_run(result, key=None, pinned=empty, unpinned=False)
    assert not outcome.accepted
    assert "pinned head" in str(outcome.failure)


def test_nobody_vouches_for_a_log_from_elsewhere(
    result: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDMETA_STATE_DIR", str(result.parent / "other"))
    outcome = verify(result)
    assert not outcome.accepted
    assert outcome.failure is not None
    assert "give --key, or accept it with --unpinned" in outcome.failure
    assert verify(result, unpinned=True).accepted
    moved = result.rename(result.parent / "renamed")
    assert not verify(moved).accepted


def test_a_wrong_key_is_refused(result: Path) -> None:
    good = vkey(result)
    last = "A" if good[-2] != "A" else "B"
    for key in ("nonsense", good[:-2] + last + good[-1], "other+" + good.split("+", 1)[1]):
        outcome = verify(result, key=key)
        assert not outcome.accepted
        assert outcome.failure


def flip(directory: Path, position: int, change: int) -> int:
    """Change one byte of the log; returns the index of the entry that it belongs to."""
    path = directory / "audit" / "log.jsonl"
    content = bytearray(path.read_bytes())
    entry = content[:position].count(b"\n")
    content[position] ^= change
    path.write_bytes(content)
    return entry


def test_every_changed_byte_is_found_and_its_entry_named(
    original: tuple[RunResult, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Sampled all over the log; every line end too."""
    found, home = original
    whole = (found.directory / "audit" / "log.jsonl").read_bytes()
    ends = [i for i, byte in enumerate(whole) if byte == 0x0A]
    assert len(ends) == ENTRIES
    directory = tmp_path_factory.mktemp("flipped") / found.directory.name
    shutil.copytree(found.directory, directory)

    @settings(max_examples=80)
    @given(st.one_of(st.integers(0, len(whole) - 1), st.sampled_from(ends)), st.integers(1, 255))
    def changed(position: int, change: int) -> None:
        (directory / "audit" / "log.jsonl").write_bytes(whole)
        entry = flip(directory, position, change)
        outcome = verify(directory)
        assert not outcome.accepted
        assert outcome.entry == entry
        assert f"entry {entry}" in str(outcome.failure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDMETA_STATE_DIR", str(home))
        assert verify(directory).accepted
        changed()


@pytest.mark.parametrize("entry", range(ENTRIES))
def test_without_leaf_hashes_the_entry_is_still_named(result: Path, entry: int) -> None:
    """The chain alone finds the change; for the last entry the signed root does."""
    (result / "audit" / "leaves").unlink()
    lines = (result / "audit" / "log.jsonl").read_bytes().split(b"\n")
    position = sum(len(line) + 1 for line in lines[:entry]) + len(lines[entry]) - 20
    flip(result, position, 1)
    outcome = verify(result)
    assert not outcome.accepted
    assert outcome.entry is not None
    assert outcome.entry <= entry


@pytest.mark.parametrize("name", ["checkpoint", "log.jsonl"])
def test_a_file_cut_short_is_refused(result: Path, name: str) -> None:
    path = result / "audit" / name
    path.write_bytes(path.read_bytes()[:-10])
    assert not verify(result).accepted


def test_a_log_set_back_with_its_head_is_found_by_the_pin(result: Path) -> None:
    """Log and head of an earlier moment agree with each other, not with what is remembered."""
    with pytest.MonkeyPatch.context() as patch:
        heads: list[bytes] = []
        save = PinStore.save

        def keep(self: PinStore, log_id: str, key: str, head: bytes) -> object:
            heads.append(head)
            return save(self, log_id, key, head)

        patch.setattr(PinStore, "save", keep)
        patch.setenv("FEDMETA_STATE_DIR", str(result.parent / "third"))
        later = run(tiny({"training.rounds": 2}), out=result.parent / "again").directory
        audit = later / "audit"
        lines = (audit / "log.jsonl").read_bytes().splitlines(keepends=True)
        (audit / "log.jsonl").write_bytes(b"".join(lines[:4]))
        (audit / "checkpoint").write_bytes(heads[1])
        outcome = verify(later)
    assert not outcome.accepted
    assert outcome.entry == 4
    assert "the pinned head covers 7" in str(outcome.failure)


def test_a_spend_that_the_events_do_not_explain_is_refused(result: Path, state_dir: Path) -> None:
    """Even the holder of the signing key cannot state less than was spent."""
    entries = [loads(line) for line in (result / "audit" / "log.jsonl").read_bytes().splitlines()]
    seed = (state_dir / "log-signing.key").read_bytes()
    signer = LogSigner.generate(entries[0]["body"]["origin"], seed)
    shutil.rmtree(result / "audit")
    with AuditLog.create(result / "audit", signer, clock=lambda: datetime.now(UTC)) as log:
        intent = b""
        for entry in entries:
            body = entry["body"]
            if entry["kind"] == "round-release":
                body["intent"] = intent.hex()
                body["spend"]["participants"]["rdp"] = "0.5"
            intent = log.append(entry["kind"], body).digest
    outcome = verify(result, key=vkey(result))
    assert not outcome.accepted
    assert outcome.entry == 3
    assert "states epsilon 0.5" in str(outcome.failure)


def test_what_is_no_run_directory(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="name a run directory"):
        verify(tmp_path)


def test_a_damaged_pin_is_a_failure(result: Path, state_dir: Path) -> None:
    (pin,) = (state_dir / "pins").glob("*.json")
    pin.write_bytes(dumps({"log_id": result.name}))
    outcome = verify(result)
    assert not outcome.accepted
    assert "is damaged" in str(outcome.failure)
    assert outcome.entry is None
    assert list(outcome.lines()) == [f"FAILED:  {outcome.failure}"]
    assert not verify(result, unpinned=True).accepted  # sets aside no pin that exists


@pytest.mark.parametrize("name", ["report.json", "model.safetensors", "metrics.jsonl"])
def test_exported_files_must_be_as_the_log_says(result: Path, name: str) -> None:
    path = result / name
    path.write_bytes(path.read_bytes() + b"\n")
    outcome = verify(result)
    assert (outcome.accepted, outcome.entry) == (False, ENTRIES - 1)
    assert name in str(outcome.failure)
    path.unlink()
    assert not verify(result).accepted


def test_a_given_key_does_not_set_the_pinned_head_aside(result: Path) -> None:
    """A log set back to an earlier head is signed rightly; only the remembered head tells."""
    key = vkey(result)
    assert verify(result, key).accepted
    found = verify(result, key).verified
    assert found is not None
    assert found.trust == "pinned"


@pytest.mark.parametrize("name", ["../outside", "audit/checkpoint", ".."])
def test_a_log_names_files_of_its_run_only(
    result: Path, state_dir: Path, name: str, tmp_path: Path
) -> None:
    """Even a rightly signed log makes the verifier read nothing but the run's own files."""
    (tmp_path / "outside").write_bytes(b"x")
    target = result / name
    content = target.read_bytes() if target.is_file() else b""
    origin = loads((result / "audit" / "log.jsonl").read_bytes().splitlines()[0])["body"]["origin"]
    signer = LogSigner.generate(origin, (state_dir / "log-signing.key").read_bytes())
    with AuditLog.open(result / "audit", signer, clock=lambda: datetime.now(UTC)) as log:
        log.append("report-exported", {"files": {name: hashlib.sha256(content).hexdigest()}})
    outcome = verify(result)
    assert (outcome.accepted, outcome.entry) == (False, ENTRIES)
    assert "is no name of a file of the run" in str(outcome.failure)
