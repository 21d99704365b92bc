"""Payloads of double masking, each with exactly one encoding; decoders raise Malformed.

advertise     to clients: nothing
              back: Advert, signed to everybody
share         to clients: the adverts of U1 as signed
              back: one Dealing per other member of U1, and escrows
masked input  to clients: U2, and the dealings to this client
              back: digest of U2, packed masked vector
consistency   to clients: OpeningRequest
              back: digest of the Opening, signed to everybody
unmask        to clients: such signatures by threshold members of the survivors
              back: digest of the Opening, one share per member of U2
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from itertools import pairwise
from typing import Final

from crypto.codec import Reader, Writer, tagged_digest
from crypto.errors import Malformed
from crypto.hybrid import CIPHERTEXT_BYTES, HYBRID_KEY_BYTES
from crypto.keys import KEY_BYTES
from crypto.masking_keys import ESCROW_BYTES, SEAL_OVERHEAD, Advert, PairOffer

SHARE_BYTES: Final = KEY_BYTES
SEALED_BYTES: Final = 2 * SHARE_BYTES + SEAL_OVERHEAD
OFFER_BYTES: Final = CIPHERTEXT_BYTES + KEY_BYTES
COMPLETE_GRAPH: Final = b"complete graph"


class Kind(IntEnum):
    """Which secret of a client a share belongs to. Nobody may ever collect both."""

    SELF_SEED = 1
    MASK_SECRET = 2


@dataclass(frozen=True, repr=False)
class DealtShares:
    """The two shares that one client deals another; they travel sealed and redact themselves."""

    mask_secret: bytes
    self_seed: bytes

    def encode(self) -> bytes:
        """64 bytes."""
        writer = Writer().fixed(self.mask_secret, SHARE_BYTES)
        return writer.fixed(self.self_seed, SHARE_BYTES).done()

    @classmethod
    def decode(cls, data: bytes) -> DealtShares:
        """Inverse of encode."""
        reader = Reader(data)
        shares = cls(reader.fixed(SHARE_BYTES), reader.fixed(SHARE_BYTES))
        reader.end()
        return shares

    def of(self, kind: Kind) -> bytes:
        """The share of one of the two secrets."""
        return self.self_seed if kind is Kind.SELF_SEED else self.mask_secret


@dataclass(frozen=True)
class Dealing:
    """What one client sends another: the sealed shares and, from the lower to the higher, an offer.

    Its dealer signs all of them together to the aggregator. The recipient knows it by the seal,
    which nobody else could have made and which covers the offer too.

    Attributes:
        sealed: DealtShares for the recipient alone, SEALED_BYTES.
        offer: of the pair secret; None from the higher to the lower client.
    """

    sealed: bytes
    offer: PairOffer | None

    def encode(self) -> bytes:
        """Sealed shares, then ciphertext and tag of the offer."""
        writer = Writer().fixed(self.sealed, SEALED_BYTES)
        return writer.fixed(self.attached, 0 if self.offer is None else OFFER_BYTES).done()

    @property
    def attached(self) -> bytes:
        """What the seal covers beside what is in it."""
        return b"" if self.offer is None else self.offer.encode()

    @classmethod
    def decode(cls, data: bytes | memoryview, *, dealer: int, recipient: int) -> Dealing:
        """Inverse of encode; whether there is an offer follows from who deals to whom."""
        reader = Reader(data)
        sealed = reader.fixed(SEALED_BYTES)
        offer = None
        if dealer < recipient:
            offer = PairOffer(reader.fixed(CIPHERTEXT_BYTES), reader.fixed(KEY_BYTES))
        reader.end()
        return cls(sealed, offer)


@dataclass(frozen=True)
class Opening:
    """What the aggregator wants opened: every member of U2 is in exactly one of the two lists.

    Attributes:
        intent: digest of the intent that was logged, 32 bytes.
        survivors: clients whose vectors are in the sum, increasing.
        dropped: the other members of U2, increasing.
    """

    intent: bytes
    survivors: tuple[int, ...]
    dropped: tuple[int, ...]

    def encode(self) -> bytes:
        """Intent 32 bytes, then both lists."""
        writer = Writer().fixed(self.intent, KEY_BYTES)
        _put_indices(writer, self.survivors)
        _put_indices(writer, self.dropped)
        return writer.done()

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Opening:
        """Inverse of encode."""
        reader = Reader(data)
        opening = cls(reader.fixed(KEY_BYTES), _get_indices(reader), _get_indices(reader))
        reader.end()
        return opening

    @cached_property
    def digest(self) -> bytes:
        """What clients sign and every answer repeats: ties intent, U2 and survivors together."""
        return tagged_digest("fedmeta/masking/v1/opening", self.encode())

    def kinds(self) -> dict[int, Kind]:
        """The kind of share that is asked for, for every client in the lists."""
        return {
            **dict.fromkeys(self.survivors, Kind.SELF_SEED),
            **dict.fromkeys(self.dropped, Kind.MASK_SECRET),
        }


@dataclass(frozen=True)
class OpeningRequest:
    """What clients are asked to sign, and why they may.

    Attributes:
        opening: what they are to sign.
        evidence: shows that its intent was logged; see IntentCheck.
    """

    opening: Opening
    evidence: bytes

    def encode(self) -> bytes:
        """The opening and the evidence, each behind its length."""
        return Writer().sized(self.opening.encode()).sized(self.evidence).done()

    @classmethod
    def decode(cls, data: bytes | memoryview) -> OpeningRequest:
        """Inverse of encode."""
        reader = Reader(data)
        request = cls(Opening.decode(reader.sized_view()), reader.sized())
        reader.end()
        return request


def encode_advert(advert: Advert) -> bytes:
    """Two hybrid keys and 32 bytes."""
    writer = Writer().fixed(advert.mask, HYBRID_KEY_BYTES).fixed(advert.channel, HYBRID_KEY_BYTES)
    return writer.fixed(advert.commitment, KEY_BYTES).done()


def decode_advert(data: bytes | memoryview) -> Advert:
    """Inverse of encode_advert."""
    reader = Reader(data)
    mask, channel = reader.fixed(HYBRID_KEY_BYTES), reader.fixed(HYBRID_KEY_BYTES)
    advert = Advert(mask, channel, reader.fixed(KEY_BYTES))
    reader.end()
    return advert


def adverts_root(adverts: Mapping[int, Advert]) -> bytes:
    """Digest of all adverts of U1 by index: two views of the adverts have two roots."""
    parts = [
        part
        for index in sorted(adverts)
        for part in (Writer().u32(index).done(), encode_advert(adverts[index]))
    ]
    return tagged_digest("fedmeta/masking/v1/adverts", *parts)


def encode_bundle(bundle: Mapping[int, bytes]) -> bytes:
    """Byte strings by client, in increasing order of the clients."""
    writer = Writer().u32(len(bundle))
    for index in sorted(bundle):
        writer.u32(index).sized(bundle[index])
    return writer.done()


def decode_bundle(data: bytes | memoryview) -> dict[int, bytes]:
    """Inverse of encode_bundle; refuses repetition and any other order."""
    reader = Reader(data)
    bundle = _get_bundle(reader)
    reader.end()
    return bundle


def encode_dealings(dealings: Mapping[int, bytes], escrows: Mapping[int, bytes]) -> bytes:
    """A dealing for every other member of U1, and an escrow for every higher one."""
    return encode_bundle(dealings) + encode_bundle(escrows)


def decode_dealings(data: bytes | memoryview) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """Inverse of encode_dealings."""
    reader = Reader(data)
    dealings, escrows = _get_bundle(reader), _get_bundle(reader)
    reader.end()
    if any(len(escrow) != ESCROW_BYTES for escrow in escrows.values()):
        raise Malformed(f"an escrow does not have {ESCROW_BYTES} bytes")
    return dealings, escrows


def encode_delivery(recipients: tuple[int, ...], dealings: Mapping[int, bytes]) -> bytes:
    """U2 and the dealings for one of its members."""
    writer = Writer()
    _put_indices(writer, recipients)
    return writer.done() + encode_bundle(dealings)


def decode_delivery(data: bytes | memoryview) -> tuple[tuple[int, ...], dict[int, bytes]]:
    """Inverse of encode_delivery."""
    reader = Reader(data)
    recipients = _get_indices(reader)
    dealings = _get_bundle(reader)
    reader.end()
    return recipients, dealings


def encode_masked_input(delivered: tuple[int, ...], packed: bytes) -> bytes:
    """Digest of the U2 that the masks cover, then the packed vector."""
    return delivered_digest(delivered) + packed


def decode_masked_input(data: bytes | memoryview) -> tuple[bytes, memoryview]:
    """Inverse of encode_masked_input, with the digest of U2 and the packed bytes unread."""
    reader = Reader(data)
    return reader.fixed(KEY_BYTES), reader.rest()


def delivered_digest(delivered: tuple[int, ...]) -> bytes:
    """Digest of U2."""
    writer = Writer()
    _put_indices(writer, delivered)
    return tagged_digest("fedmeta/masking/v1/delivered", writer.done())


def encode_unmask_answer(opening: Opening, shares: Mapping[int, bytes]) -> bytes:
    """Digest of the opening, then index, kind and share of every client in it, increasing."""
    writer = Writer().fixed(opening.digest, KEY_BYTES)
    for index, kind in sorted(opening.kinds().items()):
        writer.u32(index).u8(kind).fixed(shares[index], SHARE_BYTES)
    return writer.done()


def decode_unmask_answer(data: bytes | memoryview, opening: Opening) -> dict[int, bytes]:
    """Inverse of encode_unmask_answer; refuses an answer to any other opening."""
    reader = Reader(data)
    if reader.fixed(KEY_BYTES) != opening.digest:
        raise Malformed("answers another request")
    shares: dict[int, bytes] = {}
    for index, kind in sorted(opening.kinds().items()):
        if (reader.u32(), reader.u8()) != (index, kind):
            raise Malformed("gives other shares than those asked for")
        shares[index] = reader.fixed(SHARE_BYTES)
    reader.end()
    return shares


def _put_indices(writer: Writer, indices: Iterable[int]) -> None:
    listed = tuple(indices)
    writer.u32(len(listed))
    for index in listed:
        writer.u32(index)


def _get_indices(reader: Reader) -> tuple[int, ...]:
    count = reader.u32()
    fields = Reader(reader.view(4 * count))
    indices = tuple(fields.u32() for _ in range(count))
    if any(a >= b for a, b in pairwise(indices)):
        raise Malformed("indices are not strictly increasing")
    return indices


def _get_bundle(reader: Reader) -> dict[int, bytes]:
    bundle: dict[int, bytes] = {}
    last = -1
    for _ in range(reader.u32()):
        index = reader.u32()
        if index <= last:
            raise Malformed("indices are not strictly increasing")
        bundle[index] = reader.sized()
        last = index
    return bundle
