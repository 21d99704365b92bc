"""The interface of a secure sum: sans-I/O state machines, messages as bytes between them.

A driver carries messages and decides when to stop waiting; it can lose, repeat, delay or forge
them without ever getting a wrong sum:

    outgoing = aggregator.begin()
    loop: deliver outgoing.messages, hand every reply to aggregator.receive (MessageRefused: count
          and go on), call aggregator.advance() when all have answered or time is up:
          Outgoing: deliver again; Ready: make the intent durable, then deliver
          aggregator.authorise(digest of the intent, evidence for it); Done: the sum.

Messages go to clients and, in protocols that have them, to officers, who hold decryption keys and
no vector: for a driver an officer is one more party that answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from crypto.errors import Malformed, TermsRefused
from crypto.keys import Identity, Rand
from crypto.terms import Committee, Sharing, Terms

VectorSource = Callable[[], NDArray[np.int64]]
IntentCheck = Callable[[bytes, int], bytes]
"""(evidence, survivors) -> digest of the logged intent that it shows, 32 bytes.

How an intent is logged is not this package's business: a party brings the check with it. It raises
Malformed, with the reason, unless the evidence shows an intent to open, in this very attempt and
under the party's own terms, a sum of so many vectors.
"""
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


class SumClient(Protocol):
    """One client in one attempt. Every step is answered at most once."""

    def step(self, message: bytes) -> bytes:
        """Answer the aggregator's message.

        Raises:
            MessageRefused: the message, or what it asks for, breaks this client's own terms;
                nothing changed and nothing was revealed.
            OutOfOrder: this client has answered its last step.
        """
        ...

    def save(self) -> bytes:
        """Everything needed to go on in another process, with its secrets in clear.

        To be sealed before it leaves memory (see sealed_state), and durable before the answer to
        the last message is sent: an answer given twice, from two states, can reveal a vector.
        """
        ...


class SumOfficer(Protocol):
    """One officer in one attempt: it holds a key, checks what it opens, and knows no vector."""

    def step(self, message: bytes) -> bytes:
        """Answer the aggregator's message.

        Raises:
            MessageRefused: the message, or what it asks for, breaks this officer's own terms;
                nothing changed and nothing was revealed.
            OutOfOrder: this officer has answered its last step.
        """
        ...

    def save(self) -> bytes:
        """Everything needed to go on, keys in clear; see SumClient.save."""
        ...


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
            MessageRefused: it changes nothing; a good answer may still follow.
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
        """Everything needed to go on; see SumClient.save. It holds no client's secret."""
        ...


class SecureSum(Protocol):
    """A protocol that adds integer vectors; a new one is one file and one registry line."""

    @property
    def name(self) -> str:
        """Name in configurations and logs."""
        ...

    def check(self, terms: Terms) -> None:
        """Refuse terms under which the protocol does not keep its promises.

        Raises:
            TermsRefused: naming the value and what is allowed.
        """
        ...

    def sharing(self, clients: int, max_colluders: int, min_survivors: int) -> Sharing:
        """How this protocol shares secrets in such a cohort; check allows it.

        Raises:
            TermsRefused: no sharing keeps the promises; says why, with the numbers.
        """
        ...

    def capabilities(self) -> Capabilities:
        """What this protocol withstands."""
        ...

    def upload_bytes(self, terms: Terms) -> int:
        """Bytes of one client's protected vector, without what signs and frames it."""
        ...

    def committee(self, members: int, threshold: int) -> Committee:
        """The officers that a roster must name.

        Args:
            members: how many are configured, for protocols that leave it open.
            threshold: how many of them are to open a sum together, likewise.

        Raises:
            TermsRefused: the protocol does not keep its promises with such a committee.
        """
        ...

    def client(
        self,
        terms: Terms,
        *,
        index: int,
        identity: Identity,
        vector: VectorSource,
        rand: Rand,
        intent_check: IntentCheck,
    ) -> SumClient:
        """A client of the attempt; `vector` is called once, after every check has passed."""
        ...

    def officer(
        self,
        terms: Terms,
        *,
        index: int,
        identity: Identity,
        rand: Rand,
        intent_check: IntentCheck,
    ) -> SumOfficer:
        """An officer of the attempt.

        Raises:
            TermsRefused: the protocol has no officers, or this is not one of them.
        """
        ...

    def aggregator(self, terms: Terms, *, identity: Identity) -> SumAggregator:
        """The aggregator of the attempt."""
        ...

    def check_invitation(self, terms: Terms, *, index: int, message: bytes) -> None:
        """Refuse a first message that the aggregator has not signed for this attempt and party.

        It costs one signature check and reading the message: ask it before anything is made or
        computed for an attempt.

        Raises:
            MessageRefused: naming what is wrong.
        """
        ...

    def restore_client(
        self,
        terms: Terms,
        *,
        index: int,
        identity: Identity,
        vector: VectorSource,
        rand: Rand,
        intent_check: IntentCheck,
        state: bytes,
    ) -> SumClient:
        """The client that `state` was saved of; `vector` is called if it was not before.

        Raises:
            StateRefused: the state is of another attempt, model, party, protocol or version, or
                damaged.
        """
        ...

    def restore_officer(
        self,
        terms: Terms,
        *,
        index: int,
        identity: Identity,
        rand: Rand,
        intent_check: IntentCheck,
        state: bytes,
    ) -> SumOfficer:
        """The officer that `state` was saved of; see restore_client."""
        ...

    def restore_aggregator(
        self, terms: Terms, *, identity: Identity, state: bytes
    ) -> SumAggregator:
        """The aggregator that `state` was saved of; see restore_client."""
        ...


def check_intent(check: IntentCheck, evidence: bytes, intent: bytes, survivors: int) -> None:
    """Refuse to open what was not logged as it is opened.

    Raises:
        Malformed: the evidence shows no intent for this attempt, or another one than is asked for.
    """
    if check(evidence, survivors) != intent:
        raise Malformed("the evidence is for another intent")


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


def check_client(terms: Terms, index: int, identity: Identity) -> None:
    """Refuse a client that is not in the cohort, or whose key is not the roster's.

    Raises:
        TermsRefused: naming the index.
    """
    if index not in terms.cohort:
        raise TermsRefused(f"client {index} is not in the cohort {terms.cohort}")
    if terms.roster.public_of(index) != identity.public:
        raise TermsRefused(f"the identity of client {index} is not the one in the roster")


def check_officer(terms: Terms, index: int, identity: Identity) -> None:
    """Refuse an officer that is not in the roster, or whose key is not the roster's.

    Raises:
        TermsRefused: naming the index.
    """
    allowed = terms.roster.officer_indices
    if index not in allowed:
        raise TermsRefused(f"officer {index} is not in the roster; allowed: {allowed}")
    if terms.roster.public_of(index) != identity.public:
        raise TermsRefused(f"the identity of officer {index} is not the one in the roster")


def check_aggregator(terms: Terms, identity: Identity) -> None:
    """Refuse an aggregator whose key is not the roster's.

    Raises:
        TermsRefused: the identity is another one.
    """
    if terms.roster.aggregator != identity.public:
        raise TermsRefused("the aggregator's identity is not the one in the roster")
