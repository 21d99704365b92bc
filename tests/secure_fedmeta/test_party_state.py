"""A party that outlives its process: it goes on, answers nothing twice, and shows nothing on disk.

What must hold whatever stops when: a message has one answer, an attempt one upload, a sum is exact.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from crypto.envelope import AGGREGATOR, Heading, Step, seal
from crypto.errors import CryptoError, MessageRefused, SumAborted
from crypto.he_officer import HeOfficer
from crypto.masking_messages import OpeningRequest
from secure_fedmeta.client import Client
from secure_fedmeta.intent import Evidence
from secure_fedmeta.messages import SumStep, decode, encode
from secure_fedmeta.officer import Officer
from secure_fedmeta.outcome import Release
from secure_fedmeta.party import Party
from secure_fedmeta.party_state import PartyState
from secure_fedmeta.vault import MemoryVault
from tests.secure_fedmeta.federation import Federation
from tests.secure_fedmeta.restarts import (
    CHANGES,
    Recorder,
    Restarting,
    endpoint,
    federation_at,
    protocols,
    reborn,
)

# --- going on -------------------------------------------------------------------------------------


@protocols
def test_a_run_goes_on_if_every_party_restarts_before_every_message(
    tmp_path: Path, protocol: str
) -> None:
    federation = federation_at(tmp_path, protocol)
    for index, party in federation.parties.endpoints.items():
        endpoint(federation, index, Restarting(party, MemoryVault()))
    for index in range(1, federation.plan.rounds + 1):
        release = federation.round(index)
        assert isinstance(release, Release)
        assert release.survivors == 4
        assert release.rejected == {}
    federation.spy.check_sums()
    assert federation.refused == []
    # contributions were counted over all these processes
    opening = federation.aggregator.open_round(9, 1).begin()
    if protocol != "he":
        with pytest.raises(MessageRefused, match="3 planned rounds"):
            federation.transport._endpoints[1].handle(opening[1])


@protocols
def test_the_same_message_gets_the_same_answer_after_a_restart(
    tmp_path: Path, protocol: str
) -> None:
    federation = federation_at(tmp_path, protocol)
    again: list[tuple[bytes, bytes]] = []

    @dataclass
    class Asking:
        party: Party
        vault: MemoryVault

        def handle(self, message: bytes) -> bytes:
            reply = reborn(self.party, self.vault).handle(message)
            kept = self.vault.get()
            again.extend((reply, reborn(self.party, self.vault).handle(message)) for _ in range(2))
            assert self.vault.get() == kept
            return reply

    for index, party in federation.parties.endpoints.items():
        endpoint(federation, index, Asking(party, MemoryVault()))
    assert isinstance(federation.round(1), Release)
    federation.spy.check_sums()
    assert len(again) >= 8
    assert all(first == second for first, second in again)


@protocols
def test_older_messages_are_refused_after_a_restart(tmp_path: Path, protocol: str) -> None:
    federation = federation_at(tmp_path, protocol)
    vault = MemoryVault()
    party = federation.parties.endpoints[1]
    told = Recorder(Restarting(party, vault))
    endpoint(federation, 1, told)
    federation.round(2)
    for message in told.asked[:-1]:
        with pytest.raises(CryptoError):
            reborn(party, vault).handle(message)
    for moment in ((1, 1), (1, 7), (2, 1)):
        opening = federation.aggregator.open_round(*moment).begin()
        if 1 in opening:
            with pytest.raises(MessageRefused, match="never answered twice"):
                reborn(party, vault).handle(opening[1])


def test_without_a_vault_nothing_is_kept_and_a_repeated_message_refused(tmp_path: Path) -> None:
    federation = federation_at(tmp_path, "masking")
    party = federation.parties.clients[1]
    opening = federation.aggregator.open_round(1, 1).begin()
    party.handle(opening[1])
    assert (party._asked, party._reply) == (b"", b"")
    with pytest.raises(MessageRefused):
        party.handle(opening[1])


@pytest.mark.parametrize("change", ["config", "roster threshold"])
def test_an_attempt_that_does_not_fit_the_setting_any_more_is_over(
    tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And its moment stays spent; the next attempt is taken."""
    federation = federation_at(tmp_path, "masking")
    told = Recorder(federation.parties.clients[1])
    endpoint(federation, 1, told)
    federation.round(1)
    setting = federation.parties.setting
    if change == "config":
        other = replace(setting, config_digest=bytes(32))
    else:
        other = replace(setting, sharing=replace(setting.sharing, threshold=4))
    vault = MemoryVault()
    party = federation.parties.clients[1]
    first = reborn(party, vault)
    first.handle(told.asked[0])
    changed = reborn(party, vault, other)
    with pytest.raises(MessageRefused, match="not the open attempt"):
        changed.handle(told.asked[1])
    assert "attempt-given-up party=1" in caplog.text
    with pytest.raises(MessageRefused, match="never answered twice"):
        changed.handle(federation.aggregator.open_round(1, 1).begin()[1])
    back = reborn(party, vault)  # under its own setting it goes on, since nothing was answered
    assert back.handle(federation.aggregator.open_round(1, 2).begin()[1])


