"""The command line: exit codes, one message on stderr, JSON on stdout, quick help."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from privacy.errors import BudgetExceeded
from secure_fedmeta.aggregator import Aggregator
from secure_fedmeta.checkpoint import Checkpoints
from secure_fedmeta.tasks import SOURCES
from secure_fedmeta.tasks.shipped import ShippedFile
from tests.secure_fedmeta.commands import Call, write
from tests.secure_fedmeta.federation import default_ledger


def grant(epsilon: float) -> None:
    default_ledger().grant("people", unit="task", epsilon=epsilon, delta=1e-5, approver="board")


def test_run_report_verify(folder: Path, call: Call) -> None:
    ended = call("run", write(folder))
    assert ended.code == 0
    assert "Held-out clients (2)" in ended.out
    assert "round 2: 4/4 clients" in ended.err
    assert "round" not in ended.out.splitlines()[0]
    latest = str(folder / "runs" / "latest")
    shown = call("report", latest)
    assert shown.code == 0
    assert "Status: completed; 2 of 2 rounds released" in shown.out
    verified = call("verify", latest)
    assert (verified.code, verified.out.splitlines()[-1]) == (0, "verified")


def test_compare_and_what_a_run_may_be_watched_by(folder: Path, call: Call) -> None:
    path = write(folder, {"training.rounds": 1})
    watched = call("run", path, "--profile", "--tensorboard")
    assert (watched.code, call("run", path, "--set", "privacy.epsilon=2.0").code) == (0, 0)
    first, second = sorted(p for p in (folder / "runs").iterdir() if not p.is_symlink())
    for option, file in (("Trace: ", "trace.json"), ("Scalars: ", "tensorboard")):
        assert f"{option}runs/{first.name}/{file}" in watched.out
        assert (first / file).exists()
        assert not (second / file).exists()
    shown = call("compare", str(first), str(second), "--plot", "scores.png")
    assert (shown.code, (folder / "scores.png").read_bytes()[1:4]) == (0, b"PNG")
    assert "privacy.epsilon" in shown.out
    found = call("compare", str(first), str(second), "--json").json
    assert found["differences"] == {"privacy.epsilon": [3.0, 2.0]}
    (second / "report.json").write_text("{}")
    refused = call("compare", str(first), str(second), "--json")
    assert (refused.code, refused.out) == (1, "")
    assert f"{second} is not compared" in refused.message


def test_every_read_command_speaks_json(folder: Path, call: Call) -> None:
    report = call("run", "--json")  # no config, and no .toml file here
    assert (report.code, report.out) == (2, "")
    write(folder)
    report = call("run", "--json", "--out", "elsewhere")  # the only .toml file of the folder
    assert (report.code, report.err) == (0, "")
    assert report.json["status"] == "completed"
    (directory,) = (p for p in (folder / "elsewhere").iterdir() if not p.is_symlink())
    assert call("report", str(directory), "--json").json == report.json
    verified = call("verify", str(directory), "--json")
    assert verified.json["accepted"] is True
    assert call("init", "credit", "--json").json == {"file": str(folder / "credit.toml")}
    found = call("datasets", "--json").json
    datasets = {row["name"]: row for row in found["datasets"]}
    assert tuple(datasets) == SOURCES.names()
    assert datasets["heart"]["rows"] == 917
    assert datasets["migraine"]["units"] == ["client", "record", "task", "user"]
    assert all(datasets["credit"].values())
    assert "public data only" in found["note"]


def test_datasets_as_a_table(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ended = call("datasets")
    assert ended.code == 0
    assert "credit" in ended.out
    assert "sinusoid" in ended.out
    assert "under CC BY 2.5" in ended.out  # no licence is cut off
    assert "Counts are shown of public data only" in " ".join(ended.out.split())


def test_init_then_run_needs_no_name(folder: Path, call: Call) -> None:
    ended = call("init", "sinusoid")
    assert ended.code == 0
    assert (
        ended.out
        == f"Wrote {folder / 'sinusoid.toml'}. Next: fedmeta run {folder / 'sinusoid.toml'}\n"
    )
    assert call("init", "sinusoid").code == 2
    assert "Did you mean 'sinusoid'" in call("init", "sinusoids").message


def test_a_place_that_cannot_be_is_told_before_anything_is_charged(
    folder: Path, call: Call
) -> None:
    (folder / "file").touch()
    ended = call("run", write(folder), "--out", "file/runs")
    assert (ended.code, ended.out) == (2, "")
    assert "cannot make a run directory in file/runs: " in ended.message
    assert ended.message.endswith("file is no folder")
    assert default_ledger().populations() == ()


def test_a_run_that_was_cut_off_is_gone_on_with(
    folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(folder)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "confirm", interrupt)
        stopped = call("run", path)
    assert stopped.code == 3
    said, _, run = stopped.message.partition("go on with: fedmeta run --resume ")
    assert "interrupted" in said
    for beside in ([path], ["--set", "name=x"], ["--out", "runs"]):
        refused = call("run", *beside, "--resume", run)
        assert (refused.code, refused.out) == (2, "")
        assert "leave out the config, --set and --out" in refused.message
    ended = call("run", "--resume", run)
    assert ended.code == 0
    assert "1 of 2 rounds released" in ended.err
    assert "goes on with round 2, attempt 1" in ended.err
    assert "Held-out clients (2)" in ended.out
    again = call("run", "--resume", run)
    assert (again.code, again.out) == (2, "")
    assert "nothing is left to resume" in again.message


def interrupt(checkpoints: Checkpoints) -> None:
    raise KeyboardInterrupt


def test_overrides(folder: Path, call: Call) -> None:
    ended = call("run", write(folder), "--json", "--set", "training.rounds=1", "--set", "name=x")
    assert ended.json["rounds"]["planned"] == 1
    assert ended.json["name"] == "x"


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"privacy.epsilom": 2.0}, ("privacy.epsilom", "no such setting", "'epsilon'")),
        ({"training.rounds": "2"}, ("training.rounds = '2'", "valid integer")),
        ({"learner.algorithm": "mamlx"}, ("learner.algorithm = 'mamlx'", "'maml'")),
        ({"transport.name": "pigeon"}, ("transport.name = 'pigeon'", "Known: memory")),
        ({"secure_sum.protocol": "plain"}, ("secure_sum.protocol = 'plain'", "allow_insecure")),
        ({"privacy.rate": 1e-9}, ("privacy", "rate 1e-09 is not a float from 2^-20")),
        ({"privacy.min_survivors": 9}, ("privacy.min_survivors = 9", "only 4 clients train")),
        ({"data.options.points": 5}, ("data.options", "exceed points 5", "allowed keys")),
        (
            {"ledger.population": "people"},
            ("ledger.population = 'people'", "no budget was granted"),
        ),
        ({"secure_sum.threshold": 2}, ("secure_sum", "allowed: 3 to 4")),
    ],
)
def test_bad_input_is_one_message_and_nothing_is_done(
    folder: Path,
    call: Call,
    changes: dict[str, object],
    parts: Sequence[str],
) -> None:
    path = write(folder, changes)
    ended = call("run", path)
    assert (ended.code, ended.out) == (2, "")
    for part in (path, *parts):
        assert part in ended.message
    assert not (folder / "runs").exists()
    assert default_ledger().events("people") == ()


def test_bad_files(folder: Path, call: Call) -> None:
    ended = call("run", "missing.toml")
    assert (ended.code, ended.message) == (
        2,
        "missing.toml: cannot be read: No such file or directory",
    )
    (folder / "bad.toml").write_text("a = ")
    ended = call("run", "bad.toml")
    assert ended.code == 2
    assert "bad.toml: is not valid TOML" in ended.message
    write(folder)
    ended = call("run")
    assert ended.code == 2
    assert "this folder's .toml files: bad.toml, c.toml" in ended.message


def test_bad_data_is_bad_input(
    folder: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ShippedFile, "read", lambda file: b"not a table")
    ended = call("run", write(folder, {"data.source": "credit", "data.options": {}}))
    assert ended.code == 2
    assert "not gzip-compressed" in ended.message


def test_state_that_cannot_be_used_is_bad_input(
    folder: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write(folder)
    monkeypatch.setenv("FEDMETA_STATE_DIR", path)
    ended = call("run", path)
    assert ended.code == 2
    assert "the state directory" in ended.message
    monkeypatch.delenv("FEDMETA_STATE_DIR")
    ended = call("run", write(folder, {"ledger.url": "postgresql://u:secret@host/db"}))
    assert ended.code == 2
    assert "ledger URL" in ended.message
    assert "secret" not in ended.err


def test_a_grant_that_runs_out_fails_the_check(folder: Path, call: Call) -> None:
    grant(2.2)
    path = write(
        folder, {"training.rounds": 9, "ledger.population": "people", "privacy.epsilon": 6.0}
    )
    ended = call("run", path, "--json")
    assert ended.code == 1
    assert ended.json["status"] == "budget"
    (note,) = ended.json["notes"]
    released = ended.json["rounds"]["completed"]
    assert 0 < released < 9
    assert f"afforded {released} of 9 rounds" in note
    run = folder / "runs" / "latest"
    assert (run / "model.safetensors").is_file()
    assert call("verify", str(run)).code == 0
    assert call("report", str(run)).code == 0
    again = call("run", path)
    assert again.code == 1
    assert "afforded 0 of 9 rounds" in again.out.replace("\n", " ")


def test_a_round_that_ends_the_run(folder: Path, call: Call) -> None:
    path = write(folder, {"transport.drop": 0.999999999, "training.on_abort": "stop"})
    ended = call("run", path)
    assert ended.code == 3
    assert "round 1 could not complete" in ended.out.replace("\n", " ")
    assert call("verify", "runs/latest").code == 0


def test_a_changed_log_fails_verification_by_entry(folder: Path, call: Call) -> None:
    call("run", write(folder), "--json")
    log = folder / "runs" / "latest" / "audit" / "log.jsonl"
    whole = log.read_bytes()
    for position in range(7, len(whole), len(whole) // 9):
        changed = bytearray(whole)
        changed[position] ^= 0x20
        log.write_bytes(changed)
        ended = call("verify", "runs/latest")
        entry = whole[:position].count(b"\n")
        assert ended.code == 1
        assert f"FAILED:  entry {entry}" in ended.out
        as_json = call("verify", "runs/latest", "--json")
        assert (as_json.code, as_json.json["entry"]) == (1, entry)


def test_verify_needs_somebody_who_vouches(
    folder: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = call("run", write(folder), "--json").json["audit"]["vkey"]
    shutil.copy(folder / "runs" / "latest" / "audit" / "checkpoint", folder / "kept")
    monkeypatch.setenv("FEDMETA_STATE_DIR", str(folder / "other"))
    assert call("verify", "runs/latest").code == 1
    assert call("verify", "runs/latest", "--unpinned").code == 0
    assert call("verify", "runs/latest", "--key", key).code == 0
    assert call("verify", "runs/latest", "--key", key, "--pinned", "kept").code == 0
    assert call("verify", "runs/latest", "--key", "other" + key).code == 1
    assert call("verify", "runs/latest", "--key", key, "--pinned", "none").code == 2


@pytest.mark.parametrize("command", ["report", "verify"])
def test_what_is_no_run_is_bad_input(call: Call, command: str) -> None:
    ended = call(command, "nowhere")
    assert (ended.code, ended.out) == (2, "")
    assert "nowhere" in ended.message


@pytest.mark.parametrize("arguments", [["bogus"], ["run", "--bogus"], ["verify"]])
def test_wrong_usage_is_bad_input(call: Call, arguments: list[str]) -> None:
    ended = call(*arguments)
    assert ended.code == 2
    assert "Usage" in ended.err


def test_a_budget_error_that_nobody_caught_is_a_failed_check(
    folder: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exceeded(_: object) -> bool:
        raise BudgetExceeded("over", requested=2.0, granted=1.0, affordable_rounds=0)

    monkeypatch.setattr(Aggregator, "affordable_rounds", exceeded)
    ended = call("run", write(folder))
    assert (ended.code, ended.message) == (1, "over")


def test_help_loads_nothing_heavy(folder: Path) -> None:
    """Quick because torch and its like are not imported; time itself depends on the machine."""
    code = (
        "import sys; sys.argv = ['fedmeta', '--help']\n"
        "from secure_fedmeta import cli\n"
        "try:\n    cli.main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'numpy', 'scipy', 'opacus', 'sqlalchemy', 'matplotlib', 'pydantic'}\n"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    for command in ("run", "verify", "report", "init", "datasets"):
        assert command in ended.stdout
