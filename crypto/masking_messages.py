"""Payloads of double masking, each with exactly one encoding; decoders raise Malformed.

advertise     to clients: nothing
              back: Advert, signed to everybody
share         to clients: Neighbourhood
              back: one Dealing per neighbour, and escrows
masked input  to clients: U2, and the dealings of its neighbours to this client
              back: digest of U2, packed masked vector
consistency   to clients: OpeningRequest
              back: digest of the Opening, signed to everybody
unmask        to clients: such signatures by threshold survivors of the committee
              back: digest of the Opening, one share per member of U2 nearby
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Final

from crypto.channel import SEAL_OVERHEAD
from crypto.codec import Reader, Writer, tagged_digest
from crypto.errors import Malformed
from crypto.hybrid import CIPHERTEXT_BYTES, HYBRID_KEY_BYTES
from crypto.keys import KEY_BYTES
from crypto.masking_graph import HASH_BYTES
from crypto.masking_keys import ESCROW_BYTES, Advert, PairOffer

SHARE_BYTES: Final = KEY_BYTES
SEALED_BYTES: Final = 2 * SHARE_BYTES + SEAL_OVERHEAD
OFFER_BYTES: Final = CIPHERTEXT_BYTES + KEY_BYTES


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
        return writer.indices(self.survivors).indices(self.dropped).done()

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Opening:
        """Inverse of encode."""
        reader = Reader(data)
        opening = cls(reader.fixed(KEY_BYTES), reader.indices(), reader.indices())
        reader.end()
        return opening

    @cached_property
    def digest(self) -> bytes:
        """What clients sign and every answer repeats: ties intent, U2 and survivors together."""
        return tagged_digest("fedmeta/masking/v1/opening", self.encode())

    @cached_property
    def kinds(self) -> Mapping[int, Kind]:
        """The kind of share that is asked for, for every client in the lists."""
        return {
            **dict.fromkeys(self.survivors, Kind.SELF_SEED),
            **dict.fromkeys(self.dropped, Kind.MASK_SECRET),
        }

    def asked_of(self, dealers: Iterable[int]) -> dict[int, Kind]:
        """The kinds that a client is asked for, which holds shares of these dealers; increasing."""
        return {dealer: self.kinds[dealer] for dealer in dealers if dealer in self.kinds}


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


@dataclass(frozen=True)
class Neighbourhood:
    """What a client is shown of U1.

    Attributes:
        members: all of U1, increasing.
        missing: hashes of the tree of adverts that do not follow from the known ones.
        adverts: adverts of the client's neighbours as signed, by index.
    """

    members: tuple[int, ...]
    missing: Sequence[bytes]
    adverts: Mapping[int, bytes]

    def encode(self) -> bytes:
        """Members, then the missing hashes behind their number, then the adverts."""
        writer = Writer().indices(self.members).u32(len(self.missing))
        writer.fixed(b"".join(self.missing), HASH_BYTES * len(self.missing))
        return writer.bundle(self.adverts).done()

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Neighbourhood:
        """Inverse of encode."""
        reader = Reader(data)
        members, count = reader.indices(), reader.u32()
        joined = reader.fixed(HASH_BYTES * count)
        missing = [joined[k : k + HASH_BYTES] for k in range(0, len(joined), HASH_BYTES)]
        shown = cls(members, missing, reader.bundle())
        reader.end()
        return shown


def encode_bundle(bundle: Mapping[int, bytes]) -> bytes:
    """Byte strings by client, in increasing order of the clients."""
    return Writer().bundle(bundle).done()


def decode_bundle(data: bytes | memoryview) -> dict[int, bytes]:
    """Inverse of encode_bundle; refuses repetition and any other order."""
    reader = Reader(data)
    bundle = reader.bundle()
    reader.end()
    return bundle


def encode_dealings(dealings: Mapping[int, bytes], escrows: Mapping[int, bytes]) -> bytes:
    """A dealing for every neighbour, and an escrow for every higher one."""
    return Writer().bundle(dealings).bundle(escrows).done()


def decode_dealings(data: bytes | memoryview) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """Inverse of encode_dealings."""
    reader = Reader(data)
    dealings, escrows = reader.bundle(), reader.bundle()
    reader.end()
    if any(len(escrow) != ESCROW_BYTES for escrow in escrows.values()):
        raise Malformed(f"an escrow does not have {ESCROW_BYTES} bytes")
    return dealings, escrows


def encode_delivery(recipients: tuple[int, ...], dealings: Mapping[int, bytes]) -> bytes:
    """U2 and the dealings for one of its members."""
    return Writer().indices(recipients).bundle(dealings).done()


def decode_delivery(data: bytes | memoryview) -> tuple[tuple[int, ...], dict[int, bytes]]:
    """Inverse of encode_delivery."""
    reader = Reader(data)
    recipients, dealings = reader.indices(), reader.bundle()
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
    return tagged_digest("fedmeta/masking/v1/delivered", Writer().indices(delivered).done())


def encode_unmask_answer(
    opening: Opening, asked: Mapping[int, Kind], shares: Mapping[int, bytes]
) -> bytes:
    """Digest of the opening, then index, kind and share of everybody whose share is asked for."""
    writer = Writer().fixed(opening.digest, KEY_BYTES)
    for index, kind in asked.items():
        writer.u32(index).u8(kind).fixed(shares[index], SHARE_BYTES)
    return writer.done()


def decode_unmask_answer(
    data: bytes | memoryview, opening: Opening, asked: Mapping[int, Kind]
) -> dict[int, bytes]:
    """Inverse of encode_unmask_answer; refuses an answer to any other opening."""
    reader = Reader(data)
    if reader.fixed(KEY_BYTES) != opening.digest:
        raise Malformed("answers another request")
    shares: dict[int, bytes] = {}
    for index, kind in asked.items():
        if (reader.u32(), reader.u8()) != (index, kind):
            raise Malformed("gives other shares than those asked for")
        shares[index] = reader.fixed(SHARE_BYTES)
    reader.end()
    return shares
