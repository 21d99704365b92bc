"""A party that outlives its process: it goes on, answers nothing twice, and shows nothing on disk.

What must hold whatever stops when: a message has one answer, an attempt one upload, a sum is exact.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crypto.envelope import Step
from crypto.errors import CryptoError, MessageRefused, SumAborted
from crypto.he_officer import HeOfficer
from crypto.sealed_state import StateSealer
from secure_fedmeta.aggregator import Release
from secure_fedmeta.client import Client
from secure_fedmeta.errors import FedmetaError, StateError
from secure_fedmeta.messages import decode
from secure_fedmeta.officer import Officer
from secure_fedmeta.party import Party
from secure_fedmeta.setting import Setting
from secure_fedmeta.transport.memory import Delivery
from secure_fedmeta.vault import FILE, FileVault, MemoryVault, Vault
from tests.audit.disk import FATES, Fate, PowerCut, SimulatedDisk
from tests.secure_fedmeta.federation import Federation

CHANGES: dict[str, dict[str, object]] = {
    "masking": {},
    "plain": {"secure_sum.protocol": "plain", "secure_sum.allow_insecure": True},
    "he": {"secure_sum.protocol": "he", "privacy.max_colluders": 0},
}
protocols = pytest.mark.parametrize("protocol", sorted(CHANGES))
UPLOADS = {"masking": Step.MASKED_INPUT, "plain": Step.PLAIN_INPUT, "he": Step.HE_INPUT}


def reborn(party: Party, vault: Vault, setting: Setting | None = None) -> Party:
    """The same party in a new process: all it has is what a party is given, and its vault."""
    held = vars(party)
    given = {name: held[f"_{name}"] for name in ("index", "identity", "rand")}
    if isinstance(party, Client):
        given |= {name: held[f"_{name}"] for name in ("work", "noise")}
    return type(party)(setting or held["_setting"], vault=vault, **given)


def federation_at(folder: Path, protocol: str) -> Federation:
    return Federation(folder, CHANGES[protocol])


def long_federation(folder: Path, protocol: str) -> Federation:
    """One whose clients may contribute many times."""
    return Federation(folder, {**CHANGES[protocol], "training.rounds": 40}, granted=1e6)


@dataclass
class Recorder:
    """An endpoint that notes every message and its answer."""

    inner: object
    asked: list[bytes] = field(default_factory=list)
    answered: list[bytes] = field(default_factory=list)

    def handle(self, message: bytes) -> bytes:
        reply = self.inner.handle(message)  # type: ignore[attr-defined]
        self.asked.append(message)
        self.answered.append(reply)
        return reply


@dataclass
class Restarting:
    """An endpoint whose party is made anew from its vault for every message."""

    party: Party
    vault: Vault

    def handle(self, message: bytes) -> bytes:
        return reborn(self.party, self.vault).handle(message)


def endpoint(federation: Federation, index: int, made: object) -> None:
    federation.transport._endpoints[index] = made  # type: ignore[index]


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


def test_an_officers_key_is_gone_for_good_after_a_sum_that_does_not_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a restart would bring it back, and it could be asked about one ciphertext after another.

    Shown with a build that keeps nothing after an error: there the second request is answered.
    """

    def noisy(self: HeOfficer, *_: object) -> object:
        raise SumAborted("he open", "the noise is larger than that of fresh uploads")

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
    federation = federation_at(tmp_path, "masking")
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


# --- crashes --------------------------------------------------------------------------------------


class Crash(FedmetaError):
    """The process ended; nothing came back."""


@dataclass
class Crashing:
    """A party whose process ends where the test says, on a vault that keeps what was put."""

    party: Party
    points: Iterator[str]
    vault: MemoryVault = field(default_factory=MemoryVault)
    replies: dict[bytes, set[bytes]] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    running: Party | None = None

    def handle(self, message: bytes) -> bytes:
        point = next(self.points)
        if self.running is None:
            self.running = reborn(self.party, _Ending(self))
        self.ending = point
        try:
            reply = self.running.handle(message)
        except Crash:
            self.running = None
            self.ended.append(point)
            raise
        if point == "after send":
            self.running = None
            self.ended.append(point)
        self.replies.setdefault(message, set()).add(reply)
        return reply


@dataclass
class _Ending:
    party: Crashing

    def get(self) -> bytes:
        return self.party.vault.get()

    def put(self, state: bytes) -> None:
        if self.party.ending == "before save":
            raise Crash
        self.party.vault.put(state)
        if self.party.ending == "after save":
            raise Crash


POINTS = ("none", "none", "none", "before save", "after save", "after send")


