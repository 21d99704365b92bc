"""Searches: equal trials, clients that nobody looks at, and every trial charged."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from privacy.accountant import spend
from privacy.errors import BudgetExceeded
from secure_fedmeta import cli, tuning
from secure_fedmeta.config import load_config
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.pipeline import assemble
from secure_fedmeta.progress import Silent
from secure_fedmeta.tasks import ClientData
from secure_fedmeta.tasks.sinusoid import SinusoidSource
from secure_fedmeta.tuning import tune
from secure_fedmeta.verification import verify_run
from tests.secure_fedmeta.federation import PrivateSource, default_ledger, register
from tests.secure_fedmeta.searches import (
    CHARGED,
    CLIENTS,
    PRIVATE,
    VALIDATION,
    explained,
    fields,
    grant,
    needed,
    searched,
)


class WatchedSource(SinusoidSource):
    """Remembers whose data were asked for."""

    name = "watched"
    asked: ClassVar[Counter[str]] = Counter()

    def client(self, name: str) -> ClientData:
        self.asked[name] += 1
        return super().client(name)


@pytest.fixture(autouse=True)
def sources(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, PrivateSource, WatchedSource)


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({"tune.validation": ["client-009"]}, "tune.validation", "trains in no run"),
        ({"tune.validation": ["held-out-000"]}, "tune.validation", "trains in no run"),
        ({"tune.validation": VALIDATION * 2}, "tune.validation", "twice"),
        ({"tune.settings": {"server": {"lr": [0.1, -1.0]}}}, "server.lr", "server.lr = -1.0"),
        ({"tune.settings": {"learner": {"algorithm": ["mamll"]}}}, "learner.algorithm", "mamll"),
        (
            {"tune.search": "random", "tune.candidates": 3},
            "tune.candidates",
            "3 candidates of 2 combinations",
        ),
        ({"tune": None}, "tune", "add this section"),
        ({"data.source": "private"}, "tune.validation", "public_validation"),
        (
            {"data.source": "private", "tune.public_validation": True},
            "ledger.population",
            "name the population",
        ),
        (CHARGED, "ledger.population", "no budget was granted"),
    ],
)
def test_refused_before_anything_trains(
    tmp_path: Path, changes: dict[str, object], key: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        tune(searched(changes), out=tmp_path / "runs")
    assert caught.value.key == key
    assert not (tmp_path / "runs").exists()


# --- free searches ------------------------------------------------------------------------------


def test_a_search_on_public_data(tmp_path: Path) -> None:
    config = searched()
    result = tune(config, out=tmp_path)
    found = json.loads((result.directory / "tune.json").read_text())
    assert found == result.found
    assert fields(found) - explained() == set()
    assert (found["status"], found["chosen"] in (1, 2)) == ("completed", True)
    assert found["mode"].startswith("free")
    assert found["charge"] is None
    assert default_ledger().populations() == ()
    rows = found["candidates"]
    assert [row["settings"] for row in rows] == [
        {"learner.algorithm": "fomaml"},
        {"learner.algorithm": "anil"},
    ]
    assert all(set(row["per_client"]) == set(VALIDATION) for row in rows)
    assert all(row["charged_rounds"] == 0 and row["run"] is None for row in rows)
    assert rows[found["chosen"] - 1]["score"] == min(row["score"] for row in rows)  # mse
    other = 3 - found["chosen"]
    assert found["lead"]["over"] == other
    gap = rows[other - 1]["score"] - rows[found["chosen"] - 1]["score"]
    assert found["lead"]["mean"] == pytest.approx(gap)


def test_the_chosen_config_is_the_base_with_the_choice_and_without_the_search(
    tmp_path: Path,
) -> None:
    config = searched()
    result = tune(config, out=tmp_path)
    chosen = load_config(result.directory / "chosen.toml")
    algorithm = result.found["candidates"][result.found["chosen"] - 1]["settings"]
    learner = config.learner.model_copy(update={"algorithm": algorithm["learner.algorithm"]})
    assert chosen == config.model_copy(update={"tune": None, "learner": learner})
    assert len(assemble(chosen).training) == CLIENTS


def test_clients_that_are_reported_are_never_looked_at(tmp_path: Path) -> None:
    WatchedSource.asked.clear()
    result = tune(searched({"data.source": "watched"}), out=tmp_path)
    everybody = {f"client-{i:03d}" for i in range(CLIENTS)}
    assert set(WatchedSource.asked) == everybody
    held_out = assemble(searched()).held_out
    assert held_out
    assert result.found["not_looked_at"] == list(held_out)
    assert set(result.found["looked_at"]["training_clients"]) == everybody - set(VALIDATION)


def test_every_candidate_has_the_same_effort(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Rounds, clients and plan agree; only the candidate's settings differ."""
    seen: list[Any] = []
    train = tuning.train_in_clear_as_planned
    monkeypatch.setattr(
        tuning,
        "train_in_clear_as_planned",
        lambda parts, *rest, **named: seen.append(parts) or train(parts, *rest, **named),
    )
    tune(searched(), out=tmp_path)
    first, second = seen
    assert first.training == second.training
    assert VALIDATION[0] not in first.training
    assert first.plan == second.plan
    assert first.plan.rounds == 2
    # As many may drop out as in the config's own run.
    assert first.plan.clients - first.plan.min_survivors == 1
    assert first.config.learner.algorithm != second.config.learner.algorithm


