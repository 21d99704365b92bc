"""Files locked by a passphrase or a key file: AES-256-GCM under a key that seals one file once.

Format: magic "FMLF" | version u8 = 1 | method u8 | cost u8 | salt 32 bytes | check 32 bytes |
ciphertext, 16 bytes longer than the content.

- method 1, a passphrase: 32 bytes of scrypt (RFC 7914) of the passphrase in UTF-8 and Unicode form
  NFC, with that salt, N = 2^cost, r = 8, p = 1; cost is 14 to 20 (16 MiB to 1 GiB of memory). 17 is
  what OWASP's password storage cheat sheet asks for at least.
- method 2, a key file of 32 uniformly random bytes: those bytes; cost is 0.

HKDF-SHA256 (RFC 5869) with the salt makes 64 bytes of these: the AES key, and `check`, which tells
a wrong passphrase from a changed file and commits to the key, so that no file opens under two
passphrases (Len, Grubbs and Ristenpart 2021, USENIX Security, on partitioning oracles). The salt is
fresh at every save and the key with it, so that one nonce is enough. Associated data are all bytes
before the ciphertext, and the purpose of the file.

A lock keeps content secret and whole. It does not show its age: whoever can write where the file
lies can put an older one back. Nothing is allocated on the word of a file before the word is
checked.
"""

from __future__ import annotations

import hmac
import unicodedata
from enum import IntEnum
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from crypto.codec import Reader, Writer, frame
from crypto.errors import KeyRefused, LockRefused
from crypto.keys import KEY_BYTES, Rand, Secret, draw

MAGIC: Final = b"FMLF"
VERSION: Final = 1
SALT_BYTES: Final = 32
CHECK_BYTES: Final = 32
TAG_BYTES: Final = 16
HEAD_BYTES: Final = len(MAGIC) + 3 + SALT_BYTES + CHECK_BYTES
LOCK_BYTES: Final = HEAD_BYTES + TAG_BYTES
"""How much longer a locked file is than its content."""
MIN_COST: Final = 14
COST: Final = 17
MAX_COST: Final = 20
MIN_PASSPHRASE: Final = 8
_LABEL: Final = "fedmeta/locked-file/v1"
_NONCE: Final = bytes(12)


class Method(IntEnum):
    """What a file is locked by."""

    PASSPHRASE = 1
    KEY_FILE = 2


class Passphrase(Secret):
    """A passphrase of at least 8 characters; shows nowhere.

    Raises:
        KeyRefused: it is shorter, or no Unicode text.
    """

    __slots__ = ()
    method: Final = Method.PASSPHRASE

    def __init__(self, text: str) -> None:
        try:
            encoded = unicodedata.normalize("NFC", text).encode()
        except UnicodeEncodeError:
            raise KeyRefused("the passphrase is no Unicode text") from None
        if len(text) < MIN_PASSPHRASE:
            raise KeyRefused(
                f"the passphrase has fewer than {MIN_PASSPHRASE} characters: take several words"
            )
        super().__init__(encoded)


class FileKey(Secret):
    """The 32 bytes of a key file; show nowhere.

    Raises:
        KeyRefused: there are more or fewer.
    """

    __slots__ = ()
    method: Final = Method.KEY_FILE

    def __init__(self, value: bytes) -> None:
        if len(value) != KEY_BYTES:
            raise KeyRefused(
                f"the key file has {len(value)} bytes, must have {KEY_BYTES} random ones"
            )
        super().__init__(value)


Lock = Passphrase | FileKey


def is_locked(data: bytes) -> bool:
    """Whether the bytes begin like a locked file."""
    return data[: len(MAGIC)] == MAGIC


def method_of(data: bytes) -> Method:
    """What a file is locked by, as its head says; nothing is decrypted.

    Raises:
        LockRefused: the bytes are no locked file of this version.
    """
    return _head(data)[0]


