"""The client's side of the homomorphic sum: one step, its encrypted vector under a signed key."""

from __future__ import annotations

from typing import Final

from crypto.envelope import AGGREGATOR, EVERYBODY, Heading, Step, refusing, seal, unseal
from crypto.errors import OutOfOrder, RingRefused
from crypto.he_messages import context_of_key, context_under, decode_key, encode_ciphertexts
from crypto.he_packing import to_coefficients
from crypto.he_parameters import choose
from crypto.he_pool import encrypt_all
from crypto.keys import Identity
from crypto.protocol import VectorSource
from crypto.saved_state import begin_state, reading_state
from crypto.terms import Terms

_KIND: Final = "he client"


class HeClient:
    """One client in one attempt; see SumClient. Terms and identity are checked by the caller.

    It encrypts under a key that the officer of its own roster signed for this very attempt and
    model, with the parameters that its own terms give, and for that officer alone.
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
        return f"HeClient(index={self._index}, redacted)"

    def save(self) -> bytes:
        """Whether it has answered: it keeps no secret. See SumClient.save."""
        return begin_state(_KIND, self._terms, self._index).flag(self._answered).done()

    @classmethod
    def restored(
        cls, terms: Terms, *, index: int, identity: Identity, vector: VectorSource, state: bytes
    ) -> HeClient:
        """The client that `save` was called on; see SecureSum.restore_client."""
        client = cls(terms, index=index, identity=identity, vector=vector)
        with reading_state(state, _KIND, terms, index) as reader:
            client._answered = reader.flag()
        return client

    def step(self, message: bytes) -> bytes:
        """Answer the aggregator's message; see SumClient.step."""
        if self._answered:
            raise OutOfOrder(f"client {self._index} has answered its last step")
        terms, parameters = self._terms, self._parameters
        (officer,) = terms.roster.officer_indices
        heading = Heading(Step.HE_INPUT, AGGREGATOR, self._index, terms.ctx1)
        signed_key = unseal(message, heading, terms.roster)
        heading = Heading(Step.HE_KEY, officer, EVERYBODY, context_of_key(terms))
        payload = unseal(signed_key, heading, terms.roster)
        with refusing(officer, Step.HE_KEY):
            key = decode_key(payload, parameters)
        # From here on the vector exists; whatever happens to it, it is asked for only once.
        self._answered = True
        vector = self._vector()
        if vector.shape != (terms.length,):
            raise RingRefused(f"vector of shape {vector.shape}; allowed: ({terms.length},)")
        terms.ring.encode(vector)  # refuses what does not fit
        encrypted = encrypt_all(parameters, key, to_coefficients(vector, parameters))
        heading = Heading(Step.HE_INPUT, self._index, officer, context_under(terms, payload))
        return seal(self._identity, heading, encode_ciphertexts(parameters, encrypted))
