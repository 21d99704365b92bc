"""Every key of double masking is bound to its attempt, its parties, its direction and its use."""

from __future__ import annotations

import pytest

from crypto.errors import KeyRefused
from crypto.keys import AgreementKey
from crypto.masking_keys import (
    Channel,
    ClientSecrets,
    commitment,
    mask_key,
    pair_key,
    self_key,
)
from tests.crypto.harness import seeded

CTX, OTHER = b"c" * 32, b"o" * 32
A, B = mask_key(b"a" * 32), mask_key(b"b" * 32)


def test_pair_keys_are_equal_at_both_ends_and_differ_in_everything_else() -> None:
    key = pair_key(CTX, A, 1, B.public, 2)
    assert key == pair_key(CTX, B, 2, A.public, 1)
    others = {
        pair_key(OTHER, A, 1, B.public, 2),
        pair_key(CTX, A, 2, B.public, 1),
        pair_key(CTX, A, 1, B.public, 3),
        pair_key(CTX, A, 3, B.public, 2),
        pair_key(CTX, A, 1, mask_key(b"c" * 32).public, 2),
        A.agree(B.public),
    }
    assert len({key, *others}) == 7


def test_self_keys_and_commitments_are_bound_to_context_and_client() -> None:
    for derived in (self_key, commitment):
        values = {
            derived(CTX, 1, b"s" * 32),
            derived(OTHER, 1, b"s" * 32),
            derived(CTX, 2, b"s" * 32),
            derived(CTX, 1, b"t" * 32),
        }
        assert len(values) == 4
    assert self_key(CTX, 1, b"s" * 32) != commitment(CTX, 1, b"s" * 32)


def test_the_three_secrets_of_a_client_are_independent() -> None:
    secrets = ClientSecrets.generate(seeded("secrets"))
    again = ClientSecrets.generate(seeded("secrets"))
    advert = secrets.advert(CTX, 1)
    assert advert == again.advert(CTX, 1)
    assert len({advert.mask, advert.channel, advert.commitment}) == 3
    same = ClientSecrets.generate(lambda n: b"x" * n).advert(CTX, 1)
    assert same.mask != same.channel  # even where the randomness repeats


def test_channels_open_only_for_their_ends_direction_and_context() -> None:
    a, b, c = (AgreementKey(bytes([k]) * 32, "test") for k in range(3))
    sealed = Channel(CTX, a, 1).seal(b.public, 2, b"shares")
    assert len(sealed) == 6 + 16
    assert b"shares" not in sealed
    assert Channel(CTX, b, 2).open(a.public, 1, sealed) == b"shares"
    for channel, peer, index in (
        (Channel(OTHER, b, 2), a, 1),  # another attempt or view
        (Channel(CTX, a, 1), b, 2),  # reflected to its sender
        (Channel(CTX, b, 3), a, 1),  # for another client
        (Channel(CTX, b, 2), a, 3),  # from another client
        (Channel(CTX, b, 2), c, 1),
        (Channel(CTX, c, 2), a, 1),
    ):
        with pytest.raises(KeyRefused, match="do not open"):
            channel.open(peer.public, index, sealed)


def test_both_directions_of_a_channel_have_their_own_key() -> None:
    """Equal plaintexts would show equal bytes under one key, as the nonce is fixed."""
    a, b = AgreementKey(b"a" * 32, "test"), AgreementKey(b"b" * 32, "test")
    there = Channel(CTX, a, 1).seal(b.public, 2, bytes(64))
    back = Channel(CTX, b, 2).seal(a.public, 1, bytes(64))
    assert there[:64] != back[:64]
    later = Channel(OTHER, a, 1).seal(b.public, 2, bytes(64))
    assert there[:64] != later[:64]
