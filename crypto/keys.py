"""Identities, the roster, key agreement (X25519, RFC 7748) and derivation (HKDF, RFC 5869).

Identities sign with Ed25519 (RFC 8032). Randomness is an argument everywhere: `Rand` must be
`os.urandom` or as strong. Everything secret redacts itself in repr and refuses to be pickled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from crypto.codec import frame, tagged_digest
from crypto.errors import KeyRefused

Rand = Callable[[int], bytes]

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
MAX_MEMBERS: Final = 2**32 - 2


def never_pickled(thing: object) -> NoReturn:
    """The `__reduce__` of everything secret.

    Raises:
        KeyRefused: always.
    """
    raise KeyRefused(f"a {type(thing).__name__} is never pickled")


class Secret:
    """Bytes that never show: not in repr or str, not in an exception, not in a pickle."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """Return the bytes; the name marks every place that takes them out."""
        return self._value

    def __repr__(self) -> str:
        return f"{type(self).__name__}(redacted)"

    __reduce__ = never_pickled


def draw(rand: Rand, length: int = KEY_BYTES) -> bytes:
    """Take `length` bytes of randomness.

    Raises:
        KeyRefused: the source returned another number of bytes.
    """
    value = rand(length)
    if len(value) != length:
        raise KeyRefused(f"randomness of {len(value)} bytes, {length} needed")
    return value


class Identity(Secret):
    """A party's long-lived Ed25519 key pair.

    Attributes:
        public: the public key, 32 bytes, as it stands in the roster.
    """

    __slots__ = ("_key", "public")

    def __init__(self, seed: bytes) -> None:
        _check_length("identity seed", seed)
        super().__init__(seed)
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public: Final = self._key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls, rand: Rand) -> Identity:
        """Draw a fresh identity."""
        return cls(draw(rand))

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """The identity of a 32-byte seed (the private key of RFC 8032).

        Raises:
            KeyRefused: the seed does not have 32 bytes.
        """
        return cls(seed)

    def sign(self, message: bytes) -> bytes:
        """Return the signature of the message, 64 bytes, deterministic."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"Identity(public={self.public.hex()}, redacted)"


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether this is the signature of the message under the public key."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@dataclass(frozen=True)
class Member:
    """One party of a federation: a name for people and an Ed25519 public key, 32 bytes."""

    name: str
    public: bytes


@dataclass(frozen=True)
class Roster:
    """Who takes part in a federation: the only source of keys that a client believes.

    The aggregator has the index 0, the members (clients) have 1 to n in order, and the officers,
    which hold decryption keys and no data, follow from n + 1. Keys are unique, so that no party
    plays two parts; names are unique among members and among officers.

    Raises:
        KeyRefused: the roster is empty, a key does not have 32 bytes, or something repeats.
    """

    aggregator: bytes
    members: tuple[Member, ...]
    officers: tuple[Member, ...] = ()

    def __post_init__(self) -> None:
        parties = (*self.members, *self.officers)
        keys = [self.aggregator, *(party.public for party in parties)]
        for key in keys:
            _check_length("public key", key)
        if not (self.members and len(parties) <= MAX_MEMBERS):
            raise KeyRefused(
                f"roster of {len(self.members)} members and {len(self.officers)} officers;"
                f" allowed: 1 to {MAX_MEMBERS} members, officers included"
            )
        if any(not (party.name and party.name.isprintable()) for party in parties):
            raise KeyRefused("a party of the roster has an empty or unprintable name")
        if len(set(keys)) != len(keys):
            raise KeyRefused("two parties of the roster have the same public key")
        for kind in (self.members, self.officers):
            if len({party.name for party in kind}) != len(kind):
                raise KeyRefused("two parties of one kind in the roster have the same name")

    @property
    def officer_indices(self) -> tuple[int, ...]:
        """Indices of the officers, increasing."""
        first = len(self.members) + 1
        return tuple(range(first, first + len(self.officers)))

    def public_of(self, index: int) -> bytes:
        """Public key of a party: 0 is the aggregator, then come the members, then the officers.

        Raises:
            KeyRefused: there is no such party.
        """
        members, last = len(self.members), len(self.members) + len(self.officers)
        if not 0 <= index <= last:
            raise KeyRefused(f"party {index}; allowed: 0 to {last}")
        if index == 0:
            return self.aggregator
        party = self.members[index - 1] if index <= members else self.officers[index - members - 1]
        return party.public

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over the aggregator's key and every name and key in order, 32 bytes."""
        members, officers = (
            frame(kind, *(part for party in who for part in (party.name.encode(), party.public)))
            for kind, who in (("members", self.members), ("officers", self.officers))
        )
        return tagged_digest("fedmeta/roster/v2", self.aggregator, members, officers)


def derive(secret: bytes, label: str, *context: bytes) -> bytes:
    """HKDF-SHA256 without salt: 32 bytes bound to a label and framed context."""
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=frame(label, *context)).derive(secret)


class AgreementKey(Secret):
    """An X25519 key pair derived from a 32-byte secret.

    Attributes:
        public: the public key, 32 bytes.
    """

    __slots__ = ("_key", "public")

    def __init__(self, secret: bytes, label: str) -> None:
        super().__init__(derive(secret, label))
        self._key = X25519PrivateKey.from_private_bytes(self._value)
        self.public: Final = self._key.public_key().public_bytes_raw()

    def agree(self, peer: bytes) -> bytes:
        """The shared secret with a peer's public key, 32 bytes: derive keys from it, never use it.

        Raises:
            KeyRefused: the peer's key is not 32 bytes, or of small order (RFC 7748 section 6.1).
        """
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(peer))
        except ValueError:
            raise KeyRefused("X25519 public key gives no shared secret") from None


_PROBE: Final = AgreementKey(bytes(KEY_BYTES), "fedmeta/probe for keys of small order")


def check_agreement_key(public: bytes) -> None:
    """Refuse an X25519 public key of small order: it agrees on zero with every private key.

    Raises:
        KeyRefused: the key would give no shared secret.
    """
    _PROBE.agree(public)


def _check_length(what: str, value: bytes) -> None:
    if type(value) is not bytes or len(value) != KEY_BYTES:
        size = len(value) if isinstance(value, bytes) else type(value).__name__
        raise KeyRefused(f"{what} is {size}; allowed: {KEY_BYTES} bytes")
