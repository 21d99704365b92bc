import copy
import os
import pickle
from collections import Counter

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from privacy.errors import PrivacyError
from privacy.rng import SecureRandom

KEY = bytes(range(32))


def stream(key: bytes, size: int) -> bytes:
    """AES-256 in plain counter mode from counter 2 on, by another mode of another call."""
    counter = bytes(12) + (2).to_bytes(4, "big")
    return Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor().update(bytes(size))


def test_words_are_the_key_stream_behind_the_next_key() -> None:
    """Fast key erasure: the first 32 bytes of each stream are the key of the next."""
    rng = SecureRandom.from_key(KEY)
    first, second = stream(KEY, 32 + 4 * 100), stream(stream(KEY, 32), 32 + 4 * 7)
    assert rng.words(100).tobytes() == first[32:]
    assert rng.words(7).tobytes() == second[32:]


def test_no_key_serves_more_than_a_mebibyte() -> None:
    drawn = SecureRandom.from_key(KEY).words(3 * 2**17).tobytes()
    second = stream(KEY, 32)
    assert drawn[: 2**20] == stream(KEY, 2**20 + 32)[32:]
    assert drawn[2**20 :] == stream(second, 2**19 + 32)[32:]


def test_no_words_leave_the_key_as_it_is() -> None:
    rng = SecureRandom.from_key(KEY)
    assert rng.words(0).shape == (0,)
    assert rng.words(1)[0] == SecureRandom.from_key(KEY).words(1)[0]
    with pytest.raises(PrivacyError, match="-1 words"):
        rng.words(-1)


def test_fractions_are_53_bits_of_two_words() -> None:
    words = SecureRandom.from_key(KEY).words(200).view("<u8")
    drawn = SecureRandom.from_key(KEY).fractions(100)
    assert drawn.dtype == np.float64
    assert [int(value * 2**53) for value in drawn] == [int(word) >> 11 for word in words]


def test_a_choice_has_no_number_twice_and_leaves_none_out() -> None:
    """Each of 6 ordered pairs of 3 numbers: 5 deviations either way are an error in 10^6."""
    rng = SecureRandom.from_key(KEY)
    assert rng.choice(5, 0).tolist() == []
    assert sorted(rng.choice(5, 5).tolist()) == [0, 1, 2, 3, 4]
    seen = Counter(tuple(rng.choice(3, 2).tolist()) for _ in range(6000))
    assert set(seen) == {(i, j) for i in range(3) for j in range(3) if i != j}
    assert all(abs(count - 1000) < 5 * (6000 * 5 / 36) ** 0.5 for count in seen.values())


@pytest.mark.parametrize(("limit", "count"), [(3, 4), (3, -1), (-1, 0)])
def test_a_choice_of_more_than_there_is_is_refused(limit: int, count: int) -> None:
    with pytest.raises(PrivacyError, match="allowed: 0 to"):
        SecureRandom.from_key(KEY).choice(limit, count)


def test_every_bit_of_the_key_matters() -> None:
    streams = {
        SecureRandom.from_key((1 << bit).to_bytes(32, "little")).words(4).tobytes()
        for bit in range(256)
    }
    assert len(streams) == 256


def test_keys_from_the_system_differ_and_are_marked() -> None:
    one, two = SecureRandom.from_os(), SecureRandom.from_os()
    assert one.words(4).tobytes() != two.words(4).tobytes()
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
        rng.words(1)
