"""The officer's side of the homomorphic sum: it adds the ciphertexts itself and decrypts once.

A ciphertext does not show what it sums. So the officer never decrypts what somebody else added:
it gets every upload with its client's signature, checks who they are from, adds, and opens that
one sum. Its key is fresh for the attempt and gone with the first sum, opened or not: a second
answer, were it only that a sum cannot be decrypted, would tell about the key.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crypto.codec import Reader, Writer
from crypto.envelope import (
    AGGREGATOR,
    CONTEXT_BYTES,
    EVERYBODY,
    Heading,
    Step,
    refusing,
    seal,
    unseal,
)
from crypto.errors import Malformed, OutOfOrder, SumAborted
from crypto.he_messages import (
    Opened,
    OpenRequest,
    context_of_key,
    context_under,
    encode_key,
)
from crypto.he_packing import from_coefficients
from crypto.he_parameters import choose
from crypto.he_pool import decrypt_all
from crypto.he_seal import KeyPair, SecretKey, scheme_for
from crypto.he_uploads import senders_of, sum_of
from crypto.inbox import read_step
from crypto.machines import Seat, check_intent
from crypto.party import PartyAttempt
from crypto.terms import Terms

Words = NDArray[np.uint64]


class HeOfficer(PartyAttempt[Seat]):
    """The officer in one attempt; see SumOfficer."""

    kind = "he officer"

    def __init__(self, terms: Terms, seat: Seat) -> None:
        super().__init__(terms, seat)
        self._parameters = choose(terms)
        self._keys: SecretKey | None = None
        self._context = terms.ctx1
        self._due: Step | None = Step.HE_KEY

    def __repr__(self) -> str:
        due = "finished" if self._due is None else self._due.label
        return f"HeOfficer(index={self._index}, due={due!r}, redacted)"

    def _write(self, writer: Writer) -> None:
        writer.fixed(self._context, CONTEXT_BYTES).flag(self._due is not None)
        if self._due is not None:
            writer.u8(self._due)
        writer.flag(self._keys is not None)
        if self._keys is not None:
            writer.sized(self._keys.reveal())

    def _read(self, reader: Reader) -> None:
        self._context = reader.fixed(CONTEXT_BYTES)
        self._due = read_step(reader) if reader.flag() else None
        if reader.flag():
            scheme = scheme_for(self._parameters)
            self._keys = SecretKey.from_bytes(scheme, reader.sized_view())

    def step(self, message: bytes) -> bytes:
        """Answer the aggregator's message; see SumParty.step.

        Raises:
            SumAborted: the sum does not decrypt to vectors of these terms; the key is gone.
        """
        due = self._due
        if due is None:
            raise OutOfOrder(f"officer {self._index} has answered its last step")
        heading = Heading(due, AGGREGATOR, self._index, self._context)
        payload = unseal(message, heading, self._terms.roster)
        with refusing(AGGREGATOR, due):
            return self._publish(payload) if due is Step.HE_KEY else self._open(payload)

    def _publish(self, payload: memoryview) -> bytes:
        if len(payload):
            raise Malformed("the invitation is not empty")
        keys = KeyPair(scheme_for(self._parameters))
        key = encode_key(self._parameters, keys.public)
        heading = Heading(Step.HE_KEY, self._index, EVERYBODY, context_of_key(self._terms))
        self._context = context_under(self._terms, key)
        self._keys, self._due = keys, Step.HE_OPEN
        return seal(self._identity, heading, key)

    def _open(self, payload: memoryview) -> bytes:
        request = OpenRequest.decode(payload)
        senders = senders_of(self._terms, request.uploads)
        check_intent(self._intent_check, request.evidence, request.intent, len(senders))
        total = sum_of(
            self._terms,
            self._parameters,
            request.uploads,
            step=Step.HE_INPUT,
            recipient=self._index,
            context=self._context,
        )
        keys, self._keys, self._due = self._keys, None, None
        if keys is None:
            raise OutOfOrder("there is no key")
        try:
            found = self._decrypt(keys, total)
        finally:
            keys.erase()  # an exception, too, keeps what its frames hold
        opened = Opened(request.intent, senders, found)
        heading = Heading(Step.HE_OPEN, self._index, AGGREGATOR, self._context)
        return seal(self._identity, heading, opened.encode(self._terms.ring))

    def _decrypt(self, keys: SecretKey, total: Words) -> NDArray[np.uint64]:
        """Ring residues of the sum, [length]."""
        terms = self._terms
        rows, budgets = decrypt_all(self._parameters, keys, total)
        if min(budgets) < 1:
            raise SumAborted(Step.HE_OPEN.label, "the noise is larger than that of fresh uploads")
        try:
            values = from_coefficients(rows, self._parameters, terms.length)
        except Malformed as error:
            raise SumAborted(Step.HE_OPEN.label, str(error)) from None
        return terms.ring.encode(values)