def test_the_last_checkpoint_seen_survives(tmp_path: Path) -> None:
    federation = federation_at(tmp_path, "masking")
    vault = MemoryVault()
    party = federation.parties.clients[1]
    endpoint(federation, 1, Restarting(party, vault))
    assert reborn(party, vault)._watch.seen is None
    federation.round(1)
    first = reborn(party, vault)._watch.seen
    federation.round(2)
    second = reborn(party, vault)._watch.seen
    assert first is not None
    assert second is not None
    assert first != second


def test_what_a_refused_message_showed_of_the_log_survives_too(tmp_path: Path) -> None:
    """Else a restart would let it be shown another log; nothing else of its state moves."""
    federation = federation_at(tmp_path, "masking")
    vault, party = MemoryVault(), federation.parties.clients[1]
    shown: list[bytes] = []

    class Lied(Restarting):
        def handle(self, message: bytes) -> bytes:
            body = decode(message).body
            if body[1] == Step.CONSISTENCY:
                request = OpeningRequest.decode(body[46:-64])
                opening = replace(request.opening, intent=bytes(32))
                heading = Heading(Step.CONSISTENCY, AGGREGATOR, 1, body[10:42])
                lie = replace(request, opening=opening).encode()
                before = PartyState.decode(vault.get(), federation.run_id, 1)
                with pytest.raises(MessageRefused, match="for another intent"):
                    reborn(party, vault).handle(
                        encode(SumStep(1, 1, seal(federation.parties.aggregator, heading, lie)))
                    )
                shown.append(Evidence.decode(request.evidence).checkpoint)
                assert before.seen == b""
                after = PartyState.decode(vault.get(), federation.run_id, 1)
                assert after == replace(before, seen=shown[0])
            return super().handle(message)

    endpoint(federation, 1, Lied(party, vault))
    release = federation.round(1)
    assert isinstance(release, Release)
    assert release.survivors == 4
    assert len(shown) == 1


def test_the_model_is_let_go_once_the_vector_exists(tmp_path: Path) -> None:
    federation = federation_at(tmp_path, "masking")
    vault, kept = MemoryVault(), []
    party = federation.parties.clients[1]

    class Looking(Restarting):
        def handle(self, message: bytes) -> bytes:
            reply = super().handle(message)
            kept.append(vault.get())
            return reply

    opened = federation.aggregator.open_round(1, 1).begin()[1]
    model = decode(opened).model  # type: ignore[union-attr]
    endpoint(federation, 1, Looking(party, vault))
    federation.round(1)
    assert [model in state for state in kept] == [True, True, False, False, False]


