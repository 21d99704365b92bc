"""Parties whose processes end anywhere: with vaults in memory, on failing disks, on files."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crypto.errors import CryptoError, MessageRefused
from secure_fedmeta.errors import FedmetaError, StateError
from secure_fedmeta.messages import decode
from secure_fedmeta.outcome import Release
from secure_fedmeta.party import Party
from secure_fedmeta.transport.memory import Delivery
from secure_fedmeta.vault import FILE, FileVault, MemoryVault
from tests.audit.disk import FATES, Fate, PowerCut, SimulatedDisk
from tests.secure_fedmeta.restarts import (
    UPLOADS,
    endpoint,
    federation_at,
    long_federation,
    protocols,
    reborn,
    sealer,
)

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
