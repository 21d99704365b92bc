"""`fedmeta ledger`: what it says, and that every bad input changes nothing."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch

from privacy.accountant import spend
from secure_fedmeta.pipeline import assemble
from tests.secure_fedmeta.commands import Call
from tests.secure_fedmeta.federation import default_ledger, tiny

GRANT = ("ledger", "grant", "people", "--epsilon", "3", "--approver", "the board")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def shown(call: Call, *arguments: str) -> list[dict[str, Any]]:
    code, out, _ = call("ledger", "show", *arguments, "--json")
    assert code == 0
    found: list[dict[str, Any]] = json.loads(out)["populations"]
    return found


def charge(rounds: int, population: str = "people", **changes: object) -> None:
    plan = assemble(tiny(changes)).plan
    ledger = default_ledger()
    for index in range(rounds):
        ledger.reserve(population, "r", index, 1, plan.worst_event(), plan.digest())


def test_a_grant_shows(call: Call) -> None:
    assert shown(call) == []
    assert "Nothing was granted" in call("ledger", "show")[1]
    assert call(*GRANT, "--expires", "2999-12-31")[0] == 0
    (row,) = shown(call, "people")
    assert row == {
        "population": "people",
        "unit": "task",
        "relation": "add_remove",
        "delta": 1e-5,
        "filter": "fixed plan",
        "grants": [
            {
                "adversary": "worst",
                "granted": 3.0,
                "spent": 0.0,
                "remaining": 3.0,
                "approver": "the board",
                "expires": "2999-12-31T00:00:00+00:00",
            }
        ],
        "charged": 0,
        "opened": 0,
        "affordable_rounds": None,
        "limited_by": None,
    }


def test_what_is_spent_and_what_still_fits(call: Call) -> None:
    call(*GRANT)
    charge(2)
    event = assemble(tiny()).plan.worst_event()
    (row,) = shown(call)
    spent = spend([event] * 2, delta=1e-5).worst
    assert row["charged"] == 2
    assert row["grants"][0]["spent"] == spent
    assert row["grants"][0]["remaining"] == 3.0 - spent
    assert row["affordable_rounds"] == default_ledger().affordable("people", event) == 1
    assert row["limited_by"] == "grants"
    code, out, _ = call("ledger", "show")
    assert code == 0
    for text in ("people", "the board", "fixed plan", f"{spent:.3f}", "for ever", "1 more like"):
        assert text in out


TURNS = {
    "data.options.clients": 6,
    "privacy.unit": "client",
    "privacy.epsilon": None,
    "privacy.noise_multiplier": 8.0,
    "privacy.expected_units": 3,
    "privacy.max_participations": 2,
    "training.rounds": 4,
    "ledger.client_url": "sqlite:///clients.sqlite",
}


@pytest.mark.parametrize(
    ("rounds", "changes", "limit", "more", "told"),
    [
        (1, TURNS, "turns", 3, "clients have turns for at most 3 more like the last one"),
        (4, TURNS, "turns", 0, "clients have turns for at most 0 more"),
        (1, {**TURNS, "privacy.noise_multiplier": 1.8}, "grants", 0, "0 more like the last one"),
        (
            1,
            {"privacy.epsilon": None, "privacy.noise_multiplier": 3000.0},
            "nothing",
            None,
            "the grants set no limit to further rounds",
        ),
    ],
)
def test_what_limits_further_rounds(
    call: Call, rounds: int, changes: dict[str, object], limit: str, more: int | None, told: str
) -> None:
    """Turns that are paid for cost nothing more; clients run out of them all the same."""
    unit = str(changes.get("privacy.unit", "task"))
    call(*GRANT, "--unit", unit)
    charge(rounds, **changes)
    (row,) = shown(call)
    assert (row["limited_by"], row["affordable_rounds"]) == (limit, more)
    assert told in " ".join(call("ledger", "show")[1].split())


def test_filters_adversaries_and_several_at_once(call: Call) -> None:
    made = call(
        "ledger", "grant", "a", "b", "--epsilon", "2", "--approver", "x", "--order", "9", "--json"
    )
    assert made[0] == 0
    rows = json.loads(made[1])["populations"]
    assert [(row["population"], row["filter"]) for row in rows] == [
        ("a", "order 9"),
        ("b", "order 9"),
    ]
    more = ("--adversary", "recipients", "--order", "9")
    assert call("ledger", "grant", "a", "--epsilon", "1", "--approver", "x", *more)[0] == 0
    assert [grant["adversary"] for grant in shown(call, "a")[0]["grants"]] == [
        "worst",
        "recipients",
    ]


def test_a_backup_and_back(call: Call, tmp_path: Path) -> None:
    call(*GRANT)
    charge(3)
    code, out, _ = call("ledger", "export", "people")
    assert (code, json.loads(out)) == (0, default_ledger().export("people"))
    assert call("ledger", "export", "people", "--out", "kept.json")[0] == 0
    assert json.loads((tmp_path / "kept.json").read_text()) == json.loads(out)
    elsewhere = f"sqlite:///{tmp_path / 'other.sqlite'}"
    code, out, _ = call("ledger", "restore", "kept.json", "--ledger", elsewhere, "--json")
    assert (code, json.loads(out)) == (0, {"population": "people", "added": 3})
    assert shown(call, "--ledger", elsewhere)[0]["charged"] == 3
    assert call("ledger", "restore", "kept.json")[1] == "Added 0 charges of people.\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("grant", "p", "--epsilon", "0", "--approver", "x"), "--epsilon 0.0"),
        (("grant", "p", "--epsilon", "-1", "--approver", "x"), "--epsilon -1.0"),
        (("grant", "p", "--epsilon", "nan", "--approver", "x"), "--epsilon nan"),
        (("grant", "p", "--epsilon", "inf", "--approver", "x"), "--epsilon inf"),
        (("grant", "p", "--epsilon", "1e-320", "--approver", "x"), "positive, finite and normal"),
        (("grant", "p", "--epsilon", "much", "--approver", "x"), "much"),
        (("grant", "p", "--epsilon", "1", "--delta", "1", "--approver", "x"), "delta 1.0"),
        (("grant", "p", "--epsilon", "1", "--approver", ""), "1 to 200 printable"),
        (("grant", "", "--epsilon", "1", "--approver", "x"), "population ''"),
        (("grant", "p", "--epsilon", "1"), "--approver"),
        (("grant", "p", "--epsilon", "1", "--approver", "x", "--unit", "person"), "one of record"),
        (("grant", "p", "--epsilon", "1", "--approver", "x", "--order", "1"), "2 to 512"),
        (
            ("grant", "p", "--epsilon", "1", "--approver", "x", "--adversary", "nobody"),
            "one of worst, aggregator",
        ),
        (
            ("grant", "p", "--epsilon", "1", "--approver", "x", "--adversary", "recipients"),
            "must be for the worst",
        ),
        (
            ("grant", "p", "--epsilon", "1", "--approver", "x", "--expires", "soon"),
            "no date such as 2027-01-31",
        ),
        (
            ("grant", "p", "--epsilon", "1", "--approver", "x", "--expires", "2001-01-01"),
            "has passed",
        ),
        (
            ("grant", "people", "--epsilon", "1", "--approver", "x", "--delta", "1e-6"),
            "cannot change",
        ),
        (("grant", "people", "--epsilon", "1", "--approver", "x", "--order", "9"), "cannot change"),
        (("show", "nobody"), "'nobody' is not in the ledger; there: people"),
        (("export", "nobody"), "'nobody' is not in the ledger"),
        (("export", "people", "--out", "taken"), "taken cannot be written"),
        (("restore", "missing.json"), "missing.json cannot be read"),
        (("restore", "taken"), "taken is not JSON"),
        (("restore", "list"), "no JSON object"),
        (("restore", "object"), "not an export of a ledger"),
        (("show", "--ledger", "mysql://x/y"), "allowed is sqlite or postgresql"),
        (("show", "--ledger", "postgresql://u:secret@h/d"), "no password"),
        (("show", "--ledger", "sqlite:///taken"), "not a database"),
    ],
)  # fmt: skip
def test_bad_input_is_named_with_what_is_allowed_and_changes_nothing(
    call: Call, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    call(*GRANT)
    charge(1)
    before = default_ledger().export("people")
    (tmp_path / "taken").write_text("not a database, nor JSON" * 100)
    (tmp_path / "list").write_text("[]")
    (tmp_path / "object").write_text("{}")
    code, out, err = call("ledger", *arguments)
    assert (code, out) == (2, "")
    assert told in " ".join(err.replace("│", " ").split())
    assert "secret" not in err
    assert default_ledger().export("people") == before
    assert default_ledger().populations() == ("people",)


def test_a_newer_ledger_is_refused_with_what_to_do(call: Call, state_dir: Path) -> None:
    call(*GRANT)
    with sqlite3.connect(state_dir / "ledger.sqlite") as connection:
        connection.execute("UPDATE ledger_schema SET version = 99")
    connection.close()
    code, _, err = call("ledger", "show")
    assert code == 2
    assert "schema 99" in err
    assert "upgrade the product; nothing was changed" in err


def test_a_locked_ledger_could_not_complete(
    call: Call, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(*GRANT)
    monkeypatch.setattr("privacy.ledger_sqlite.BUSY_SECONDS", 0.05)
    other = sqlite3.connect(state_dir / "ledger.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    code, _, err = call(*GRANT)
    assert (code, "locked" in err) == (3, True)
    other.execute("ROLLBACK")
    other.close()


def test_an_unreachable_server_could_not_complete(call: Call, tmp_path: Path) -> None:
    code, _, err = call("ledger", "show", "--ledger", f"postgresql:///x?host={tmp_path}")
    assert (code, "refused" in err) == (3, True)


@pytest.mark.parametrize("whose", ["the population's", "the clients'"])
def test_a_grant_too_small_ends_a_run_with_exit_code_1_and_all_its_files(
    call: Call, tmp_path: Path, whose: str
) -> None:
    """As an operator does it: grant, run, verify, and again with nothing left."""
    plan = assemble(tiny()).plan
    epsilon = repr(spend([plan.worst_event()] * 2, delta=plan.delta).worst)
    url = f"sqlite:///{tmp_path / 'clients.sqlite'}"
    if whose == "the population's":
        config = tiny({"ledger.population": "people"})
        names, where = ["people"], []
    else:
        config = tiny({"ledger.client_url": url})
        names, where = [f"sinusoid/client-{k:03d}" for k in range(4)], ["--ledger", url]
    for name in names:
        made = ("ledger", "grant", name, "--epsilon", epsilon, "--approver", "the board", *where)
        assert call(*made)[0] == 0
    (tmp_path / "tiny.toml").write_text(config.to_toml())
    afforded = []
    for _ in range(2):
        code, out, err = call("run", "tiny.toml")
        assert code == 1, err
        assert "stopped before round" in " ".join(out.split())
        report = json.loads(Path("runs/latest/report.json").read_text())
        assert report["status"] == "budget"
        done = report["rounds"]["completed"]
        afforded.append(done)
        assert f"afforded {done} of 3 rounds" in report["notes"][0]
        learner = assemble(tiny()).learner
        model = learner.spec.load(Path("runs/latest/model.safetensors").read_bytes())
        assert bool(torch.isfinite(model).all())
        assert call("verify", "runs/latest")[0] == 0
    assert afforded == [2, 0]
