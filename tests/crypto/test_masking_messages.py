"""Bytes of messages of double masking: written as stated, read back, refused cut or extended."""

from __future__ import annotations

import pytest

from crypto.codec import Writer, tagged_digest
from crypto.errors import Malformed
from crypto.masking_keys import ESCROW_BYTES, Advert, PairOffer
from crypto.masking_messages import (
    SEALED_BYTES,
    Dealing,
    DealtShares,
    Kind,
    Neighbourhood,
    Opening,
    OpeningRequest,
    decode_advert,
    decode_bundle,
    decode_dealings,
    decode_delivery,
    decode_masked_input,
    decode_unmask_answer,
    delivered_digest,
    encode_advert,
    encode_bundle,
    encode_dealings,
    encode_delivery,
    encode_masked_input,
    encode_unmask_answer,
)
from tests.crypto.strictness import Case, check_case


def filled(length: int, first: int = 1) -> bytes:
    """Bytes that differ from their neighbours."""
    return bytes((first + k) % 251 for k in range(length))


SHARES = DealtShares(filled(32), filled(32, 100))
SEALED = filled(64 + 1088 + 16)
OFFER = PairOffer(filled(1088, 7), filled(32, 9))
OPENING = Opening(filled(32), (1, 4, 300), (2, 3))
REQUEST = OpeningRequest(OPENING, b"evidence")
ADVERT = Advert(filled(1184 + 32, 1), filled(1184 + 32, 2), filled(32, 3))
SHOWN = Neighbourhood((1, 2, 9), [filled(32, k) for k in (1, 2, 3)], {1: b"one", 9: b""})
ALONE = Neighbourhood((4,), [], {})
ASKED = {2: Kind.MASK_SECRET, 300: Kind.SELF_SEED}
GIVEN = {2: filled(32, 5), 300: filled(32, 6)}
INDICES = Writer().indices((2, 7)).done()

