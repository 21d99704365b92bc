"""Sealed bytes from one party to another, one message per direction and context.

The key rests on X25519 and on ML-KEM-768. A seal that opens was made by the peer: without the
X25519 key of one of the two ends, which the caller takes from signed messages, nobody has its key.
So it carries no signature of its own. Keys are for one protocol, whose label is in them.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crypto.codec import Writer, tagged_digest
from crypto.errors import KeyRefused
from crypto.hybrid import CIPHERTEXT_BYTES, HybridKey, encapsulate
from crypto.keys import derive

# Every AEAD key seals exactly one message, so one nonce is enough.
_NONCE: Final = bytes(12)
TAG_BYTES: Final = 16
SEAL_OVERHEAD: Final = CIPHERTEXT_BYTES + TAG_BYTES


class Channel:
    """One party's end, to all of its peers.

    Args:
        label: of the protocol, ends in "/".
        context: that all seals are bound to, of one attempt.
        own: this party's channel key.
        own_index: its index.
    """

    def __init__(self, label: str, context: bytes, own: HybridKey, own_index: int) -> None:
        self._label = label
        self._context = context
        self._own = own
        self._index = own_index
        self._agreed: dict[bytes, bytes] = {}

    def __repr__(self) -> str:
        return f"Channel(index={self._index}, redacted)"

    def seal(self, peer: bytes, peer_index: int, plaintext: bytes, attached: bytes = b"") -> bytes:
        """Encrypt to a peer: KEM ciphertext, then AES-256-GCM; SEAL_OVERHEAD longer.

        Args:
            peer: the peer's hybrid public channel key.
            peer_index: its index.
            plaintext: what only the peer may read.
            attached: what travels beside it in clear and is authenticated with it.

        Raises:
            KeyRefused: the peer's public key is unusable.
        """
        encapsulated, ciphertext = encapsulate(peer)
        shared = self._agree(peer) + encapsulated
        ends = (_party(self._index), self._own.public, _party(peer_index), peer)
        cipher, context = self._cipher(shared, ciphertext, ends, attached)
        return ciphertext + cipher.encrypt(_NONCE, plaintext, context)

    def open(self, peer: bytes, peer_index: int, sealed: bytes, attached: bytes = b"") -> bytes:
        """Decrypt what a peer sealed to this client, if what is attached is what it attached.

        Raises:
            KeyRefused: the key gives no shared secret, or the seal does not open.
        """
        if len(sealed) < SEAL_OVERHEAD:
            raise KeyRefused("sealed shares do not open")
        ciphertext, body = sealed[:CIPHERTEXT_BYTES], sealed[CIPHERTEXT_BYTES:]
        shared = self._agree(peer) + self._own.decapsulate(ciphertext)
        ends = (_party(peer_index), peer, _party(self._index), self._own.public)
        cipher, context = self._cipher(shared, ciphertext, ends, attached)
        try:
            return cipher.decrypt(_NONCE, body, context)
        except InvalidTag:
            raise KeyRefused("sealed shares do not open") from None

    def _agree(self, peer: bytes) -> bytes:
        """X25519 is the same in both directions, so once is enough."""
        if peer not in self._agreed:
            self._agreed[peer] = self._own.agree(peer)
        return self._agreed[peer]

    def _cipher(
        self, shared: bytes, ciphertext: bytes, ends: tuple[bytes, ...], attached: bytes
    ) -> tuple[AESGCM, bytes]:
        bound = tagged_digest(
            self._label + "sealed shares", self._context, *ends, ciphertext, attached
        )
        return AESGCM(derive(shared, self._label + "channel", bound)), bound


def _party(index: int) -> bytes:
    return Writer().u32(index).done()
