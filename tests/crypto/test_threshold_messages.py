"""Bytes of the messages of a committee: written as stated, read back, refused cut or extended."""

from __future__ import annotations

import numpy as np
import pytest

from crypto.codec import Writer, tagged_digest
from crypto.errors import KeyRefused, Malformed
from crypto.hybrid import HybridKey
from crypto.residues import uniform
from crypto.threshold_messages import (
    Check,
    Commitment,
    Dealing,
    Endorsement,
    Held,
    decode_answers,
    decode_bundle,
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
from crypto.threshold_parameters import MAX_MEMBERS, parameters_for
from crypto.threshold_sharing import repeats_of
from tests.crypto.harness import seeded
from tests.crypto.strictness import Case, check_case

PARAMETERS = parameters_for(20, 5, 100, 5, 3)
SCHEME = PARAMETERS.scheme
PRIMES = SCHEME.data_primes
ONE, TWO = bytes(range(32)), bytes(range(32, 64))
CHANNEL = HybridKey(bytes([7]) * 32, "test").public
BUNDLE = {3: b"three", 300: b""}
ROWS = {k: tuple(tuple(range(k, k + repeats_of(p))) for p in PRIMES) for k in (5, 6)}
SETS = ((1, 2, 4), (2, 3, 300))


def bundle() -> bytes:
    return Writer().bundle(BUNDLE).done()


def indices(*values: int) -> bytes:
    return Writer().indices(values).done()


def words(*rows: tuple[int, ...]) -> bytes:
    return b"".join(word.to_bytes(8, "little") for row in rows for word in row)


CASES: dict[str, Case] = {
    "commitment": (
        Commitment(ONE, CHANNEL).encode(),
        ONE + CHANNEL,
        Commitment.decode,
        Commitment(ONE, CHANNEL),
    ),
    "dealing": (
        Dealing(b"part", BUNDLE).encode(),
        Writer().sized(b"part").done() + bundle(),
        Dealing.decode,
        Dealing(b"part", BUNDLE),
    ),
    "check": (
        Check((), dict(reversed(ROWS.items()))).encode(),
        indices() + words(*ROWS[5], *ROWS[6]),
        lambda data: Check.decode(data, (5, 6), PRIMES),
        Check((), ROWS),
    ),
    "complaint": (
        Check((6,), {}).encode(),
        indices(6),
        lambda data: Check.decode(data, (5, 6), PRIMES),
        Check((6,), {}),
    ),
    "endorsement": (
        Endorsement(ONE, (1, 2), (2, 3)).encode(),
        ONE + indices(1, 2) + indices(2, 3),
        lambda data: Endorsement.decode(memoryview(data)),
        Endorsement(ONE, (1, 2), (2, 3)),
    ),
    "held": (
        Held(ONE, (1, 2), TWO).encode(),
        ONE + indices(1, 2) + TWO,
        Held.decode,
        Held(ONE, (1, 2), TWO),
    ),
    "pair": (
        encode_pair(BUNDLE, {1: b"x"}),
        bundle() + Writer().bundle({1: b"x"}).done(),
        lambda data: decode_pair(memoryview(data)),
        (BUNDLE, {1: b"x"}),
    ),
    "bundle": (bundle(), bundle(), lambda data: decode_bundle(memoryview(data)), BUNDLE),
    "sized and bundle": (
        encode_sized_and_bundle(b"first", BUNDLE),
        Writer().sized(b"first").done() + bundle(),
        lambda data: decode_sized_and_bundle(memoryview(data)),
        (b"first", BUNDLE),
    ),
    "sized and sized": (
        encode_sized_and_sized(b"first", b"second"),
        Writer().sized(b"first").sized(b"second").done(),
        lambda data: decode_sized_and_sized(memoryview(data)),
        (b"first", b"second"),
    ),
    "bundle and sets": (
        encode_bundle_and_sets(BUNDLE, SETS),
        bundle() + bytes([2, 0, 0, 0]) + indices(1, 2, 4) + indices(2, 3, 300),
        lambda data: decode_bundle_and_sets(memoryview(data)),
        (BUNDLE, SETS),
    ),
    "sets": (
        encode_sets(SETS),
        bytes([2, 0, 0, 0]) + indices(1, 2, 4) + indices(2, 3, 300),
        decode_sets,
        SETS,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_message_is_written_as_stated_and_nothing_else_is_read(name: str) -> None:
    check_case(CASES[name])


def test_a_commitment_is_of_one_member_in_one_attempt_to_one_part() -> None:
    expected = tagged_digest(
        "fedmeta/threshold/v1/part of a key", ONE, bytes([44, 1, 0, 0]), b"part"
    )
    assert Commitment.digest_of(ONE, 300, b"part") == expected


def test_a_channel_key_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(KeyRefused):
        Commitment.decode(ONE + b"\xff" * len(CHANNEL))


def test_words_of_a_check_are_below_their_primes_and_complaints_about_dealers() -> None:
    for at, prime in enumerate(PRIMES):
        for place in range(repeats_of(prime)):
            for word in (prime - 1, prime, prime + 1):
                rows = [list(row) for row in ROWS[6]]
                rows[at][place] = word
                changed = Check((), {**ROWS, 6: tuple(tuple(row) for row in rows)})
                if word < prime:
                    assert Check.decode(changed.encode(), (5, 6), PRIMES) == changed
                    continue
                with pytest.raises(Malformed, match="combination is not below its prime"):
                    Check.decode(changed.encode(), (5, 6), PRIMES)
    with pytest.raises(Malformed, match="nobody that dealt"):
        Check.decode(Check((5, 7), {}).encode(), (5, 6), PRIMES)
    both = Check((5, 6), {})
    assert Check.decode(both.encode(), (5, 6), PRIMES) == both


def test_no_set_is_asked_for_twice() -> None:
    assert decode_sets(encode_sets(())) == ()
    with pytest.raises(Malformed, match="a set is asked for twice"):
        decode_sets(encode_sets(((1, 2), (1, 3), (1, 2))))


def test_a_set_is_of_a_committee_however_many_are_asked_for() -> None:
    """Else many long lists would be in memory together: several hundred times the message."""
    largest = tuple(range(5, 5 + MAX_MEMBERS))
    assert decode_sets(encode_sets((largest,))) == (largest,)
    with pytest.raises(Malformed, match="a set of 16 members; allowed: up to 15"):
        decode_sets(encode_sets((largest, (*largest, 20))))


def test_keys_are_for_these_parameters() -> None:
    part = uniform(seeded("part"), (), SCHEME.key_primes, SCHEME.degree)
    written = encode_part(part, SCHEME)
    np.testing.assert_array_equal(decode_part(written, SCHEME), part)
    key = encode_key(PARAMETERS, part)
    assert key == PARAMETERS.encode() + written
    np.testing.assert_array_equal(decode_key(key, PARAMETERS), part)
    for lane, threshold in ((20, 4), (21, 3), (19, 3)):
        other = parameters_for(lane, 5, 100, 5, threshold)
        with pytest.raises(Malformed, match="the key is for other parameters"):
            decode_key(key, other)
    for wrong in (key[:-1], key + b"\0"):
        with pytest.raises(Malformed):
            decode_key(wrong, PARAMETERS)


def test_answers_in_some_sets_are_read_one_by_one() -> None:
    answers = uniform(seeded("answers"), (2, 1), PRIMES, SCHEME.degree)
    data = b"".join(encode_answer(answer, SCHEME) for answer in answers)
    for read, answer in zip(decode_answers(data, 2, 1, SCHEME), answers, strict=True):
        np.testing.assert_array_equal(read, answer)
    for sets, count in ((1, 1), (3, 1), (2, 2)):
        with pytest.raises(Malformed):
            decode_answers(data, sets, count, SCHEME)
