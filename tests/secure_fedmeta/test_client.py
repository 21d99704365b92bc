"""A client answers each moment once, under its own terms, and sends nothing but the secure sum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from crypto.errors import CryptoError, MessageRefused, OutOfOrder, TermsRefused
from crypto.keys import Identity
from privacy.rng import SecureRandom
from privacy.unit import Unit
from secure_fedmeta.client import Client, contribution
from secure_fedmeta.messages import RoundOpen, SumStep, decode, encode
from secure_fedmeta.outcome import Abort, Release
from secure_fedmeta.setting import Setting
from secure_fedmeta.transport.memory import Delivery
from tests.crypto.harness import STEPS
from tests.privacy.plans import with_noise
from tests.secure_fedmeta.federation import CLIENTS, Federation

ENVELOPE = 110  # version, step, sender, recipient, context, length, signature
ADVERT = 2 * (32 + 1184) + 32  # two hybrid public keys, one commitment
SEALED = 4 + 4 + 1088 + 2 * 32 + 16  # per peer: KEM ciphertext, two shares, one tag
OFFER = 1088 + 32 + 4 + 4 + 32 + 16  # per later peer: KEM ciphertext, tag, escrowed secret
SHARES = {4 + 4 + (CLIENTS - 1) * SEALED + later * OFFER for later in range(CLIENTS)}
DIGEST = 32
ANSWER = DIGEST + CLIENTS * (4 + 1 + 32)  # digest of the request, one share per client


OPEN: dict[str, dict[str, object]] = {
    "masking": {},
    "plain": {"secure_sum.protocol": "plain", "secure_sum.allow_insecure": True},
}


def opening(federation: Federation, index: int, attempt: int = 1) -> Mapping[int, bytes]:
    return federation.aggregator.open_round(index, attempt).begin()


def opened(message: bytes) -> RoundOpen:
    envelope = decode(message)
    assert isinstance(envelope, RoundOpen)
    return envelope


@pytest.fixture(params=["masking", "plain"])
def federation(tmp_path: Path, request: pytest.FixtureRequest) -> Federation:
    return Federation(tmp_path, OPEN[request.param])


def client(federation: Federation, index: int = 1) -> Client:
    return federation.parties.clients[index]


def test_a_replayed_opening_is_refused(federation: Federation) -> None:
    message = opening(federation, 3)[1]
    client(federation).handle(message)
    with pytest.raises(MessageRefused, match="never answered twice"):
        client(federation).handle(message)


@pytest.mark.parametrize(("index", "attempt"), [(3, 1), (2, 2), (2, 9), (1, 1)])
def test_a_moment_in_the_past_is_refused(federation: Federation, index: int, attempt: int) -> None:
    client(federation).handle(opening(federation, 3, 2)[1])
    with pytest.raises(MessageRefused, match="never answered twice"):
        client(federation).handle(opening(federation, index, attempt)[1])


@pytest.mark.parametrize(("index", "attempt"), [(3, 3), (4, 1), (9, 1)])
def test_a_later_moment_is_answered(federation: Federation, index: int, attempt: int) -> None:
    client(federation).handle(opening(federation, 3, 2)[1])
    assert client(federation).handle(opening(federation, index, attempt)[1])


@pytest.mark.parametrize("index", [2, 2**32 - 1, 2**32, 2**64 - 1])
def test_a_forged_opening_does_not_lock_a_client_out(federation: Federation, index: int) -> None:
    """Whoever is not the aggregator cannot move a client past the next real round."""
    real = opening(federation, 1)[1]
    envelope = opened(real)
    stranger = Identity.from_seed(b"s" * 32)
    setting = federation.parties.setting
    roster = replace(setting.roster, aggregator=stranger.public)
    terms = replace(setting, roster=roster).terms(
        round_index=min(index, 2**32 - 1),
        attempt=1,
        model_digest=setting.handout_digest(federation.parts.initial(), setting.plan.clip),
    )
    signed = federation.spy.inner.aggregator(terms, stranger).begin().messages[1]
    for body in (envelope.body, signed, b"\0"):
        with pytest.raises((MessageRefused, TermsRefused)):
            client(federation).handle(
                encode(RoundOpen(index, 1, envelope.clip, envelope.model, body))
            )
    assert client(federation).handle(real)


def test_a_real_message_under_another_moment_is_refused(federation: Federation) -> None:
    envelope = opened(opening(federation, 5)[1])
    for moment in ((6, 1), (5, 2), (7, 7)):
        with pytest.raises(MessageRefused):
            client(federation).handle(
                encode(RoundOpen(*moment, envelope.clip, envelope.model, envelope.body))
            )
    assert client(federation).handle(encode(envelope))


def test_a_client_contributes_to_no_more_rounds_than_planned(tmp_path: Path) -> None:
    """The target is for the plan's rounds; an aggregator that goes on gets no further sum."""
    federation = Federation(tmp_path, granted=1000.0)
    planned = federation.plan.rounds
    assert all(isinstance(federation.round(i), Release) for i in range(1, planned + 1))
    with pytest.raises(MessageRefused, match=f"{planned} planned rounds"):
        client(federation).handle(opening(federation, planned + 1)[1])
    assert isinstance(federation.round(planned + 2), Abort)
    assert len(federation.events()) == planned


