"""What commands show while they run, and how they end when something cuts them off."""

from __future__ import annotations

import io
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from secure_fedmeta import training, tuning
from secure_fedmeta.trials import Candidate, Trial
from tests.secure_fedmeta.commands import Call, write
from tests.secure_fedmeta.searches import ALGORITHMS, CLIENTS, VALIDATION


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take long, and nothing here looks at them."""
    monkeypatch.setattr(training, "draw_curves", lambda *_: None)
    monkeypatch.setattr(training, "write_reports", lambda *_: ())


def test_progress_as_json_lines(folder: Path, call: Call) -> None:
    ended = call("run", write(folder), "--progress", "json")
    assert (ended.code, ended.err) == (0, "")
    *told, last = map(json.loads, ended.out.splitlines())
    (directory,) = (p for p in (folder / "runs").iterdir() if not p.is_symlink())
    assert (told[0]["kind"], told[0]["directory"]) == ("started", f"runs/{directory.name}")
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    assert [one for one in told if one["kind"] == "round"] == [
        {"kind": "round", **json.loads(line)} for line in lines
    ]
    assert told[-1] == {"kind": "ended", "status": "completed"}
    report = json.loads((directory / "report.json").read_text())
    assert last == {"kind": "report", "report": report}


def test_quiet_is_errors_alone_and_what_was_asked_for(folder: Path, call: Call) -> None:
    path = write(folder, {"training.rounds": 1})
    ended = call("run", path, "--progress", "quiet")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    ended = call("run", path, "--progress", "quiet", "--set", "training.rounds=0")
    assert (ended.code, ended.out) == (2, "")
    assert "training.rounds" in ended.message
    ended = call("run", path, "--progress", "plain", "--json")
    assert ended.json["status"] == "completed"
    assert "round 1: 4/4 clients" in ended.err
    ended = call("run", path, "--progress", "json", "--json")
    assert (ended.code, ended.out) == (2, "")
    assert "leave out one of them" in ended.message


@pytest.mark.parametrize(
    ("command", "module", "said"),
    [
        (("run",), "secure_fedmeta.training.assemble", "no round was begun; call it again"),
        (("tune",), "secure_fedmeta.tuning.tune_of", "no candidate was begun; call it again"),
        (("check",), "secure_fedmeta.data_check.assemble", "nothing was charged; call it again"),
        (("assess",), "secure_fedmeta.assess.assemble", "nothing was charged; call it again"),
        (("plan",), "secure_fedmeta.pipeline.assemble", "nothing was charged; call it again"),
    ],
)
def test_an_interruption_is_one_line_that_says_what_is_kept(
    folder: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    module: str,
    said: str,
) -> None:
    def cut(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(module, cut)
    ended = call(*command, write(folder))
    assert (ended.code, ended.out, ended.message) == (3, "", f"interrupted; {said}")


def test_an_interrupted_ledger_command_says_where_to_look(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "secure_fedmeta.accounts.accounts", lambda *_: signal.raise_signal(signal.SIGINT)
    )
    ended = call("ledger", "show")
    assert (ended.code, ended.out) == (3, "")
    assert "whole or not there; see fedmeta ledger show" in ended.message


@pytest.mark.parametrize("ended", [0, 1])
def test_an_interrupted_search_says_where_its_candidates_are(
    folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch, ended: int
) -> None:
    train = tuning._Search.train

    def cut(search: tuning._Search, candidate: Candidate, *others: Any) -> Trial:
        if candidate.number > ended:
            raise KeyboardInterrupt
        return train(search, candidate, *others)

    monkeypatch.setattr(tuning._Search, "train", cut)
    path = write(
        folder,
        {
            "data.options.clients": CLIENTS,
            "tune.validation": VALIDATION,
            "tune.settings": ALGORITHMS,
            "privacy.min_survivors": CLIENTS - 1,
        },
    )
    found = call("tune", path)
    (directory,) = (folder / "runs").iterdir()
    kept = f"candidates that ended are in runs/{directory.name}/tune.json"
    assert found.code == 3
    assert f"interrupted; {kept if ended else 'no candidate ended'}" in found.message


def test_a_stdout_that_lacks_characters_gets_others(
    folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    ended = call("run", write(folder, {"training.rounds": 1}))
    assert ended.code == 0
    assert b"+- " in raw.getvalue()
