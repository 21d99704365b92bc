"""The reference sum: signed vectors in clear. It hides nothing; for tests and baselines only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from crypto.attempt import AggregatorAttempt, Reader
from crypto.codec import Reader as StateReader
from crypto.codec import Writer
from crypto.envelope import AGGREGATOR, Heading, Step, refusing, seal, unseal
from crypto.errors import Malformed
from crypto.keys import Identity
from crypto.machines import Done, Outgoing, Ready
from crypto.party import OneAnswerClient, Vector
from crypto.protocol import Capabilities, SecureSum
from crypto.sharing import check_sharing, choose_sharing
from crypto.terms import Sharing, Terms


class PlainClient(OneAnswerClient):
    """Sends its vector in clear, once; see SumClient."""

    kind = "plain client"

    def _checked(self, message: bytes) -> Callable[[Vector], bytes]:
        _check_invitation(self._terms, self._index, message)
        return self._in_clear

    def _in_clear(self, vector: Vector) -> bytes:
        ring = self._terms.ring
        heading = Heading(Step.PLAIN_INPUT, self._index, AGGREGATOR, _context(self._terms))
        return seal(self._identity, heading, ring.pack(ring.encode(vector)))


class PlainAggregator(AggregatorAttempt):
    """Adds vectors in clear; see SumAggregator."""

    kind = "plain aggregator"

    def __init__(self, terms: Terms, identity: Identity) -> None:
        super().__init__(terms, identity)
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


class Plain(SecureSum):
    """The sum in clear, under the same terms and signatures; see SecureSum."""

    name = "plain"

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

    def check_invitation(self, terms: Terms, *, index: int, message: bytes) -> None:
        """See SecureSum.check_invitation."""
        _check_invitation(terms, index, message)

    def client_class(self) -> type[PlainClient]:
        """Clients; see SecureSum."""
        return PlainClient

    def aggregator_class(self) -> type[PlainAggregator]:
        """Aggregators; see SecureSum."""
        return PlainAggregator


def _context(terms: Terms) -> bytes:
    return terms.ctx2(b"", b"plain")


def _check_invitation(terms: Terms, index: int, message: bytes) -> None:
    heading = Heading(Step.PLAIN_INPUT, AGGREGATOR, index, _context(terms))
    with refusing(AGGREGATOR, Step.PLAIN_INPUT):
        if len(unseal(message, heading, terms.roster)):
            raise Malformed("the invitation is not empty")
