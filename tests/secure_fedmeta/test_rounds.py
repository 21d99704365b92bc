"""One round: charged and logged before it is opened, right or aborted, never wrong."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from audit.spend import SpendChecker
from audit.verify import Verified, verify_log
from privacy.accountant import spend
from privacy.errors import BudgetExceeded
from privacy.ledger import Ledger
from secure_fedmeta.messages import RoundOpen, SumStep, decode, encode
from secure_fedmeta.outcome import Abort, Release
from secure_fedmeta.rounds import run_round
from secure_fedmeta.transport import Traffic, Transport
from secure_fedmeta.transport.memory import Delivery, no_faults
from tests.crypto.harness import STEPS
from tests.secure_fedmeta.federation import CLIENTS, POPULATION, Federation, entries

PLAIN = {"secure_sum.protocol": "plain", "secure_sum.allow_insecure": True}
UPLOADS = STEPS["masking"]  # of one client in a round of masking; three before the intent
ADVERT, SHARES, MASKED, ANSWER = 0, 1, 2, UPLOADS - 1


class Lose:
    """Loses the uploads of some clients, from the given one on that it sees of them."""

    def __init__(self, lost: Mapping[int, int]) -> None:
        self._lost = lost
        self._seen: Counter[int] = Counter()

    def __call__(self, delivery: Delivery) -> list[Delivery]:
        if not delivery.upload or delivery.client not in self._lost:
            return [delivery]
        self._seen[delivery.client] += 1
        return [delivery] if self._seen[delivery.client] <= self._lost[delivery.client] else []


def verified(federation: Federation) -> Verified:
    return verify_log(
        federation.audit,
        vkey=federation.signer.vkey,
        pinned=federation.log.head,
        spend=SpendChecker(),
    )


def released(outcome: Release | Abort) -> Release:
    assert isinstance(outcome, Release), outcome
    return outcome


def aborted(outcome: Release | Abort) -> Abort:
    assert isinstance(outcome, Abort), outcome
    return outcome


def test_a_round_moves_the_model_by_the_decoded_sum(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    before = federation.parts.initial()
    outcome = released(federation.round(1))
    assert (outcome.survivors, outcome.selected, outcome.rejected) == (CLIENTS, CLIENTS, {})
    ((_, done),) = federation.spy.sums
    federation.spy.check_sums()
    optimiser, plan = federation.parts.optimiser, federation.plan
    average = done.total / (plan.scale * plan.expected_units)
    expected = optimiser.update(optimiser.init(before), torch.from_numpy(average))
    assert torch.equal(federation.aggregator.model, expected.params.to(torch.float32))
    assert not torch.equal(federation.aggregator.model, before)
    kinds = [entry["kind"] for entry in federation.entries()]
    assert kinds == ["genesis", "budget-granted", "round-intent", "round-release"]
    assert verified(federation).released == 1


@pytest.mark.parametrize("lost", [{}, {2: MASKED}, {4: ADVERT}, {1: SHARES}])
def test_the_divisor_is_the_public_constant(tmp_path: Path, lost: dict[int, int]) -> None:
    """Whoever drops out, the sum is divided by expected_units and by no count."""
    federation = Federation(tmp_path, faults=Lose(lost))
    outcome = released(federation.round(1))
    assert outcome.survivors == CLIENTS - len(lost)
    ((_, done),) = federation.spy.sums
    assert len(done.contributors) == outcome.survivors
    federation.spy.check_sums()
    optimiser, plan = federation.parts.optimiser, federation.plan
    average = done.total / (plan.scale * 20)
    expected = optimiser.update(
        optimiser.init(federation.parts.initial()), torch.from_numpy(average)
    )
    assert torch.equal(federation.aggregator.model, expected.params.to(torch.float32))


class Spying:
    """Looks at the log and the ledger, as they are on the disk, whenever messages go out."""

    def __init__(self, federation: Federation, ledger: Path) -> None:
        self._federation = federation
        self._url = f"sqlite:///{ledger}"
        self.seen: list[tuple[int, str, int]] = []

    @property
    def traffic(self) -> Mapping[int, Traffic]:
        return self._federation.transport.traffic

    def begin(self, round_index: int) -> None:
        self._federation.transport.begin(round_index)

    def send(self, messages: Mapping[int, bytes]) -> None:
        kinds = {type(decode(message)) for message in messages.values()}
        assert len(kinds) <= 1
        found = entries(self._federation.audit)
        charged = len(Ledger(self._url).events(POPULATION))
        self.seen.append((len(found), found[-1]["kind"], charged))
        self._federation.transport.send(messages)

    def collect(self, expecting: frozenset[int]) -> Iterator[tuple[int, bytes]]:
        return self._federation.transport.collect(expecting)


@pytest.mark.parametrize(("changes", "before"), [({}, 3), (PLAIN, 1)], ids=["masking", "plain"])
def test_intent_and_charge_are_durable_before_the_request_to_open(
    tmp_path: Path, changes: dict[str, object], before: int
) -> None:
    federation = Federation(tmp_path, changes)
    transport: Transport = Spying(federation, tmp_path / "ledger.sqlite")
    released(run_round(federation.aggregator, transport, round_index=1, attempt=1))
    nothing, all_of_it = (2, "budget-granted", 0), (3, "round-intent", 1)
    assert isinstance(transport, Spying)
    assert transport.seen == [nothing] * before + [all_of_it] * (len(transport.seen) - before)
    assert len(transport.seen) > before


def test_the_request_to_open_is_made_after_the_intent_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the moment the secure sum is authorised, log and ledger files hold the round."""
    federation = Federation(tmp_path)
    inner = federation.spy.inner
    seen: list[tuple[bool, int]] = []

    class Watch:
        def __init__(self, machine: object) -> None:
            self._machine = machine

        def __getattr__(self, name: str) -> object:
            return getattr(self._machine, name)

        def authorise(self, intent: bytes, evidence: bytes) -> object:
            last = (federation.audit / "log.jsonl").read_bytes().splitlines()[-1]
            charged = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}").events(POPULATION)
            seen.append((hashlib.sha256(last).digest() == intent, len(charged)))
            return self._machine.authorise(intent, evidence)  # type: ignore[attr-defined]

    build = inner.aggregator
    monkeypatch.setattr(
        type(inner), "aggregator", lambda _, terms, identity: Watch(build(terms, identity=identity))
    )
    released(federation.round(1))
    assert seen == [(True, 1)]


