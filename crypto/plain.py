"""The reference sum: signed vectors in clear. It hides nothing; for tests and baselines only."""

from __future__ import annotations

from typing import Final

import numpy as np

from crypto.attempt import AggregatorAttempt, Reader
from crypto.codec import Reader as StateReader
from crypto.codec import Writer
from crypto.envelope import AGGREGATOR, Heading, Step, refusing, seal, unseal
from crypto.errors import Malformed, OutOfOrder, RingRefused, TermsRefused
from crypto.keys import Identity, Rand
from crypto.protocol import (
    Capabilities,
    Done,
    IntentCheck,
    Outgoing,
    Ready,
    SumAggregator,
    SumClient,
    SumOfficer,
    VectorSource,
    check_aggregator,
    check_client,
)
from crypto.saved_state import begin_state, reading_state
from crypto.sharing import check_sharing, choose_sharing
from crypto.terms import Committee, Sharing, Terms

_CLIENT: Final = "plain client"


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

    def save(self) -> bytes:
        """Whether it has answered; see SumClient.save."""
        return begin_state(_CLIENT, self._terms, self._index).flag(self._answered).done()

    @classmethod
    def restored(
        cls, terms: Terms, *, index: int, identity: Identity, vector: VectorSource, state: bytes
    ) -> PlainClient:
        """The client that `save` was called on; see SecureSum.restore_client."""
        client = cls(terms, index=index, identity=identity, vector=vector)
        with reading_state(state, _CLIENT, terms, index) as reader:
            client._answered = reader.flag()
        return client

    def step(self, message: bytes) -> bytes:
        """Answer the aggregator's message; see SumClient.step."""
        if self._answered:
            raise OutOfOrder(f"client {self._index} has answered its last step")
        terms, step = self._terms, Step.PLAIN_INPUT
        _check_invitation(terms, self._index, message)
        self._answered = True
        vector = self._vector()
        if vector.shape != (terms.length,):
            raise RingRefused(f"vector of shape {vector.shape}; allowed: ({terms.length},)")
        payload = terms.ring.pack(terms.ring.encode(vector))
        heading = Heading(step, self._index, AGGREGATOR, _context(terms))
        return seal(self._identity, heading, payload)


class PlainAggregator(AggregatorAttempt):
    """Adds vectors in clear; see SumAggregator."""

    kind = "plain aggregator"

    def __init__(self, terms: Terms, *, identity: Identity) -> None:
        super().__init__(terms, identity=identity)
        self._context = _context(terms)
        self._authorised = False
        self._total = np.zeros(terms.length, dtype=np.uint64)

    def begin(self) -> Outgoing:
        """Ask every client for its vector."""
        self._begin(Step.PLAIN_INPUT, self._terms.cohort)
        return self._outgoing(Step.PLAIN_INPUT, dict.fromkeys(self._terms.cohort, b""))

    def advance(self) -> Outgoing | Ready | Done:
        """Close the step with what has arrived; see SumAggregator.advance."""
        inbox = self._step_to_close()
        if self._authorised:
            self._over = True
            return Done(self._terms.ring.decode(self._total), self._survivors, ())
        answered, needed = inbox.close(), self._terms.quorum
        if len(answered) < needed:
            raise self._abort(inbox.step, f"{len(answered)} clients answered, {needed} needed")
        return self._is_ready(inbox, answered)

    def authorise(self, intent: bytes, evidence: bytes) -> Outgoing:
        """Nothing is left to ask: the sum lies open. See SumAggregator.authorise."""
        del evidence
        self._take_intent(intent)
        self._authorised = True
        return Outgoing({})

    def _reader(self, step: Step) -> Reader:
        del step
        return self._read_input

    def _read_input(self, sender: int, message: bytes) -> None:
        terms, payload = self._terms, self._unseal(Step.PLAIN_INPUT, sender, message)
        terms.ring.add_into(self._total, terms.ring.unpack(payload, terms.length))

    def _write(self, writer: Writer) -> None:
        writer.flag(self._authorised).sized(self._terms.ring.pack(self._total))

    def _read(self, reader: StateReader) -> None:
        self._authorised = reader.flag()
        self._total = self._terms.ring.unpack(reader.sized_view(), self._terms.length)

    def _forget(self) -> None:
        self._total[:] = 0


class Plain:
    """The sum in clear, under the same terms and signatures; see SecureSum."""

    name: Final = "plain"

    def check(self, terms: Terms) -> None:
        """Refuse what every secure sum refuses, so that terms can be tried out in clear."""
        check_sharing(terms)

    def sharing(self, clients: int, max_colluders: int, min_survivors: int) -> Sharing:
        """The same as that of masking."""
        return choose_sharing(clients, max_colluders, min_survivors)

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

    def upload_bytes(self, terms: Terms) -> int:
        """The packed residues. See SecureSum."""
        return terms.ring.packed_size(terms.length)

    def committee(self, members: int, threshold: int) -> Committee:
        """None: no party holds a key that opens anything."""
        del members, threshold
        return Committee(members=0, threshold=0)

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
        """A client of the attempt; it draws nothing and opens nothing. See SecureSum."""
        self.check(terms)
        check_client(terms, index, identity)
        return PlainClient(terms, index=index, identity=identity, vector=vector)

    def officer(
        self,
        terms: Terms,
        *,
        index: int,
        identity: Identity,
        rand: Rand,
        intent_check: IntentCheck,
    ) -> SumOfficer:
        """Refuse: there are no officers. See SecureSum."""
        raise TermsRefused(f"officer {index} of {self.name!r}, which has no officers")

    def aggregator(self, terms: Terms, *, identity: Identity) -> SumAggregator:
        """The aggregator of the attempt; see SecureSum."""
        self.check(terms)
        check_aggregator(terms, identity)
        return PlainAggregator(terms, identity=identity)

    def check_invitation(self, terms: Terms, *, index: int, message: bytes) -> None:
        """See SecureSum.check_invitation."""
        _check_invitation(terms, index, message)

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
        """A client that goes on; see SecureSum."""
        self.check(terms)
        check_client(terms, index, identity)
        return PlainClient.restored(
            terms, index=index, identity=identity, vector=vector, state=state
        )

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
        """Refuse: there are no officers. See SecureSum."""
        raise TermsRefused(f"officer {index} of {self.name!r}, which has no officers")

    def restore_aggregator(
        self, terms: Terms, *, identity: Identity, state: bytes
    ) -> SumAggregator:
        """An aggregator that goes on; see SecureSum."""
        self.check(terms)
        check_aggregator(terms, identity)
        return PlainAggregator.restored(terms, identity=identity, state=state)


def _context(terms: Terms) -> bytes:
    return terms.ctx2(b"", b"plain")


def _check_invitation(terms: Terms, index: int, message: bytes) -> None:
    heading = Heading(Step.PLAIN_INPUT, AGGREGATOR, index, _context(terms))
    with refusing(AGGREGATOR, Step.PLAIN_INPUT):
        if len(unseal(message, heading, terms.roster)):
            raise Malformed("the invitation is not empty")