def test_an_interruption_keeps_the_trials_before_it(tmp_path: Path) -> None:
    class Interrupting(Silent):
        def stage(self, text: str) -> None:
            if text.startswith("candidate 2 of 2: training"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(searched(), out=tmp_path, progress=Interrupting())
    (path,) = tmp_path.glob("*/tune.json")
    found = json.loads(path.read_text())
    assert found["status"] == "interrupted"
    assert [row["status"] for row in found["candidates"]] == ["completed"]


# --- charged searches ---------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [CHARGED, PRIVATE], ids=["named population", "private"])
def test_every_trial_is_charged_by_composition(tmp_path: Path, changes: dict[str, object]) -> None:
    grant(9.0)
    result = tune(searched(changes), out=tmp_path)
    found = result.found
    assert (found["status"], found["mode"]) == ("completed", "charged")
    events = default_ledger().events("people")
    assert len(events) == 2 * 2
    total = spend(events, delta=1e-5)
    assert found["charge"]["epsilon"]["participants"] == total.worst
    assert found["charge"]["population_spent"] == total.worst
    assert found["charge"]["rounds"] == 4
    assert fields(found) - explained() == set()
    rows = found["candidates"]
    assert [row["charged_rounds"] for row in rows] == [2, 2]
    alone = spend(events[:2], delta=1e-5).worst
    assert [row["epsilon"] for row in rows] == [alone, alone]
    assert alone < total.worst
    for row in rows:
        run = result.directory / row["run"]
        assert verify_run(run, key=None, pinned=None, unpinned=False).accepted
        assert json.loads((run / "report.json").read_text())["held_out"]["clients"] == VALIDATION


def test_a_grant_for_one_candidate_affords_one_and_charges_none(tmp_path: Path) -> None:
    one, two = needed(1), needed(2)
    assert one < two
    grant((one + two) / 2)
    with pytest.raises(
        BudgetExceeded, match=r"afford 1 of 2 candidates.*nothing was charged"
    ) as hit:
        tune(searched(CHARGED), out=tmp_path / "runs")
    assert hit.value.affordable_rounds == 2
    assert default_ledger().events("people") == ()
    assert not (tmp_path / "runs").exists()


def test_what_was_spent_before_counts(tmp_path: Path) -> None:
    grant(needed(2) * 1.01)
    ledger, plan = default_ledger(), assemble(searched()).plan
    ledger.reserve("people", "other", 1, 1, plan.worst_event(), bytes(32))
    with pytest.raises(BudgetExceeded, match="afford 1 of 2"):
        tune(searched(CHARGED), out=tmp_path / "runs")


def test_a_budget_spent_by_others_meanwhile_ends_the_search(tmp_path: Path) -> None:
    """The candidate that was cut short is not chosen: it had less effort than the first."""
    grant(needed(2) * 1.01)
    ledger, plan = default_ledger(), assemble(searched()).plan

    class Rival(Silent):
        def round_done(self, record: Mapping[str, Any]) -> None:
            nonlocal rounds
            rounds += 1
            if rounds == 3:  # the second candidate's first
                while ledger.affordable("people", plan.worst_event()):
                    number = len(ledger.events("people"))
                    ledger.reserve("people", "rival", number, 1, plan.worst_event(), bytes(32))

    rounds = 0
    result = tune(searched(CHARGED), out=tmp_path, progress=Rival())
    found = result.found
    assert (result.status, found["status"], found["chosen"]) == ("budget", "budget", 1)
    assert [row["status"] for row in found["candidates"]] == ["completed", "budget"]
    assert [row["charged_rounds"] for row in found["candidates"]] == [2, 1]
    assert found["candidates"][1]["score"] is None
    assert (result.directory / "chosen.toml").is_file()


def test_no_candidate_with_a_score(tmp_path: Path) -> None:
    grant(9.0)
    result = tune(searched({**CHARGED, "transport.drop": 0.99}), out=tmp_path)
    assert (result.status, result.found["chosen"]) == ("aborted", None)
    assert not (result.directory / "chosen.toml").exists()


# --- the command --------------------------------------------------------------------------------


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 with tables or JSON, 1 if grants are too small, 2 for bad input, 3 without a score."""
    monkeypatch.chdir(tmp_path)

    def call(changes: Mapping[str, object], *words: str) -> tuple[int, str, str]:
        Path("c.toml").write_text(searched(changes).to_toml())
        monkeypatch.setattr("sys.argv", ["fedmeta", "tune", "c.toml", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    code, out, err = call({}, "--json")
    assert (code, err) == (0, "")
    assert Path(json.loads(out)["directory"], "chosen.toml").is_file()
    code, out, err = call({})
    assert code == 0
    assert "candidate 2 of 2: training in clear" in err
    for said in ("2 of 2 candidates", "learner.algorithm = anil", "Charged: nothing", "Chosen:"):
        assert said in out
    assert "Looked at: training on client-000" in out
    assert f"Not looked at: {assemble(searched()).held_out[0]}" in out
    code, out, err = call({"tune.settings": {"server": {"lr": [-1.0]}}})
    assert (code, out) == (2, "")
    assert "c.toml: server.lr = -1.0" in err
    grant((needed(1) + needed(2)) / 2)
    code, out, err = call(CHARGED)
    assert (code, out) == (1, "")
    assert "afford 1 of 2 candidates of 2 rounds" in err
    grant(9.0)
    code, out, _ = call(CHARGED)
    assert code == 0
    assert "Charged: 4 rounds to people, together epsilon" in out
    code, out, _ = call({**CHARGED, "transport.drop": 0.99})
    assert code == 3
    assert "No candidate could be chosen" in out
