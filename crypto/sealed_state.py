"""Secrets at rest: sealed with AES-256-GCM under a key that only the party's identity gives.

Format: magic "FMSS" | version u8 = 1 | salt 32 bytes | ciphertext, 16 bytes longer than the state.
Every seal draws a fresh salt, and its key is HKDF-SHA256 (RFC 5869) of the identity's seed under
that salt: a key seals one state, so that one nonce is enough. Associated data are all bytes before
the ciphertext, the run, the party's index and the kind of state.

A seal keeps a state secret and whole. It does not show its age: whoever can write where it lies
can put an older one back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from crypto.codec import Writer, frame
from crypto.errors import StateRefused
from crypto.keys import KEY_BYTES, Identity, Rand, draw
from crypto.saved_state import check_version

MAGIC: Final = b"FMSS"
VERSION: Final = 1
SALT_BYTES: Final = 32
SEAL_BYTES: Final = len(MAGIC) + 1 + SALT_BYTES + 16
_LABEL: Final = "fedmeta/sealed-state/v1"
_NONCE: Final = bytes(12)


@dataclass(frozen=True)
class StateSealer:
    """Seals and opens one kind of state of one party in one run.

    Attributes:
        identity: of the party; without it a sealed state cannot be opened.
        run: name of the run, 32 bytes.
        index: roster index of the party.
        kind: what is sealed, such as "party".
        rand: its source of salts.
    """

    identity: Identity
    run: bytes
    index: int
    kind: str
    rand: Rand

    def seal(self, state: bytes) -> bytes:
        """The state, SEAL_BYTES longer, readable by this party alone."""
        head = MAGIC + bytes([VERSION]) + draw(self.rand, SALT_BYTES)
        return head + self._cipher(head).encrypt(_NONCE, state, self._bound(head))

    def open(self, sealed: bytes) -> bytes:
        """Inverse of seal.

        Raises:
            StateRefused: not sealed by this version for this party, run and kind, or changed.
        """
        if sealed[: len(MAGIC)] != MAGIC or len(sealed) < SEAL_BYTES:
            raise StateRefused(
                f"{len(sealed)} bytes that are no sealed state, or the start of one: put the"
                " party's own file back, do not start it anew in the same run"
            )
        check_version("sealed state", sealed[len(MAGIC)], VERSION)
        head = sealed[: SEAL_BYTES - 16]
        try:
            return self._cipher(head).decrypt(_NONCE, sealed[len(head) :], self._bound(head))
        except InvalidTag:
            raise StateRefused(
                f"the sealed state does not open as {self.kind!r} of party {self.index} in run"
                f" {self.run.hex()[:16]}: it was changed, or belongs to another identity, run or"
                " party. Put the party's own file back, or leave the run: started anew in it, the"
                " party could answer a round twice"
            ) from None

    def _cipher(self, head: bytes) -> AESGCM:
        salt, info = head[-SALT_BYTES:], frame(_LABEL, self.kind.encode())
        derivation = HKDF(SHA256(), KEY_BYTES, salt=salt, info=info)
        return AESGCM(derivation.derive(self.identity.reveal()))

    def _bound(self, head: bytes) -> bytes:
        return frame(_LABEL, head, self.run, Writer().u32(self.index).done(), self.kind.encode())
