"""A round under homomorphic encryption: the officer is a party of its own, asked like any other."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from crypto.errors import CryptoError, MessageRefused
from crypto.secure_sum import SumOfficer, Terms
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.messages import RoundOpen, SumStep, decode, encode
from secure_fedmeta.outcome import Abort, Release
from secure_fedmeta.pipeline import assemble, found_parties
from secure_fedmeta.progress import Silent
from secure_fedmeta.randomness import Randomness
from secure_fedmeta.training import run
from secure_fedmeta.transport.memory import Delivery, Faults
from tests.secure_fedmeta.federation import CLIENTS, LOG_KEY, Federation, tiny

HE: dict[str, object] = {"secure_sum.protocol": "he", "privacy.max_colluders": 0}
OFFICER = CLIENTS + 1


def losing(client: int, upload: bool, sequence: int) -> Faults:
    """Loses one message."""

    def fault(delivery: Delivery) -> list[Delivery]:
        lost = (delivery.client, delivery.upload, delivery.sequence) == (client, upload, sequence)
        return [] if lost else [delivery]

    return fault


def test_rounds_release_the_sum_of_the_updates(tmp_path: Path) -> None:
    federation = Federation(tmp_path, HE)
    for index in (1, 2):
        outcome = federation.round(index)
        assert isinstance(outcome, Release)
        assert outcome.survivors == CLIENTS
    for terms, done in federation.spy.sums:
        sent = [federation.spy.vectors[terms.round, 1, k] for k in done.contributors]
        np.testing.assert_array_equal(done.total, np.sum(sent, axis=0))
    assert federation.refused == []
    intents = [entry for entry in federation.entries() if entry["kind"] == "round-intent"]
    assert len(intents) == 2
    assert intents[0]["body"]["secure_sum"]["capabilities"]["clients"] == "honest-but-curious"


def test_the_model_is_that_of_masking_and_of_plain(tmp_path: Path) -> None:
    models = []
    for name in ("he", "masking", "plain", "threshold"):
        (tmp_path / name).mkdir()
        changes = {
            **HE,
            "secure_sum.protocol": name,
            "secure_sum.threshold": 3,
            "secure_sum.allow_insecure": True,
        }
        federation = Federation(tmp_path / name, changes)
        federation.round(1)
        models.append(federation.aggregator.model.numpy().tobytes())
    assert len(set(models)) == 1


def test_a_client_that_drops_is_left_out(tmp_path: Path) -> None:
    federation = Federation(tmp_path, HE, faults=losing(2, upload=True, sequence=0))
    outcome = federation.round(1)
    assert isinstance(outcome, Release)
    assert outcome.survivors == CLIENTS - 1


@pytest.mark.parametrize(("sequence", "charged"), [(0, False), (1, True)])
def test_without_the_officer_the_round_aborts(tmp_path: Path, sequence: int, charged: bool) -> None:
    federation = Federation(tmp_path, HE, faults=losing(OFFICER, upload=True, sequence=sequence))
    outcome = federation.round(1)
    assert isinstance(outcome, Abort)
    assert f"officer {OFFICER}: no answer" in outcome.reason
    assert outcome.charged is charged
    assert federation.spy.sums == []
    assert isinstance(federation.round(2), Release)


@pytest.mark.parametrize("party", [1, OFFICER])
def test_a_model_changed_on_its_way_is_noticed_before_anything_is_charged(
    tmp_path: Path, party: int
) -> None:
    """A client at another model drops out unasked; without the officer nothing can be opened."""

    def fault(delivery: Delivery) -> list[Delivery]:
        if (delivery.client, delivery.upload, delivery.sequence) != (party, False, 0):
            return [delivery]
        opened = decode(delivery.payload)
        assert isinstance(opened, RoundOpen)
        model = bytes([opened.model[0] ^ 1]) + opened.model[1:]
        return [replace(delivery, payload=encode(replace(opened, model=model)))]

    federation = Federation(tmp_path, HE, faults=fault)
    outcome = federation.round(1)
    if party == OFFICER:
        assert isinstance(outcome, Abort)
        assert not outcome.charged
        assert federation.spy.vectors == {}
    else:
        assert isinstance(outcome, Release)
        assert outcome.survivors == CLIENTS - 1
        assert (1, 1, party) not in federation.spy.vectors


def test_an_officer_answers_an_attempt_once(tmp_path: Path) -> None:
    federation = Federation(tmp_path, HE)
    officer = federation.parties.officers[OFFICER]
    (message,) = federation.aggregator.open_round(3, 1).begin().values()
    opened = decode(message)
    assert isinstance(opened, RoundOpen)
    with pytest.raises(MessageRefused, match="not the open attempt"):
        officer.handle(encode(SumStep(3, 1, opened.body)))
    officer.handle(message)
    with pytest.raises(MessageRefused, match="never answered twice"):
        officer.handle(message)
    for moment in ((2, 9), (3, 1), (1, 1)):
        with pytest.raises(MessageRefused, match="never answered twice"):
            officer.handle(encode(RoundOpen(*moment, opened.clip, opened.model, opened.body)))
    with pytest.raises(MessageRefused, match="another round"):
        officer.handle(encode(RoundOpen(4, 1, opened.clip, opened.model, opened.body)))
    for bad in (b"", b"FMR1", encode(SumStep(3, 1, b"x"))):
        with pytest.raises(CryptoError):
            officer.handle(bad)
    assert repr(officer) == f"Officer(index={OFFICER}, last=(3, 1))"


def test_messages_at_the_same_time_are_answered_once(tmp_path: Path) -> None:
    """Two threads with one opening: one attempt must not get two keys."""
    federation = Federation(tmp_path, HE)
    messages = federation.aggregator.open_round(1, 1).begin()
    officer = federation.parties.officers[OFFICER]
    made = officer._machine_for

    def slow(terms: Terms, model: torch.Tensor) -> SumOfficer:
        time.sleep(0.2)
        return made(terms, model)

    officer._machine_for = slow  # type: ignore[method-assign]
    answers: list[bytes] = []

    def work() -> None:
        with suppress(MessageRefused):
            answers.append(officer.handle(messages[OFFICER]))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 1


@pytest.mark.parametrize("index", [2**32, 2**64 - 1])
def test_a_round_that_no_terms_can_have_is_a_refused_message(tmp_path: Path, index: int) -> None:
    federation = Federation(tmp_path, HE)
    (message,) = federation.aggregator.open_round(1, 1).begin().values()
    opened = decode(message)
    assert isinstance(opened, RoundOpen)
    for party in federation.parties.endpoints.values():
        for forged in (
            RoundOpen(index, 1, opened.clip, opened.model, b"x"),
            SumStep(index, 1, b"x"),
        ):
            with pytest.raises(MessageRefused, match=f"round {index}; allowed: up to"):
                party.handle(encode(forged))


def test_the_officer_has_a_key_of_its_own(tmp_path: Path) -> None:
    parties = Federation(tmp_path, HE).parties
    roster = parties.setting.roster
    assert list(parties.officers) == [OFFICER] == list(roster.officer_indices)
    assert set(parties.endpoints) == set(range(1, OFFICER + 1))
    assert roster.public_of(OFFICER) not in {roster.public_of(k) for k in range(OFFICER)}
    terms = parties.setting.terms(round_index=1, attempt=1, model_digest=bytes(32))
    assert terms.cohort == tuple(range(1, CLIENTS + 1))


def test_colluders_are_refused_with_the_reason() -> None:
    parts = assemble(tiny({"secure_sum.protocol": "he"}))
    with pytest.raises(ConfigError, match=r"max_colluders is 1; allowed: 0.*secret key"):
        found_parties(parts, bytes(32), Randomness(1), log_key=LOG_KEY)


def test_a_run_reports_the_bytes_of_clients_alone(tmp_path: Path) -> None:
    result = run(tiny({**HE, "training.rounds": 1}), out=tmp_path)
    assert result.status == "completed"
    protocol = result.report["secure_sum"]
    assert protocol["protocol"] == "he"
    assert protocol["unchecked_rounds"] == 1
    assert protocol["capabilities"]["collusion"].startswith("none")
    assert result.report["bytes_per_client"]["sent"] < 80_000


def test_rounds_of_a_committee_release_the_sum_and_survive_losses(tmp_path: Path) -> None:
    """Officers 1 and 2 of 5 fall silent for good when the sum is to be opened."""
    changes = {**HE, "secure_sum.protocol": "threshold"}
    lost = {CLIENTS + 1: 5, CLIENTS + 2: 4}

    def fault(delivery: Delivery) -> list[Delivery]:
        gone = delivery.upload and delivery.sequence >= lost.get(delivery.client, 10**6)
        return [] if gone else [delivery]

    federation = Federation(tmp_path, changes, faults=fault)
    assert len(federation.parties.officers) == 5
    outcome = federation.round(1)
    assert isinstance(outcome, Release)
    assert outcome.survivors == CLIENTS
    ((terms, done),) = federation.spy.sums
    assert terms.committee_threshold == 3
    assert outcome.unchecked == done.unchecked
    assert len(done.unchecked) == 3
    sent = [federation.spy.vectors[terms.round, 1, k] for k in done.contributors]
    np.testing.assert_array_equal(done.total, np.sum(sent, axis=0))


def test_a_committee_that_is_not_allowed_is_refused_with_what_is() -> None:
    changes = {**HE, "secure_sum.protocol": "threshold", "secure_sum.committee_threshold": 2}
    with pytest.raises(ConfigError, match="2 of 5 members; allowed: 3 to 5"):
        assemble(tiny(changes))


def test_long_encryption_is_shown_as_a_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[str] = []

    class Listening(Silent):
        def stage(self, text: str) -> None:
            stages.append(text)

    config = tiny({"secure_sum.protocol": "he", "privacy.max_colluders": 0, "training.rounds": 1})
    run(config, out=tmp_path / "quick", progress=Listening())
    assert not any("crypting" in text for text in stages)
    monkeypatch.setattr("crypto.progress.QUIET_SECONDS", 0.0)
    run(config, out=tmp_path / "slow", progress=Listening())
    assert "training: encrypting: ciphertext 1 of 1" in stages
    assert "training: decrypting: ciphertext 1 of 1" in stages
