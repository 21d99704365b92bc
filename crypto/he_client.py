"""The client's side of the homomorphic sum: one step, its encrypted vector under a signed key."""

from __future__ import annotations

from collections.abc import Callable

from crypto.envelope import AGGREGATOR, EVERYBODY, Heading, Step, refusing, seal, unseal
from crypto.he_messages import context_of_key, context_under, decode_key, encode_ciphertexts
from crypto.he_packing import to_coefficients
from crypto.he_parameters import choose
from crypto.he_pool import encrypt_all
from crypto.machines import ClientSeat
from crypto.party import OneAnswerClient, Vector
from crypto.terms import Terms


class HeClient(OneAnswerClient):
    """One client in one attempt; see SumClient.

    It encrypts under a key that the officer of its own roster signed for this very attempt and
    model, with the parameters that its own terms give, and for that officer alone.
    """

    kind = "he client"

    def __init__(self, terms: Terms, seat: ClientSeat) -> None:
        super().__init__(terms, seat)
        self._parameters = choose(terms)

    def _checked(self, message: bytes) -> Callable[[Vector], bytes]:
        terms, parameters = self._terms, self._parameters
        (officer,) = terms.roster.officer_indices
        heading = Heading(Step.HE_INPUT, AGGREGATOR, self._index, terms.ctx1)
        signed_key = unseal(message, heading, terms.roster)
        heading = Heading(Step.HE_KEY, officer, EVERYBODY, context_of_key(terms))
        payload = unseal(signed_key, heading, terms.roster)
        with refusing(officer, Step.HE_KEY):
            key = decode_key(payload, parameters)

        def encrypted(vector: Vector) -> bytes:
            terms.ring.encode(vector)  # refuses what does not fit
            ciphertexts = encrypt_all(parameters, key, to_coefficients(vector, parameters))
            heading = Heading(Step.HE_INPUT, self._index, officer, context_under(terms, payload))
            return seal(self._identity, heading, encode_ciphertexts(parameters, ciphertexts))

        return encrypted
