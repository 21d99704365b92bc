"""personalize, act and the others: what the report scored comes out again, bit by bit."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from crypto.locked_file import MIN_COST
from secure_fedmeta.agent import PersonalAgent
from secure_fedmeta.pipeline import assemble
from tests.contracts.sources import options_of
from tests.secure_fedmeta.agents import key_file
from tests.secure_fedmeta.commands import Call
from tests.secure_fedmeta.federation import settings, tiny


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


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
        most = 3 if len(scores) > 4 else 4
        draws = found(
            call(
                *("examples", "runs/latest", "--client", client, "--out", client, "--json"),
                *("--draws", str(most)),
            )
        )["draws"]
        assert len(draws) == min(len(scores), most)
        assert {Path(file).stat().st_mode & 0o777 for one in draws for file in one.values()} == {
            0o600
        }
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


# --- everything around it -------------------------------------------------------------------------

WORDS = "several words that nobody guesses"


@pytest.fixture
def run_directory(tmp_path: Path) -> str:
    """What an agent needs of a run: its config and a model."""
    config = tiny({"model.name": "mlp", "model.hidden": [4]})
    parts = assemble(config)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.toml").write_text(config.to_toml())
    (folder / "model.safetensors").write_bytes(parts.learner.spec.save(parts.initial()))
    return str(folder)


def table(folder: Path, name: str, rows: int, *, seed: int = 0, factor: float = 1.0) -> str:
    """Points of one curve."""
    x = np.random.default_rng(seed).uniform(-5, 5, rows)
    lines = [f"{a!r},{factor * 3 * math.sin(a)!r}" for a in x.tolist()]
    (folder / name).write_text("x,target\n" + "\n".join(lines) + "\n")
    return name


def test_the_life_of_an_agent(call: Call, run_directory: str, tmp_path: Path) -> None:
    key = ("--key-file", key_file(tmp_path))
    mine = table(tmp_path, "mine.csv", 40)
    code, out, err = call("personalize", run_directory, "--data", mine, "--out", "a", *key)
    assert code == 0
    assert "is private to its user" in out
    assert "No epsilon covers it" in out
    assert "cross-validated loss on 40 own examples" in out
    assert "personalising" in err
    code, out, _ = call("act", "a", "--data", table(tmp_path, "new.csv", 5, seed=1), *key)
    assert code == 0
    assert "Score on the targets of this file: mse" in out
    assert "intervals of level 90% by CV+ on 40 own examples" in out
    shown = found(call("agent", "show", "a", *key, "--json"))
    assert (shown["columns"], shown["target"], shown["plain"]) == (["x"], "target", False)
    lines = call("agent", "show", "a", *key)[1].splitlines()
    assert {"columns: x", "plain: no", "notices: -"} <= set(lines)
    assert not [line for line in lines if "{" in line or "[" in line]
    assert found(call("agent", "explain", "a", *key, "--json"))["remembered"] == 40
    assert "Answers by: " in call("agent", "explain", "a", *key)[1]
    feedback = ("--data", table(tmp_path, "more.csv", 60, seed=2))
    assert "No change was noticed" in call("agent", "observe", "a", *feedback, *key)[1]
    changed = ("--data", table(tmp_path, "changed.csv", 60, seed=3, factor=-9.0))
    (change,) = found(call("agent", "observe", "a", *changed, *key, "--json"))["changes"]
    assert "the losses have grown" in change
    assert change in call("agent", "explain", "a", *key)[1]
    again = found(call("agent", "learn", "a", "--mode", "local", *key, "--json"))
    assert (again["way"], again["notices"]) == ("local", [change])
    assert "is as new" in call("agent", "reset", "a", *key)[1]
    assert found(call("agent", "show", "a", *key, "--json"))["remembered"] == 0


def test_a_plain_agent_is_one_by_name_and_says_so_every_time(
    call: Call, run_directory: str, tmp_path: Path
) -> None:
    mine = table(tmp_path, "mine.csv", 5)
    made = call("personalize", run_directory, "--data", mine, "--out", "a", "--plain", "--json")
    assert found(made)["plain"] is True
    warning = "warning: This agent file is PLAIN: whoever reads it has its user's examples."
    for ended in (made, call("act", "a", "--data", mine), call("agent", "reset", "a")):
        assert ended[0] == 0
        assert warning in ended[2]
    assert (tmp_path / "a").read_bytes()[:4] == b"FMPA"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    code, _, err = call("agent", "show", "a", "--key-file", key_file(tmp_path))
    assert (code, "is plain, no key opens it" in err) == (2, True)


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passphrases at the least cost."""
    least = {"rand": os.urandom, "cost": MIN_COST}
    monkeypatch.setattr(PersonalAgent.save, "__kwdefaults__", least)


