"""The interface of a secure sum: sans-I/O state machines, messages as bytes between them.

A driver carries messages and decides when to stop waiting; it can lose, repeat, delay or forge
them without ever getting a wrong sum:

    outgoing = aggregator.begin()
    loop: deliver outgoing.messages, hand every reply to aggregator.receive (MessageRefused: count
          and go on), call aggregator.advance() when all have answered or time is up:
          Outgoing: deliver again; Ready: make the intent durable, then deliver
          aggregator.authorise(digest of the intent, evidence for it); Done: the sum.

Messages go to clients and, in protocols that have them, to officers, who hold decryption keys and
no vector: for a driver an officer is one more party that answers. What a client or an officer
brings to an attempt is its seat. What makes these machines is a protocol: see crypto.protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from crypto.errors import Malformed
from crypto.keys import Identity, Rand, never_pickled

VectorSource = Callable[[], NDArray[np.int64]]
IntentCheck = Callable[[bytes, int], bytes]
"""(evidence, survivors) -> digest of the logged intent that it shows, 32 bytes.

How an intent is logged is not this package's business: a party brings the check with it. It raises
Malformed, with the reason, unless the evidence shows an intent to open, in this very attempt and
under the party's own terms, a sum of so many vectors.
"""


@dataclass(frozen=True)
class Seat:
    """What an officer brings to an attempt beside the terms. Its repr shows the index alone.

    Attributes:
        index: its place in the roster.
        identity: its signing key, whose public half the roster has at that place.
        rand: its source of keys and seeds.
        intent_check: what it asks whether a sum was logged before it helps to open it.
    """

    index: int
    identity: Identity = field(repr=False)
    rand: Rand = field(repr=False)
    intent_check: IntentCheck = field(repr=False)

    __reduce__ = never_pickled


@dataclass(frozen=True)
class ClientSeat(Seat):
    """What a client brings to an attempt beside the terms; see Seat.

    Attributes:
        vector: gives its vector, [length] int64; called once, after every check has passed.
    """

    vector: VectorSource = field(repr=False)


@dataclass(frozen=True)
class Outgoing:
    """Messages to deliver, keyed by roster index of the client or officer."""

    messages: Mapping[int, bytes]


@dataclass(frozen=True)
class Ready:
    """All inputs are in and nothing is opened: the moment to make the intent durable.

    Attributes:
        survivors: clients whose vectors will be in the sum, increasing.
        dropped: clients that fell silent, with the step at which they did.
        rejected: clients whose only answers were refused, with the reason of the last one.
    """

    survivors: tuple[int, ...]
    dropped: Mapping[int, str]
    rejected: Mapping[int, str]


@dataclass(frozen=True)
class Done:
    """The sum.

    Attributes:
        total: centred integers, [length] int64: the exact sum of the contributors' vectors.
        contributors: clients whose vectors are in it, increasing.
        unchecked: officers each of which could have changed the sum by itself without being
            noticed, increasing; none where no officer opens it.
    """

    total: NDArray[np.int64]
    contributors: tuple[int, ...]
    unchecked: tuple[int, ...]


class SumParty(Protocol):
    """A client or an officer in one attempt."""

    def step(self, message: bytes) -> bytes:
        """Answer the aggregator's message.

        Raises:
            MessageRefused: the message, or what it asks for, breaks this party's own terms;
                nothing changed and nothing was revealed. Or the vector's source refused: then this
                party is at its end, as after every other error of that source.
            OutOfOrder: this party has answered its last step.
            RingRefused: the vector has another shape, or a value that the ring does not hold; this
                party is at its end.
            SumAborted: of an officer: the sum does not open, and its key is gone.
        """
        ...

    def save(self) -> bytes:
        """Everything needed to go on in another process, with its secrets in clear.

        To be sealed before it leaves memory (see sealed_state), and durable before the answer to
        the last message is sent: an answer given twice, from two states, can reveal a vector.
        """
        ...


class SumClient(SumParty, Protocol):
    """One client in one attempt. Every step is answered at most once."""


class SumOfficer(SumParty, Protocol):
    """One officer in one attempt: it holds a key, checks what it opens, and knows no vector."""


class SumAggregator(Protocol):
    """The aggregator in one attempt."""

    @property
    def expecting(self) -> frozenset[int]:
        """Clients and officers not yet heard in this step."""
        ...

    def begin(self) -> Outgoing:
        """Open the attempt."""
        ...

    def receive(self, sender: int, message: bytes) -> None:
        """Take in an answer.

        Raises:
            MessageRefused: it changes nothing; a good answer may still follow. Whatever else this
                ends with, an interrupt included, ends the attempt.
        """
        ...

    def advance(self) -> Outgoing | Ready | Done:
        """Close the step with what has arrived.

        Raises:
            SumAborted: too few answers are left; the attempt is over.
            OutOfOrder: the attempt has not begun, waits for authorise, or is over.
        """
        ...

    def authorise(self, intent: bytes, evidence: bytes) -> Outgoing:
        """Open the sum: only after Ready.

        Args:
            intent: digest of the logged intent, 32 bytes, that every request is bound to.
            evidence: shows whoever is asked to open that it was logged; see IntentCheck.
        """
        ...

    def save(self) -> bytes:
        """Everything needed to go on; see SumParty.save.

        Of the clients' secrets it holds what they gave to open the sum, until the sum is opened.
        """
        ...


def check_intent(check: IntentCheck, evidence: bytes, intent: bytes, survivors: int) -> None:
    """Refuse to open what was not logged as it is opened.

    Raises:
        Malformed: the evidence shows no intent for this attempt, or another one than is asked for.
    """
    if check(evidence, survivors) != intent:
        raise Malformed("the evidence is for another intent")
