"""Locked files: opened by their key alone, refused if changed, and never costly to refuse."""

from __future__ import annotations

import os
import traceback

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from crypto import locked_file
from crypto.codec import frame
from crypto.errors import CryptoError, KeyRefused, LockRefused
from crypto.locked_file import (
    HEAD_BYTES,
    LOCK_BYTES,
    MAGIC,
    MAX_COST,
    MIN_COST,
    FileKey,
    Lock,
    Method,
    Passphrase,
    is_locked,
    lock,
    method_of,
    unlock,
)
from tests.crypto.harness import seeded

WORDS = "correct horse battery"
KEY = FileKey(bytes(range(32)))
PURPOSE = "test"
CONTENT = b"a secret that must not show, 0123456789abcdef"
OPENED = lock(CONTENT, KEY, purpose=PURPOSE, rand=seeded(1))
SPOKEN = lock(CONTENT, Passphrase(WORDS), purpose=PURPOSE, rand=seeded(2), cost=MIN_COST)


@given(content=st.binary(max_size=300))
def test_what_was_locked_opens(content: bytes) -> None:
    found = lock(content, KEY, purpose=PURPOSE, rand=os.urandom)
    assert len(found) == len(content) + LOCK_BYTES
    assert unlock(found, KEY, purpose=PURPOSE) == content


def test_a_passphrase_opens_what_it_locked_however_its_letters_are_composed() -> None:
    assert unlock(SPOKEN, Passphrase(WORDS), purpose=PURPOSE) == CONTENT
    assert (method_of(SPOKEN), method_of(OPENED)) == (Method.PASSPHRASE, Method.KEY_FILE)
    one, other = "na\u00efve words", "nai\u0308ve words"
    held = lock(b"x", Passphrase(one), purpose=PURPOSE, rand=os.urandom, cost=MIN_COST)
    assert unlock(held, Passphrase(other), purpose=PURPOSE) == b"x"


def test_the_format_is_as_it_is_written() -> None:
    """A second reading of the docstring, without the module's own functions."""
    salt, check, body = SPOKEN[7:39], SPOKEN[39:71], SPOKEN[71:]
    assert SPOKEN[:7] == b"FMLF\x01\x01\x0e"
    from hashlib import scrypt

    secret = scrypt(WORDS.encode(), salt=salt, n=2**14, r=8, p=1, maxmem=2**26, dklen=32)
    label = "fedmeta/locked-file/v1"
    both = HKDF(SHA256(), 64, salt=salt, info=frame(label, b"\x01", b"test")).derive(secret)
    assert both[32:] == check
    bound = frame(label, SPOKEN[:71], b"test")
    assert AESGCM(both[:32]).decrypt(bytes(12), body, bound) == CONTENT


@given(at=st.integers(0, len(OPENED) - 1), flip=st.integers(1, 255))
def test_any_changed_byte_is_refused(at: int, flip: int) -> None:
    changed = bytearray(OPENED)
    changed[at] ^= flip
    with pytest.raises(LockRefused):
        unlock(bytes(changed), KEY, purpose=PURPOSE)