@pytest.mark.usefixtures("cheap")
def test_a_passphrase_is_asked_for_twice_and_never_shown(
    call: Call, run_directory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = table(tmp_path, "mine.csv", 5)
    make = ("personalize", run_directory, "--data", mine, "--out", "a")
    code, out, err = call(*make)
    assert (code, out) == (2, "")
    assert "no terminal to ask for a passphrase on: name --passphrase-file" in err
    assert not (tmp_path / "a").exists()
    asked: list[str] = []

    def answer(prompt: str, **_: object) -> str:
        asked.append(prompt)
        return WORDS

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.termui.hidden_prompt_func", answer)
    code, out, err = call(*make)
    assert (code, len(asked)) == (0, 2)
    assert WORDS not in out + err
    assert call("act", "a", "--data", mine)[0] == 0
    assert len(asked) == 3
    words = key_file(tmp_path, WORDS.encode() + b"\n", "words")
    assert call("act", "a", "--data", mine, "--passphrase-file", words)[0] == 0
    wrong = key_file(tmp_path, b"other words of as many letters", "wrong")
    code, out, err = call("act", "a", "--data", mine, "--passphrase-file", wrong)
    assert (code, out) == (2, "")
    assert "wrong passphrase" in err
    assert "other words" not in err


def test_what_cannot_be_done_is_said_and_changes_nothing(
    call: Call, run_directory: str, tmp_path: Path
) -> None:
    key = ("--key-file", key_file(tmp_path))
    mine = table(tmp_path, "mine.csv", 5)
    make = ("personalize", run_directory, "--data", mine, "--out")
    assert call(*make, "a", *key)[0] == 0
    before = (tmp_path / "a").read_bytes()
    bare = tmp_path / "bare.csv"
    bare.write_text("x\n1\n")
    wrong = ("--key-file", key_file(tmp_path, bytes(32), "other"))
    other = tmp_path / "other-run"
    other.mkdir()
    (other / "config.toml").write_text(tiny({"model.name": "linear"}).to_toml())
    (other / "model.safetensors").write_bytes(Path(run_directory, "model.safetensors").read_bytes())
    for words, reason in (
        ((*make, "a", *key), "a exists: name another file"),
        ((*make, "b", *key, "--mode", "adopted"), "Did you mean 'adapted'?"),
        ((*make, "b", *key, "--plain"), "--plain takes no key"),
        ((*make, "no/b", *key), "no is no folder: make it"),
        (("agent", "learn", "a", "--mode", "adopted"), "Did you mean 'adapted'?"),
        (("act", "a", "--data", "other-run", *key), "other-run: a table must end in .csv, .npz"),
        (("act", "a", "--data", mine, "--key-file", "other-run"), "cannot be read (Is a dir"),
        ((*make, "b", *key, "--mode", "mixture"), "a mixture has no weights"),
        ((*make, "b", *key, "--capacity", "0"), "capacity 0; allowed: 1 to"),
        (("personalize", "nowhere", "--data", mine, "--out", "b", *key), "config.toml: cannot be"),
        (("personalize", "other-run", "--data", mine, "--out", "b", *key), "is not the model that"),
        (("personalize", run_directory, "--data", "bare.csv", "--out", "b", *key), "column target"),
        (("act", "mine.csv", "--data", mine, *key), "mine.csv is no agent file"),
        (("act", "a", "--data", mine, *wrong), "wrong key file"),
        (("act", "a", "--data", mine), "a is locked by a key file: name it with --key-file"),
        (("agent", "observe", "a", "--data", "bare.csv", *key), "column target"),
        (("examples", run_directory, "--client", "client-000", "--out", "d"), "was not held out"),
    ):
        code, out, err = call(*words)
        assert (code, out) == (2, ""), words
        assert reason in err, err
    assert (tmp_path / "a").read_bytes() == before
    assert not (tmp_path / "b").exists()


def test_help_says_that_an_agent_is_private(call: Call) -> None:
    shown = " ".join(call("personalize", "--help")[1].split())
    assert "outside of every epsilon" in shown
    assert "--passphrase " not in shown
