"""Whole runs: what is left on disk agrees with log and ledger, however the run ended."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from crypto.secure_sum import SECURE_SUMS
from privacy.accountant import spend
from secure_fedmeta.aggregator import Aggregator
from secure_fedmeta.config import load_config
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.pipeline import assemble
from secure_fedmeta.progress import Started
from secure_fedmeta.provenance import code_digest, environment_digest
from secure_fedmeta.results import read_report
from secure_fedmeta.training import RunResult, run
from secure_fedmeta.verification import verify_run
from tests.secure_fedmeta.federation import (
    PrivateSource,
    SpySum,
    default_ledger,
    entries,
    register,
    tiny,
)

POPULATION = {"ledger.population": "people"}


def train(folder: Path, changes: Mapping[str, object] | None = None) -> RunResult:
    return run(tiny(changes), out=folder)


def grant(epsilon: float) -> None:
    default_ledger().grant("people", unit="task", epsilon=epsilon, delta=1e-5, approver="board")


def bodies(result: RunResult, kind: str) -> list[dict[str, Any]]:
    found = entries(result.directory / "audit")
    return [entry["body"] for entry in found if entry["kind"] == kind]


def metrics(result: RunResult) -> list[dict[str, Any]]:
    lines = (result.directory / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=pytest.fail) for line in lines]


def accepted(result: RunResult) -> bool:
    return verify_run(result.directory, key=None, pinned=None, unpinned=False).accepted


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDMETA_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        result = train(tmp_path_factory.mktemp("runs"))
        assert accepted(result)
        return result


def test_what_a_run_leaves_behind(finished: RunResult) -> None:
    assert finished.status == "completed"
    directory = finished.directory
    files = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    assert files == {
        "audit/checkpoint", "audit/leaves", "audit/log.jsonl", "audit/pending", "config.toml",
        "metrics.jsonl",
        "model.safetensors", "plots/epsilon.svg", "plots/loss.svg", "report.html", "report.json",
        "report.md",
    }  # fmt: skip
    assert (directory.parent / "latest").resolve() == directory.resolve()
    assert load_config(directory / "config.toml") == tiny()
    assert read_report(directory) == finished.report
    model = assemble(tiny()).learner.spec.load((directory / "model.safetensors").read_bytes())
    assert torch.equal(model, finished.model)


def test_the_log_tells_the_run(finished: RunResult) -> None:
    kinds = [entry["kind"] for entry in entries(finished.directory / "audit")]
    rounds = ["round-intent", "round-release"] * 3
    assert kinds == ["genesis", "budget-granted", *rounds, "report-exported"]
    (genesis,) = bodies(finished, "genesis")
    assert genesis["not_private"] is False
    assert genesis["config_digest"] == tiny().digest().hex()
    assert genesis["code_digest"] == code_digest().hex()
    assert genesis["lock_digest"] == environment_digest().hex()
    (exported,) = bodies(finished, "report-exported")
    for name, digest in exported["files"].items():
        assert hashlib.sha256((finished.directory / name).read_bytes()).hexdigest() == digest
    assert set(exported["files"]) == {
        "config.toml", "metrics.jsonl", "model.safetensors",
        "report.json", "report.html", "report.md",
    }  # fmt: skip


def test_the_metrics_of_every_round(finished: RunResult) -> None:
    records = metrics(finished)
    assert [record["round"] for record in records] == [1, 2, 3]
    epsilons = [record["epsilon"] for record in records]
    assert 0 < epsilons[0] < epsilons[1] < epsilons[2] <= 3.0
    assert all("adapted" in record for record in records)  # 1 and last, and every second
    assert set(records[0]["epsilon_by_adversary"]) == {
        "aggregator", "aggregator_and_colluders", "participants", "recipients",
    }  # fmt: skip
    assert bodies(finished, "round-release")[-1]["spend"]["participants"]["rdp"] == repr(
        epsilons[2]
    )


def test_the_report(finished: RunResult) -> None:
    report = finished.report
    assert (report["status"], report["not_private"], report["notes"]) == ("completed", False, [])
    assert report["rounds"] == {
        "planned": 3, "completed": 3, "aborted": 0, "abort_reasons": [],
    }  # fmt: skip
    held_out = report["held_out"]
    assert held_out["metric"] == "mse"
    for arm in ("no_adaptation", "local_k", "local_all", "fedavg_ft", "meta"):
        scores = list(held_out[arm]["per_client"].values())
        assert held_out[arm]["mean"] == pytest.approx(sum(scores) / len(scores))
        means = [sum(own) / len(own) for own in held_out[arm]["per_draw"].values()]
        assert means == pytest.approx(scores)
    worst = metrics(finished)[-1]["epsilon"]
    assert report["privacy"]["spent_epsilon"] == pytest.approx(worst)
    assert report["privacy"]["granted_epsilon"] == 3.0
    assert report["data"]["rows"] == 6 * 5 * 8
    upload = report["bytes_per_client"]["upload"]
    assert upload == -(-2 * report["secure_sum"]["ring_bits"] // 8)  # a linear model: 2 values
    assert report["bytes_per_client"]["sent"] > 3 * upload
    assert report["distortion"]["left_out"] == 0.0
    assert 0.0 < report["distortion"]["rounding"] < 0.001 * report["distortion"]["noise"]
    assert report["secure_sum"]["capabilities"]["hides_updates"] is True
    assert report["privacy"]["unprotected"]


@pytest.mark.parametrize("protocol", ["masking", "plain"])
def test_a_run_over_a_bad_wire(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """Drops, delays, repeats and changes: sums are right, log and ledger and report agree."""
    spy = SpySum(SECURE_SUMS[protocol])
    monkeypatch.setitem(SECURE_SUMS, protocol, spy)
    grant(50.0)
    changes = {
        "secure_sum.protocol": protocol, "secure_sum.allow_insecure": True, "training.rounds": 12,
        "transport.drop": 0.05, "transport.delay": 0.03, "transport.duplicate": 0.1,
        "transport.tamper": 0.03, "not_private.seed": 16, **POPULATION,
    }  # fmt: skip
    result = train(tmp_path, changes)
    spy.check_sums()
    aborts = bodies(result, "round-abort")
    charged = [abort for abort in aborts if abort["charged"]]
    releases = bodies(result, "round-release")
    assert releases
    assert aborts
    assert len(spy.sums) == len(releases)
    assert len(default_ledger().events("people")) == len(releases) + len(charged)
    assert len(releases) + len(aborts) == 12
    assert accepted(result)
    rounds = result.report["rounds"]
    assert (rounds["completed"], rounds["aborted"]) == (len(releases), len(aborts))
    steps = [reason.split(":")[0] for reason in rounds["abort_reasons"]]
    assert [abort["reason"] for abort in aborts] == [f"ended at step {step}" for step in steps]
    assert [r["status"] for r in metrics(result)].count("aborted") == len(aborts)
    assert result.report["privacy"]["events"] == len(releases) + len(charged)


def test_a_run_may_end_with_the_first_abort(tmp_path: Path) -> None:
    result = train(tmp_path, {"transport.drop": 0.999999999, "training.on_abort": "stop"})
    assert result.status == "aborted"
    assert result.report["notes"] == [
        "round 1 could not complete: advertise: sum aborted: 0 clients answered, 3 needed"
    ]
    assert accepted(result)
    assert len(metrics(result)) == 1
    assert not (result.directory / "plots" / "epsilon.svg").exists()


def test_a_run_goes_on_after_aborts_if_told_to(tmp_path: Path) -> None:
    result = train(tmp_path, {"transport.drop": 0.999999999})
    assert result.status == "aborted"
    assert result.report["notes"] == ["no round could complete: the model is the untrained one"]
    assert result.report["rounds"]["aborted"] == 3
    assert result.report["privacy"]["spent_epsilon"] == 0.0
    assert torch.equal(result.model, assemble(tiny()).initial())


@pytest.mark.parametrize("epsilon", [2.0, 2.5])
def test_a_grant_that_is_too_small_ends_the_run(tmp_path: Path, epsilon: float) -> None:
    """It stops before the first round that would exceed, and leaves everything usable."""
    grant(epsilon)
    changes = {"training.rounds": 9, "privacy.epsilon": 6.0, **POPULATION}
    result = train(tmp_path, changes)
    plan = assemble(tiny(changes)).plan
    done = len(bodies(result, "round-release"))
    assert 0 < done < 9
    spent = spend(default_ledger().events("people"), delta=plan.delta).worst
    assert spent <= epsilon
    more = [*default_ledger().events("people"), plan.worst_event()]
    assert spend(more, delta=plan.delta).worst > epsilon
    assert result.status == "budget"
    assert bodies(result, "round-abort") == []  # the round that would exceed never began
    (note,) = result.report["notes"]
    assert note == (
        f"the grant of epsilon {epsilon:g} for people afforded {done} of 9 rounds; "
        f"stopped before round {done + 1}"
    )
    assert result.report["privacy"]["within_grant"] is True
    assert accepted(result)
    assert torch.isfinite(result.model).all()
    stored = (result.directory / "model.safetensors").read_bytes()
    assert torch.equal(assemble(tiny()).learner.spec.load(stored), result.model)


def test_a_grant_that_affords_nothing(tmp_path: Path) -> None:
    grant(0.01)
    result = train(tmp_path, POPULATION)
    assert result.status == "budget"
    assert "afforded 0 of 3 rounds; stopped before round 1" in result.report["notes"][0]
    assert default_ledger().events("people") == ()
    assert torch.equal(result.model, assemble(tiny()).initial())
    assert accepted(result)


def test_the_budget_goes_over_runs_and_every_log_verifies(tmp_path: Path) -> None:
    """The second run starts where the first stopped; the third is not paid for."""
    grant(4.3)
    first, second, third = (train(tmp_path, POPULATION) for _ in range(3))
    assert [r.status for r in (first, second, third)] == ["completed", "completed", "budget"]
    assert all(accepted(result) for result in (first, second, third))
    assert first.report["privacy"]["spent_epsilon"] < second.report["privacy"]["spent_epsilon"]
    (spent,) = bodies(second, "budget-spent")
    assert [item["count"] for item in spent["prior"]] == [3]
    assert spent["prior"][0]["event"] == assemble(tiny()).plan.event(4).to_json()
    assert bodies(first, "budget-spent") == []
    done = len(bodies(third, "round-release"))
    assert f"afforded {done} of 3 rounds" in third.report["notes"][0]
    assert len(default_ledger().events("people")) == 6 + done


def test_another_run_that_takes_the_rest_ends_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of a budget is charged between the look at it and the reservation."""
    grant(4.0)
    plan = assemble(tiny(POPULATION)).plan
    affords = Aggregator.affordable_rounds

    def then_rob(self: Aggregator) -> int:
        answer = affords(self)
        ledger = default_ledger()
        for index in range(100 if len(ledger.events("people")) == 1 else 0):
            if not ledger.affordable("people", plan.worst_event()):
                break
            ledger.reserve("people", "thief", index, 1, plan.worst_event(), plan.digest())
        return answer

    monkeypatch.setattr(Aggregator, "affordable_rounds", then_rob)
    result = train(tmp_path, POPULATION)
    assert result.status == "budget"
    assert "afforded 1 of 3 rounds; stopped before round 2" in result.report["notes"][0]
    (abort,) = bodies(result, "round-abort")
    assert (abort["charged"], abort["intent"]) == (False, None)
    assert accepted(result)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"data.source": "private"}, "ledger.population"),
        (POPULATION, "ledger.population"),
        ({"secure_sum.protocol": "plain"}, "secure_sum.protocol"),
        ({"secure_sum.threshold": 2}, "secure_sum"),
        ({"transport.name": "pigeon"}, "transport.name"),
    ],
)
def test_a_config_that_cannot_work_leaves_nothing(
    tmp_path: Path, private_source: None, changes: dict[str, object], key: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        train(tmp_path / "runs", changes)
    assert caught.value.key == key
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def private_source(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, PrivateSource)


def test_private_data_with_a_grant(tmp_path: Path, private_source: None) -> None:
    """No second training in clear, and no count of the data leaves."""
    grant(3.0)
    result = train(tmp_path, {"data.source": "private", **POPULATION})
    assert result.status == "completed"
    assert result.report["held_out"]["fedavg_ft"] is None
    assert "second budget" in result.report["held_out"]["not_run"]["fedavg_ft"]
    assert "per_draw" not in result.report["held_out"]["meta"]  # would tell users per client
    assert result.report["data"] == {
        "source": "private",
        "training_clients": [f"client-{i:03d}" for i in range(4)],
        "public": False,
    }
    assert len(default_ledger().events("people")) == 3
    assert accepted(result)


@pytest.mark.parametrize("held_out", [0, 1])
def test_few_or_no_held_out_clients(tmp_path: Path, held_out: int) -> None:
    result = train(tmp_path, {"data.options.held_out_clients": held_out})
    table = result.report["held_out"]
    if held_out:
        assert table["meta"]["ci95"] is None
        assert math.isfinite(table["meta"]["mean"])
        return
    assert table["meta"] is None
    assert table["not_run"]["meta"] == "no held-out client has a score"
    assert all("adapted" not in record for record in metrics(result))
    assert not (result.directory / "plots" / "loss.svg").exists()
    assert accepted(result)


def test_a_model_that_diverges_is_reported_as_such(tmp_path: Path) -> None:
    result = train(tmp_path, {"server.optimiser": "sgd", "server.lr": 1e300})
    assert result.status == "completed"
    meta = read_report(result.directory)["held_out"]["meta"]
    assert meta["mean"] is None
    assert meta["per_client"] == {"held-out-000": None, "held-out-001": None}
    assert metrics(result)[-1]["adapted"] is None
    assert accepted(result)


def test_the_callers_own_module(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(1, 2), nn.Tanh(), nn.Linear(2, 1))
    before = [parameter.detach().clone() for parameter in module.parameters()]
    result = run(tiny({"training.rounds": 1}), out=tmp_path, module=module, loss="mse")
    assert result.model.shape == (7,)
    assert all(map(torch.equal, before, module.parameters()))


def test_progress_is_told_in_order(tmp_path: Path) -> None:
    told: list[object] = []

    class Telling:
        def started(self, facts: Started) -> None:
            assert facts.directory.is_dir()
            told.append(facts)

        def stage(self, text: str) -> None:
            told.append(text)

        def round_done(self, record: Mapping[str, Any]) -> None:
            told.append(record["round"])

        def ended(self, status: str) -> None:
            told.append(status)

    result = run(tiny({"training.rounds": 2}), out=tmp_path, progress=Telling())
    facts = Started(result.directory, 2, f"run/{result.directory.name}", 3.0, "mse")
    assert told[:5] == ["reading data and sizing the noise", facts, "training", 1, 2]
    # And each of the five slow parts of scoring is announced.
    assert all("FedAvg" in str(text) or "scoring" in str(text) for text in told[5:10])
    assert told[10:] == ["writing the report", "completed"]


def test_a_record_says_what_the_round_moved_and_what_the_grant_allowed(tmp_path: Path) -> None:
    result = run(tiny({"training.rounds": 2}), out=tmp_path)
    first, second = result.records
    assert first["bytes"]["sent"] > 4 * result.model.numel()
    total = result.report["bytes_per_client"]
    for way in ("sent", "received"):
        # Each is rounded to whole bytes of the average client.
        assert abs(first["bytes"][way] + second["bytes"][way] - total[way]) <= 1
    # Of the run's own grant, made for two rounds with the fewest survivors.
    assert (first["affordable"], second["affordable"]) == (2, 1)


def test_given_noise_affords_its_own_rounds(tmp_path: Path) -> None:
    """The per-run grant is exactly the plan's claim: the last round still fits."""
    changes = {
        "privacy.epsilon": None, "privacy.noise_multiplier": 3.0, "privacy.min_survivors": 4,
    }  # fmt: skip
    result = train(tmp_path, changes)
    assert (result.status, result.report["rounds"]["completed"]) == ("completed", 3)
    granted = result.report["privacy"]["granted_epsilon"]
    assert result.report["privacy"]["spent_epsilon"] == pytest.approx(granted)
