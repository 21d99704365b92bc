"""What a secure sum is as a protocol: what it promises, and the classes of its parties.

That the terms keep the promises, and that whoever takes part is in the roster with its own key, is
checked here alone, before a party is made or restored. The parties are those of crypto.machines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from crypto.errors import TermsRefused
from crypto.keys import Identity
from crypto.machines import ClientSeat, Seat, SumAggregator, SumClient, SumOfficer
from crypto.terms import Committee, Sharing, Terms

Behaviour = Literal["honest-but-curious", "malicious"]


@dataclass(frozen=True)
class Capabilities:
    """What a protocol withstands, in the words that reports and logs repeat.

    Attributes:
        aggregator: strongest aggregator against which single vectors stay hidden.
        clients: strongest clients against which the vectors of the others stay hidden.
        collusion: which parties may work together.
        drops: whether clients may vanish at any step.
        hides_updates: whether the aggregator is kept from seeing single vectors at all.
        notes: what is not promised.
    """

    aggregator: Behaviour
    clients: Behaviour
    collusion: str
    drops: bool
    hides_updates: bool
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Strings, booleans and one list of strings."""
        return {**asdict(self), "notes": list(self.notes)}


Brought = TypeVar("Brought", contravariant=True)
Machine = TypeVar("Machine", covariant=True)


class MachineClass(Protocol[Brought, Machine]):
    """The class of a protocol's clients, officers or aggregators.

    Its callers have checked the terms, and what the party brings against the roster.
    """

    def __call__(self, terms: Terms, brought: Brought, /) -> Machine:
        """A party of the attempt."""
        ...

    def restored(self, terms: Terms, brought: Brought, state: bytes, /) -> Machine:
        """The party that `state` was saved of.

        Raises:
            StateRefused: see SecureSum.restore_client.
        """
        ...


