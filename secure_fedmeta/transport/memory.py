"""All parties in one process, with drops, delays, duplicates and tampering on demand.

The real clients and the real aggregator run behind the real interface; only the wire is simulated.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from crypto.errors import CryptoError
from crypto.progress import Ticker
from privacy.rng import SecureRandom
from secure_fedmeta.errors import FedmetaError
from secure_fedmeta.transport import Endpoint, Traffic

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delivery:
    """One message on the wire.

    Attributes:
        client: roster index of the client that sends or receives it.
        upload: True from client to aggregator.
        sequence: how many messages this client had on the wire in this direction before.
        payload: the bytes.
        delay: steps (calls of `collect`) that it arrives late; 0 is on time.
        round: the round that it was sent in; 0 before the first.
    """

    client: int
    upload: bool
    sequence: int
    payload: bytes
    delay: int = 0
    round: int = 0


class Faults(Protocol):
    """What the wire does to a message: no delivery drops it, two duplicate it."""

    def __call__(self, delivery: Delivery) -> list[Delivery]:
        """The deliveries that take the place of this one."""
        ...


def no_faults(delivery: Delivery) -> list[Delivery]:
    """A perfect wire."""
    return [delivery]


class RandomFaults:
    """Independent faults per message, for experiments and tests; probabilities as in the config.

    Args:
        drop: probability that a message is lost.
        delay: probability that it arrives one step late.
        duplicate: probability that it arrives twice.
        tamper: probability that one of its bytes is changed.
        random: gives the generator of each round's faults; not a secret.
    """

    def __init__(
        self,
        *,
        drop: float,
        delay: float,
        duplicate: float,
        tamper: float,
        random: Callable[[int], SecureRandom],
    ) -> None:
        self._drop, self._delay, self._duplicate, self._tamper = drop, delay, duplicate, tamper
        self._of_round = random
        self._round = 0
        self._random = random(0)

    def _happens(self, probability: float) -> bool:
        return bool(self._random.fractions(1)[0] < probability)

    def _below(self, limit: int) -> int:
        return int(self._random.fractions(1)[0] * limit)

    def __call__(self, delivery: Delivery) -> list[Delivery]:
        """Apply the faults to one delivery."""
        if delivery.round != self._round:
            self._round, self._random = delivery.round, self._of_round(delivery.round)
        if self._happens(self._drop):
            return []
        payload = delivery.payload
        if payload and self._happens(self._tamper):
            position = self._below(len(payload))
            changed = payload[position] ^ (1 + self._below(255))
            payload = payload[:position] + bytes([changed]) + payload[position + 1 :]
        delay = 1 if self._happens(self._delay) else 0
        copies = 2 if self._happens(self._duplicate) else 1
        return [replace(delivery, payload=payload, delay=delay)] * copies


class MemoryTransport:
    """Drives endpoints in the calling thread.

    Args:
        endpoints: roster index -> client.
        faults: what the wire does to each message, in both directions.
        refused: told (client, error) when a client refuses a message, so that it can be counted.
    """

    def __init__(
        self,
        endpoints: Mapping[int, Endpoint],
        *,
        faults: Faults = no_faults,
        refused: Callable[[int, Exception], None] | None = None,
    ) -> None:
        self._endpoints = endpoints
        self._faults = faults
        self._refused = refused
        self._round = 0
        self._sequence: dict[tuple[int, bool], int] = {}
        self._downloads: deque[Delivery] = deque()
        self._uploads: deque[Delivery] = deque()
        self.traffic: Mapping[int, Traffic] = {index: Traffic() for index in endpoints}

    def begin(self, round_index: int) -> None:
        """The wire is empty when a round begins, so that no round depends on one before."""
        self._round = round_index
        self._downloads.clear()
        self._uploads.clear()

    def send(self, messages: Mapping[int, bytes]) -> None:
        """Put one message per client on the wire."""
        for client, payload in messages.items():
            self._downloads.extend(self._wire(client, payload, upload=False))

    def collect(self, expecting: frozenset[int]) -> Iterator[tuple[int, bytes]]:
        """Deliver what is due, let the clients answer, and yield the replies that are due.

        In memory nothing is worth waiting for: the step's deadline is when nothing is on its way.
        """
        del expecting
        due = self._due(self._downloads)
        ticker = Ticker("messages answered: message", len(due))
        for delivery in due:
            reply = self._deliver(delivery)
            ticker.add(1)
            if reply is not None:
                self._uploads.extend(self._wire(delivery.client, reply, upload=True))
        for delivery in self._due(self._uploads):
            yield delivery.client, delivery.payload

    def _wire(self, client: int, payload: bytes, *, upload: bool) -> list[Delivery]:
        sequence = self._sequence.get((client, upload), 0)
        self._sequence[client, upload] = sequence + 1
        if upload:
            self.traffic[client].sent += len(payload)
        return self._faults(Delivery(client, upload, sequence, payload, round=self._round))

    def _due(self, wire: deque[Delivery]) -> list[Delivery]:
        due = [d for d in wire if d.delay <= 0]
        late = [replace(d, delay=d.delay - 1) for d in wire]
        wire.clear()
        wire.extend(d for d in late if d.delay >= 0)
        return due

    def _deliver(self, delivery: Delivery) -> bytes | None:
        self.traffic[delivery.client].received += len(delivery.payload)
        try:
            return self._endpoints[delivery.client].handle(delivery.payload)
        except (CryptoError, FedmetaError) as error:
            _log.info("event=message-refused client=%d error=%s", delivery.client, error)
            if self._refused is not None:
                self._refused(delivery.client, error)
            return None
