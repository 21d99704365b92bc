"""The simulated wire: each fault does what its name says, as often as it was asked to."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from crypto.errors import MessageRefused
from privacy.rng import SecureRandom
from secure_fedmeta.transport.memory import Delivery, MemoryTransport, RandomFaults, no_faults
from tests.contracts.test_transport import Echo, Refusing, exchange

DRAWS = 4000
RATE = 0.3
SLACK = 5 * np.sqrt(RATE * (1 - RATE) / DRAWS)  # 5 sigma: a false alarm in 10^6 runs
PLAIN = Delivery(1, True, 0, bytes(8))


def faults(key: bytes = bytes(32), **chances: float) -> RandomFaults:
    every = {"drop": 0.0, "delay": 0.0, "duplicate": 0.0, "tamper": 0.0}
    return RandomFaults(**{**every, **chances}, random=lambda _: SecureRandom.from_key(key))


def changed_bytes(delivery: Delivery) -> int:
    return sum(a != b for a, b in zip(delivery.payload, PLAIN.payload, strict=True))


@pytest.mark.parametrize(
    ("kind", "happened"),
    [
        ("drop", lambda out: len(out) == 0),
        ("duplicate", lambda out: len(out) == 2),
        ("delay", lambda out: out[0].delay == 1),
        ("tamper", lambda out: changed_bytes(out[0]) == 1),
    ],
)
def test_a_fault_happens_as_often_as_asked(kind: str, happened) -> None:  # type: ignore[no-untyped-def]
    wire = faults(**{kind: RATE})
    rate = np.mean([happened(wire(PLAIN)) for _ in range(DRAWS)])
    assert abs(rate - RATE) < SLACK
    assert not abs(rate - (RATE + 0.1)) < SLACK


def test_no_fault_leaves_the_message_alone() -> None:
    wire = faults()
    assert [wire(PLAIN) for _ in range(50)] == [[PLAIN]] * 50
    assert no_faults(PLAIN) == [PLAIN]


def test_tampering_changes_one_byte_anywhere() -> None:
    wire = faults(tamper=1.0)
    positions = set()
    for _ in range(200):
        (out,) = wire(PLAIN)
        assert changed_bytes(out) == 1
        positions.add(next(i for i, byte in enumerate(out.payload) if byte))
    assert positions == set(range(8))
    empty = Delivery(1, True, 0, b"")
    assert wire(empty) == [empty]


def test_the_same_generator_gives_the_same_faults() -> None:
    chances = {"drop": 0.3, "delay": 0.3, "duplicate": 0.3, "tamper": 0.3}
    first, second, third = faults(**chances), faults(**chances), faults(bytes(31) + b"1", **chances)
    runs = [[wire(PLAIN) for _ in range(50)] for wire in (first, second, third)]
    assert runs[0] == runs[1] != runs[2]


def late(steps: int, *, upload: bool) -> MemoryTransport:
    def wire(delivery: Delivery) -> list[Delivery]:
        held = steps if delivery.upload is upload and delivery.sequence == 0 else 0
        return [Delivery(1, delivery.upload, delivery.sequence, delivery.payload, held)]

    return MemoryTransport({1: Echo(1)}, faults=wire)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("upload", [False, True])
def test_what_is_late_arrives_that_many_steps_later(steps: int, upload: bool) -> None:
    transport = late(steps, upload=upload)
    arrivals = [exchange(transport, {1: b"first"})]
    arrivals += [exchange(transport, {}) for _ in range(steps + 1)]
    assert arrivals == [[]] * steps + [[(1, b"\x01first")], []]


def test_a_late_message_comes_beside_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = late(1, upload=True)
    assert exchange(transport, {1: b"first"}) == []
    assert sorted(exchange(transport, {1: b"second"})) == [(1, b"\x01first"), (1, b"\x01second")]


def test_sequence_numbers_count_per_client_and_direction() -> None:
    seen: list[tuple[int, bool, int]] = []

    def wire(delivery: Delivery) -> list[Delivery]:
        seen.append((delivery.client, delivery.upload, delivery.sequence))
        return [delivery]

    transport = MemoryTransport({1: Echo(1), 2: Echo(2)}, faults=wire)
    exchange(transport, {1: b"a"})
    exchange(transport, {1: b"b", 2: b"c"})
    assert sorted(seen) == [
        (1, False, 0), (1, False, 1), (1, True, 0), (1, True, 1), (2, False, 0), (2, True, 0),
    ]  # fmt: skip


def test_a_refusal_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[int, Exception]] = []
    error = MessageRefused(0, "share", "signature does not verify")
    transport = MemoryTransport(
        {1: Refusing(1, error)}, refused=lambda client, why: told.append((client, why))
    )
    with caplog.at_level(logging.INFO):
        assert exchange(transport, {1: b"m"}) == []
    assert told == [(1, error)]
    assert "event=message-refused client=1" in caplog.text
    assert "signature does not verify" in caplog.text


def test_a_bug_in_a_client_is_not_taken_for_a_drop() -> None:
    transport = MemoryTransport({1: Refusing(1, ZeroDivisionError())})
    transport.send({1: b"m"})
    with pytest.raises(ZeroDivisionError):
        list(transport.collect(frozenset({1})))


def test_repeats_are_received_twice_and_sent_twice() -> None:
    echo = Echo(1)
    transport = MemoryTransport({1: echo}, faults=faults(duplicate=1.0))
    assert exchange(transport, {1: b"ab"}) == [(1, b"\x01ab")] * 4
    assert transport.traffic[1].received == 4
    assert transport.traffic[1].sent == 6
