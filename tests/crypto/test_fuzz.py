"""Arbitrary bytes at every step of both sides: typed errors only, and never a wrong sum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.errors import MessageRefused, SumAborted
from crypto.masking_messages import (
    Neighbourhood,
    Opening,
    OpeningRequest,
    decode_advert,
    decode_bundle,
    decode_dealings,
    decode_delivery,
    decode_masked_input,
    decode_unmask_answer,
    encode_advert,
    encode_bundle,
    encode_dealings,
    encode_delivery,
)
from crypto.secure_sum import SECURE_SUMS
from tests.crypto.harness import (
    STEPS,
    Run,
    make_terms,
    make_vectors,
    terms_for,
    total,
)
from tests.crypto.strictness import check_pairs, drive_with_nonsense

MASKED, CONSISTENCY, UNMASK = 2, 3, 4


@given(data=st.binary(max_size=200))
def test_decoders_read_exactly_what_encoders_write(data: bytes) -> None:
    request = Opening(bytes(32), (1,), ())
    pairs = (
        (decode_bundle, encode_bundle),
        (decode_dealings, lambda value: encode_dealings(*value)),
        (decode_delivery, lambda value: encode_delivery(*value)),
        (Opening.decode, Opening.encode),
        (Neighbourhood.decode, Neighbourhood.encode),
        (OpeningRequest.decode, OpeningRequest.encode),
        (decode_advert, encode_advert),
        (decode_masked_input, lambda value: value[0] + value[1]),
        (lambda value: decode_unmask_answer(value, request, request.kinds), lambda _: data),
    )
    check_pairs(pairs, data)


@pytest.mark.parametrize("name", sorted(SECURE_SUMS))
@settings(max_examples=40)
@given(data=st.data())
def test_random_bytes_to_anyone_at_any_step(name: str, data: st.DataObject) -> None:
    terms = terms_for(name, 3)
    vectors = make_vectors(terms)
    run = Run(name, terms, vectors)
    step = data.draw(st.integers(0, STEPS[name] - 1))
    noise = data.draw(st.binary(max_size=300))

    def answer(at: int, client: int, message: bytes) -> bytes:
        if at == step:
            with pytest.raises(MessageRefused):
                run.aggregator.receive(client, noise)
        return message

    def request(at: int, client: int, message: bytes) -> bytes:
        if at == step:
            with pytest.raises(MessageRefused):
                run.parties[client].step(noise)
        return message

    done = run.drive(forge=answer, forge_request=request)
    np.testing.assert_array_equal(done.total, total(terms, vectors, terms.cohort))


@settings(max_examples=80)
@given(data=st.data())
def test_signed_nonsense_of_insiders(data: st.DataObject) -> None:
    """One client and the aggregator's messages to one client hold signed, arbitrary payloads.

    Nothing but a refusal by name or an abort may follow, and a sum that is reached is exact: an
    insider can choose its own input (so its masked vector is left alone), nobody else's.
    """
    terms = make_terms(4)
    vectors = make_vectors(terms)
    run = Run("masking", terms, vectors)
    step = data.draw(st.sampled_from([0, 1, CONSISTENCY, UNMASK]))
    request_step = data.draw(st.integers(0, UNMASK))

    try:
        done = drive_with_nonsense(run, data, (step, 2), (request_step, 3))
    except SumAborted:
        return
    assert len(done.contributors) >= terms.quorum
    np.testing.assert_array_equal(done.total, total(terms, vectors, done.contributors))
    for refusal in run.refused:
        assert refusal.sender in (0, 2, 3)
        assert refusal.reason
