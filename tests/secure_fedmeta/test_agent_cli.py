"""personalize, act and the others: what the report scored comes out again, bit by bit."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from secure_fedmeta import cli
from tests.contracts.sources import options_of
from tests.secure_fedmeta.agents import key_file
from tests.secure_fedmeta.federation import settings

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    """Run `fedmeta` in this process, through the real entry point: code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedmeta", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def found(ended: tuple[int, str, str]) -> dict[str, Any]:
    code, out, err = ended
    assert code == 0, err
    held: dict[str, Any] = json.loads(out)
    return held


def trained(call: Call, folder: Path, changes: Mapping[str, object]) -> dict[str, Any]:
    """The report of a run of one round."""
    few = {"training.rounds": 1, "evaluation.repeats": 2, "evaluation.adapt_steps": 3}
    clear = {"secure_sum": {"protocol": "plain", "allow_insecure": True}}
    tree = settings({**few, **clear, **changes})
    (folder / "c.toml").write_text(tomli_w.dumps(tree))
    return found(call("run", "c.toml", "--json"))


CASES: dict[str, dict[str, object]] = {
    "sinusoid": {"model.name": "mlp", "model.hidden": [8], "learner.algorithm": "meta_sgd"},
    "vowels": {
        "data.source": "vowels",
        "data.options": options_of("vowels"),
        "data.held_out": ["speaker-03", "speaker-07"],
        "privacy.min_survivors": 10,
        "learner.algorithm": "anil",
        "model.name": "mlp_tanh",
        "model.hidden": [6],
    },
    "shakespeare": {
        "data.source": "shakespeare",
        "data.options": options_of("shakespeare"),
        "model.name": "char_gru",
        "model.hidden": [4],
        "learner.algorithm": "reptile",
    },
    "heart": {
        "data.source": "heart",
        "data.options": {"metric": "average_precision"},
        "data.held_out": ["switzerland"],
        "privacy.min_survivors": 3,
        "learner.algorithm": "anil_head",
        "model.hidden": [4],
        "model.name": "mlp",
    },
}


@pytest.mark.parametrize("case", CASES)
def test_one_personalize_and_one_act_give_one_score_of_the_report(
    case: str, call: Call, tmp_path: Path
) -> None:
    check(trained(call, tmp_path, CASES[case]), call, tmp_path)


BANKS = ("north", "south", "east", "west")
HOME = {"values": ["own", "rent"], "missing": "code"}
LATE = {"values": ["no", "yes"]}
INCOME = {"low": 0, "high": 2000, "scale": "log"}


def own_table(folder: Path, target: str) -> dict[str, object]:
    """Changes for a run on a table of loans, of which `west` is held out."""
    lines = ["bank,person,income,home,late"]
    lines += [
        f"{bank},{bank}-{row % 3},{(row * 37 + place * 11) % 1100},{('own', 'rent', '')[row % 3]},"
        f"{('no', 'yes')[(row * row + place) % 5 % 2]}"
        for place, bank in enumerate(BANKS)
        for row in range(36)
    ]
    (folder / "loans.csv").write_text("\n".join(lines) + "\n")
    columns = {"home": HOME, **({"income": INCOME} if target == "late" else {"late": LATE})}
    declared = LATE if target == "late" else {"low": 0, "high": 2000}
    options = {
        "path": "loans.csv",
        "client": "bank",
        "user": "person",
        "max_tasks": dict.fromkeys(BANKS, 4),
        "public": True,
        "features": columns,
        "target": {"column": target, **declared},
    }
    return {"data.source": "table", "data.options": options, "data.held_out": ["west"]}


@pytest.mark.parametrize("target", ["late", "income"])
def test_the_same_for_a_table_in_its_own_columns(target: str, call: Call, tmp_path: Path) -> None:
    report = trained(call, tmp_path, own_table(tmp_path, target))
    check(report, call, tmp_path)
    header = (tmp_path / "west" / "draw-001-test.csv").read_text().splitlines()[0]
    assert header == ("home,income,late" if target == "late" else "home,late,income")


def check(report: dict[str, Any], call: Call, folder: Path) -> None:
    """Every draw of every held-out client; the mean over the draws is the client's score."""
    key = key_file(folder)
    meta = report["held_out"]["meta"]
    assert set(meta["per_draw"]) == set(meta["per_client"]) != set()
    for client, scores in meta["per_draw"].items():
        most = 4
        draws = found(
            call(
                *("examples", "runs/latest", "--client", client, "--out", client, "--json"),
                *("--draws", str(most)),
            )
        )["draws"]
        assert len(draws) == min(len(scores), most)
        again = []
        for number, draw in enumerate(draws):
            agent = f"{client}-{number}.agent"
            made = found(
                call(
                    *("personalize", "runs/latest", "--data", draw["support"], "--out", agent),
                    *("--mode", "adapted", "--key-file", key, "--json"),
                )
            )
            assert (made["way"], made["plain"]) == ("adapted", False)
            said = found(call("act", agent, "--data", draw["test"], "--key-file", key, "--json"))
            assert said["metric"] == report["held_out"]["metric"]
            again.append(said["score"])
        assert again == scores[: len(again)]
        if len(scores) <= most:
            own = [value for value in again if value is not None]
            assert float(np.mean(own)) == meta["per_client"][client]
