"""Codec, envelope, terms, roster and inbox: strict, and bound to what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.codec import MAX_SPAN, Reader, Writer, frame, tagged_digest
from crypto.envelope import EVERYBODY, Heading, Step, seal, unseal
from crypto.errors import KeyRefused, Malformed, MessageRefused, RingRefused, TermsRefused
from crypto.keys import Member, Roster
from crypto.masking_messages import (
    Opening,
    decode_bundle,
    decode_delivery,
    encode_bundle,
    encode_delivery,
)
from crypto.ring import Ring
from crypto.secure_sum import SECURE_SUMS
from tests.crypto.harness import (
    Run,
    another,
    identity,
    make_terms,
    make_vectors,
    roster,
    terms_for,
)

CONTEXT = bytes(range(32))
HEADING = Heading(Step.SHARE, 1, 2, CONTEXT)


def test_writer_and_reader_agree() -> None:
    data = Writer().u8(1).u32(2).u64(3).fixed(b"ab", 2).sized(b"cde").text("é").done()
    parts = [
        b"\x01",
        b"\x02\0\0\0",
        b"\x03" + bytes(7),
        b"ab",
        b"\x03\0\0\0cde",
        b"\x02\0\0\0\xc3\xa9",
    ]
    assert data == b"".join(parts)
    reader = Reader(data)
    assert (reader.u8(), reader.u32(), reader.u64()) == (1, 2, 3)
    assert (reader.fixed(2), reader.sized(), bytes(reader.rest())) == (
        b"ab",
        b"cde",
        b"\x02\0\0\0\xc3\xa9",
    )
    reader.end()


@pytest.mark.parametrize("value", [-1, 256])
def test_integers_out_of_their_width_are_refused(value: int) -> None:
    with pytest.raises(Malformed, match="does not fit"):
        Writer().u8(value)


def test_wrong_lengths_and_leftovers_are_refused() -> None:
    with pytest.raises(Malformed, match="must have 3"):
        Writer().fixed(b"ab", 3)
    with pytest.raises(Malformed, match="1 bytes left over"):
        Reader(b"x").end()
    with pytest.raises(Malformed, match="4 bytes wanted, 3 left"):
        Reader(b"xxx").u32()
    with pytest.raises(Malformed, match="wanted"):
        Reader(b"\xff\xff\xff\xffx").sized()


@given(a=st.lists(st.binary(max_size=6), max_size=4), b=st.lists(st.binary(max_size=6), max_size=4))
def test_frames_are_equal_only_for_equal_parts(a: list[bytes], b: list[bytes]) -> None:
    assert (frame("x", *a) == frame("x", *b)) == (a == b)
    assert (tagged_digest("x", *a) == tagged_digest("x", *b)) == (a == b)
    assert frame("x", *a) != frame("y", *a)


def test_envelope_round_trip() -> None:
    message = seal(identity(1), HEADING, b"payload")
    assert bytes(unseal(message, HEADING, roster(3))) == b"payload"
    assert len(message) == 1 + 1 + 4 + 4 + 32 + 4 + 7 + 64


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (replace(HEADING, step=Step.UNMASK), "another step"),
        (replace(HEADING, sender=3), "another sender"),
        (replace(HEADING, recipient=3), "another recipient"),
        (replace(HEADING, recipient=EVERYBODY), "another recipient"),
        (replace(HEADING, context=bytes(32)), "another round, attempt, terms or view"),
    ],
)
def test_messages_for_something_else_are_refused_by_name(wanted: Heading, reason: str) -> None:
    message = seal(identity(1), HEADING, b"payload")
    with pytest.raises(MessageRefused, match=reason) as caught:
        unseal(message, wanted, roster(3))
    assert (caught.value.sender, caught.value.step) == (wanted.sender, wanted.step.label)


def test_a_signature_by_anyone_else_is_refused() -> None:
    message = seal(identity(2), HEADING, b"payload")
    with pytest.raises(MessageRefused, match="signature does not verify"):
        unseal(message, HEADING, roster(3))


def test_every_changed_byte_of_an_envelope_is_refused() -> None:
    message = seal(identity(1), HEADING, b"payload")
    for at in range(len(message)):
        changed = bytearray(message)
        changed[at] ^= 1
        with pytest.raises(MessageRefused) as caught:
            unseal(bytes(changed), HEADING, roster(3))
        assert caught.value.sender == 1
    for wrong in (message[:-1], message + b"\0", b"", message[1:]):
        with pytest.raises(MessageRefused):
            unseal(wrong, HEADING, roster(3))


def test_unknown_sender_names_read_well() -> None:
    assert str(MessageRefused(None, "share", "why")) == (
        "share: message from an unknown sender refused: why"
    )


@given(st.dictionaries(st.integers(0, 2**32 - 1), st.binary(max_size=5), max_size=5))
def test_bundles_round_trip(bundle: dict[int, bytes]) -> None:
    assert decode_bundle(encode_bundle(bundle)) == bundle
    members = tuple(sorted({2**31 + k % MAX_SPAN for k in bundle}))
    assert decode_delivery(encode_delivery(members, bundle)) == (members, bundle)


def test_bundles_and_lists_have_one_order() -> None:
    one, two = Writer().u32(1).sized(b"").done(), Writer().u32(2).sized(b"").done()
    decode_bundle(Writer().u32(2).done() + one + two)
    for wrong in (two + one, one + one):
        with pytest.raises(Malformed, match="strictly increasing"):
            decode_bundle(Writer().u32(2).done() + wrong)
    for wrong in ((2, 1), (1, 1)):
        with pytest.raises(Malformed, match="strictly increasing"):
            Opening.decode(Opening(bytes(32), wrong, ()).encode())


def test_a_list_of_indices_has_one_encoding() -> None:
    encoded = Writer().indices((7, 9, 16)).done()
    assert encoded == bytes([10, 0, 0, 0, 7, 0, 0, 0, 0b0000_0101, 0b10])
    assert Reader(encoded).indices() == (7, 9, 16)
    for at, wrong in (
        (8, 0b0000_0100),  # the first is not there
        (9, 0b00),  # the last is not there
        (9, 0b0110),  # beyond the span
        (9, 0b1000_0010),
        (0, 9),
        (0, 11),
    ):
        with pytest.raises(Malformed, match="span"):
            Reader(encoded[:at] + bytes([wrong]) + encoded[at + 1 :]).indices()
    with pytest.raises(Malformed, match="index 4294967296 does not fit"):
        Reader(encoded[:4] + (2**32 - 9).to_bytes(4, "little") + encoded[8:]).indices()


def test_a_long_list_of_indices_is_refused_before_it_is_unpacked() -> None:
    """One bit on the wire is an integer in memory: 16 MB would become 5 GB."""
    most = (5, 5 + MAX_SPAN - 1)
    assert Reader(Writer().indices(most).done()).indices() == most
    for first, last in ((5, 5 + MAX_SPAN), (0, 2**32 - 1)):
        with pytest.raises(Malformed, match="allowed: up to 1048576"):
            Writer().indices((first, last))
    for span in (MAX_SPAN + 1, 2**32 - 1):
        front = Writer().u32(span).u32(0).done()
        with pytest.raises(Malformed, match="allowed: up to 1048576"):
            Reader(front + b"\xff" * 16).indices()


# --- terms and roster ---------------------------------------------------------------------------


def test_every_field_is_bound_into_a_context() -> None:
    terms = make_terms(5)
    changes: dict[str, object] = {
        "run": b"r" * 32,
        "round": 7,
        "attempt": 7,
        "config_digest": b"c" * 32,
        "plan_digest": b"p" * 32,
        "roster": roster(6),
        "cohort": (1, 2, 3, 4),
        "ring": Ring(21),
        "length": 6,
        "degree": 3,
        "threshold": 4,
        "min_survivors": 4,
        "max_colluders": 1,
    }
    seen = {terms.ctx1, *(another(terms, **{k: v}).ctx1 for k, v in changes.items())}
    assert len(seen) == 1 + len(changes)
    other_model = another(terms, model_digest=b"m" * 32)
    assert other_model.ctx1 == terms.ctx1
    second = {
        terms.ctx2(b"root", b"graph"),
        other_model.ctx2(b"root", b"graph"),
        terms.ctx2(b"toor", b"graph"),
        terms.ctx2(b"root", b"other"),
        another(terms, round=7).ctx2(b"root", b"graph"),
    }
    assert len(second) == 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("run", b"short"),
        ("config_digest", "x" * 32),
        ("plan_digest", b""),
        ("model_digest", None),
        ("round", -1),
        ("round", 2**32),
        ("attempt", 0.0),
        ("length", 0),
        ("degree", -1),
        ("threshold", True),
        ("min_survivors", 0),
        ("max_colluders", -1),
        ("cohort", ()),
        ("cohort", (0, 1, 2)),
        ("cohort", (1, 2, 6)),
        ("cohort", (1, 3, 2)),
        ("cohort", (1, 1, 2)),
        ("cohort", (1, 2.0, 3)),
    ],
)
def test_malformed_terms_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(TermsRefused, match=field):
        another(make_terms(5), **{field: value})


def test_terms_as_json_hold_strings_and_integers() -> None:
    told = make_terms(3).to_json()
    assert told["cohort"] == [1, 2, 3]
    assert told["roster_digest"] == roster(3, officers=1).digest.hex()
    assert all(isinstance(value, str | int | list) for value in told.values())


def test_roster_digest_binds_names_keys_and_order() -> None:
    members = roster(3).members
    base = roster(3)
    others = [
        Roster(identity(9).public, members),
        Roster(base.aggregator, members[:2]),
        Roster(base.aggregator, members[::-1]),
        Roster(base.aggregator, (replace(members[0], name="other"), *members[1:])),
        Roster(base.aggregator, (replace(members[0], public=identity(9).public), *members[1:])),
        Roster(base.aggregator, members[:2], members[2:]),
        Roster(base.aggregator, members[:1], members[1:]),
    ]
    assert len({base.digest, *(other.digest for other in others)}) == 8


@pytest.mark.parametrize(
    ("members", "match"),
    [
        ((), "allowed: 1 to"),
        ((Member("", b"a" * 32),), "empty or unprintable"),
        ((Member("a\nb", b"a" * 32),), "empty or unprintable"),
        ((Member("\ud800", b"a" * 32),), "empty or unprintable"),
        ((Member("a", b"a" * 31),), "allowed: 32 bytes"),
        ((Member("a", b"a" * 32), Member("b", b"a" * 32)), "same public key"),
        ((Member("a", identity(0).public),), "same public key"),
        ((Member("a", b"a" * 32), Member("a", b"b" * 32)), "same name"),
    ],
)
def test_bad_rosters_are_refused(members: tuple[Member, ...], match: str) -> None:
    with pytest.raises(KeyRefused, match=match):
        Roster(identity(0).public, members)


def test_roster_has_no_party_outside() -> None:
    assert roster(3).public_of(0) == identity(0).public
    assert roster(3).public_of(3) == identity(3).public
    for index in (-1, 4):
        with pytest.raises(KeyRefused, match="allowed: 0 to 3"):
            roster(3).public_of(index)
        with pytest.raises(KeyRefused, match="allowed: 0 to 3"):
            roster(1, officers=2).public_of(index)


def test_officers_follow_the_members() -> None:
    both = roster(3, officers=2)
    assert both.officer_indices == (4, 5)
    assert [both.public_of(k) for k in range(6)] == [identity(k).public for k in range(6)]
    assert roster(3).officer_indices == ()
    with pytest.raises(TermsRefused, match="allowed: 1 to 3"):
        another(make_terms(3, officers=2), cohort=(1, 2, 4))


@pytest.mark.parametrize(
    ("officers", "match"),
    [
        ((Member("", b"a" * 32),), "empty or unprintable"),
        ((Member("a", b"a" * 31),), "allowed: 32 bytes"),
        ((Member("a", identity(1).public),), "same public key"),
        ((Member("a", identity(0).public),), "same public key"),
        ((Member("a", b"a" * 32), Member("a", b"b" * 32)), "same name"),
    ],
)
def test_bad_officers_are_refused(officers: tuple[Member, ...], match: str) -> None:
    with pytest.raises(KeyRefused, match=match):
        Roster(identity(0).public, roster(2).members, officers)


def test_vectors_of_another_shape_are_refused_by_their_own_client() -> None:
    for name in SECURE_SUMS:
        terms = terms_for(name, 3)
        run = Run(name, terms, {**make_vectors(terms), 1: np.zeros(4, dtype=np.int64)})
        with pytest.raises(RingRefused, match=r"allowed: \(5,\)"):
            run.drive()
