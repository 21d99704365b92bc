"""What somebody without a key puts into a run directory, or copies of it, before it is resumed."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from audit.canonical import sha256
from audit.entry import encode_entry
from secure_fedmeta.budget import grant_body
from secure_fedmeta.checkpoint import FILE
from secure_fedmeta.errors import RunDirectoryError
from secure_fedmeta.kept import Kept
from secure_fedmeta.training import resume
from secure_fedmeta.verification import verify_run
from tests.secure_fedmeta.cuts import (
    Killed,
    Mortal,
    charged,
    check_resumed,
    cut_before,
    mortal,
    short,
)
from tests.secure_fedmeta.federation import default_ledger

__all__ = ["mortal"]

CONFIG = short({"training.rounds": 3, "name": "attacked"})


@pytest.fixture
def half(tmp_path: Path, mortal: Mortal) -> Path:
    """One round released; the second was not begun."""
    return cut_before(mortal, CONFIG, tmp_path, "Kept.begin", nth=2)


def forge(directory: Path, kind: str, body: dict[str, Any]) -> None:
    """Put a well-formed entry behind the head; that takes no key."""
    path = directory / "audit" / "log.jsonl"
    lines = path.read_bytes().splitlines()
    last = json.loads(lines[-1])
    forged = encode_entry(
        kind,
        body,
        index=len(lines),
        prev=sha256(lines[-1]),
        run=last["run"],
        time=datetime.now(UTC),
    )
    path.write_bytes(b"".join(line + b"\n" for line in (*lines, forged)))


def test_a_report_of_somebody_else_is_not_signed(half: Path) -> None:
    """It would end the run, with figures of one's own choice under the log's signature."""
    forged = b'{"held_out": {}, "privacy": {"spent_epsilon": 0.01}}'
    (half / "report.json").write_bytes(forged)
    digest = hashlib.sha256(forged).hexdigest()
    forge(half, "report-exported", {"files": {"report.json": digest}})
    with pytest.raises(RunDirectoryError, match="somebody else than its writer"):
        resume(half)
    assert not verify_run(half, key=None, pinned=None, unpinned=False).accepted


def test_charges_are_not_led_to_another_population(half: Path) -> None:
    ledger = default_ledger()
    grant = ledger.grant("others", unit="task", epsilon=50.0, delta=1e-5, approver="nobody")
    forge(half, "budget-granted", grant_body(grant))
    with pytest.raises(RunDirectoryError, match="somebody else than its writer"):
        resume(half)
    assert not ledger.counts("others")


def test_a_copy_is_not_resumed_beside_the_run(half: Path, tmp_path: Path, mortal: Mortal) -> None:
    """The lock of the log is in the run directory: a copy has one of its own."""
    copy = tmp_path / "copy" / half.name

    def beside(_: object) -> None:
        shutil.copytree(half, copy)
        before = (copy / "audit" / "log.jsonl").read_bytes()
        with pytest.raises(RunDirectoryError, match="another process runs it, or a copy"):
            resume(copy)
        assert (copy / "audit" / "log.jsonl").read_bytes() == before

    result = resume(half, tell=beside)
    check_resumed(result, mortal)
    assert charged(half).total() == 3


def test_a_log_that_was_set_back_behind_the_opening_is_refused(
    tmp_path: Path, mortal: Mortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pin knows of the round before; the ledger knows that the sum was opened."""
    begin, older = Kept.begin, tmp_path / "older"

    def copied(kept: Kept, index: int, attempt: int) -> None:
        if index == 2:
            (directory,) = (tmp_path / "cut").iterdir()
            shutil.copytree(directory, older)
        begin(kept, index, attempt)

    with monkeypatch.context() as patch:
        patch.setattr(Kept, "begin", copied)
        directory = cut_before(mortal, CONFIG, tmp_path, "PinStore.save", nth=3)
    shutil.rmtree(directory)
    shutil.copytree(older, directory)
    before = (directory / "audit" / "log.jsonl").read_bytes()
    with pytest.raises(RunDirectoryError, match="older copy"):
        resume(directory)
    assert (directory / "audit" / "log.jsonl").read_bytes() == before


def test_rounds_that_aborted_are_not_taken_out_of_the_report(
    tmp_path: Path, mortal: Mortal
) -> None:
    """With an older checkpoint, or none, they would be done again, and told of nowhere."""
    config = short({"transport.drop": 0.999999999, "training.rounds": 3, "name": "attacked"})
    directory = cut_before(mortal, config, tmp_path, "Kept.begin", nth=2)
    older = (directory / FILE).read_bytes()
    mortal.born(dies_before=("Kept.begin", 2))
    with pytest.raises(Killed):
        resume(directory)
    mortal.born()
    newest = (directory / FILE).read_bytes()
    (directory / FILE).write_bytes(older)
    with pytest.raises(RunDirectoryError, match="it is older"):
        resume(directory)
    (directory / FILE).unlink()
    with pytest.raises(RunDirectoryError, match="the checkpoint is missing"):
        resume(directory)
    (directory / FILE).write_bytes(newest)
    assert resume(directory).report["rounds"]["aborted"] == 3