@pytest.mark.parametrize("at", range(0, 79, 3))
def test_any_changed_byte_of_the_head_is_refused_with_a_passphrase(
    at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = bytearray(SPOKEN)
    changed[at] ^= 1
    with pytest.raises(LockRefused):
        unlock(bytes(changed), Passphrase(WORDS), purpose=PURPOSE)


@given(size=st.integers(0, len(OPENED) - 1), more=st.binary(min_size=1, max_size=40))
def test_what_is_cut_off_or_longer_is_refused(size: int, more: bytes) -> None:
    for changed in (OPENED[:size], OPENED + more):
        with pytest.raises(LockRefused):
            unlock(changed, KEY, purpose=PURPOSE)


@pytest.mark.parametrize(
    ("data", "key", "purpose", "reason"),
    [
        (OPENED, FileKey(bytes(32)), PURPOSE, "wrong key file"),
        (OPENED, KEY, "other", "wrong key file"),
        (SPOKEN, Passphrase("correct horse batterz"), PURPOSE, "wrong passphrase"),
        (SPOKEN, KEY, PURPOSE, "locked by a passphrase"),
        (OPENED, Passphrase(WORDS), PURPOSE, "locked by a key file"),
        (OPENED[:-1] + b"x", KEY, PURPOSE, "the key is right, but"),
        (MAGIC + b"\x02" + OPENED[5:], KEY, PURPOSE, "version 2, this product reads 1: upgrade"),
        (MAGIC + b"\x01\x03" + OPENED[6:], KEY, PURPOSE, "method 3"),
        (b"FMLG" + OPENED[4:], KEY, PURPOSE, "no locked file"),
        (b"", KEY, PURPOSE, "0 bytes"),
    ],
)
def test_what_does_not_open_says_why(data: bytes, key: Lock, purpose: str, reason: str) -> None:
    with pytest.raises(LockRefused, match=reason):
        unlock(data, key, purpose=purpose)


@pytest.mark.parametrize("cost", [0, MIN_COST - 1, MAX_COST + 1, 63, 255])
def test_a_cost_out_of_range_is_refused_before_anything_is_derived(
    cost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("scrypt was asked for")

    monkeypatch.setattr(locked_file, "Scrypt", never)
    costly = SPOKEN[:6] + bytes([cost]) + SPOKEN[7:]
    with pytest.raises(LockRefused, match=f"cost is {cost}; allowed: 14 to 20"):
        unlock(costly, Passphrase(WORDS), purpose=PURPOSE)
    with pytest.raises(LockRefused, match="allowed: 14 to 20"):
        lock(CONTENT, Passphrase(WORDS), purpose=PURPOSE, rand=os.urandom, cost=cost)
    with pytest.raises(LockRefused, match="a key file has cost 0"):
        unlock(OPENED[:6] + b"\x0e" + OPENED[7:], KEY, purpose=PURPOSE)


def test_every_lock_has_a_salt_and_so_a_key_of_its_own() -> None:
    found = [lock(CONTENT, KEY, purpose=PURPOSE, rand=os.urandom) for _ in range(30)]
    assert len({one[7:39] for one in found}) == 30
    assert len({one[HEAD_BYTES : HEAD_BYTES + 16] for one in found}) == 30
    with pytest.raises(KeyRefused):
        lock(CONTENT, KEY, purpose=PURPOSE, rand=lambda n: bytes(n - 1))


def test_nothing_secret_is_in_the_file_or_shown() -> None:
    for at in range(len(CONTENT) - 3):
        assert CONTENT[at : at + 4] not in OPENED
    assert KEY.reveal() not in OPENED
    for key in (KEY, Passphrase(WORDS)):
        assert "redacted" in repr(key)
        assert WORDS not in f"{key!r}{key}"
        with pytest.raises(KeyRefused):
            key.__reduce__()
    for wrong in (Passphrase("wrong " + WORDS), FileKey(bytes(32))):
        try:
            unlock(SPOKEN, wrong, purpose=PURPOSE)
        except CryptoError:
            assert WORDS not in traceback.format_exc()


@pytest.mark.parametrize("text", ["", "seven c", "short\ud800 surrogate"])
def test_a_passphrase_that_protects_nothing_is_refused(text: str) -> None:
    with pytest.raises(KeyRefused) as refused:
        Passphrase(text)
    assert text == "" or text not in str(refused.value)


@pytest.mark.parametrize("size", [0, 31, 33, 4096])
def test_a_key_file_has_32_bytes(size: int) -> None:
    with pytest.raises(KeyRefused, match=f"{size} bytes, must have 32"):
        FileKey(bytes(size))


def test_a_plain_file_is_none() -> None:
    assert is_locked(OPENED)
    assert not is_locked(b"FMPA")
    assert LOCK_BYTES == HEAD_BYTES + 16 == 87
