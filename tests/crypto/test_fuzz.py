"""Arbitrary bytes at every step of both sides: typed errors only, and never a wrong sum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.errors import Malformed, MessageRefused, SumAborted
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
    payload_of,
    resign,
    terms_for,
    total,
)

MASKED, CONSISTENCY, UNMASK = 2, 3, 4


@given(data=st.binary(max_size=200))
def test_decoders_read_exactly_what_encoders_write(data: bytes) -> None:
    request = Opening(bytes(32), (1,), ())
    for decode, encode in (
        (decode_bundle, encode_bundle),
        (decode_dealings, lambda value: encode_dealings(*value)),
        (decode_delivery, lambda value: encode_delivery(*value)),
        (Opening.decode, Opening.encode),
        (Neighbourhood.decode, Neighbourhood.encode),
        (OpeningRequest.decode, OpeningRequest.encode),
        (decode_advert, encode_advert),
        (decode_masked_input, lambda value: value[0] + value[1]),
        (lambda value: decode_unmask_answer(value, request, request.kinds), lambda _: data),
    ):
        try:
            value = decode(data)
        except Malformed:
            continue
        assert encode(value) == data


@pytest.mark.parametrize("name", sorted(SECURE_SUMS))
@settings(max_examples=60)
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


def damaged(data: st.DataObject, payload: bytes) -> bytes:
    """Random bytes, or the true payload with some bytes changed, cut or added."""
    if data.draw(st.booleans()):
        return data.draw(st.binary(max_size=300))
    changed = bytearray(payload)
    for _ in range(data.draw(st.integers(0, 3))):
        if changed:
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    return bytes(changed[: data.draw(st.integers(0, len(changed)))]) + data.draw(
        st.binary(max_size=3)
    )


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

    def answer(at: int, client: int, message: bytes) -> bytes:
        if (at, client) != (step, 2):
            return message
        return resign(message, damaged(data, payload_of(message)))

    def request(at: int, client: int, message: bytes) -> bytes:
        if (at, client) != (request_step, 3):
            return message
        return resign(message, damaged(data, payload_of(message)))

    try:
        done = run.drive(forge=answer, forge_request=request)
    except SumAborted:
        return
    assert len(done.contributors) >= terms.quorum
    np.testing.assert_array_equal(done.total, total(terms, vectors, done.contributors))
    for refusal in run.refused:
        assert refusal.sender in (0, 2, 3)
        assert refusal.reason
