"""What every registered transport must do: carry bytes, unchanged, and decide nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from crypto.errors import MessageRefused
from privacy.rng import SecureRandom
from secure_fedmeta.config import TransportConfig
from secure_fedmeta.errors import ConfigError, DataError
from secure_fedmeta.randomness import Randomness
from secure_fedmeta.transport import Endpoint, Transport
from secure_fedmeta.transport.registry import TRANSPORTS
from tests.secure_fedmeta.federation import CLIENTS, Federation


class Echo:
    """Answers with its index and what it was sent."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.heard: list[bytes] = []

    def handle(self, message: bytes) -> bytes:
        self.heard.append(message)
        return bytes([self.index]) + message


class Refusing(Echo):
    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(index)
        self._error = error

    def handle(self, message: bytes) -> bytes:
        super().handle(message)
        raise self._error


@pytest.fixture(params=TRANSPORTS.names())
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def build(name: str, endpoints: Mapping[int, Endpoint], **faults: float) -> Transport:
    config = TransportConfig(name=name, **faults)
    return TRANSPORTS.get(name)(
        endpoints, config, faults=lambda _: SecureRandom.from_key(bytes(32))
    )


def exchange(transport: Transport, messages: Mapping[int, bytes]) -> list[tuple[int, bytes]]:
    transport.send(messages)
    return list(transport.collect(frozenset(messages)))


def test_bytes_arrive_unchanged_and_so_do_replies(name: str) -> None:
    echoes = {index: Echo(index) for index in (1, 2, 5)}
    transport = build(name, echoes)
    messages = {1: b"", 2: bytes(range(256)), 5: b"x" * 100_000}
    replies = exchange(transport, messages)
    assert sorted(replies) == [(i, bytes([i]) + message) for i, message in messages.items()]
    assert {index: echo.heard for index, echo in echoes.items()} == {
        index: [message] for index, message in messages.items()
    }


def test_only_the_addressed_hear_a_message(name: str) -> None:
    echoes = {index: Echo(index) for index in (1, 2)}
    assert exchange(build(name, echoes), {2: b"m"}) == [(2, b"\x02m")]
    assert echoes[1].heard == []


def test_nothing_sent_is_nothing_collected(name: str) -> None:
    transport = build(name, {1: Echo(1)})
    assert list(transport.collect(frozenset())) == []
    transport.send({})
    assert list(transport.collect(frozenset())) == []


def test_steps_do_not_mix(name: str) -> None:
    transport = build(name, {1: Echo(1), 2: Echo(2)})
    assert sorted(exchange(transport, {1: b"a", 2: b"b"})) == [(1, b"\x01a"), (2, b"\x02b")]
    assert sorted(exchange(transport, {1: b"c", 2: b"d"})) == [(1, b"\x01c"), (2, b"\x02d")]


def test_what_is_late_does_not_arrive_in_another_round(name: str) -> None:
    """So that a round goes as it would have gone in another process."""
    echoes = {index: Echo(index) for index in (1, 2)}
    transport = build(name, echoes, delay=0.999999999)
    transport.begin(1)
    assert exchange(transport, {1: b"a", 2: b"b"}) == []
    transport.begin(2)
    assert [list(transport.collect(frozenset())) for _ in range(3)] == [[], [], []]
    assert [echo.heard for echo in echoes.values()] == [[], []]


def test_faults_of_a_round_do_not_depend_on_earlier_ones(name: str) -> None:
    config = TransportConfig(name=name, drop=0.5)

    def second(before: int) -> list[tuple[int, bytes]]:
        echoes = {index: Echo(index) for index in range(1, 20)}
        transport = TRANSPORTS.get(name)(echoes, config, faults=Randomness(3).rounds("faults"))
        transport.begin(1)
        for _ in range(before):
            exchange(transport, dict.fromkeys(echoes, b"x"))
        transport.begin(2)
        return exchange(transport, dict.fromkeys(echoes, b"y"))

    assert second(0) == second(1) == second(3)
    assert 0 < len(second(0)) < 19


@pytest.mark.parametrize("error", [MessageRefused(0, "step", "no"), DataError("no task")])
def test_a_client_that_refuses_does_not_stop_the_others(name: str, error: Exception) -> None:
    endpoints = {1: Refusing(1, error), 2: Echo(2)}
    transport = build(name, endpoints)
    assert exchange(transport, {1: b"m", 2: b"m"}) == [(2, b"\x02m")]
    assert endpoints[1].heard == [b"m"]


def test_collecting_ends_although_not_all_answer(name: str) -> None:
    transport = build(name, {1: Refusing(1, MessageRefused(0, "step", "no"))})
    transport.send({1: b"m"})
    assert list(transport.collect(frozenset({1, 2, 3}))) == []


def test_traffic_counts_what_crossed_the_wire(name: str) -> None:
    transport = build(name, {1: Echo(1), 2: Refusing(2, MessageRefused(0, "step", "no"))})
    assert (transport.traffic[1].sent, transport.traffic[1].received) == (0, 0)
    exchange(transport, {1: b"abc", 2: b"abc"})
    exchange(transport, {1: b"de"})
    assert (transport.traffic[1].sent, transport.traffic[1].received) == (7, 5)
    assert (transport.traffic[2].sent, transport.traffic[2].received) == (0, 3)


def test_configured_faults_never_invent_a_message(name: str) -> None:
    """Drops, delays and repeats: whatever arrives was sent, to and by that client."""
    echoes = {index: Echo(index) for index in range(1, 9)}
    transport = build(name, echoes, drop=0.3, delay=0.3, duplicate=0.3)
    sent: dict[int, set[bytes]] = {index: set() for index in echoes}
    for step in range(30):
        messages = {index: bytes([step, index]) for index in echoes}
        for index, message in messages.items():
            sent[index].add(message)
        for index, reply in exchange(transport, messages):
            assert reply[0] == index
            assert reply[1:] in sent[index]
    for index, echo in echoes.items():
        assert set(echo.heard) < sent[index]


def test_a_round_runs_over_it(name: str, tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.transport = build(name, federation.parties.endpoints)  # type: ignore[assignment]
    federation.round(1)
    ((_, done),) = federation.spy.sums
    assert len(done.contributors) == CLIENTS
    federation.spy.check_sums()


def test_an_unknown_transport_is_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'memory'") as caught:
        TRANSPORTS.get("memmory")
    assert caught.value.key == "transport.name"