def lock(content: bytes, key: Lock, *, purpose: str, rand: Rand, cost: int = COST) -> bytes:
    """The content, LOCK_BYTES longer, readable with the key alone.

    Args:
        content: what is locked.
        key: passphrase or key.
        purpose: what the file is for; it opens for nothing else.
        rand: source of the salt.
        cost: log2 of scrypt's N; not used with a key file.

    Raises:
        LockRefused: a cost out of range.
    """
    stated = cost if key.method is Method.PASSPHRASE else 0
    _check_cost(key.method, stated)
    salt = draw(rand, SALT_BYTES)
    aes, check = _derive(key, stated, salt, purpose)
    head = Writer().fixed(MAGIC, len(MAGIC)).u8(VERSION).u8(key.method).u8(stated)
    front = head.fixed(salt, SALT_BYTES).fixed(check, CHECK_BYTES).done()
    return front + AESGCM(aes).encrypt(_NONCE, content, frame(_LABEL, front, purpose.encode()))


def unlock(data: bytes, key: Lock, *, purpose: str) -> bytes:
    """Inverse of lock.

    Raises:
        LockRefused: no locked file of this version, another kind of key, a wrong one, or a file
            that was changed or cut off.
    """
    method, cost, salt, check = _head(data)
    if key.method is not method:
        wanted = "a passphrase" if method is Method.PASSPHRASE else "a key file"
        raise LockRefused(f"the file is locked by {wanted}: give that")
    aes, found = _derive(key, cost, salt, purpose)
    if not hmac.compare_digest(found, check):
        what = "passphrase" if method is Method.PASSPHRASE else "key file"
        raise LockRefused(
            f"wrong {what}, or the first {HEAD_BYTES} bytes of the file were changed; there is no"
            " other way in"
        )
    bound = frame(_LABEL, data[:HEAD_BYTES], purpose.encode())
    try:
        return AESGCM(aes).decrypt(_NONCE, data[HEAD_BYTES:], bound)
    except InvalidTag:
        raise LockRefused(
            "the key is right, but the file was changed or cut off: put a copy of it back"
        ) from None


def _head(data: bytes) -> tuple[Method, int, bytes, bytes]:
    if not is_locked(data) or len(data) < LOCK_BYTES:
        raise LockRefused(f"{len(data)} bytes that are no locked file, or the start of one")
    reader = Reader(data[len(MAGIC) : HEAD_BYTES])
    version, method, cost = reader.u8(), reader.u8(), reader.u8()
    if version != VERSION:
        raise LockRefused(
            f"the file is locked in version {version}, this product reads {VERSION}: upgrade it"
        )
    if method not in tuple(Method):
        raise LockRefused(f"the file is locked by method {method}; known are 1 and 2")
    _check_cost(Method(method), cost)
    return Method(method), cost, reader.fixed(SALT_BYTES), reader.fixed(CHECK_BYTES)


def _check_cost(method: Method, cost: int) -> None:
    if method is Method.KEY_FILE and cost != 0:
        raise LockRefused(f"a key file has cost 0, not {cost}")
    if method is Method.PASSPHRASE and not MIN_COST <= cost <= MAX_COST:
        raise LockRefused(f"scrypt's cost is {cost}; allowed: {MIN_COST} to {MAX_COST}")


def _derive(key: Lock, cost: int, salt: bytes, purpose: str) -> tuple[bytes, bytes]:
    """The AES key, and what the head says to check it by."""
    secret = key.reveal()
    if key.method is Method.PASSPHRASE:
        secret = Scrypt(salt=salt, length=KEY_BYTES, n=2**cost, r=8, p=1).derive(secret)
    info = frame(_LABEL, bytes([key.method]), purpose.encode())
    both = HKDF(SHA256(), KEY_BYTES + CHECK_BYTES, salt=salt, info=info).derive(secret)
    return both[:KEY_BYTES], both[KEY_BYTES:]
