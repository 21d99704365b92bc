"""Keys of double masking, each derived for one purpose, one pair, one direction and one attempt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crypto.codec import Writer, tagged_digest
from crypto.errors import KeyRefused
from crypto.keys import AgreementKey, Rand, Secret, derive, draw

_LABEL: Final = "fedmeta/masking/v1/"
# Every AEAD key seals exactly one message, so one nonce is enough.
_NONCE: Final = bytes(12)
SEAL_OVERHEAD: Final = 16


@dataclass(frozen=True)
class Advert:
    """What a client publishes for one attempt, signed under ctx1.

    Attributes:
        mask: X25519 public key from the mask secret m_i, 32 bytes.
        channel: X25519 public key that shares are sealed to, independent of m_i, 32 bytes.
        commitment: H(b_i) of the self-mask seed, 32 bytes.
    """

    mask: bytes
    channel: bytes
    commitment: bytes


@dataclass(frozen=True, repr=False)
class ClientSecrets:
    """A client's fresh secrets of one attempt: m_i, b_i and the channel key."""

    mask_secret: Secret
    self_seed: Secret
    channel: AgreementKey

    @classmethod
    def generate(cls, rand: Rand) -> ClientSecrets:
        """Draw 3 * 32 bytes."""
        return cls(
            mask_secret=Secret(draw(rand)),
            self_seed=Secret(draw(rand)),
            channel=AgreementKey(draw(rand), _LABEL + "channel key"),
        )

    def advert(self, ctx1: bytes, index: int) -> Advert:
        """The public side."""
        return Advert(
            mask=mask_key(self.mask_secret.reveal()).public,
            channel=self.channel.public,
            commitment=commitment(ctx1, index, self.self_seed.reveal()),
        )


def mask_key(mask_secret: bytes) -> AgreementKey:
    """The key pair of a mask secret m_i: whoever recovers m_i gets the same pair."""
    return AgreementKey(mask_secret, _LABEL + "mask key")


def commitment(ctx1: bytes, index: int, self_seed: bytes) -> bytes:
    """H(b_i), binding because SHA-256 is collision resistant, hiding because b_i is 256 bits."""
    return tagged_digest(_LABEL + "self seed", ctx1, _party(index), self_seed)


def pair_key(ctx2: bytes, own: AgreementKey, own_index: int, peer: bytes, peer_index: int) -> bytes:
    """Stream key s_ij of a pair: the same from both ends.

    Raises:
        KeyRefused: the peer's public key gives no shared secret.
    """
    ends = sorted([(own_index, own.public), (peer_index, peer)])
    context = [part for index, public in ends for part in (_party(index), public)]
    return derive(own.agree(peer), _LABEL + "pair", ctx2, *context)


def self_key(ctx2: bytes, index: int, self_seed: bytes) -> bytes:
    """Stream key of a client's self mask."""
    return derive(self_seed, _LABEL + "self", ctx2, _party(index))


class Channel:
    """Sealed bytes from client i to client j, one message per direction and attempt."""

    def __init__(self, ctx2: bytes, own: AgreementKey, own_index: int) -> None:
        self._ctx2 = ctx2
        self._own = own
        self._index = own_index

    def seal(self, peer: bytes, peer_index: int, plaintext: bytes) -> bytes:
        """Encrypt to a peer: AES-256-GCM, SEAL_OVERHEAD bytes longer than the plaintext.

        Raises:
            KeyRefused: the peer's public key gives no shared secret.
        """
        cipher, context = self._cipher(peer, self._index, self._own.public, peer_index, peer)
        return cipher.encrypt(_NONCE, plaintext, context)

    def open(self, peer: bytes, peer_index: int, sealed: bytes) -> bytes:
        """Decrypt what a peer sealed to this client.

        Raises:
            KeyRefused: the key gives no shared secret, or the seal does not open.
        """
        cipher, context = self._cipher(peer, peer_index, peer, self._index, self._own.public)
        try:
            return cipher.decrypt(_NONCE, sealed, context)
        except InvalidTag:
            raise KeyRefused("sealed shares do not open") from None

    def _cipher(
        self, peer: bytes, sender: int, sender_key: bytes, recipient: int, recipient_key: bytes
    ) -> tuple[AESGCM, bytes]:
        ends = (_party(sender), sender_key, _party(recipient), recipient_key)
        key = derive(self._own.agree(peer), _LABEL + "channel", self._ctx2, *ends)
        return AESGCM(key), tagged_digest(_LABEL + "sealed shares", self._ctx2, *ends)


def _party(index: int) -> bytes:
    return Writer().u32(index).done()
