"""Runs with noise at the client: what is charged when, for whom, and what is left behind."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from audit.spend import SpendChecker
from audit.verify import verify_log
from crypto.errors import MessageRefused
from crypto.progress import listening
from privacy.accountant import Adversary, spend
from privacy.errors import BudgetExceeded, LedgerUnavailable
from privacy.ledger import Ledger
from privacy.local import message_of
from secure_fedmeta.charge import OwnLedger
from secure_fedmeta.cli_output import Show
from secure_fedmeta.client import Client
from secure_fedmeta.config import parse_config
from secure_fedmeta.console_progress import display
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.local_noise import IntegerDPOptimizer
from secure_fedmeta.outcome import Abort, Release
from secure_fedmeta.pipeline import assemble
from secure_fedmeta.planning import outlook_of, to_json
from secure_fedmeta.training import run
from secure_fedmeta.transport.memory import Delivery
from secure_fedmeta.verification import verify_run
from tests.contracts.test_local_noise import LOCAL
from tests.secure_fedmeta.federation import POPULATION, Federation, settings, tiny

FULL = {**LOCAL, "privacy.rate": 1.0, "training.rounds": 3}


def checked(federation: Federation) -> tuple[int, int]:
    federation.log.close()
    found = verify_log(
        federation.audit, vkey=federation.signer.vkey, pinned=None, spend=SpendChecker()
    )
    return found.released, found.aborted


def lose_uploads(delivery: Delivery) -> list[Delivery]:
    return [] if delivery.upload else [delivery]


def test_long_steps_are_shown_in_plain_lines_where_there_is_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny({**FULL, "training.rounds": 1})
    monkeypatch.setattr("crypto.progress.QUIET_SECONDS", 0.0)
    monkeypatch.setattr("crypto.progress._EVERY_SECONDS", 0.0)
    monkeypatch.setattr("crypto.progress._EVERY_PART", 0.0)
    with display(Show.AUTO, as_json=False) as progress:
        run(config, out=tmp_path, progress=progress)
    lines = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert lines.count("training: noisy steps of one client: step 2 of 2") == 4
    assert not any("accounting" in line for line in lines)
    for client in range(1, 5):
        assert f"training: messages answered: message {client} of 4" in lines


def test_accounting_for_very_many_steps_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secure_fedmeta.charge.MAX_PRV_STEPS", 2 * 2 - 1)
    federation = Federation(tmp_path, LOCAL)
    told: list[str] = []
    with listening(told.append):
        assert federation.aggregator.affordable_rounds() > 0
        federation.round(1)
    assert told == ["accounting for the noisy steps so far"] * 2


# --- charges --------------------------------------------------------------------------------------


def test_a_round_that_fails_was_charged_before_clients_computed(tmp_path: Path) -> None:
    federation = Federation(tmp_path, FULL, faults=lose_uploads)
    outcome = federation.round(1)
    assert isinstance(outcome, Abort)
    assert outcome.charged
    assert federation.events() == (federation.plan.worst_event(),)
    last = federation.entries()[-1]
    assert (last["kind"], last["body"]["intent"]) == ("round-abort", None)
    assert last["body"]["event"] == federation.plan.worst_event().to_json()
    assert federation.aggregator.logged == federation.events()
    assert checked(federation) == (0, 1)


@pytest.mark.parametrize("computing", [False, True])
@pytest.mark.parametrize(("ending", "told"), [(KeyboardInterrupt, "interrupt"), (OSError, "error")])
def test_a_round_that_is_cut_off_is_in_the_log_as_it_is_in_the_ledger(
    ending: type[BaseException],
    told: str,
    computing: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the log verifies, and states less than was spent."""
    federation, reserve = Federation(tmp_path, FULL), Ledger.reserve

    def cut_off(*_: object) -> None:
        raise ending

    def cut_off_afterwards(*named: object) -> None:
        reserve(*named)  # type: ignore[arg-type]
        raise ending

    if computing:
        monkeypatch.setattr(IntegerDPOptimizer, "take", cut_off)
    else:
        monkeypatch.setattr(Ledger, "reserve", cut_off_afterwards)
    with pytest.raises(ending):
        federation.round(1)
    last = federation.entries()[-1]
    assert (last["kind"], last["body"]["reason"]) == ("round-abort", f"ended at an {told}")
    assert last["body"]["event"] == federation.plan.worst_event().to_json()
    assert federation.aggregator.logged == federation.events() == (federation.plan.worst_event(),)
    assert checked(federation) == (0, 1)


def test_a_log_that_failed_does_not_hide_why_a_round_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = Federation(tmp_path, FULL)
    federation.log.close()

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(IntegerDPOptimizer, "take", cut_off)
    with pytest.raises(KeyboardInterrupt):
        federation.round(1)
    assert len(federation.events()) == 1


