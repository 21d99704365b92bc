"""Other commands on a full disk: one sentence, and what was there before is there still."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import tomli_w

from secure_fedmeta import cli
from tests.chaos.calls import Calls
from tests.chaos.life import Ending, Full, Points
from tests.secure_fedmeta.agents import key_file
from tests.secure_fedmeta.federation import settings

FULL = re.compile(r"(\S+ cannot be written.*No space left on device|make room)")
FEW = {"training.rounds": 1, "evaluation.repeats": 1, "model.hidden": []}


def call(words: list[str], root: Path, ending: Ending = None) -> tuple[int, Points]:
    """Exit code of a command whose disk may be full, and its calls that needed room."""
    points = Points(ending)
    sys.argv = ["fedmeta", *words]
    with pytest.raises(SystemExit) as ended, Calls(root, points.observe).installed():
        cli.main()
    return int(ended.value.code or 0), points


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below, apart from drafts that a next call takes no notice of."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".tmp", ".sqlite-journal")
    }


def test_commands_on_a_full_disk_leave_what_was_there_and_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    Path("c.toml").write_text(tomli_w.dumps(settings(FEW)))
    assert call(["run", "c.toml", "--progress", "quiet"], tmp_path)[0] == 0
    examples = ["examples", "runs/latest", "--client", "held-out-000", "--draws", "1", "--out"]
    assert call([*examples, "x"], tmp_path)[0] == 0
    support = Path("x/draw-001-support.csv")
    locked = ["--key-file", key_file(tmp_path)]
    make = ["personalize", "runs/latest", "--data", str(support), *locked]
    assert call([*make, "--out", "old.agent"], tmp_path)[0] == 0
    grant = [
        "ledger",
        "grant",
        "people",
        "--unit",
        "task",
        "--epsilon",
        "3",
        "--delta",
        "1e-5",
        "--approver",
        "board",
    ]
    tried, wrong = 0, list[str]()
    for words in (
        grant,
        ["report", "runs/latest", "--html", "again.html"],
        [*make, "--out", "new.agent"],
        ["agent", "observe", "old.agent", "--data", str(support), *locked],
        [*examples, "y"],
    ):
        point = 0
        while True:
            point += 1
            Path("new.agent").unlink(missing_ok=True)  # its last sync alone failed
            before = contents(tmp_path)
            capsys.readouterr()
            code, points = call(words, tmp_path, Full(point))
            said = capsys.readouterr().err
            if len(points.sites) < point:
                assert code == 0, f"{words}: {said}"
                break
            name, path = points.sites[point - 1]
            place = f"{words[0]}: {name} of {path}"
            assert "Traceback" not in said, place
            lines = [line for line in said.splitlines() if line.startswith("fedmeta: ")]
            after = contents(tmp_path)
            lost = [file for file in before if after.get(file) != before[file]]
            wrong += [
                f"{place}: {words}"
                for words, holds in (
                    (f"exit code {code}", code in (2, 3)),
                    (
                        f"that it is full is not said: {said}",
                        len(lines) == 1 and FULL.search(lines[0]),
                    ),
                    # Where the sync of the folder failed, the new file was in place, and whole.
                    (f"{lost} is not as it was", not lost or Path(path).is_dir()),
                )
                if not holds
            ]
            tried += 1
    assert not wrong, "\n".join(wrong)
    assert tried >= 20
    assert json.loads(Path("runs/latest/report.json").read_text())["status"] == "completed"
