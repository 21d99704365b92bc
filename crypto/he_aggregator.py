"""The aggregator's side of the homomorphic sum: it carries keys, ciphertexts and one signed sum.

It holds no key and never loads SEAL. It checks every upload as the officer will, so that a bad one
costs its sender a place in the sum and nobody else the attempt.
"""

from __future__ import annotations

from collections.abc import Mapping

from crypto.envelope import AGGREGATOR, EVERYBODY, Heading, Step, refusing, seal, unseal
from crypto.errors import KeyRefused, Malformed, OutOfOrder, SumAborted
from crypto.he_messages import (
    Opened,
    OpenRequest,
    context_of_key,
    context_under,
    decode_ciphertexts,
    decode_key,
)
from crypto.he_parameters import choose
from crypto.inbox import Inbox
from crypto.keys import KEY_BYTES, Identity
from crypto.protocol import Done, Outgoing, Ready
from crypto.terms import Terms


class HeAggregator:
    """The aggregator in one attempt; see SumAggregator.

    It keeps the uploads until the officer has them: a ciphertext is signed for the officer.
    """

    def __init__(self, terms: Terms, *, identity: Identity) -> None:
        self._terms = terms
        self._identity = identity
        self._parameters = choose(terms)
        (self._officer,) = terms.roster.officer_indices
        self._inbox: Inbox | None = None
        self._over = False
        self._ready = False
        self._context = terms.ctx1
        self._signed_key = b""
        self._uploads: dict[int, bytes] = {}
        self._survivors: tuple[int, ...] = ()
        self._intent = b""
        self._opened: Opened | None = None

    def __repr__(self) -> str:
        step = "not begun" if self._inbox is None else self._inbox.step.label
        return f"HeAggregator(step={step!r}, over={self._over})"

    @property
    def expecting(self) -> frozenset[int]:
        """Clients, or the officer, not yet heard in this step."""
        return frozenset() if self._inbox is None else self._inbox.expecting

    def begin(self) -> Outgoing:
        """Ask the officer for a key."""
        if self._inbox is not None:
            raise OutOfOrder("the attempt has begun already")
        self._inbox = Inbox(Step.HE_KEY, (self._officer,))
        return self._outgoing(Step.HE_KEY, {self._officer: b""})

    def receive(self, sender: int, message: bytes) -> None:
        """Take in an answer; see SumAggregator.receive."""
        inbox = self._open_inbox()
        read = {
            Step.HE_KEY: self._read_key,
            Step.HE_INPUT: self._read_input,
            Step.HE_OPEN: self._read_sum,
        }[inbox.step]

        def check_and_keep() -> None:
            with refusing(sender, inbox.step):
                read(sender, message)

        inbox.take(sender, check_and_keep)

    def advance(self) -> Outgoing | Ready | Done:
        """Close the step with what has arrived; see SumAggregator.advance."""
        inbox = self._open_inbox()
        if self._ready:
            raise OutOfOrder("the sum is ready and waits for authorise")
        answered = inbox.close()
        if inbox.step is Step.HE_INPUT:
            if len(answered) < self._terms.quorum:
                needed = self._terms.quorum
                raise self._abort(inbox, f"{len(answered)} clients answered, {needed} needed")
            self._survivors, self._ready = answered, True
            return Ready(answered, dict(inbox.dropped), dict(inbox.rejected))
        if not answered:
            why = inbox.rejected.get(self._officer, "no answer")
            raise self._abort(inbox, f"officer {self._officer}: {why}")
        if inbox.step is Step.HE_KEY:
            inbox.open(Step.HE_INPUT, self._terms.cohort)
            return self._outgoing(
                Step.HE_INPUT, dict.fromkeys(self._terms.cohort, self._signed_key)
            )
        return self._finish()

    def authorise(self, intent: bytes) -> Outgoing:
        """Hand every survivor's upload to the officer; see SumAggregator.authorise."""
        if not self._ready or self._over:
            raise OutOfOrder("nothing is ready to be opened")
        if type(intent) is not bytes or len(intent) != KEY_BYTES:
            raise KeyRefused(f"intent digest is not {KEY_BYTES} bytes")
        self._ready = False
        self._intent = intent
        request = OpenRequest(intent, [self._uploads[k] for k in self._survivors]).encode()
        self._uploads = {}
        self._open_inbox().open(Step.HE_OPEN, (self._officer,))
        return self._outgoing(Step.HE_OPEN, {self._officer: request})

    def _read_key(self, sender: int, message: bytes) -> None:
        heading = Heading(Step.HE_KEY, sender, EVERYBODY, context_of_key(self._terms))
        payload = unseal(message, heading, self._terms.roster)
        decode_key(payload, self._parameters)
        self._signed_key = bytes(message)
        self._context = context_under(self._terms, payload)

    def _read_input(self, sender: int, message: bytes) -> None:
        payload = self._unseal(Step.HE_INPUT, sender, message, recipient=self._officer)
        decode_ciphertexts(payload, self._parameters)
        self._uploads[sender] = bytes(message)

    def _read_sum(self, sender: int, message: bytes) -> None:
        payload = self._unseal(Step.HE_OPEN, sender, message, recipient=AGGREGATOR)
        opened = Opened.decode(payload, self._terms.ring, self._terms.length)
        if (opened.intent, opened.survivors) != (self._intent, self._survivors):
            raise Malformed("the sum is of another intent or of other clients")
        self._opened = opened

    def _finish(self) -> Done:
        if self._opened is None:
            raise OutOfOrder("nothing was opened")
        self._over = True
        return Done(self._terms.ring.decode(self._opened.total), self._survivors)

    def _open_inbox(self) -> Inbox:
        if self._inbox is None:
            raise OutOfOrder("the attempt has not begun")
        if self._over:
            raise OutOfOrder("the attempt is over")
        return self._inbox

    def _unseal(self, step: Step, sender: int, message: bytes, *, recipient: int) -> memoryview:
        heading = Heading(step, sender, recipient, self._context)
        return unseal(message, heading, self._terms.roster)

    def _outgoing(self, step: Step, payloads: Mapping[int, bytes]) -> Outgoing:
        """Clients learn the key only from the message itself, so that it is signed under ctx1."""
        context = self._context if step is Step.HE_OPEN else self._terms.ctx1
        return Outgoing(
            {
                party: seal(self._identity, Heading(step, AGGREGATOR, party, context), payload)
                for party, payload in payloads.items()
            }
        )

    def _abort(self, inbox: Inbox, reason: str) -> SumAborted:
        self._over = True
        self._uploads = {}
        return SumAborted(inbox.step.label, reason)