class SecureSum(ABC):
    """A protocol that adds integer vectors; a new one is one file and one registry line.

    Of every party that is made or restored, it is checked first that the terms keep the promises,
    and that the party is in the roster with this key.

    Attributes:
        name: in configurations and logs.
    """

    name: ClassVar[str]

    @abstractmethod
    def check(self, terms: Terms) -> None:
        """Refuse terms under which the protocol does not keep its promises.

        Raises:
            TermsRefused: naming the value and what is allowed.
        """

    @abstractmethod
    def sharing(self, clients: int, max_colluders: int, min_survivors: int) -> Sharing:
        """How this protocol shares secrets in such a cohort; check allows it.

        Raises:
            TermsRefused: no sharing keeps the promises; says why, with the numbers.
        """

    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this protocol withstands."""

    @abstractmethod
    def upload_bytes(self, terms: Terms) -> int:
        """Bytes of one client's protected vector, without what signs and frames it."""

    def committee(self, members: int, threshold: int) -> Committee:
        """The officers that a roster must name; none, unless the protocol has an officer_class.

        Args:
            members: how many are configured, for protocols that leave it open.
            threshold: how many of them are to open a sum together, likewise.

        Raises:
            TermsRefused: the protocol does not keep its promises with such a committee.
        """
        del members, threshold
        return Committee(members=0, threshold=0)

    @abstractmethod
    def check_invitation(self, terms: Terms, *, index: int, message: bytes) -> None:
        """Refuse a first message that the aggregator has not signed for this attempt and party.

        It costs one signature check and reading the message: ask it before anything is made or
        computed for an attempt.

        Raises:
            MessageRefused: naming what is wrong.
        """

    @abstractmethod
    def client_class(self) -> MachineClass[ClientSeat, SumClient]:
        """Its clients. What only they need is imported here; so for the other two."""

    def officer_class(self) -> MachineClass[Seat, SumOfficer] | None:
        """Its officers; None, the default, where no party holds a key that opens anything."""
        return None

    @abstractmethod
    def aggregator_class(self) -> MachineClass[Identity, SumAggregator]:
        """Its aggregators."""

    def client(self, terms: Terms, seat: ClientSeat) -> SumClient:
        """A client of the attempt.

        Raises:
            TermsRefused: by check, or the seat is not that of a client in the cohort.
        """
        return self._clients(terms, seat)(terms, seat)

    def officer(self, terms: Terms, seat: Seat) -> SumOfficer:
        """An officer of the attempt.

        Raises:
            TermsRefused: by check, the protocol has no officers, or the seat is not one's.
        """
        return self._officers(terms, seat)(terms, seat)

    def aggregator(self, terms: Terms, identity: Identity) -> SumAggregator:
        """The aggregator of the attempt.

        Raises:
            TermsRefused: by check, or the identity is not the aggregator's.
        """
        return self._aggregators(terms, identity)(terms, identity)

    def restore_client(self, terms: Terms, seat: ClientSeat, state: bytes) -> SumClient:
        """The client that `state` was saved of; its vector is asked for if it was not before.

        Raises:
            TermsRefused: as by client.
            StateRefused: the state is of another attempt, model, party, protocol or version, or
                damaged.
        """
        return self._clients(terms, seat).restored(terms, seat, state)

    def restore_officer(self, terms: Terms, seat: Seat, state: bytes) -> SumOfficer:
        """The officer that `state` was saved of; see restore_client."""
        return self._officers(terms, seat).restored(terms, seat, state)

    def restore_aggregator(self, terms: Terms, identity: Identity, state: bytes) -> SumAggregator:
        """The aggregator that `state` was saved of; see restore_client."""
        return self._aggregators(terms, identity).restored(terms, identity, state)

    def _clients(self, terms: Terms, seat: Seat) -> MachineClass[ClientSeat, SumClient]:
        self.check(terms)
        if seat.index not in terms.cohort:
            raise TermsRefused(f"client {seat.index} is not in the cohort {terms.cohort}")
        _check_key(terms, seat, "client")
        return self.client_class()

    def _officers(self, terms: Terms, seat: Seat) -> MachineClass[Seat, SumOfficer]:
        officers = self.officer_class()
        if officers is None:
            raise TermsRefused(f"officer {seat.index} of {self.name!r}, which has no officers")
        self.check(terms)
        allowed = terms.roster.officer_indices
        if seat.index not in allowed:
            raise TermsRefused(f"officer {seat.index} is not in the roster; allowed: {allowed}")
        _check_key(terms, seat, "officer")
        return officers

    def _aggregators(
        self, terms: Terms, identity: Identity
    ) -> MachineClass[Identity, SumAggregator]:
        self.check(terms)
        if terms.roster.aggregator != identity.public:
            raise TermsRefused("the aggregator's identity is not the one in the roster")
        return self.aggregator_class()


def _check_key(terms: Terms, seat: Seat, part: str) -> None:
    if terms.roster.public_of(seat.index) != seat.identity.public:
        raise TermsRefused(f"the identity of {part} {seat.index} is not the one in the roster")


def check_cohort(terms: Terms) -> None:
    """A sum of fewer than three vectors hides none of them from the other client.

    Raises:
        TermsRefused: naming the size and what is allowed.
    """
    n = len(terms.cohort)
    if n < 3:
        raise TermsRefused(
            f"cohort of {n} clients; allowed: 3 or more. In a sum of two, each client gets the"
            " other's vector by subtracting its own"
        )


def check_survivors(terms: Terms) -> None:
    """Conditions on the sum that is opened: two vectors at least that nobody in it knows.

    One curious client subtracts its own vector even where none is said to collude.

    Raises:
        TermsRefused: naming the value and what is allowed.
    """
    n, t, c = len(terms.cohort), terms.threshold, terms.max_colluders
    if t > n:
        raise TermsRefused(f"threshold {t} of {n} clients; allowed: 1 to {n}")
    if not t <= terms.min_survivors <= n:
        raise TermsRefused(f"min_survivors is {terms.min_survivors}; allowed: {t} to {n}")
    known = max(c, 1)
    if terms.min_survivors - known < 2:
        raise TermsRefused(
            f"min_survivors {terms.min_survivors} less {known} leaves fewer than 2 honest vectors"
            " in a sum; the colluders, or one curious client, would get a single one by subtraction"
        )
