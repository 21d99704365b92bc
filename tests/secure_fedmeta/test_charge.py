"""A client's own ledger refuses what the aggregator wrongly thinks affordable, over runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from crypto.errors import MessageRefused
from privacy.accountant import spend
from privacy.errors import BudgetExceeded, LedgerError
from privacy.ledger import Ledger
from privacy.plan import PrivacyPlan
from privacy.unit import Unit
from secure_fedmeta.charge import Charge, OwnLedger, Uncounted
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.outcome import Abort, Release
from secure_fedmeta.pipeline import assemble
from secure_fedmeta.training import RunResult, run
from secure_fedmeta.vault import MemoryVault
from secure_fedmeta.verification import verify_run
from tests.secure_fedmeta.federation import CLIENTS, Federation, tiny
from tests.secure_fedmeta.restarts import endpoint, reborn

NAMES = [f"client-{i:03d}" for i in range(CLIENTS)]


class Spent:
    """An account with nothing left, which remembers that it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def reserve(self, *, round_index: int, attempt: int) -> None:
        self.asked.append((round_index, attempt))
        raise MessageRefused(None, "own ledger", "nothing is left")

    def has_room(self) -> bool:
        return False


class Forbidden:
    """Work that must not be asked for."""

    def outer_vectors(self, *_: object, **__: object) -> None:
        raise AssertionError("a client that may not be charged has computed from its data")


def own(ledger: Ledger, name: str, plan: PrivacyPlan, run_name: str = "run") -> OwnLedger:
    return OwnLedger(ledger, name, f"{run_name}/{name}", plan)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'clients.sqlite'}")


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    return assemble(tiny()).plan


def grant(ledger: Ledger, plan: PrivacyPlan, name: str, rounds: int) -> None:
    """Just enough for so many rounds of the plan."""
    epsilon = _epsilon_of(plan, rounds)
    ledger.grant(name, unit=Unit.TASK, epsilon=epsilon, delta=plan.delta, approver="the client")


def with_own_ledger(folder: Path, ledger: Ledger, plan: PrivacyPlan) -> Federation:
    """A federation whose first client charges its own ledger, with grants for three rounds."""
    grant(ledger, plan, NAMES[0], 3)
    charges: dict[str, Charge] = {name: Uncounted() for name in NAMES}
    charges[NAMES[0]] = own(ledger, NAMES[0], plan)
    return Federation(folder, charges=charges)


def _epsilon_of(plan: PrivacyPlan, rounds: int) -> float:
    return spend([plan.worst_event()] * rounds, delta=plan.delta).worst


def test_a_client_without_budget_computes_nothing_and_the_others_go_on(tmp_path: Path) -> None:
    account = Spent()
    charges: dict[str, Charge] = {name: Uncounted() for name in NAMES} | {NAMES[1]: account}
    federation = Federation(tmp_path, charges=charges)
    federation.parties.clients[2]._work = Forbidden()  # type: ignore[assignment]
    outcome = federation.round(1)
    assert isinstance(outcome, Release)
    assert outcome.survivors == CLIENTS - 1
    federation.spy.check_sums()
    assert account.asked == [(1, 1)]
    ((client, error),) = federation.refused
    assert (client, type(error)) == (2, MessageRefused)
    assert federation.parties.clients[2]._contributions == 0


def test_too_many_clients_without_budget_open_nothing(tmp_path: Path) -> None:
    charges: dict[str, Charge] = {name: Spent() for name in NAMES}
    federation = Federation(tmp_path, charges=charges)
    outcome = federation.round(1)
    assert isinstance(outcome, Abort)
    assert not outcome.charged
    assert federation.spy.sums == []
    assert federation.events() == ()


def test_a_client_reserves_the_dearest_event_before_it_computes(
    tmp_path: Path, ledger: Ledger, plan: PrivacyPlan
) -> None:
    federation = with_own_ledger(tmp_path, ledger, plan)
    client = federation.parties.clients[1]
    work, seen = client._work, []

    class Watched:
        def outer_vectors(self, *args: object, **named: object) -> object:
            seen.append(len(ledger.events(NAMES[0])))
            return work.outer_vectors(*args, **named)  # type: ignore[arg-type]

    client._work = Watched()  # type: ignore[assignment]
    federation.round(1)
    federation.round(2)
    assert seen == [1, 2]
    assert ledger.events(NAMES[0]) == (plan.worst_event(),) * 2
    assert plan.worst_event() != plan.event(CLIENTS)  # all four contributed


def test_the_account_lasts_over_runs_of_any_aggregator(
    tmp_path: Path, ledger: Ledger, plan: PrivacyPlan
) -> None:
    """Each run's aggregator has a fresh ledger of its own, and thinks that all is affordable."""
    grant(ledger, plan, NAMES[0], 4)
    counted = []
    for index in range(2):
        folder = tmp_path / str(index)
        folder.mkdir()
        charges: dict[str, Charge] = {name: Uncounted() for name in NAMES}
        charges[NAMES[0]] = own(ledger, NAMES[0], plan, f"run-{index}")
        federation = Federation(folder, charges=charges, seed=index)
        for round_index in (1, 2, 3):
            outcome = federation.round(round_index)
            assert isinstance(outcome, Release)
            counted.append(outcome.survivors)
    assert counted == [4, 4, 4, 4, 3, 3]
    assert len(ledger.events(NAMES[0])) == 4


def test_a_moment_is_never_charged_twice_nor_answered_again(
    ledger: Ledger, plan: PrivacyPlan
) -> None:
    """A party that was cut off after the charge would else answer one moment with two noises."""
    grant(ledger, plan, "c", 3)
    account = own(ledger, "c", plan)
    account.reserve(round_index=1, attempt=1)
    with pytest.raises(MessageRefused, match="reserved before"):
        account.reserve(round_index=1, attempt=1)
    assert len(ledger.events("c")) == 1


