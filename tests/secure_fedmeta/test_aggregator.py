"""What the aggregator writes: commitments without names, refusals by reason, spend that replays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from audit.merkle import leaf_hash, root_of
from crypto.errors import SumAborted
from crypto.secure_sum import Done, Ready
from privacy.accountant import spend
from secure_fedmeta.exchange import MAX_REASONS, OTHER_REASONS
from secure_fedmeta.outcome import Release
from secure_fedmeta.transport.memory import Delivery
from tests.secure_fedmeta.federation import CLIENTS, POPULATION, Federation


def intent(federation: Federation) -> dict[str, Any]:
    return next(e for e in reversed(federation.entries()) if e["kind"] == "round-intent")["body"]


def root(leaves: Iterable[bytes]) -> str:
    return root_of([leaf_hash(leaf) for leaf in leaves]).hex()


def lose_first(delivery: Delivery) -> list[Delivery]:
    return [] if delivery.upload and delivery.client == 1 else [delivery]


def test_participation_opens_with_the_salts_and_not_without(tmp_path: Path) -> None:
    federation = Federation(tmp_path, faults=lose_first)
    federation.round(1)
    body = intent(federation)
    (opening,) = federation.openings
    assert (opening["round"], opening["attempt"]) == (1, 1)
    salts = opening["salts"]
    assert isinstance(salts, dict)
    names = [member.name for member in federation.parties.setting.roster.members]
    assert list(salts) == names
    commitments = {
        name: hashlib.sha256(
            b"fedmeta/participation/v1\n" + bytes.fromhex(salt) + name.encode()
        ).digest()
        for name, salt in salts.items()
    }
    assert body["cohort_root"] == root(commitments.values())
    assert body["survivor_root"] == root(commitments[name] for name in names[1:])
    unsalted = [hashlib.sha256(name.encode()).digest() for name in names]
    assert body["cohort_root"] != root(unsalted)
    assert len(set(salts.values())) == CLIENTS


def test_the_same_cohort_looks_different_every_round(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.round(1)
    first = intent(federation)
    federation.round(2)
    second = intent(federation)
    for name in ("cohort_root", "survivor_root", "contribution_root"):
        assert first[name] != second[name]


def test_the_log_names_no_client_and_holds_no_salt(tmp_path: Path) -> None:
    federation = Federation(tmp_path, faults=lose_first)
    federation.round(1)
    text = (federation.audit / "log.jsonl").read_text()
    assert "client-" not in text
    salts = federation.openings[0]["salts"]
    assert isinstance(salts, dict)
    assert not any(salt in text for salt in salts.values())


def test_what_the_intent_states(tmp_path: Path) -> None:
    federation = Federation(tmp_path, faults=lose_first)
    federation.round(1)
    body, plan = intent(federation), federation.plan
    assert body["counts"] == {"selected": 4, "reported": 3, "dropped": 1, "rejected": {}}
    assert body["event"] == plan.event(3).to_json()
    assert body["plan_digest"] == plan.digest().hex()
    assert body["config_digest"] == federation.parties.setting.config_digest.hex()
    assert body["secure_sum"]["protocol"] == "masking"
    assert body["secure_sum"]["threshold"] == federation.parts.sharing.threshold
    assert body["secure_sum"]["parameters"]["degree"] == federation.parts.sharing.degree == 3
    assert body["secure_sum"]["parameters"]["ring_bits"] == federation.parts.ring.bits
    assert body["secure_sum"]["capabilities"]["hides_updates"] is True


def test_the_contributions_are_committed_to(tmp_path: Path) -> None:
    """The root covers every survivor's uploads up to the opening, salted."""
    uploads: dict[int, list[bytes]] = {}

    def keep(delivery: Delivery) -> list[Delivery]:
        if delivery.upload:
            uploads.setdefault(delivery.client, []).append(delivery.payload)
        return [delivery]

    federation = Federation(tmp_path, faults=keep)
    federation.round(1)
    salts = federation.openings[0]["salts"]
    assert isinstance(salts, dict)
    leaves = []
    for salt, messages in zip(salts.values(), uploads.values(), strict=True):
        chain = b""
        for message in messages[:3]:  # the answer to the request to open comes later
            chain = hashlib.sha256(chain + message).digest()
        opened = b"fedmeta/contribution/v1\n" + bytes.fromhex(salt) + chain
        leaves.append(hashlib.sha256(opened).digest())
    assert intent(federation)["contribution_root"] == root(leaves)


