from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from audit.__main__ import main
from tests.audit import scenario


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    """A run directory whose log holds an open round under a fixed seed."""
    log = scenario.start(tmp_path / "run" / "audit", not_private=True)
    log.append("budget-granted", scenario.grant())
    (tmp_path / "pinned").write_bytes(log.head)
    log.append("round-intent", scenario.intent(1))
    log.close()
    (tmp_path / "vkey").write_text(scenario.signer().vkey + "\n")
    return tmp_path / "run"


def test_a_key_makes_it_trusted(run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vkey = scenario.signer().vkey
    assert main([str(run_directory), "--vkey", vkey]) == 0
    said = capsys.readouterr().out
    assert "trust: given" in said
    assert "NOT PRIVATE" in said
    assert "round 1 is charged and has no outcome" in said
    assert "the run has not ended" in said
    assert "not checked: rollback" in said
    assert "not checked: privacy spend" not in said
    assert said.splitlines()[-1] == "verified"


def test_a_pin_and_a_key_file(run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parent = run_directory.parent
    options = ["--vkey", str(parent / "vkey"), "--pinned", str(parent / "pinned"), "--no-spend"]
    assert main([str(run_directory / "audit"), *options, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["trust"], said["pinned_size"]) == (True, "pinned", 2)
    assert any("privacy spend" in text for text in said["not_checked"])


def test_nobody_s_key_is_refused_unless_asked_for(
    run_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run_directory)]) == 1
    said = capsys.readouterr().out
    assert "trust: none" in said
    assert "REFUSED" in said
    assert "verified" not in said
    assert main([str(run_directory), "--unpinned"]) == 0
    whole = scenario.write_log(run_directory.parent / "whole")
    whole.close()
    assert main([str(run_directory.parent / "whole"), "--unpinned", "--no-spend"]) == 0
    assert "NOT PRIVATE" not in capsys.readouterr().out.split("log ")[-1]
    assert main([str(run_directory), "--json"]) == 1


def test_a_failure_names_the_entry(run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = run_directory / "audit" / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b"privacy officer", b"nobody at all__"))
    vkey = scenario.signer().vkey
    assert main([str(run_directory), "--vkey", vkey]) == 1
    assert capsys.readouterr().out.startswith("FAILED  entry 1: was changed")
    assert main([str(run_directory), "--vkey", vkey, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["index"] == 1


def test_bad_usage_exits_2(run_directory: Path) -> None:
    for options in (["--pinned", "x"], ["--vkey", "k+e+y", "--pinned", "missing"]):
        with pytest.raises(SystemExit) as caught:
            main([str(run_directory), *options])
        assert caught.value.code == 2


def test_it_runs_as_a_module(run_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["audit", str(run_directory), "--unpinned"])
    monkeypatch.delitem(sys.modules, "audit.__main__")
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("audit", run_name="__main__")
    assert caught.value.code == 0