CASES: dict[str, Case] = {
    "shares": (
        SHARES.encode(),
        filled(32) + filled(32, 100),
        DealtShares.decode,
        SHARES,
    ),
    "dealing to a higher one": (
        Dealing(SEALED, OFFER).encode(),
        SEALED + filled(1088, 7) + filled(32, 9),
        lambda data: Dealing.decode(data, dealer=3, recipient=4),
        Dealing(SEALED, OFFER),
    ),
    "dealing to a lower one": (
        Dealing(SEALED, None).encode(),
        SEALED,
        lambda data: Dealing.decode(data, dealer=4, recipient=3),
        Dealing(SEALED, None),
    ),
    "opening": (
        OPENING.encode(),
        filled(32) + Writer().indices((1, 4, 300)).indices((2, 3)).done(),
        Opening.decode,
        OPENING,
    ),
    "request": (
        REQUEST.encode(),
        Writer().sized(OPENING.encode()).sized(b"evidence").done(),
        OpeningRequest.decode,
        REQUEST,
    ),
    "advert": (
        encode_advert(ADVERT),
        ADVERT.mask + ADVERT.channel + ADVERT.commitment,
        decode_advert,
        ADVERT,
    ),
    "neighbourhood": (
        SHOWN.encode(),
        Writer().indices((1, 2, 9)).u32(3).done()
        + b"".join(SHOWN.missing)
        + Writer().bundle({1: b"one", 9: b""}).done(),
        Neighbourhood.decode,
        SHOWN,
    ),
    "neighbourhood of nobody": (
        ALONE.encode(),
        Writer().indices((4,)).u32(0).bundle({}).done(),
        Neighbourhood.decode,
        ALONE,
    ),
    "bundle": (
        encode_bundle({3: b"a", 1: b""}),
        Writer().bundle({1: b"", 3: b"a"}).done(),
        decode_bundle,
        {1: b"", 3: b"a"},
    ),
    "dealings": (
        encode_dealings({2: b"two"}, {5: filled(ESCROW_BYTES)}),
        Writer().bundle({2: b"two"}).bundle({5: filled(ESCROW_BYTES)}).done(),
        decode_dealings,
        ({2: b"two"}, {5: filled(ESCROW_BYTES)}),
    ),
    "delivery": (
        encode_delivery((2, 7), {2: b"two"}),
        INDICES + Writer().bundle({2: b"two"}).done(),
        decode_delivery,
        ((2, 7), {2: b"two"}),
    ),
    "answer": (
        encode_unmask_answer(OPENING, ASKED, GIVEN),
        OPENING.digest
        + Writer().u32(2).u8(2).done()
        + GIVEN[2]
        + Writer().u32(300).u8(1).done()
        + GIVEN[300],
        lambda data: decode_unmask_answer(data, OPENING, ASKED),
        GIVEN,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_message_is_written_as_stated_and_nothing_else_is_read(name: str) -> None:
    check_case(CASES[name])


def test_sizes_are_those_of_their_parts() -> None:
    assert SEALED_BYTES == 32 + 32 + 1088 + 16
    assert len(Dealing(SEALED, OFFER).attached) == 1088 + 32
    assert Dealing(SEALED, None).attached == b""
    for sealed in (SEALED[:-1], SEALED + b"\0"):
        with pytest.raises(Malformed):
            Dealing(sealed, None).encode()
    for escrow in (b"", bytes(ESCROW_BYTES - 1), bytes(ESCROW_BYTES + 1)):
        data = encode_dealings({}, {1: bytes(ESCROW_BYTES), 2: escrow})
        with pytest.raises(Malformed, match=f"an escrow does not have {ESCROW_BYTES} bytes"):
            decode_dealings(data)


def test_an_answer_gives_the_shares_that_are_asked_for() -> None:
    written = encode_unmask_answer(OPENING, ASKED, GIVEN)
    other = Opening(OPENING.intent, OPENING.survivors, (2,))
    with pytest.raises(Malformed, match="answers another request"):
        decode_unmask_answer(written, other, ASKED)
    for digest in (bytes(32), b"\xff" * 32):
        with pytest.raises(Malformed, match="answers another request"):
            decode_unmask_answer(digest + written[32:], OPENING, ASKED)
    for asked in (
        {2: Kind.SELF_SEED, 300: Kind.SELF_SEED},
        {3: Kind.MASK_SECRET, 300: Kind.SELF_SEED},
        {1: Kind.MASK_SECRET, 300: Kind.SELF_SEED},
        {2: Kind.MASK_SECRET, 300: Kind.MASK_SECRET},
    ):
        with pytest.raises(Malformed, match="other shares than those asked for"):
            decode_unmask_answer(written, OPENING, asked)


def test_survivors_are_asked_for_seeds_and_the_others_for_secrets() -> None:
    assert OPENING.kinds == {
        1: Kind.SELF_SEED,
        4: Kind.SELF_SEED,
        300: Kind.SELF_SEED,
        2: Kind.MASK_SECRET,
        3: Kind.MASK_SECRET,
    }
    assert OPENING.asked_of((2, 4, 5)) == {2: Kind.MASK_SECRET, 4: Kind.SELF_SEED}
    assert SHARES.of(Kind.SELF_SEED) == filled(32, 100)
    assert SHARES.of(Kind.MASK_SECRET) == filled(32)
    assert (Kind.SELF_SEED, Kind.MASK_SECRET) == (1, 2)
    assert "100" not in repr(SHARES)
    assert "mask_secret" not in repr(SHARES)


def test_digests_name_what_they_are_of() -> None:
    expected = tagged_digest("fedmeta/masking/v1/opening", OPENING.encode())
    assert OPENING.digest == expected
    delivered = tagged_digest("fedmeta/masking/v1/delivered", INDICES)
    assert delivered_digest((2, 7)) == delivered
    assert encode_masked_input((2, 7), b"packed") == delivered + b"packed"
    digest, packed = decode_masked_input(delivered + b"packed")
    assert (digest, bytes(packed)) == (delivered, b"packed")
    with pytest.raises(Malformed):
        decode_masked_input(delivered[:-1])
