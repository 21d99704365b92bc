"""The client's side of the threshold sum: one step, its vector under a committee's key."""

from __future__ import annotations

from typing import Final

import numpy as np

from crypto.envelope import AGGREGATOR, EVERYBODY, Heading, Step, refusing, seal, unseal
from crypto.errors import OutOfOrder, RingRefused
from crypto.he_messages import encode_ciphertexts
from crypto.he_packing import to_coefficients
from crypto.he_pool import encrypt_all
from crypto.keys import Identity
from crypto.protocol import VectorSource
from crypto.saved_state import begin_state, reading_state
from crypto.terms import Terms
from crypto.threshold_checks import check_signed_key
from crypto.threshold_contexts import context_of_key, context_under
from crypto.threshold_key import common_polynomial
from crypto.threshold_messages import decode_sized_and_bundle
from crypto.threshold_parameters import choose

_KIND: Final = "threshold client"


class ThresholdClient:
    """One client in one attempt; see SumClient. Terms and identity are checked by the caller.

    It encrypts under a key that a qualified committee of its own roster signed for this very
    attempt and model, whose second polynomial it computes itself, with its own parameters.
    """

    def __init__(
        self, terms: Terms, *, index: int, identity: Identity, vector: VectorSource
    ) -> None:
        self._terms = terms
        self._index = index
        self._identity = identity
        self._vector = vector
        self._parameters = choose(terms)
        self._answered = False

    def __repr__(self) -> str:
        return f"ThresholdClient(index={self._index}, redacted)"

    def save(self) -> bytes:
        """Whether it has answered: it keeps no secret. See SumClient.save."""
        return begin_state(_KIND, self._terms, self._index).flag(self._answered).done()

    @classmethod
    def restored(
        cls, terms: Terms, *, index: int, identity: Identity, vector: VectorSource, state: bytes
    ) -> ThresholdClient:
        """The client that `save` was called on; see SecureSum.restore_client."""
        client = cls(terms, index=index, identity=identity, vector=vector)
        with reading_state(state, _KIND, terms, index) as reader:
            client._answered = reader.flag()
        return client

    def step(self, message: bytes) -> bytes:
        """Answer the aggregator's message; see SumClient.step."""
        if self._answered:
            raise OutOfOrder(f"client {self._index} has answered its last step")
        terms, scheme = self._terms, self._parameters.scheme
        heading = Heading(Step.THRESHOLD_INPUT, AGGREGATOR, self._index, terms.ctx1)
        payload = unseal(message, heading, terms.roster)
        with refusing(AGGREGATOR, Step.THRESHOLD_INPUT):
            key, endorsements = decode_sized_and_bundle(payload)
            first = check_signed_key(terms, self._parameters, key, endorsements)
        # From here on the vector exists; whatever happens to it, it is asked for only once.
        self._answered = True
        vector = self._vector()
        if vector.shape != (terms.length,):
            raise RingRefused(f"vector of shape {vector.shape}; allowed: ({terms.length},)")
        terms.ring.encode(vector)  # refuses what does not fit
        second = common_polynomial(context_of_key(terms), scheme)
        coefficients = to_coefficients(vector, scheme)
        encrypted = encrypt_all(scheme, np.stack([first, second]), coefficients)
        context = context_under(terms, key)
        heading = Heading(Step.THRESHOLD_INPUT, self._index, EVERYBODY, context)
        return seal(self._identity, heading, encode_ciphertexts(scheme, encrypted))
