"""Bytes of the threshold sum: decoders read exactly what encoders write, and refuse the rest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.codec import Reader, Writer
from crypto.errors import KeyRefused, Malformed, MessageRefused, SumAborted
from crypto.residues import uniform
from crypto.threshold_keygen_state import read_phase, write_phase
from crypto.threshold_messages import (
    Check,
    Commitment,
    Dealing,
    Endorsement,
    Held,
    decode_answers,
    decode_bundle_and_sets,
    decode_key,
    decode_pair,
    decode_part,
    decode_sets,
    decode_sized_and_bundle,
    decode_sized_and_sized,
    encode_answer,
    encode_bundle_and_sets,
    encode_key,
    encode_pair,
    encode_part,
    encode_sets,
    encode_sized_and_bundle,
    encode_sized_and_sized,
)
from crypto.threshold_parameters import choose
from crypto.threshold_sharing import Share, deal
from tests.crypto.harness import (
    Run,
    make_vectors,
    seeded,
    terms_for,
    total,
)
from tests.crypto.strictness import check_pairs, drive_with_nonsense

TERMS = terms_for("threshold", 4)
PARAMETERS = choose(TERMS)
SCHEME = PARAMETERS.scheme
PRIMES = SCHEME.data_primes


@given(data=st.binary(max_size=200))
def test_decoders_read_exactly_what_encoders_write(data: bytes) -> None:
    pairs = (
        (Commitment.decode, Commitment.encode),
        (Dealing.decode, Dealing.encode),
        (Endorsement.decode, Endorsement.encode),
        (Held.decode, Held.encode),
        (lambda v: Check.decode(v, (5, 6), PRIMES), Check.encode),
        (decode_pair, lambda v: encode_pair(*v)),
        (decode_sets, encode_sets),
        (decode_sized_and_bundle, lambda v: encode_sized_and_bundle(*v)),
        (decode_sized_and_sized, lambda v: encode_sized_and_sized(v[0], bytes(v[1]))),
        (decode_bundle_and_sets, lambda v: encode_bundle_and_sets(*v)),
        (lambda v: decode_part(v, SCHEME), lambda v: encode_part(v, SCHEME)),
        (lambda v: decode_key(bytes(v), PARAMETERS), lambda v: encode_key(PARAMETERS, v)),
        (lambda v: Share.decode(bytes(v), PRIMES, SCHEME.degree), lambda v: v.encode(PRIMES)),
    )
    check_pairs(pairs, data, (Malformed, KeyRefused))


def test_words_read_back_and_every_other_length_or_word_is_refused() -> None:
    rand = seeded("words")
    part = uniform(rand, (), SCHEME.key_primes, SCHEME.degree)
    answer = uniform(rand, (SCHEME.ciphertexts,), PRIMES, SCHEME.degree)
    share = deal(answer[0], (1, 2, 3), 2, PRIMES, rand)[2]
    cases = (
        (encode_part(part, SCHEME), lambda b: encode_part(decode_part(b, SCHEME), SCHEME)),
        (
            encode_key(PARAMETERS, part),
            lambda b: encode_key(PARAMETERS, decode_key(b, PARAMETERS)),
        ),
        (
            encode_answer(answer, SCHEME),
            lambda b: encode_answer(decode_answers(b, 1, SCHEME.ciphertexts, SCHEME)[0], SCHEME),
        ),
        (
            share.encode(PRIMES),
            lambda b: Share.decode(b, PRIMES, SCHEME.degree).encode(PRIMES),
        ),
    )
    for written, again in cases:
        assert again(written) == written
        for wrong in (written[:-1], written + b"\0", b"", b"\xff" * len(written)):
            with pytest.raises(Malformed):
                again(wrong)


@settings(max_examples=25)
@given(data=st.data())
def test_signed_nonsense_of_a_member_or_the_aggregator(data: st.DataObject) -> None:
    """One member, and the aggregator's messages to another, hold signed, arbitrary payloads.

    Nothing but a refusal or an abort may follow, and a sum that is reached is exact.
    """
    vectors = make_vectors(TERMS)
    run = Run("threshold", TERMS, vectors)
    step, request_step = (data.draw(st.integers(0, 7)) for _ in range(2))

    try:
        done = drive_with_nonsense(run, data, (step, 5), (request_step, 6))
    except SumAborted:
        return
    np.testing.assert_array_equal(done.total, total(TERMS, vectors, TERMS.cohort))
    assert all(isinstance(refusal, MessageRefused) for refusal in run.refused)


# --- states of a key in the making ----------------------------------------------------------------


def test_a_key_that_was_not_begun_is_saved_as_such() -> None:
    writer = Writer()
    write_phase(writer, None, PARAMETERS)
    reader = Reader(writer.done())
    assert read_phase(reader, PARAMETERS, 1) is None
    reader.end()


@pytest.mark.parametrize("kind", [4, 5, 255])
def test_a_phase_that_there_is_not_is_refused(kind: int) -> None:
    with pytest.raises(Malformed, match=f"there is no phase {kind}"):
        read_phase(Reader(bytes([kind]) + bytes(200)), PARAMETERS, 1)
