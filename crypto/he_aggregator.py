"""The aggregator's side of the homomorphic sum: it carries keys, ciphertexts and one signed sum.

It holds no key and never loads SEAL. It checks every upload as the officer will, so that a bad one
costs its sender a place in the sum and nobody else the attempt.
"""

from __future__ import annotations

from crypto.attempt import AggregatorAttempt, Reader
from crypto.codec import Reader as StateReader
from crypto.codec import Writer
from crypto.envelope import AGGREGATOR, CONTEXT_BYTES, EVERYBODY, Heading, Step, unseal
from crypto.errors import Malformed, OutOfOrder
from crypto.he_messages import (
    Opened,
    OpenRequest,
    context_of_key,
    context_under,
    decode_ciphertexts,
    decode_key,
)
from crypto.he_parameters import choose
from crypto.keys import Identity
from crypto.machines import Done, Outgoing, Ready
from crypto.terms import Terms


class HeAggregator(AggregatorAttempt):
    """The aggregator in one attempt; see SumAggregator.

    It keeps the uploads until the officer has them: a ciphertext is signed for the officer.
    """

    kind = "he aggregator"

    def __init__(self, terms: Terms, identity: Identity) -> None:
        super().__init__(terms, identity)
        self._parameters = choose(terms)
        (self._officer,) = terms.roster.officer_indices
        self._signed_key = b""
        self._uploads: dict[int, bytes] = {}
        self._intent = b""
        self._opened: Opened | None = None

    def begin(self) -> Outgoing:
        """Ask the officer for a key."""
        self._begin(Step.HE_KEY, (self._officer,))
        return self._outgoing(Step.HE_KEY, {self._officer: b""})

    def advance(self) -> Outgoing | Ready | Done:
        """Close the step with what has arrived; see SumAggregator.advance."""
        inbox = self._step_to_close()
        answered = inbox.close()
        if inbox.step is Step.HE_INPUT:
            if len(answered) < self._terms.quorum:
                needed = self._terms.quorum
                raise self._abort(inbox.step, f"{len(answered)} clients answered, {needed} needed")
            return self._is_ready(inbox, answered)
        if not answered:
            why = inbox.rejected.get(self._officer, "no answer")
            raise self._abort(inbox.step, f"officer {self._officer}: {why}")
        if inbox.step is Step.HE_KEY:
            inbox.open(Step.HE_INPUT, self._terms.cohort)
            # Clients learn the key only from this message, so that it is signed under ctx1.
            keys = dict.fromkeys(self._terms.cohort, self._signed_key)
            return self._outgoing(Step.HE_INPUT, keys, context=self._terms.ctx1)
        return self._finish()

    def authorise(self, intent: bytes, evidence: bytes) -> Outgoing:
        """Hand every survivor's upload to the officer; see SumAggregator.authorise."""
        self._take_intent(intent)
        self._intent = intent
        uploads = [self._uploads[k] for k in self._survivors]
        request = OpenRequest(intent, evidence, uploads).encode()
        self._uploads = {}
        self._open_inbox().open(Step.HE_OPEN, (self._officer,))
        return self._outgoing(Step.HE_OPEN, {self._officer: request})

    def _reader(self, step: Step) -> Reader:
        return {
            Step.HE_KEY: self._read_key,
            Step.HE_INPUT: self._read_input,
            Step.HE_OPEN: self._read_sum,
        }[step]

    def _read_key(self, sender: int, message: bytes) -> None:
        heading = Heading(Step.HE_KEY, sender, EVERYBODY, context_of_key(self._terms))
        payload = unseal(message, heading, self._terms.roster)
        decode_key(payload, self._parameters)
        self._signed_key = bytes(message)
        self._context = context_under(self._terms, payload)

    def _write(self, writer: Writer) -> None:
        writer.sized(self._signed_key).fixed(self._context, CONTEXT_BYTES).bundle(self._uploads)
        writer.sized(self._intent).flag(self._opened is not None)
        if self._opened is not None:
            writer.sized(self._opened.encode(self._terms.ring))

    def _read(self, reader: StateReader) -> None:
        self._signed_key, self._context = reader.sized(), reader.fixed(CONTEXT_BYTES)
        self._uploads, self._intent = reader.bundle(), reader.sized()
        if reader.flag():
            opened = reader.sized_view()
            self._opened = Opened.decode(opened, self._terms.ring, self._terms.length)

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
        return Done(self._terms.ring.decode(self._opened.total), self._survivors, (self._officer,))

    def _forget(self) -> None:
        self._uploads = {}
