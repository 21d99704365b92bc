"""max_participations: turns in a run, counted by each client, and over runs by its own ledger."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from crypto.errors import MessageRefused
from privacy.accountant import spend
from privacy.ledger import Ledger
from privacy.plan import PrivacyPlan
from privacy.unit import Unit
from secure_fedmeta.charge import OwnLedger
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.outcome import Release
from secure_fedmeta.pipeline import assemble
from secure_fedmeta.training import run
from secure_fedmeta.vault import MemoryVault
from secure_fedmeta.verification import verify_run
from tests.secure_fedmeta.federation import Federation, tiny
from tests.secure_fedmeta.restarts import endpoint, reborn

CLIENTS = 6
TURNS: dict[str, object] = {
    "data.options.clients": CLIENTS,
    "privacy.unit": "client",
    "privacy.epsilon": None,
    "privacy.noise_multiplier": 4.0,
    "privacy.expected_units": 3,
    "privacy.max_participations": 2,
    "training.rounds": 4,
}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'clients.sqlite'}")


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    return assemble(tiny(TURNS)).plan


def test_clients_take_turns_and_the_dearest_of_them_are_charged(tmp_path: Path) -> None:
    """Four rounds of three: each client is in two, and two is what the claim says."""
    federation = Federation(tmp_path, TURNS, granted=1000.0)
    asked: Counter[int] = Counter()
    for index in range(1, 5):
        outcome = federation.round(index)
        assert isinstance(outcome, Release)
        assert (outcome.survivors, outcome.selected) == (3, 3)
        terms, done = federation.spy.sums[-1]
        assert terms.cohort == done.contributors == federation.plan.cohort(index)
        asked.update(done.contributors)
    federation.spy.check_sums()
    assert set(asked.values()) == {2}
    events, delta = federation.events(), federation.plan.delta
    (event,) = set(events)
    two = [replace(event, max_participations=None)] * 2
    assert spend(events, delta=delta).worst == spend(two, delta=delta).worst
    assert {entry["body"]["counts"]["selected"] for entry in federation.entries()
            if entry["kind"] == "round-intent"} == {3}  # fmt: skip


class Favourites(PrivacyPlan):
    """A plan of somebody who asks the same clients in all rounds."""

    def cohort(self, round_index: int) -> tuple[int, ...]:
        """The first three."""
        del round_index
        return (1, 2, 3)


def favour(federation: Federation) -> None:
    """Make every party, the aggregator's side too, believe that it is always their turn."""
    fields = {name: getattr(federation.plan, name) for name in federation.plan.__dataclass_fields__}
    changed = replace(federation.parties.setting, plan=Favourites(**fields))
    federation.aggregator._setting = changed
    for party in federation.parties.endpoints.values():
        party._setting = party._watch._setting = changed


@pytest.mark.parametrize("restart", [False, True])
def test_a_client_refuses_one_turn_too_many(tmp_path: Path, restart: bool) -> None:
    """Whoever is asked, and whatever the order says: the count is the client's own."""
    federation = Federation(tmp_path, TURNS, granted=1000.0)
    favour(federation)
    vaults = {index: MemoryVault() for index in federation.parties.clients}
    if restart:
        for index, vault in vaults.items():
            endpoint(federation, index, reborn(federation.parties.clients[index], vault))
    for index in (1, 2):
        assert isinstance(federation.round(index), Release)
    message = federation.aggregator.open_round(3, 1).begin()[1]
    client = federation.parties.clients[1]
    client = reborn(client, vaults[1]) if restart else client
    with pytest.raises(MessageRefused, match="took part in 2 rounds: max_participations"):
        client.handle(message)


def own(ledger: Ledger, plan: PrivacyPlan, run_name: str) -> OwnLedger:
    return OwnLedger(ledger, "people/a", run_name, plan)


def grant(ledger: Ledger, plan: PrivacyPlan) -> None:
    ledger.grant(
        "people/a", unit=Unit.CLIENT, epsilon=1000.0, delta=plan.delta, approver="the client"
    )


def test_a_client_s_own_ledger_counts_turns_over_runs(ledger: Ledger, plan: PrivacyPlan) -> None:
    """The population is charged for two turns: the third is refused, whichever run it is in."""
    grant(ledger, plan)
    own(ledger, plan, "one").reserve(round_index=1, attempt=1)
    own(ledger, plan, "two").reserve(round_index=1, attempt=1)
    for name in ("one", "two", "three"):
        with pytest.raises(MessageRefused, match="contribution 3; max_participations is 2"):
            own(ledger, plan, name).reserve(round_index=2, attempt=1)
    assert ledger.events("people/a") == (replace(plan.worst_event(), max_participations=None),) * 2


def test_each_contribution_is_charged_to_the_client_s_own_account(
    ledger: Ledger, plan: PrivacyPlan
) -> None:
    """A discount for turns would let an account go on for ever that nobody counts but itself."""
    grant(ledger, plan)
    longer = replace(plan, max_participations=4)
    own(ledger, longer, "one").reserve(round_index=1, attempt=1)
    one = spend(ledger.events("people/a"), delta=plan.delta).worst
    own(ledger, longer, "one").reserve(round_index=2, attempt=1)
    assert spend(ledger.events("people/a"), delta=plan.delta).worst > one


def test_of_two_processes_that_race_for_the_last_turn_none_gets_two(
    ledger: Ledger, plan: PrivacyPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both looked before either was charged: the second look, after the charge, stops them."""
    grant(ledger, plan)
    own(ledger, plan, "one").reserve(round_index=1, attempt=1)
    first, other = own(ledger, plan, "two"), own(ledger, plan, "three")
    look = OwnLedger._check_turns

    def late(self: OwnLedger, *, more: int) -> None:
        look(self, more=more)
        if more and self is first:
            other.reserve(round_index=1, attempt=1)

    monkeypatch.setattr(OwnLedger, "_check_turns", late)
    with pytest.raises(MessageRefused, match="contribution 3"):
        first.reserve(round_index=1, attempt=1)


@pytest.mark.parametrize(
    ("changes", "key", "reason"),
    [
        ({"privacy.max_participations": 1}, "privacy.max_participations", "set 2 or more"),
        ({"privacy.unit": "task", "privacy.rate": 0.5}, "privacy", "secret coins cannot be capped"),
        ({"privacy.unit": "task"}, "privacy", "secret coins cannot be capped"),
        ({"privacy.rate": 0.5}, "privacy", "sees which clients take part"),
        ({"ledger.population": "people"}, "privacy.max_participations", "set ledger.client_url"),
    ],
)
def test_what_nobody_could_count_is_refused(
    changes: dict[str, object], key: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        assemble(tiny({**TURNS, **changes}))
    assert caught.value.key == key


@pytest.mark.parametrize("value", [0, -1, 2.0, "2"])
def test_a_limit_is_a_whole_number_from_1(value: object) -> None:
    with pytest.raises(ConfigError, match="max_participations"):
        tiny({**TURNS, "privacy.max_participations": value})


def test_a_run_of_turns_completes_and_its_log_verifies(tmp_path: Path) -> None:
    result = run(tiny(TURNS), out=tmp_path)
    assert result.status == "completed"
    assert result.report["rounds"]["completed"] == 4
    assert result.report["privacy"]["plan"]["max_participations"] == 2
    assert result.report["privacy"]["spent_epsilon"] == pytest.approx(
        result.report["privacy"]["granted_epsilon"], rel=1e-9
    )
    assert verify_run(result.directory, key=None, pinned=None, unpinned=False).accepted
