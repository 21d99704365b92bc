"""How messages travel. A transport only carries bytes; it never reads or changes what they mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass
class Traffic:
    """Bytes that crossed the wire for one party.

    Attributes:
        sent: bytes that the party uploaded.
        received: bytes that were delivered to the party.
    """

    sent: int = 0
    received: int = 0


class Endpoint(Protocol):
    """A client or officer as a transport sees it: a message in, its reply out."""

    def handle(self, message: bytes) -> bytes:
        """Answer one message of the aggregator; raises where the party refuses it."""
        ...


class Transport(Protocol):
    """Carries messages between the aggregator and its parties, by roster index."""

    @property
    def traffic(self) -> Mapping[int, Traffic]:
        """What crossed the wire so far, per party."""
        ...

    def begin(self, round_index: int) -> None:
        """A round begins: what is still on its way from the one before does not arrive any more."""
        ...

    def send(self, messages: Mapping[int, bytes]) -> None:
        """Hand over one message per party; nothing is promised about its arrival."""
        ...

    def collect(self, expecting: frozenset[int]) -> Iterator[tuple[int, bytes]]:
        """Replies as they arrive, until all of `expecting` were heard or the step's deadline.

        Whatever arrives is yielded, expected or not, once or twice, in any order: the protocol
        above decides what it means.
        """
        ...
