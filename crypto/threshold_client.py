"""The client's side of the threshold sum: one step, its vector under a committee's key."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from crypto.envelope import AGGREGATOR, EVERYBODY, Heading, Step, refusing, seal, unseal
from crypto.he_messages import encode_ciphertexts
from crypto.he_packing import to_coefficients
from crypto.he_pool import encrypt_all
from crypto.machines import ClientSeat
from crypto.party import OneAnswerClient, Vector
from crypto.terms import Terms
from crypto.threshold_checks import check_signed_key
from crypto.threshold_contexts import context_of_key, context_under
from crypto.threshold_key import common_polynomial
from crypto.threshold_messages import decode_sized_and_bundle
from crypto.threshold_parameters import choose


class ThresholdClient(OneAnswerClient):
    """One client in one attempt; see SumClient.

    It encrypts under a key that a qualified committee of its own roster signed for this very
    attempt and model, whose second polynomial it computes itself, with its own parameters.
    """

    kind = "threshold client"

    def __init__(self, terms: Terms, seat: ClientSeat) -> None:
        super().__init__(terms, seat)
        self._parameters = choose(terms)

    def _checked(self, message: bytes) -> Callable[[Vector], bytes]:
        terms, scheme = self._terms, self._parameters.scheme
        heading = Heading(Step.THRESHOLD_INPUT, AGGREGATOR, self._index, terms.ctx1)
        payload = unseal(message, heading, terms.roster)
        with refusing(AGGREGATOR, Step.THRESHOLD_INPUT):
            key, endorsements = decode_sized_and_bundle(payload)
            first = check_signed_key(terms, self._parameters, key, endorsements)

        def encrypted(vector: Vector) -> bytes:
            terms.ring.encode(vector)  # refuses what does not fit
            second = common_polynomial(context_of_key(terms), scheme)
            coefficients = to_coefficients(vector, scheme)
            ciphertexts = encrypt_all(scheme, np.stack([first, second]), coefficients)
            heading = Heading(
                Step.THRESHOLD_INPUT, self._index, EVERYBODY, context_under(terms, key)
            )
            return seal(self._identity, heading, encode_ciphertexts(scheme, ciphertexts))

        return encrypted
