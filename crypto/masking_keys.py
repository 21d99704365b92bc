"""Keys of double masking, each derived for one purpose, one pair, one direction and one attempt.

The secret of a pair rests on X25519 and on ML-KEM-768. The lower client encapsulates to the higher
one's mask key, so the higher one's mask secret gives it back; so that the lower one's does too, the
encapsulated secret is escrowed: sealed under a key that only the lower one's mask secret gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from hmac import compare_digest
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crypto.channel import TAG_BYTES, Channel
from crypto.codec import Writer, tagged_digest
from crypto.errors import KeyRefused
from crypto.hybrid import HybridKey, encapsulate
from crypto.keys import KEY_BYTES, Rand, Secret, derive, draw

_LABEL: Final = "fedmeta/masking/v1/"
# Every AEAD key seals exactly one message, so one nonce is enough.
_NONCE: Final = bytes(12)
ESCROW_BYTES: Final = KEY_BYTES + TAG_BYTES


@dataclass(frozen=True)
class Advert:
    """What a client publishes for one attempt, signed under ctx1.

    Attributes:
        mask: hybrid public key from the mask secret m_i, HYBRID_KEY_BYTES.
        channel: hybrid public key that shares are sealed to, independent of m_i, as long.
        commitment: H(b_i) of the self-mask seed, 32 bytes.
    """

    mask: bytes
    channel: bytes
    commitment: bytes


@dataclass(frozen=True, repr=False)
class ClientSecrets:
    """A client's fresh secrets of one attempt: m_i with its keys, b_i and the channel key."""

    mask: HybridKey
    self_seed: Secret
    channel: HybridKey

    @classmethod
    def generate(cls, rand: Rand) -> ClientSecrets:
        """Draw 3 * 32 bytes."""
        return cls.from_seeds(draw(rand), draw(rand), draw(rand))

    @classmethod
    def from_seeds(cls, mask: bytes, self_seed: bytes, channel: bytes) -> ClientSecrets:
        """The secrets of which `seeds` gave these, 32 bytes each."""
        return cls(
            mask=mask_key(mask),
            self_seed=Secret(self_seed),
            channel=HybridKey(channel, _LABEL + "channel key"),
        )

    def seeds(self) -> tuple[bytes, bytes, bytes]:
        """What all of them follow from, in clear, for a saved state."""
        return self.mask.reveal(), self.self_seed.reveal(), self.channel.reveal()

    def advert(self, ctx1: bytes, index: int) -> Advert:
        """The public side."""
        return Advert(
            mask=self.mask.public,
            channel=self.channel.public,
            commitment=commitment(ctx1, index, self.self_seed.reveal()),
        )


def mask_key(mask_secret: bytes) -> HybridKey:
    """The key pair of a mask secret m_i: whoever recovers m_i gets the same pair."""
    return HybridKey(mask_secret, _LABEL + "mask key")


def commitment(ctx1: bytes, index: int, self_seed: bytes) -> bytes:
    """H(b_i), binding because SHA-256 is collision resistant, hiding because b_i is 256 bits."""
    return tagged_digest(_LABEL + "self seed", ctx1, _party(index), self_seed)


def self_key(ctx2: bytes, index: int, self_seed: bytes) -> bytes:
    """Stream key of a client's self mask."""
    return derive(self_seed, _LABEL + "self", ctx2, _party(index))


@dataclass(frozen=True)
class PairOffer:
    """What the lower client of a pair publishes; reveals nothing without a secret of the two.

    Attributes:
        ciphertext: of the secret encapsulated to the higher one's mask key, CIPHERTEXT_BYTES.
        tag: MAC of the pair secret, 32 bytes: both ends, and whoever recovers it, compare.
    """

    ciphertext: bytes
    tag: bytes

    def encode(self) -> bytes:
        """Ciphertext, then tag."""
        return self.ciphertext + self.tag


class Pair:
    """A pair of clients in one attempt: the way from either one's mask secret to its streams.

    Args:
        ctx1: context that the escrow is bound to.
        ctx2: context that the pair secret is bound to.
        lower: index and hybrid public mask key of the lower client.
        higher: those of the higher one.
    """

    def __init__(
        self, ctx1: bytes, ctx2: bytes, lower: tuple[int, bytes], higher: tuple[int, bytes]
    ) -> None:
        self._ctx1, self._ctx2 = ctx1, ctx2
        self._ends = (_party(lower[0]), _party(higher[0]))
        self._lower, self._higher = lower[1], higher[1]

    def offer(self, lower: HybridKey) -> tuple[PairOffer, bytes, bytes]:
        """Encapsulate as the lower client: the offer, the escrow and the stream key.

        Raises:
            KeyRefused: the higher client's key is unusable.
        """
        encapsulated, ciphertext = encapsulate(self._higher)
        stream, tag = self._derive(lower.agree(self._higher), encapsulated, ciphertext)
        cipher, context = self._escrow(lower, ciphertext)
        escrow = cipher.encrypt(_NONCE, encapsulated, context)
        return PairOffer(ciphertext, tag), escrow, stream

    def as_higher(self, higher: HybridKey, offer: PairOffer) -> bytes:
        """Stream key from the higher client's mask secret.

        Raises:
            KeyRefused: the lower client's key gives no shared secret, or the tag is another one.
        """
        encapsulated = higher.decapsulate(offer.ciphertext)
        return self._checked(higher.agree(self._lower), encapsulated, offer)

    def as_lower(self, lower: HybridKey, offer: PairOffer, escrow: bytes) -> bytes:
        """Stream key from the lower client's mask secret and its escrow.

        Raises:
            KeyRefused: the higher client's key gives no shared secret, the escrow does not open,
                or what is in it does not give the tag.
        """
        cipher, context = self._escrow(lower, offer.ciphertext)
        try:
            encapsulated = cipher.decrypt(_NONCE, escrow, context)
        except InvalidTag:
            raise KeyRefused("the escrow of a pair secret does not open") from None
        return self._checked(lower.agree(self._higher), encapsulated, offer)

    def _checked(self, agreed: bytes, encapsulated: bytes, offer: PairOffer) -> bytes:
        stream, tag = self._derive(agreed, encapsulated, offer.ciphertext)
        if not compare_digest(tag, offer.tag):
            raise KeyRefused("the tag of a pair secret is not that of the secret")
        return stream

    def _derive(self, agreed: bytes, encapsulated: bytes, ciphertext: bytes) -> tuple[bytes, bytes]:
        """Stream key and tag of s_ij; X25519's 32 bytes first, so the join is unambiguous."""
        bound = tagged_digest(_LABEL + "pair ends", self._lower, self._higher, ciphertext)
        secret = derive(agreed + encapsulated, _LABEL + "pair", self._ctx2, *self._ends, bound)
        return derive(secret, _LABEL + "pair stream"), derive(secret, _LABEL + "pair tag")

    def _escrow(self, lower: HybridKey, ciphertext: bytes) -> tuple[AESGCM, bytes]:
        bound = tagged_digest(_LABEL + "escrow", self._ctx1, *self._ends, ciphertext)
        return AESGCM(derive(lower.reveal(), _LABEL + "escrow key", bound)), bound


def open_channel(ctx2: bytes, own: HybridKey, own_index: int) -> Channel:
    """The channel of a client in one attempt, for shares of its secrets."""
    return Channel(_LABEL, ctx2, own, own_index)


def _party(index: int) -> bytes:
    return Writer().u32(index).done()