@pytest.mark.parametrize("step", [ADVERT, SHARES, MASKED])
def test_too_few_before_the_opening_costs_nothing(tmp_path: Path, step: int) -> None:
    federation = Federation(tmp_path, faults=Lose({1: step, 3: step}))
    outcome = aborted(federation.round(1))
    assert not outcome.charged
    assert "2 clients answered, 3 needed" in outcome.reason
    assert federation.events() == ()
    assert torch.equal(federation.aggregator.model, federation.parts.initial())
    assert federation.entries()[-1]["body"] == {
        "round": 1, "attempt": 1, "intent": None, "charged": False,
        "reason": f"ended at step {outcome.reason.split(':')[0]}",
    }  # fmt: skip
    federation.transport._faults = no_faults
    released(federation.round(2))
    assert (verified(federation).aborted, verified(federation).released) == (1, 1)


def test_an_abort_after_the_intent_stays_charged(tmp_path: Path) -> None:
    """The request to open went out, so that the sum may be known: the charge stays."""
    federation = Federation(tmp_path, faults=Lose({1: ANSWER, 3: ANSWER}))
    outcome = aborted(federation.round(1))
    assert outcome.charged
    assert len(federation.events()) == 1
    assert torch.equal(federation.aggregator.model, federation.parts.initial())
    federation.transport._faults = no_faults
    later = released(federation.round(2))
    assert len(federation.events()) == 2
    assert verified(federation).aborted == 1
    alone = Federation(tmp_path_of(tmp_path, "alone"))
    assert later.spend.worst > released(alone.round(1)).spend.worst