@pytest.mark.parametrize(
    "ending",
    [
        SumAborted("he open", "the noise is larger than that of fresh uploads"),
        MemoryError(),
        KeyboardInterrupt(),
    ],
    ids=lambda ending: type(ending).__name__,
)
def test_an_officers_key_is_gone_for_good_after_a_sum_that_does_not_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: BaseException
) -> None:
    """Else a restart would bring it back, and it could be asked about one ciphertext after another.

    Shown with a build that keeps nothing after an error: there the second request is answered.
    """

    def noisy(self: HeOfficer, *_: object) -> object:
        raise ending

    def asked_again(folder: Path) -> bytes:
        folder.mkdir()
        federation = federation_at(folder, "he")
        (index,) = federation.parties.officers
        vault, told = MemoryVault(), []
        officer = federation.parties.officers[index]

        class Telling(Restarting):
            def handle(self, message: bytes) -> bytes:
                told.append(message)
                return super().handle(message)

        endpoint(federation, index, Telling(officer, vault))
        with monkeypatch.context() as failing:
            failing.setattr(HeOfficer, "_decrypt", noisy)
            with suppress(type(ending)):
                assert not isinstance(federation.round(1), Release)
        return reborn(officer, vault).handle(told[-1])

    with pytest.raises(MessageRefused, match="not the open attempt"):
        asked_again(tmp_path / "real")
    with monkeypatch.context() as weakened:
        weakened.setattr(Party, "_step", lambda self, moment, machine, body: machine.step(body))
        assert asked_again(tmp_path / "weakened")


# --- what a second answer would give away ---------------------------------------------------------


def upload_state(federation: Federation, vault: MemoryVault) -> tuple[Client, bytes, bytes]:
    """Client 1, its state before its masked upload, and the message that asks for it."""
    client = federation.parties.clients[1]
    before: list[tuple[bytes, bytes]] = []

    class Noting(Restarting):
        def handle(self, message: bytes) -> bytes:
            state = vault.get()
            reply = super().handle(message)
            if reply[1] == Step.MASKED_INPUT:
                before.append((state, message))
            return reply

    endpoint(federation, 1, Noting(client, vault))
    assert isinstance(federation.round(1), Release)
    ((state, message),) = before
    return client, state, message


def residues(federation: Federation, upload: bytes) -> np.ndarray:
    setting = federation.parties.setting
    packed = upload[46 + 32 : -64]
    return setting.ring.unpack(packed, setting.plan.dimension)


def test_recomputing_after_a_restart_would_show_the_difference_of_two_vectors(
    tmp_path: Path,
) -> None:
    """Against a build that lost what it had answered: the masks cancel between its two uploads.

    With fresh noise in each, the noise of the client averages out over many of them.
    """
    federation = Federation(tmp_path, CHANGES["masking"], seed=None)
    vault = MemoryVault()
    client, before, message = upload_state(federation, vault)
    uploads, vectors = [], []
    for _ in range(8):
        forgetful = MemoryVault()
        forgetful.put(before)
        uploads.append(reborn(client, forgetful).handle(message))
        vectors.append(federation.spy.vectors[1, 1, 1])
    assert len(set(uploads)) == 8
    ring = federation.parties.setting.ring
    first = residues(federation, uploads[0])
    for upload, vector in zip(uploads[1:], vectors[1:], strict=True):
        shown = (residues(federation, upload) - first) & np.uint64(ring.modulus - 1)
        np.testing.assert_array_equal(ring.decode(shown), vector - vectors[0])


def test_the_real_party_gives_one_upload_however_often_it_restarts(tmp_path: Path) -> None:
    federation = federation_at(tmp_path, "masking")
    vault = MemoryVault()
    client, before, message = upload_state(federation, vault)
    federation.spy.vectors.clear()
    vault.put(before)
    uploads = {reborn(client, vault).handle(message) for _ in range(8)}
    assert len(uploads) == 1
    assert len(federation.spy.vectors) == 1


# --- before anything is made ----------------------------------------------------------------------


@protocols
def test_the_signature_is_checked_before_anything_is_made(
    tmp_path: Path, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = federation_at(tmp_path, protocol)
    made: list[str] = []
    monkeypatch.setattr(Client, "_machine_for", lambda *_: made.append("client"))
    monkeypatch.setattr(Officer, "_machine_for", lambda *_: made.append("officer"))
    ((index, message),) = list(federation.aggregator.open_round(1, 1).begin().items())[:1]
    party = federation.parties.endpoints[index]
    for damaged in (
        message[:-1] + bytes([message[-1] ^ 1]),
        message[:-64] + bytes(64),
        federation.aggregator.open_round(1, 2).begin()[index][: -len(message)] + message[:-1],
    ):
        with pytest.raises(MessageRefused):
            party.handle(damaged)
    assert made == []
    with pytest.raises(AttributeError):  # what was made here is None
        party.handle(message)
    assert len(made) == 1
    assert hashlib.sha256(message).digest() not in repr(party).encode()