def test_the_figures_after_a_failed_round_count_it(tmp_path: Path) -> None:
    """Epsilon charged only for rounds that succeeded is another's bug."""
    lost = [True]

    def first_alone(delivery: Delivery) -> list[Delivery]:
        return [] if delivery.upload and lost[0] else [delivery]

    federation = Federation(tmp_path, FULL, faults=first_alone)
    assert isinstance(federation.round(1), Abort)
    lost[0] = False
    outcome = federation.round(2)
    assert isinstance(outcome, Release)
    twice = spend([federation.plan.worst_event()] * 2, delta=federation.plan.delta)
    assert outcome.spend == twice
    stated = federation.entries()[-1]["body"]["spend"]["aggregator"]
    assert float(stated["exact"]) == twice.worst
    assert checked(federation) == (1, 1)


def test_the_charge_is_durable_before_any_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = Federation(tmp_path, FULL)
    seen: list[int] = []
    real = IntegerDPOptimizer.take

    def watching(self: IntegerDPOptimizer, rows: object) -> None:
        seen.append(len(federation.events()))
        real(self, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(IntegerDPOptimizer, "take", watching)
    federation.round(1)
    assert seen == [1] * 4 * 2  # clients, steps
    assert [entry["kind"] for entry in federation.entries()[2:]] == [
        "round-intent",
        "round-release",
    ]


def test_without_budget_nobody_is_asked(tmp_path: Path) -> None:
    plan = assemble(tiny(FULL)).plan
    enough = spend([plan.worst_event()], delta=plan.delta).worst
    asked: list[int] = []

    def count(delivery: Delivery) -> list[Delivery]:
        asked.append(delivery.client)
        return [delivery]

    federation = Federation(tmp_path, FULL, granted=enough, faults=count)
    assert isinstance(federation.round(1), Release)
    before = len(asked)
    with pytest.raises(BudgetExceeded):
        federation.round(2)
    assert len(asked) == before
    assert len(federation.events()) == 1
    assert checked(federation) == (1, 1)


def test_a_ledger_that_fails_lets_nobody_compute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = Federation(tmp_path, FULL)

    def down(*_: object) -> str:
        raise LedgerUnavailable("no connection")

    monkeypatch.setattr(federation.ledger, "reserve", down)
    monkeypatch.setattr(IntegerDPOptimizer, "take", lambda *_: pytest.fail("computed"))
    outcome = federation.round(1)
    assert isinstance(outcome, Abort)
    assert (outcome.charged, outcome.ends_run) == (False, True)
    assert checked(federation) == (0, 1)


def test_distributed_rounds_are_still_charged_at_their_opening(tmp_path: Path) -> None:
    federation = Federation(tmp_path, faults=lose_uploads)
    outcome = federation.round(1)
    assert isinstance(outcome, Abort)
    assert not outcome.charged
    assert federation.events() == ()


def test_a_client_charges_its_own_ledger_and_refuses_beyond(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'own.sqlite'}")
    plan = assemble(tiny(FULL)).plan
    one = spend([plan.worst_event()], delta=plan.delta).worst
    names = [f"client-{i:03d}" for i in range(4)]
    for name in names:
        ledger.grant(name, unit=plan.unit, epsilon=one, delta=plan.delta, approver="itself")
    charges = {name: OwnLedger(ledger, name, f"run/{name}", plan) for name in names}
    folder = tmp_path / "run"
    folder.mkdir()
    federation = Federation(folder, FULL, charges=charges)
    assert isinstance(federation.round(1), Release)
    assert isinstance(federation.round(2), Abort)
    assert {type(error) for _, error in federation.refused} == {MessageRefused}
    for name in names:
        assert ledger.events(name) == (plan.worst_event(),)
    # The aggregator was told nothing of why, and has charged what it asked for.
    assert len(federation.events()) == 2


def test_a_dropped_client_changes_no_charge(tmp_path: Path) -> None:
    def first_is_silent(delivery: Delivery) -> list[Delivery]:
        return [] if delivery.upload and delivery.client == 1 else [delivery]

    federation = Federation(tmp_path, FULL, faults=first_is_silent)
    outcome = federation.round(1)
    assert isinstance(outcome, Release)
    assert outcome.survivors == 3
    assert federation.events() == (federation.plan.event(4),)
    federation.spy.check_sums()
    assert checked(federation) == (1, 0)


# --- whole runs -----------------------------------------------------------------------------------


def test_a_run_from_config_to_verified_log(tmp_path: Path) -> None:
    config = tiny(
        {
            **LOCAL,
            "privacy.epsilon": 3.0,
            "privacy.noise_multiplier": None,
            "privacy.unit": "record",
        }
    )
    result = run(config, out=tmp_path)
    assert result.status == "completed"
    assert verify_run(result.directory, key=None, pinned=None, unpinned=False).accepted
    report = result.report
    claims = {row["epsilon"][row["claim"]] for row in report["adversaries"].values()}
    assert len(claims) == 1
    assert 2.98 < claims.pop() <= 3.0
    assert {row["claim"] for row in report["adversaries"].values()} == {"pld"}
    assert report["privacy"]["plan"]["local_steps"] == 2
    assert report["distortion"]["rounding"] < 0.02 * report["distortion"]["noise"]
    assert result.charged == Counter({assemble(config).plan.worst_event(): 2})


def test_a_run_stops_before_the_round_that_would_exceed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    tree = settings({**FULL, "ledger.url": url, "ledger.population": "people"})
    plan = assemble(parse_config(tree)).plan
    two = spend([plan.worst_event()] * 2, delta=plan.delta).worst
    Ledger(url).grant("people", unit=plan.unit, epsilon=two, delta=plan.delta, approver="officer")
    result = run(parse_config(tree), out=tmp_path / "runs")
    assert result.status == "budget"
    assert result.report["rounds"]["completed"] == 2
    assert len(Ledger(url).events("people")) == 2
    assert verify_run(result.directory, key=None, pinned=None, unpinned=False).accepted


def test_a_plan_is_priced_like_the_run(tmp_path: Path) -> None:
    plan = assemble(tiny({**LOCAL, "training.rounds": 4})).plan
    planned = outlook_of(plan)
    found = to_json(planned)
    assert found["claim"] == plan.worst_epsilon()
    assert found["adversaries"]["broken_sum"]["epsilon"].keys() == {"prv", "pld", "rdp"}
    assert (found["local_steps"], found["rounds"]) == (2, 4)
    assert planned.after(1).worst < planned.after(2).worst < planned.after(4).worst
    assert planned.after(4).worst == found["claim"]
    std = found["noise"]["per_coordinate"]
    assert std == pytest.approx(plan.noise_std(4) / plan.divisor)
    assert found["noise"]["signal_norm"] == pytest.approx(2 * 0.2 * plan.clip)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"privacy.unit": "client"}, "allowed are task and record"),
        ({"privacy.mechanism": "skellam"}, "set mechanism 'gaussian'"),
        ({"compression.value_bits": 12}, "leave it out"),
        ({"privacy.noise": "distributed"}, "take no steps of their own"),
    ],
)
def test_configs_that_contradict_themselves_are_refused(
    changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        assemble(tiny({**FULL, **changes}))
    assert str(caught.value.key).startswith("privacy")


def test_steps_are_one_of_size_one_unless_told(tmp_path: Path) -> None:
    plan = assemble(tiny({**FULL, "training.local_steps": None, "training.local_lr": None})).plan
    assert (plan.local_steps, plan.local_lr) == (1, 1.0)
    assert assemble(tiny()).plan.local_steps is None


# --- clients --------------------------------------------------------------------------------------


def test_a_client_s_tasks_are_computed_where_it_is_and_redrawn_in_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = Federation(tmp_path, FULL)
    seen: list[tuple[str, int, bytes]] = []
    work = type(federation.parties.clients[1]._work)
    real = work.outer_vectors

    def watching(self: object, client: str, model: torch.Tensor, *, round_index: int) -> object:
        seen.append((client, round_index, model.numpy().tobytes()))
        return real(self, client, model, round_index=round_index)  # type: ignore[arg-type]

    monkeypatch.setattr(work, "outer_vectors", watching)
    federation.round(1)
    federation.round(2)
    assert Counter(step for _, step, _ in seen) == {1: 4, 2: 4, 3: 4, 4: 4}
    models = {step: {model for _, at, model in seen if at == step} for step in (1, 2, 3, 4)}
    assert [len(models[step]) for step in (1, 2, 3, 4)] == [1, 4, 1, 4]


def test_two_clients_never_share_noise(tmp_path: Path) -> None:
    federation = Federation(tmp_path, FULL, seed=None)
    federation.round(1)
    vectors = [federation.spy.vectors[1, 1, index].tobytes() for index in (1, 2, 3, 4)]
    assert len(set(vectors)) == 4
    assert all(isinstance(client, Client) for client in federation.parties.clients.values())


def test_messages_fit_the_ring_with_room(tmp_path: Path) -> None:
    federation = Federation(tmp_path, FULL)
    federation.round(1)
    cap = message_of(federation.plan).cap
    assert all(np.abs(v).max() <= cap for v in federation.spy.vectors.values())
    assert 4 * cap < 2 ** (federation.parts.ring.bits - 1)


def test_population_and_adversaries_of_the_ledger(tmp_path: Path) -> None:
    federation = Federation(tmp_path, FULL)
    federation.round(1)
    account = federation.ledger.account(POPULATION)
    assert (account.charged, account.opened) == (1, 1)
    found = spend(federation.events(), delta=federation.plan.delta)
    assert {row.claimed for row in found.adversaries.values()} == {account.spent[0]}
    assert found.adversaries[Adversary.BROKEN_SUM].claimed == found.worst
