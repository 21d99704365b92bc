"""The reference sum: signed vectors in clear. It hides nothing; for tests and baselines only."""

from __future__ import annotations

from typing import Final

import numpy as np

from crypto.envelope import AGGREGATOR, Heading, Step, refusing, seal, unseal
from crypto.errors import KeyRefused, Malformed, OutOfOrder, RingRefused, SumAborted, TermsRefused
from crypto.inbox import Inbox
from crypto.keys import KEY_BYTES, Identity, Rand
from crypto.protocol import (
    Capabilities,
    Done,
    Outgoing,
    Ready,
    SumAggregator,
    SumClient,
    SumOfficer,
    VectorSource,
    check_aggregator,
    check_client,
    check_thresholds,
)
from crypto.terms import Terms


class PlainClient:
    """Sends its vector in clear, once; see SumClient."""

    def __init__(
        self, terms: Terms, *, index: int, identity: Identity, vector: VectorSource
    ) -> None:
        self._terms = terms
        self._index = index
        self._identity = identity
        self._vector = vector
        self._answered = False

    def __repr__(self) -> str:
        return f"PlainClient(index={self._index}, redacted)"

    def step(self, message: bytes) -> bytes:
        """Answer the aggregator's message; see SumClient.step."""
        if self._answered:
            raise OutOfOrder(f"client {self._index} has answered its last step")
        terms, step = self._terms, Step.PLAIN_INPUT
        heading = Heading(step, AGGREGATOR, self._index, _context(terms))
        with refusing(AGGREGATOR, step):
            if len(unseal(message, heading, terms.roster)):
                raise Malformed("the invitation is not empty")
        self._answered = True
        vector = self._vector()
        if vector.shape != (terms.length,):
            raise RingRefused(f"vector of shape {vector.shape}; allowed: ({terms.length},)")
        payload = terms.ring.pack(terms.ring.encode(vector))
        heading = Heading(step, self._index, AGGREGATOR, _context(terms))
        return seal(self._identity, heading, payload)


class PlainAggregator:
    """Adds vectors in clear; see SumAggregator."""

    def __init__(self, terms: Terms, *, identity: Identity) -> None:
        self._terms = terms
        self._identity = identity
        self._inbox: Inbox | None = None
        self._ready = False
        self._authorised = False
        self._over = False
        self._survivors: tuple[int, ...] = ()
        self._total = np.zeros(terms.length, dtype=np.uint64)

    @property
    def expecting(self) -> frozenset[int]:
        """Clients not yet heard."""
        return frozenset() if self._inbox is None else self._inbox.expecting

    def begin(self) -> Outgoing:
        """Ask every client for its vector."""
        if self._inbox is not None:
            raise OutOfOrder("the attempt has begun already")
        terms, step = self._terms, Step.PLAIN_INPUT
        self._inbox = Inbox(step, terms.cohort)
        messages = {
            client: seal(self._identity, Heading(step, AGGREGATOR, client, _context(terms)), b"")
            for client in terms.cohort
        }
        return Outgoing(messages)

    def receive(self, sender: int, message: bytes) -> None:
        """Take in a vector; see SumAggregator.receive."""
        terms, step = self._terms, Step.PLAIN_INPUT

        def check_and_keep() -> None:
            heading = Heading(step, sender, AGGREGATOR, _context(terms))
            with refusing(sender, step):
                payload = unseal(message, heading, terms.roster)
                terms.ring.add_into(self._total, terms.ring.unpack(payload, terms.length))

        self._open_inbox().take(sender, check_and_keep)

    def advance(self) -> Outgoing | Ready | Done:
        """Close the step with what has arrived; see SumAggregator.advance."""
        inbox = self._open_inbox()
        if self._ready:
            raise OutOfOrder("the sum is ready and waits for authorise")
        if self._authorised:
            self._over = True
            return Done(self._terms.ring.decode(self._total), self._survivors)
        self._survivors = inbox.close()
        if len(self._survivors) < self._terms.quorum:
            self._over = True
            raise SumAborted(
                inbox.step.label,
                f"{len(self._survivors)} clients answered, {self._terms.quorum} needed",
            )
        self._ready = True
        return Ready(self._survivors, dict(inbox.dropped), dict(inbox.rejected))

    def authorise(self, intent: bytes) -> Outgoing:
        """Nothing is left to ask: the sum lies open. See SumAggregator.authorise."""
        if not self._ready or self._over:
            raise OutOfOrder("nothing is ready to be opened")
        if type(intent) is not bytes or len(intent) != KEY_BYTES:
            raise KeyRefused(f"intent digest is not {KEY_BYTES} bytes")
        self._ready = False
        self._authorised = True
        return Outgoing({})

    def _open_inbox(self) -> Inbox:
        if self._inbox is None:
            raise OutOfOrder("the attempt has not begun")
        if self._over:
            raise OutOfOrder("the attempt is over")
        return self._inbox


class Plain:
    """The sum in clear, under the same terms and signatures; see SecureSum."""

    name: Final = "plain"

    def check(self, terms: Terms) -> None:
        """Refuse what every secure sum refuses, so that terms can be tried out in clear."""
        check_thresholds(terms)

    def default_threshold(self, clients: int, max_colluders: int) -> int:
        """The same as that of masking."""
        return (clients + max_colluders) // 2 + 1

    def capabilities(self) -> Capabilities:
        """Nothing is hidden."""
        return Capabilities(
            aggregator="honest-but-curious",
            clients="malicious",
            collusion="none: the aggregator alone sees everything",
            drops=True,
            hides_updates=False,
            notes=("The aggregator sees every vector in clear. Never for private data.",),
        )

    def officers(self) -> int:
        """No party holds a decryption key."""
        return 0

    def client(
        self, terms: Terms, *, index: int, identity: Identity, vector: VectorSource, rand: Rand
    ) -> SumClient:
        """A client of the attempt; it draws nothing from rand. See SecureSum."""
        self.check(terms)
        check_client(terms, index, identity)
        return PlainClient(terms, index=index, identity=identity, vector=vector)

    def officer(self, terms: Terms, *, index: int, identity: Identity, rand: Rand) -> SumOfficer:
        """Refuse: there are no officers. See SecureSum."""
        raise TermsRefused(f"officer {index} of {self.name!r}, which has no officers")

    def aggregator(self, terms: Terms, *, identity: Identity) -> SumAggregator:
        """The aggregator of the attempt; see SecureSum."""
        self.check(terms)
        check_aggregator(terms, identity)
        return PlainAggregator(terms, identity=identity)


def _context(terms: Terms) -> bytes:
    return terms.ctx2(b"", b"plain")