def test_openings_without_a_contribution_do_not_count(tmp_path: Path) -> None:
    """Nothing of the data is in an answer to an opening of a masked sum."""
    federation = Federation(tmp_path)
    for index in range(1, federation.plan.rounds + 3):
        assert client(federation).handle(opening(federation, index)[1])


def test_a_step_needs_an_opening(federation: Federation) -> None:
    with pytest.raises(MessageRefused, match="not the open attempt"):
        client(federation).handle(encode(SumStep(1, 1, b"x")))
    client(federation).handle(opening(federation, 1)[1])
    for moment in ((1, 2), (2, 1), (0, 1)):
        with pytest.raises(MessageRefused, match="not the open attempt"):
            client(federation).handle(encode(SumStep(*moment, b"x")))


@pytest.mark.parametrize("change", [lambda m: m[:-4], lambda m: m + bytes(4), lambda m: b""])
def test_a_model_of_another_size_is_refused(federation: Federation, change) -> None:  # type: ignore[no-untyped-def]
    envelope = opened(opening(federation, 1)[1])
    with pytest.raises(MessageRefused, match="are allowed"):
        client(federation).handle(encode(replace(envelope, model=change(envelope.model))))
    assert client(federation).handle(encode(envelope))


def foreign(setting: Setting, change: str) -> Setting:
    """The setting of an aggregator that would like other terms than the clients have."""
    if change == "threshold":
        sharing = setting.sharing
        return replace(setting, sharing=replace(sharing, threshold=sharing.threshold + 1))
    if change == "config":
        return replace(setting, config_digest=bytes(32))
    if change == "run":
        return replace(setting, run=bytes(32))
    if change == "ring":
        return replace(setting, ring=replace(setting.ring, bits=setting.ring.bits + 1))
    plan = setting.plan
    weaker = {
        "min_survivors": {"min_survivors": plan.min_survivors - 1},
        "max_colluders": {"max_colluders": 0},
        "less noise": {"epsilon": 100.0},
    }[change]
    terms = {
        name: getattr(plan, name)
        for name in (
            "delta", "rounds", "clip", "parameters", "expected_units", "max_units_per_client",
            "clients", "min_survivors", "max_colluders", "person_units", "epsilon",
        )
    }  # fmt: skip
    return replace(setting, plan=plan.calibrated(**{**terms, **weaker}))


@pytest.mark.parametrize("protocol", ["masking", "plain"])
@pytest.mark.parametrize(
    "change",
    ["threshold", "config", "run", "ring", "min_survivors", "max_colluders", "less noise"],
)
def test_terms_never_come_from_the_aggregator(tmp_path: Path, protocol: str, change: str) -> None:
    """An aggregator that signs with other thresholds, noise or config gets no answer."""
    federation = Federation(tmp_path, {**OPEN[protocol], "privacy.min_survivors": 4})
    setting = foreign(federation.parties.setting, change)
    digest = setting.handout_digest(federation.parts.initial(), setting.plan.clip)
    terms = setting.terms(round_index=1, attempt=1, model_digest=digest)
    machine = federation.spy.inner.aggregator(terms, federation.parties.aggregator)
    real = opened(opening(federation, 1)[1])
    message = encode(replace(real, body=machine.begin().messages[1]))
    with pytest.raises(MessageRefused):
        client(federation).handle(message)
    assert not federation.spy.vectors
    assert client(federation).handle(encode(real))