def test_refusals_are_counted_by_reason(tmp_path: Path) -> None:
    """A stranger, a second answer, garbage: counted, and the round completes."""
    federation = Federation(tmp_path)
    exchange = federation.aggregator.open_round(1, 1)
    opening = exchange.begin()
    assert exchange.expecting == frozenset({1, 2, 3, 4})
    answers = {i: federation.parties.clients[i].handle(message) for i, message in opening.items()}
    exchange.receive(1, b"garbage")
    exchange.receive(99, answers[1])
    exchange.receive(2, answers[1])
    for index, answer in answers.items():
        exchange.receive(index, answer)
    exchange.receive(3, answers[3])
    assert exchange.expecting == frozenset()
    assert sum(exchange.rejected.values()) == 4
    assert exchange.rejected["nothing is due from this sender"] == 1
    assert exchange.rejected["this sender has answered already"] == 1
    assert exchange.uploads.keys() == {1, 2, 3, 4}


def test_a_flood_of_refused_messages_costs_nobody_else_the_round(tmp_path: Path) -> None:
    """Reasons tell lengths that a sender chooses: kept one by one, they would outgrow the entry.

    The charge comes before the entry, so an entry too long would stop a run that has paid.
    """
    federation = Federation(tmp_path)
    exchange = federation.aggregator.open_round(1, 1)
    step: Mapping[int, bytes] | Ready | Done = exchange.begin()
    flood = 2500
    while not isinstance(step, Ready):
        assert not isinstance(step, Done)
        answers = {i: federation.parties.clients[i].handle(m) for i, m in step.items()}
        if not exchange.rejected:
            for length in range(10**6, 10**6 + flood):
                lie = length.to_bytes(4, "little")
                exchange.receive(1, answers[1][:42] + lie + answers[1][46:])
        for index, answer in answers.items():
            exchange.receive(index, answer)
        step = exchange.advance()
    assert len(exchange.rejected) == MAX_REASONS + 1
    assert sum(exchange.rejected.values()) == flood
    assert exchange.rejected[OTHER_REASONS] == flood - MAX_REASONS
    federation.aggregator.record_intent(exchange, step)
    assert intent(federation)["counts"]["rejected"] == exchange.rejected


def test_nothing_is_released_without_an_intent(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    released = federation.round(1)
    assert isinstance(released, Release)
    ((_, done),) = federation.spy.sums
    exchange = federation.aggregator.open_round(2, 1)
    before = federation.aggregator.model
    with pytest.raises(SumAborted, match="without a logged intent"):
        federation.aggregator.release(exchange, Done(done.total, done.contributors, ()))
    assert federation.aggregator.model.equal(before)
    assert federation.log.size == 4


def test_the_released_model_may_be_an_average(tmp_path: Path) -> None:
    federation = Federation(tmp_path, {"server.average_from": 1})
    models = []
    for index in (1, 2):
        federation.round(index)
        models.append(federation.aggregator.model)
    mean = (models[0] + models[1]) / 2
    assert federation.aggregator.released_model.allclose(mean, rtol=1e-6)
    assert not federation.aggregator.released_model.equal(federation.aggregator.model)


def test_runs_at_the_same_time_share_the_budget_and_not_the_log(tmp_path: Path) -> None:
    """Another run charges in between: the budget counts it, the log's figures stay its own."""
    federation = Federation(tmp_path, granted=6.0)
    federation.round(1)
    event = federation.plan.event(CLIENTS)
    federation.ledger.reserve(POPULATION, "another", 1, 1, event, federation.plan.digest())
    outcome = federation.round(2)
    assert isinstance(outcome, Release)
    delta = federation.plan.delta
    assert outcome.spend.worst == pytest.approx(spend([event] * 3, delta=delta).worst)
    logged = federation.entries()[-1]["body"]["spend"]
    own = spend([event] * 2, delta=delta)
    assert float(logged["participants"]["rdp"]) == pytest.approx(own.worst)


def test_the_budget_is_asked_at_the_worst_permitted_noise(tmp_path: Path) -> None:
    """What one round with everybody would cost is granted, one with three clients is not."""
    plan = Federation(tmp_path).plan
    full = spend([plan.event(CLIENTS)], delta=plan.delta).worst
    least = spend([plan.worst_event()], delta=plan.delta).worst
    assert full < least
    folder = tmp_path / "again"
    folder.mkdir()
    poor = Federation(folder, granted=(full + least) / 2)
    assert poor.aggregator.affordable_rounds() == 0
