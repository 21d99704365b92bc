"""What clients and officers of every secure sum do alike: take a seat, outlive a process.

A protocol's parties add their steps, and what of their state must be saved.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from crypto.codec import Reader, Writer
from crypto.errors import OutOfOrder, RingRefused
from crypto.machines import ClientSeat, Seat
from crypto.saved_state import begin_state, reading_state
from crypto.terms import Terms

Vector = NDArray[np.int64]
AnySeat = TypeVar("AnySeat", bound=Seat)


class PartyAttempt(ABC, Generic[AnySeat]):
    """A client or an officer in one attempt; a protocol adds its steps. See SumClient, SumOfficer.

    Args:
        terms: what the party read in its own config, checked.
        seat: what it brings, checked against the roster.

    Attributes:
        kind: what its saved states call themselves.
    """

    kind: ClassVar[str]

    def __init__(self, terms: Terms, seat: AnySeat) -> None:
        self._terms = terms
        self._index = seat.index
        self._identity = seat.identity
        self._rand = seat.rand
        self._intent_check = seat.intent_check

    def save(self) -> bytes:
        """Everything needed to go on, secrets in clear; see SumParty.save."""
        writer = begin_state(self.kind, self._terms, self._index)
        self._write(writer)
        return writer.done()

    @classmethod
    def restored(cls, terms: Terms, seat: AnySeat, state: bytes) -> Self:
        """The party that `save` was called on; see SecureSum.restore_client."""
        party = cls(terms, seat)
        with reading_state(state, cls.kind, terms, seat.index) as reader:
            party._read(reader)
        return party

    @abstractmethod
    def step(self, message: bytes) -> bytes:
        """Answer the aggregator's message; see SumParty.step."""

    @abstractmethod
    def _write(self, writer: Writer) -> None:
        """Append to a saved state what this party needs to go on."""

    @abstractmethod
    def _read(self, reader: Reader) -> None:
        """Inverse of _write."""


class ClientAttempt(PartyAttempt[ClientSeat]):
    """A client in one attempt; see PartyAttempt."""

    def __init__(self, terms: Terms, seat: ClientSeat) -> None:
        super().__init__(terms, seat)
        self._vector = seat.vector

    def _take_vector(self) -> Vector:
        """The vector, [length] int64. Ask for it once: a second one would have other noise.

        Raises:
            RingRefused: it has another length.
        """
        vector = self._vector()
        if vector.shape != (self._terms.length,):
            raise RingRefused(f"vector of shape {vector.shape}; allowed: ({self._terms.length},)")
        return vector


class OneAnswerClient(ClientAttempt):
    """A client that is asked once, for its vector, and keeps no secret; see ClientAttempt."""

    def __init__(self, terms: Terms, seat: ClientSeat) -> None:
        super().__init__(terms, seat)
        self._answered = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}(index={self._index}, redacted)"

    def step(self, message: bytes) -> bytes:
        """Answer the aggregator's message; see SumParty.step."""
        if self._answered:
            raise OutOfOrder(f"client {self._index} has answered its last step")
        answer = self._checked(message)
        # From here on the vector exists; whatever happens to it, it is asked for only once.
        self._answered = True
        return answer(self._take_vector())

    @abstractmethod
    def _checked(self, message: bytes) -> Callable[[Vector], bytes]:
        """Check the message; what makes the answer of the vector.

        Raises:
            MessageRefused: the message breaks this client's own terms.
        """

    def _write(self, writer: Writer) -> None:
        writer.flag(self._answered)

    def _read(self, reader: Reader) -> None:
        self._answered = reader.flag()
