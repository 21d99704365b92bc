"""Hybrid keys: X25519 (RFC 7748) beside ML-KEM-768 (FIPS 203), both from one 32-byte secret.

What is derived from both shared secrets together is safe while either of the two holds: against a
break of the younger scheme, and against a quantum computer that reads recorded traffic later.

Encapsulation is the one place where randomness is no argument: the library draws it from the
operating system itself and offers no other way.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey

from crypto.errors import KeyRefused
from crypto.keys import KEY_BYTES, AgreementKey, Secret, check_agreement_key, derive

ENCAPSULATION_KEY_BYTES: Final = 1184
CIPHERTEXT_BYTES: Final = 1088
HYBRID_KEY_BYTES: Final = KEY_BYTES + ENCAPSULATION_KEY_BYTES


class HybridKey(Secret):
    """A key pair of both schemes, derived from a 32-byte secret: the same secret, the same pair.

    Attributes:
        public: X25519 public key, then ML-KEM-768 encapsulation key, HYBRID_KEY_BYTES in all.
    """

    __slots__ = ("_agreement", "_kem", "public")

    def __init__(self, secret: bytes, label: str) -> None:
        super().__init__(secret)
        self._agreement = AgreementKey(secret, label + " x25519")
        # The seed of FIPS 203 is d | z.
        seed = derive(secret, label + " ml-kem d") + derive(secret, label + " ml-kem z")
        self._kem = MLKEM768PrivateKey.from_seed_bytes(seed)
        self.public: Final = self._agreement.public + self._kem.public_key().public_bytes_raw()

    def agree(self, peer: bytes) -> bytes:
        """X25519 shared secret with a peer's hybrid public key, 32 bytes; symmetric.

        Raises:
            KeyRefused: the key has another length, or gives no shared secret.
        """
        return self._agreement.agree(_split(peer)[0])

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """What was encapsulated to this key, 32 bytes; of a forged ciphertext, something else.

        Raises:
            KeyRefused: the ciphertext has another length.
        """
        try:
            return self._kem.decapsulate(ciphertext)
        except ValueError:
            raise KeyRefused("ML-KEM-768 ciphertext of another length") from None


def encapsulate(peer: bytes) -> tuple[bytes, bytes]:
    """A fresh 32-byte secret for the owner of a hybrid public key, and its ciphertext.

    Raises:
        KeyRefused: the key has another length, or is no encapsulation key (FIPS 203 section 7.2).
    """
    return _encapsulation_key(peer).encapsulate()


def check_hybrid_key(public: bytes) -> None:
    """Refuse a public key that one of the two schemes could not use.

    Raises:
        KeyRefused: another length, an X25519 key of small order, or no encapsulation key.
    """
    check_agreement_key(_split(public)[0])
    _encapsulation_key(public)


def _encapsulation_key(public: bytes) -> MLKEM768PublicKey:
    try:
        return MLKEM768PublicKey.from_public_bytes(_split(public)[1])
    except ValueError:
        raise KeyRefused("not an encapsulation key of ML-KEM-768") from None


def _split(public: bytes) -> tuple[bytes, bytes]:
    if len(public) != HYBRID_KEY_BYTES:
        raise KeyRefused(f"hybrid key of {len(public)} bytes; allowed: {HYBRID_KEY_BYTES}")
    return public[:KEY_BYTES], public[KEY_BYTES:]