@pytest.mark.parametrize("persons", [2, 5])
def test_an_upload_is_a_secure_sum_message_and_nothing_else(
    federation: Federation, persons: int
) -> None:
    """No weights, counts, losses or metrics travel beside the protected vector.

    Every upload has exactly the bytes of the protocol's own message, whatever the data.
    """
    uploads: list[bytes] = []

    def keep(delivery: Delivery) -> list[Delivery]:
        if delivery.upload:
            uploads.append(delivery.payload)
        return [delivery]

    work = client(federation)._work
    work._blocks = {name: blocks[:persons] for name, blocks in work._blocks.items()}
    federation.transport._faults = keep
    federation.round(1)
    setting, masked = federation.parties.setting, federation.spy.name == "masking"
    packed = setting.ring.pack(np.zeros(setting.plan.dimension, dtype=np.uint64))
    assert len(packed) == -(-setting.ring.bits * setting.plan.dimension // 8)
    vector = DIGEST + len(packed) if masked else len(packed)
    steps = [uploads[start : start + CLIENTS] for start in range(0, len(uploads), CLIENTS)]
    sizes = [{len(upload) - ENVELOPE for upload in step} for step in steps]
    views = [{DIGEST}] * (STEPS["masking"] - 4)  # what each client saw, where clients compare
    expected = [{ADVERT}, SHARES, {vector}, *views, {ANSWER}]
    assert sizes == (expected if masked else [{vector}])


def test_the_vector_is_computed_once(federation: Federation) -> None:
    """Every message of a round twice: the units are encoded, and the noise drawn, once."""
    federation.transport._faults = lambda delivery: [delivery, delivery]
    outcome = federation.round(1)
    assert outcome.round == 1
    assert sorted(federation.spy.vectors) == [(1, 1, index) for index in (1, 2, 3, 4)]
    federation.spy.check_sums()
    assert federation.refused
    assert all(isinstance(error, MessageRefused | OutOfOrder) for _, error in federation.refused)


def test_the_computation_starts_after_every_check(federation: Federation) -> None:
    message = opening(federation, 1)[1]
    tampered = message[:-1] + bytes([message[-1] ^ 1])
    with pytest.raises(CryptoError):
        client(federation).handle(tampered)
    assert not federation.spy.vectors


def test_the_repr_holds_no_secret(federation: Federation) -> None:
    assert repr(client(federation)) == "Client(index=1, last=(0, 0))"


@pytest.mark.parametrize("seed", [None, 1], ids=["private", "seeded"])
@pytest.mark.parametrize("protocol", ["masking", "plain"])
def test_a_second_attempt_carries_fresh_noise(
    tmp_path: Path, protocol: str, seed: int | None
) -> None:
    """The same model and the same units twice: sent twice with other noise, and charged once.

    Under a seed, which is not private, the noise of a round is the same in every attempt.
    """
    changes = {"secure_sum.protocol": protocol, "secure_sum.allow_insecure": True}
    federation = Federation(tmp_path, changes, seed=seed)
    last = 2 if protocol == "masking" else 0

    def lose_vectors(delivery: Delivery) -> list[Delivery]:
        return [] if delivery.upload and delivery.sequence == last else [delivery]

    federation.transport._faults = lose_vectors
    assert isinstance(federation.round(1, attempt=1), Abort)
    assert isinstance(federation.round(1, attempt=2), Release)
    first, second = (federation.spy.vectors[1, attempt, 1] for attempt in (1, 2))
    assert np.array_equal(first, second) == (seed is not None)
    assert len(federation.events()) == 1


class Tasks:
    """Work whose vectors and users are given."""

    def __init__(self, vectors: NDArray[np.float32], users: Sequence[int]) -> None:
        self.vectors, self._users, self.asked = vectors, users, 0

    def outer_vectors(
        self, client: str, model: torch.Tensor, *, round_index: int
    ) -> NDArray[np.float32]:
        self.asked += len(self.vectors)
        return self.vectors

    def users(self, client: str) -> NDArray[np.int64]:
        return np.array(self._users, dtype=np.int64)


def contributed(unit: Unit, tasks: Tasks, rng: SecureRandom, **changes: Any) -> NDArray[np.float64]:
    """What one client adds to the average, with as little noise as a plan may have."""
    most = {"max_units_per_client": 1} if unit is Unit.CLIENT else {}
    plan = with_noise(2.0**-20, unit=unit, parameters=3, expected_units=1, **{**most, **changes})
    found = contribution(tasks, "a", torch.zeros(3), plan=plan, round_index=1, noise=rng)
    return plan.decode(found, round_index=1)


def test_the_unit_decides_what_is_clipped_together() -> None:
    """Three tasks of norm 0.8 that point the same way, two of them of one user; the clip is 1."""
    vectors = np.array([[0.8, 0, 0]] * 3, dtype=np.float32)
    tasks, rng = Tasks(vectors, [0, 1, 1]), SecureRandom.from_os()
    for unit, expected in (
        (Unit.TASK, 2.4),
        (Unit.RECORD, 2.4),
        (Unit.USER, 1.8),
        (Unit.CLIENT, 0.8),
    ):
        assert contributed(unit, tasks, rng)[0] == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize("unit", [Unit.TASK, Unit.RECORD, Unit.USER])
def test_coins_are_thrown_anew_and_every_task_is_computed(unit: Unit) -> None:
    """Counts over rounds vary as the coins do; the work does not. 1e-6 on either side."""
    vectors = np.zeros((8, 3), dtype=np.float32)
    vectors[:, 0] = 0.1
    tasks, rng, rounds = Tasks(vectors, list(range(8))), SecureRandom.from_key(bytes(32)), 400
    counts = [round(contributed(unit, tasks, rng, rate=0.5)[0] * 10) for _ in range(rounds)]
    assert tasks.asked == 8 * rounds
    assert 4 - 4.9 * math.sqrt(2 / rounds) < np.mean(counts) < 4 + 4.9 * math.sqrt(2 / rounds)
    assert 1.2 < np.var(counts) < 2.8
    assert set(counts) - set(range(9)) == set()


def test_a_user_s_tasks_stand_or_fall_together() -> None:
    vectors = np.full((6, 3), 0.05, dtype=np.float32)
    tasks, rng = Tasks(vectors, [0, 0, 0, 1, 1, 1]), SecureRandom.from_key(bytes(32))
    found = {round(contributed(Unit.USER, tasks, rng, rate=0.5)[0] * 20) for _ in range(60)}
    assert found == {0, 3, 6}