def crash_and_repeat(folder: Path, protocol: str, seed: int) -> tuple[int, set[str]]:
    """Four rounds in which every message arrives several times, old ones are replayed, and every
    process ends at will; how many were released, and where processes ended.
    """
    federation = long_federation(folder, protocol)
    crashing: dict[int, Crashing] = {}
    old: dict[int, list[bytes]] = {}
    rng = np.random.default_rng(seed)

    def points() -> Iterator[str]:
        while True:
            yield POINTS[rng.integers(len(POINTS))]

    def faults(delivery: Delivery) -> list[Delivery]:
        if delivery.upload:
            return [delivery]
        seen = old.setdefault(delivery.client, [])
        seen.append(delivery.payload)
        replayed = replace(delivery, payload=seen[rng.integers(len(seen))])
        copies = [*[delivery] * int(rng.integers(1, 5)), *[replayed] * int(rng.integers(2))]
        return [copies[at] for at in rng.permutation(len(copies))]

    for index, party in federation.parties.endpoints.items():
        crashing[index] = Crashing(party, points())
        endpoint(federation, index, crashing[index])
    federation.transport._faults = faults
    released = sum(isinstance(federation.round(index), Release) for index in range(1, 5))
    assert len(federation.spy.sums) == released
    federation.spy.check_sums()
    for party in crashing.values():
        uploads: dict[tuple[int, int], set[bytes]] = {}
        for message, replies in party.replies.items():
            assert len(replies) == 1
            envelope, (reply,) = decode(message), replies
            if reply[1] == UPLOADS[protocol]:
                uploads.setdefault((envelope.round, envelope.attempt), set()).add(reply)
        assert all(len(made) == 1 for made in uploads.values())
    return released, {point for party in crashing.values() for point in party.ended}


@protocols
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_whatever_crashes_when_and_whatever_is_repeated(
    tmp_path_factory: pytest.TempPathFactory, protocol: str, seed: int
) -> None:
    crash_and_repeat(tmp_path_factory.mktemp("run"), protocol, seed)


@protocols
def test_rounds_come_through_crashes_of_every_kind(tmp_path: Path, protocol: str) -> None:
    released, points = crash_and_repeat(tmp_path, protocol, 0)
    assert released >= 2
    assert points == set(POINTS) - {"none"}


def sealer(party: Party) -> StateSealer:
    held = vars(party)
    return StateSealer(
        held["_identity"], held["_setting"].run, held["_index"], "party", held["_rand"]
    )


@dataclass
class OnDisk:
    """A party on a disk that is cut off at one call; it comes back and the message comes again.

    `revive` gives the disk that the next process finds.
    """

    party: Party
    disk: SimulatedDisk
    revive: Callable[[SimulatedDisk], SimulatedDisk]
    replies: dict[bytes, set[bytes]] = field(default_factory=dict)
    cuts: int = 0

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.running = reborn(self.party, FileVault(self.disk, sealer(self.party)))

    def cut(self) -> None:
        self.cuts += 1
        self.disk = self.revive(self.disk)
        self.disk.cut_at = None
        self.start()

    def handle(self, message: bytes) -> bytes:
        try:
            reply = self.running.handle(message)
        except PowerCut:
            self.cut()
            reply = self.running.handle(message)
        self.replies.setdefault(message, set()).add(reply)
        return reply


def disk_with_a_new_vault(party: Party) -> SimulatedDisk:
    disk = SimulatedDisk()
    FileVault(disk, sealer(party)).put(b"")
    return SimulatedDisk(names=dict(disk.names), durable_names=dict(disk.durable_names))


@pytest.mark.parametrize("names", ["persisted", "lost"])
@pytest.mark.parametrize("content", FATES)
def test_power_cut_at_any_call_to_the_disk(content: Fate, names: Fate, tmp_path: Path) -> None:
    """Whatever of the last write is kept, lost or torn: one answer per message, and exact sums."""
    federation = long_federation(tmp_path, "masking")
    client = federation.parties.clients[1]
    cuts = 0
    for index in range(1, 28):
        disk = disk_with_a_new_vault(client)
        crashing = OnDisk(client, disk, lambda disk: disk.restart(content, names))
        disk.cut_at = disk.calls + index
        endpoint(federation, 1, crashing)
        assert isinstance(federation.round(index), Release)
        cuts += crashing.cuts
        # power fails once more: what was answered last is answered the same
        last = list(crashing.replies)[-1]
        crashing.cut()
        crashing.replies[last].add(crashing.running.handle(last))
        assert len(crashing.replies) == 5
        assert all(len(replies) == 1 for replies in crashing.replies.values())
    assert cuts == 20  # four calls for each of five answers
    federation.spy.check_sums()


