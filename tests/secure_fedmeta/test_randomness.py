"""Secrets come from the operating system; a seed makes them public and repeatable."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import privacy.rng
import secure_fedmeta.randomness
from crypto.errors import KeyRefused
from secure_fedmeta.randomness import Founding, Randomness


def test_without_a_seed_every_byte_is_the_operating_systems(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def urandom(count: int) -> bytes:
        asked.append(count)
        return bytes(range(count))

    monkeypatch.setattr(secure_fedmeta.randomness.os, "urandom", urandom)
    randomness = Randomness()
    assert randomness.private
    assert randomness.stream("any")(5) == bytes(range(5))
    assert asked == [5]


def test_noise_is_keyed_by_the_operating_system_unless_there_is_a_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A key that was given is one that somebody may hold; the generator itself says which."""
    asked: list[int] = []

    def token_bytes(count: int) -> bytes:
        asked.append(count)
        return bytes(count)

    monkeypatch.setattr(privacy.rng.secrets, "token_bytes", token_bytes)
    assert not Randomness().generator("noise").reproducible
    assert asked == [32]
    assert Randomness(7).generator("noise").reproducible
    assert asked == [32]


def test_without_a_seed_streams_differ() -> None:
    first, second = Randomness(), Randomness()
    assert first.stream("a")(32) != second.stream("a")(32)
    draws = [r.generator("a").words(8) for r in (first, second)]
    assert not np.array_equal(*draws)


def test_with_a_seed_streams_repeat_and_are_independent() -> None:
    first, second = Randomness(7), Randomness(7)
    assert not first.private
    stream = first.stream("a")
    taken = stream(16) + stream(16)
    assert taken == second.stream("a")(32)
    assert taken != first.stream("b")(32)
    assert taken != Randomness(8).stream("a")(32)
    draws = [r.generator("a").words(8) for r in (first, second)]
    np.testing.assert_array_equal(*draws)


def test_the_seed_does_not_show() -> None:
    assert repr(Randomness(123456)) == "Randomness(private=False)"
    assert repr(Randomness()) == "Randomness(private=True)"


def test_each_round_has_a_generator_of_its_own() -> None:
    """Under a seed the same one whatever came before; without, another one every time."""
    rounds = Randomness(7).rounds("noise/a")
    first = rounds(1).words(8)
    rounds(2).words(1000)
    np.testing.assert_array_equal(Randomness(7).rounds("noise/a")(1).words(8), first)
    assert not np.array_equal(rounds(2).words(8), first)
    assert not np.array_equal(Randomness(7).rounds("noise/b")(1).words(8), first)
    private = Randomness().rounds("noise/a")
    assert not private(1).reproducible
    assert not np.array_equal(private(1).words(8), private(1).words(8))


def test_a_kept_secret_gives_its_streams_again_and_shows_in_none() -> None:
    secret = bytes(range(32))
    first, second = Founding(secret).stream("client/a"), Founding(secret).stream("client/a")
    assert first(16) + first(16) == second(32)
    others = [Founding(secret).stream("client/b")(32), Founding(bytes(32)).stream("client/a")(32)]
    assert len({second(32), *others, secret}) == 4
    assert repr(Founding(secret)) == "Founding(redacted)"
    with pytest.raises(KeyRefused, match="never pickled"):
        pickle.dumps(Founding(secret))