def test_a_client_cut_off_after_its_charge_never_answers_that_moment(
    tmp_path: Path, ledger: Ledger, plan: PrivacyPlan
) -> None:
    """Its answer was lost before it was durable: the charge stays, no second noise is drawn."""
    federation = with_own_ledger(tmp_path, ledger, plan)
    vault = MemoryVault()

    class CutOff:
        def handle(self, message: bytes) -> bytes:
            before, charged = vault.get(), len(ledger.events(NAMES[0]))
            reply = reborn(federation.parties.clients[1], vault).handle(message)
            if len(ledger.events(NAMES[0])) == charged:
                return reply
            vault.put(before)
            return reborn(federation.parties.clients[1], vault).handle(message)

    endpoint(federation, 1, CutOff())
    outcome = federation.round(1)
    assert isinstance(outcome, Release)
    assert outcome.survivors == CLIENTS - 1
    ((client, error),) = federation.refused
    assert (client, "reserved before" in str(error)) == (1, True)
    assert len(ledger.events(NAMES[0])) == 1


@pytest.mark.parametrize("trouble", ["exceeded", "no grant", "locked"])
def test_whatever_keeps_it_from_being_charged_is_a_refused_message(
    tmp_path: Path,
    ledger: Ledger,
    plan: PrivacyPlan,
    trouble: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if trouble == "exceeded":
        ledger.grant("c", unit=Unit.TASK, epsilon=0.01, delta=plan.delta, approver="x")
    if trouble == "locked":
        monkeypatch.setattr("privacy.ledger_sqlite.BUSY_SECONDS", 0.05)
        ledger = Ledger(f"sqlite:///{tmp_path / 'busy.sqlite'}")
        grant(ledger, plan, "c", 3)
        locked = ledger._store.writing()
        locked.__enter__()
    with pytest.raises(MessageRefused) as caught:
        own(ledger, "c", plan).reserve(round_index=1, attempt=1)
    assert caught.value.step == "own ledger"
    if trouble == "exceeded":
        assert isinstance(caught.value.__cause__, BudgetExceeded)
    if trouble == "locked":
        locked.__exit__(None, None, None)


def train(folder: Path, url: str) -> RunResult:
    return run(tiny({"ledger.client_url": url}), out=folder)


def test_a_configured_run_charges_each_client_and_stops_nobody_else(
    tmp_path: Path, ledger: Ledger, plan: PrivacyPlan
) -> None:
    url = f"sqlite:///{tmp_path / 'clients.sqlite'}"
    for name, rounds in zip(NAMES, (9, 9, 9, 4), strict=True):
        grant(ledger, plan, f"sinusoid/{name}", rounds)
    first, second = train(tmp_path / "runs", url), train(tmp_path / "runs", url)
    assert (first.status, second.status) == ("completed", "completed")
    assert [len(ledger.events(f"sinusoid/{name}")) for name in NAMES] == [6, 6, 6, 4]
    for result in (first, second):
        assert verify_run(result.directory, key=None, pinned=None, unpinned=False).accepted


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_a_run_stops_before_the_round_that_too_few_clients_own_ledgers_afford(
    tmp_path: Path, ledger: Ledger, plan: PrivacyPlan, rounds: int
) -> None:
    """Two of four can pay `rounds` times, and three are needed: no round is tried in vain."""
    url = f"sqlite:///{tmp_path / 'clients.sqlite'}"
    for name, enough in zip(NAMES, (9, 9, rounds, rounds), strict=True):
        epsilon = _epsilon_of(plan, enough) if enough else 0.01
        ledger.grant(
            f"sinusoid/{name}", unit=Unit.TASK, epsilon=epsilon, delta=plan.delta, approver="x"
        )
    result = train(tmp_path / "runs", url)
    assert result.status == "budget"
    assert result.report["rounds"]["completed"] == rounds
    assert result.report["rounds"]["aborted"] == 0
    (note,) = result.report["notes"]
    assert "only 2 of 4 clients have room for another round, fewer than min_survivors 3" in note
    assert note.endswith(f"afforded {rounds} of 3 rounds; stopped before round {rounds + 1}")
    assert [len(ledger.events(f"sinusoid/{name}")) for name in NAMES] == [rounds] * 4
    spec = assemble(tiny()).learner.spec
    found = spec.load((result.directory / "model.safetensors").read_bytes())
    assert torch.equal(found, result.model)
    assert verify_run(result.directory, key=None, pinned=None, unpinned=False).accepted


def test_an_account_that_cannot_be_read_is_no_reason_to_stop(
    ledger: Ledger, plan: PrivacyPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether there is room the reservation will tell; nobody is charged by asking."""
    grant(ledger, plan, "c", 1)
    account = own(ledger, "c", plan)
    assert account.has_room()
    assert ledger.events("c") == ()
    account.reserve(round_index=1, attempt=1)
    assert not account.has_room()
    monkeypatch.setattr(Ledger, "affordable", unreadable)
    assert account.has_room()


def unreadable(*_: object) -> int:
    raise LedgerError("the disk is gone")


def test_a_client_without_a_grant_is_told_before_anything_is_charged(
    tmp_path: Path, ledger: Ledger, plan: PrivacyPlan
) -> None:
    url = f"sqlite:///{tmp_path / 'clients.sqlite'}"
    grant(ledger, plan, f"sinusoid/{NAMES[0]}", 3)
    with pytest.raises(ConfigError, match=rf"fedmeta ledger grant .*{NAMES[1]}.*--ledger sqlite"):
        train(tmp_path / "runs", url)
    assert not (tmp_path / "runs").exists()