def test_a_process_that_dies_leaves_no_answer_that_power_failure_takes_back(
    tmp_path: Path,
) -> None:
    """The next process finds what was renamed and never synced; it must not build on that."""
    federation = federation_at(tmp_path, "masking")
    client = federation.parties.clients[1]
    message = federation.aggregator.open_round(1, 1).begin()[1]
    outcomes = set()
    for cut_at in range(1, 6):
        disk = disk_with_a_new_vault(client)
        running = reborn(client, FileVault(disk, sealer(client)))
        disk.cut_at = disk.calls + cut_at
        try:
            reply = running.handle(message)
        except PowerCut:
            disk.cut_at = None
            reply = reborn(client, FileVault(disk, sealer(client))).handle(message)
            outcomes.add("died")
        after = disk.restart("lost", "lost")
        assert reborn(client, FileVault(after, sealer(client))).handle(message) == reply
    assert outcomes == {"died"}


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_what_is_not_durable_is_not_answered(tmp_path: Path, error: int) -> None:
    federation = federation_at(tmp_path, "masking")
    client = federation.parties.clients[1]
    message = federation.aggregator.open_round(1, 1).begin()[1]
    failed = 0
    for fail_at in range(1, 5):
        disk = disk_with_a_new_vault(client)
        disk.error = error
        running = reborn(client, FileVault(disk, sealer(client)))
        disk.fail_at = disk.calls + fail_at
        with pytest.raises(StateError, match="is not durable"):
            running.handle(message)
        failed += 1
        with pytest.raises((StateError, MessageRefused)):
            running.handle(message)
        with pytest.raises(StateError, match="failed before"):
            running.handle(federation.aggregator.open_round(1, 2).begin()[1])
        disk.fail_at = None
        again = reborn(client, FileVault(disk, sealer(client)))
        assert again.handle(message) == again.handle(message)
    assert failed == 4


# --- on disk --------------------------------------------------------------------------------------


@protocols
def test_nothing_secret_stands_on_the_disk(tmp_path: Path, protocol: str) -> None:
    """Searched after every step for every secret that the state in clear is seen to hold."""
    federation = federation_at(tmp_path, protocol)
    drawn: list[bytes] = []
    clear: list[bytes] = []
    sealed: list[bytes] = []

    class Both(FileVault):
        def put(self, state: bytes) -> None:
            super().put(state)
            clear.append(state)
            sealed.extend(path.read_bytes() for path in where.iterdir())

    for index, party in federation.parties.endpoints.items():
        rand = vars(party)["_rand"]

        def remembering(length: int, rand: Callable[[int], bytes] = rand) -> bytes:
            drawn.append(rand(length))
            return drawn[-1]

        vars(party)["_rand"] = remembering
        where = tmp_path / f"vault-{index}"
        keeper = replace(sealer(party), rand=rand)
        vault = Both(FileVault.create(where, keeper)._store._disk, keeper)
        endpoint(federation, index, reborn(party, vault))
        where_of = where

        def at(path: Path = where_of) -> Path:
            return path

    assert isinstance(federation.round(1), Release)
    identities = [
        vars(party)["_identity"].reveal() for party in federation.parties.endpoints.values()
    ]
    seeds = [value for value in drawn if len(value) == 32]
    if protocol == "masking":
        assert any(seed in state for seed in seeds for state in clear)
    windows = {state[at : at + 16] for state in clear for at in range(0, len(state) - 16, 257)}
    for written in sealed:
        for secret in (*seeds, *identities):
            assert secret not in written
            assert secret.hex().encode() not in written
        assert not any(len(set(part)) > 4 and part in written for part in windows)


def test_a_vault_has_one_owner_at_a_time(tmp_path: Path) -> None:
    federation = federation_at(tmp_path, "masking")
    client = federation.parties.clients[1]
    first = FileVault.create(tmp_path / "vault", sealer(client))
    with pytest.raises(StateError, match="another process runs this party"):
        FileVault.open(tmp_path / "vault", sealer(client))
    first.close()
    with pytest.raises(StateError, match="open it to go on"):
        FileVault.create(tmp_path / "vault", sealer(client))
    again = FileVault.open(tmp_path / "vault", sealer(client))
    assert again.get() == b""
    again.close()
    with pytest.raises(StateError, match="does not exist"):
        FileVault.open(tmp_path / "elsewhere", sealer(client))
    assert (tmp_path / "vault" / FILE).stat().st_size > 0
    assert "redacted" in repr(first)


def test_a_vault_of_another_party_is_refused(tmp_path: Path) -> None:
    federation = federation_at(tmp_path, "masking")
    one, two = federation.parties.clients[1], federation.parties.clients[2]
    vault = FileVault.create(tmp_path / "vault", sealer(one))
    reborn(one, vault).handle(federation.aggregator.open_round(1, 1).begin()[1])
    vault.close()
    stranger = FileVault.open(tmp_path / "vault", sealer(two))
    with pytest.raises(CryptoError, match="another identity, run or party"):
        reborn(two, stranger)
    shared = MemoryVault()
    reborn(one, shared).handle(federation.aggregator.open_round(1, 1).begin()[1])
    with pytest.raises(CryptoError, match="another run or party"):
        reborn(two, shared)


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