def tmp_path_of(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir()
    return path


def test_a_lost_answer_is_recovered_from(tmp_path: Path) -> None:
    federation = Federation(tmp_path, faults=Lose({1: ANSWER}))
    assert released(federation.round(1)).survivors == CLIENTS
    federation.spy.check_sums()


def test_the_run_goes_on_after_every_kind_of_drop(tmp_path: Path) -> None:
    """Any one client, lost from any step on: the round completes (flower's does not)."""
    kinds = list(product(range(1, CLIENTS + 1), (ADVERT, SHARES, MASKED, ANSWER)))
    federation = Federation(tmp_path, {"training.rounds": len(kinds)})
    for index, (client, step) in enumerate(kinds, start=1):
        federation.transport._faults = Lose({client: step})
        outcome = released(federation.round(index))
        assert outcome.survivors == CLIENTS - (step != ANSWER)
    federation.spy.check_sums()
    assert len(federation.events()) == len(kinds)


def test_what_the_grant_does_not_afford_is_never_opened(tmp_path: Path) -> None:
    federation = Federation(tmp_path, granted=0.5)
    assert federation.aggregator.affordable_rounds() == 0
    with pytest.raises(BudgetExceeded):
        federation.round(1)
    assert federation.events() == ()
    assert federation.spy.events == []
    assert federation.spy.sums == []
    assert federation.entries()[-1]["kind"] == "round-abort"
    assert verified(federation).aborted == 1


def test_epsilon_grows_and_equals_a_fresh_composition(tmp_path: Path) -> None:
    """One accountant over all rounds; none is restarted, and aborted rounds count."""
    federation = Federation(tmp_path, faults=Lose({1: UPLOADS + ANSWER, 3: UPLOADS + ANSWER}))
    first = released(federation.round(1))
    assert aborted(federation.round(2)).charged
    federation.transport._faults = no_faults
    third = released(federation.round(3))
    event = federation.plan.event(CLIENTS)
    delta = federation.plan.delta
    assert federation.events() == (event,) * 3
    assert first.spend.worst == pytest.approx(spend([event], delta=delta).worst, rel=1e-12)
    assert third.spend.worst == pytest.approx(spend([event] * 3, delta=delta).worst, rel=1e-12)
    assert third.spend.worst > first.spend.worst
    logged = federation.entries()[-1]["body"]["spend"]
    for name, adversary in third.spend.adversaries.items():
        assert float(logged[name]["rdp"]) == adversary.claimed


@pytest.mark.parametrize("changes", [{}, PLAIN], ids=["masking", "plain"])
@pytest.mark.parametrize("position", [0, 3, -1])
def test_a_model_changed_on_its_way_never_gives_a_wrong_sum(
    tmp_path: Path, changes: dict[str, object], position: int
) -> None:
    """The client that was sent another model is dropped; the others' sum is right."""

    def other_model(delivery: Delivery) -> list[Delivery]:
        if delivery.upload or delivery.client != 2 or delivery.sequence != 0:
            return [delivery]
        envelope = decode(delivery.payload)
        assert isinstance(envelope, RoundOpen)
        model = bytearray(envelope.model)
        model[position] ^= 1
        return [Delivery(2, False, 0, encode(replace(envelope, model=bytes(model))))]

    federation = Federation(tmp_path, changes, faults=other_model)
    assert released(federation.round(1)).survivors == CLIENTS - 1
    ((_, done),) = federation.spy.sums
    assert done.contributors == (1, 3, 4)
    federation.spy.check_sums()
    assert released(federation.round(2)).survivors == CLIENTS


def test_messages_of_another_round_are_counted_and_ignored(tmp_path: Path) -> None:
    kept: list[Delivery] = []

    def replay(delivery: Delivery) -> list[Delivery]:
        """In round 2 every upload comes after the same client's upload of round 1."""
        if not delivery.upload:
            return [delivery]
        kept.append(delivery)
        if delivery.sequence < UPLOADS:
            return [delivery]
        old = next(
            k
            for k in kept
            if (k.client, k.sequence) == (delivery.client, delivery.sequence - UPLOADS)
        )
        return [old, delivery]

    federation = Federation(tmp_path, faults=replay)
    released(federation.round(1))
    outcome = released(federation.round(2))
    assert outcome.survivors == CLIENTS
    assert sum(outcome.rejected.values()) == UPLOADS * CLIENTS
    federation.spy.check_sums()
    counts = next(e for e in reversed(federation.entries()) if e["kind"] == "round-intent")
    assert sum(counts["body"]["counts"]["rejected"].values()) == 3 * CLIENTS


def test_masking_and_plain_give_the_same_sums(tmp_path: Path) -> None:
    totals = []
    for name, changes in (("masking", {}), ("plain", PLAIN)):
        federation = Federation(tmp_path_of(tmp_path, name), changes)
        for index in (1, 2):
            released(federation.round(index))
        totals.append([done.total for _, done in federation.spy.sums])
    np.testing.assert_array_equal(*totals)


def test_steps_after_the_opening_are_steps(tmp_path: Path) -> None:
    """The model travels once per client and round."""
    sent: list[bytes] = []

    def keep(delivery: Delivery) -> list[Delivery]:
        if not delivery.upload:
            sent.append(delivery.payload)
        return no_faults(delivery)

    federation = Federation(tmp_path, faults=keep)
    released(federation.round(1))
    kinds = [type(decode(message)) for message in sent]
    assert kinds == [RoundOpen] * CLIENTS + [SumStep] * (UPLOADS - 1) * CLIENTS
