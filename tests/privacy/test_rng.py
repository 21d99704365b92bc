import copy
import os
import pickle

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from privacy.errors import PrivacyError
from privacy.rng import SecureRandom

KEY = bytes(range(32))


def test_the_stream_is_chacha20_of_another_library() -> None:
    stream = Cipher(algorithms.ChaCha20(KEY, bytes(16)), mode=None).encryptor()
    expected = np.frombuffer(stream.update(bytes(8 * 64)), dtype="<u8")
    drawn = SecureRandom.from_key(KEY).generator.bit_generator.random_raw(64)
    np.testing.assert_array_equal(drawn, expected)


def test_every_bit_of_the_key_matters() -> None:
    streams = {
        SecureRandom.from_key((1 << bit).to_bytes(32, "little")).generator.bytes(16)
        for bit in range(256)
    }
    assert len(streams) == 256


def test_keys_from_the_system_differ_and_are_marked() -> None:
    one, two = SecureRandom.from_os(), SecureRandom.from_os()
    assert one.generator.bytes(16) != two.generator.bytes(16)
    assert not one.reproducible
    assert SecureRandom.from_key(KEY).reproducible


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33), bytearray(32), 5])
def test_a_key_has_32_bytes(key: bytes) -> None:
    with pytest.raises(PrivacyError, match="32 bytes"):
        SecureRandom.from_key(key)


def test_nothing_of_the_state_is_shown_copied_or_pickled() -> None:
    rng = SecureRandom.from_key(KEY)
    assert repr(rng) == str(rng) == "SecureRandom(<redacted>)"
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(PrivacyError, match="never copied"):
            duplicate(rng)


def test_a_forked_process_is_refused_the_parents_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = SecureRandom.from_os()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(PrivacyError, match="another process"):
        _ = rng.generator
