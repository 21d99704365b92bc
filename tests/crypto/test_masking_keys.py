"""Every key of double masking is bound to its attempt, its parties, its direction and its use."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import crypto.channel
import crypto.masking_keys
from crypto.channel import SEAL_OVERHEAD, Channel
from crypto.errors import KeyRefused
from crypto.hybrid import (
    CIPHERTEXT_BYTES,
    HYBRID_KEY_BYTES,
    HybridKey,
    check_hybrid_key,
    encapsulate,
)
from crypto.masking_keys import (
    ESCROW_BYTES,
    ClientSecrets,
    Pair,
    commitment,
    mask_key,
    open_channel,
    self_key,
)
from tests.crypto.harness import seeded

CTX, OTHER = b"c" * 32, b"o" * 32
A, B, C = mask_key(b"a" * 32), mask_key(b"b" * 32), mask_key(b"c" * 32)
PAIR = Pair(OTHER, CTX, (1, A.public), (2, B.public))


def test_hybrid_keys_follow_from_their_secret_and_label() -> None:
    same, label, secret = (
        HybridKey(b"x" * 32, "one"),
        HybridKey(b"x" * 32, "two"),
        HybridKey(b"y" * 32, "one"),
    )
    assert HybridKey(b"x" * 32, "one").public == same.public
    assert len(same.public) == HYBRID_KEY_BYTES == 1216
    assert len({key.public[:32] for key in (same, label, secret)}) == 3
    assert len({key.public[32:] for key in (same, label, secret)}) == 3
    assert same.agree(secret.public) == secret.agree(same.public)
    encapsulated, ciphertext = encapsulate(same.public)
    assert (len(encapsulated), len(ciphertext)) == (32, CIPHERTEXT_BYTES)
    assert same.decapsulate(ciphertext) == encapsulated
    assert secret.decapsulate(ciphertext) != encapsulated
    assert encapsulate(same.public) != (encapsulated, ciphertext)


def test_unusable_hybrid_keys_are_refused() -> None:
    check_hybrid_key(A.public)
    for wrong, match in (
        (A.public[:-1], "1215 bytes; allowed: 1216"),
        (A.public + b"\0", "1217 bytes"),
        (bytes(32) + A.public[32:], "no shared secret"),
        (A.public[:32] + b"\xff" * 1184, "not an encapsulation key"),
    ):
        with pytest.raises(KeyRefused, match=match):
            check_hybrid_key(wrong)
    with pytest.raises(KeyRefused, match="not an encapsulation key"):
        encapsulate(A.public[:32] + b"\xff" * 1184)
    with pytest.raises(KeyRefused, match="ciphertext of another length"):
        A.decapsulate(b"short")


def test_pair_streams_are_the_same_from_both_mask_secrets() -> None:
    offer, escrow, stream = PAIR.offer(A)
    assert (len(offer.ciphertext), len(offer.tag), len(escrow)) == (1088, 32, ESCROW_BYTES)
    assert PAIR.as_higher(B, offer) == stream
    assert PAIR.as_lower(A, offer, escrow) == stream
    assert len({stream, offer.tag, A.agree(B.public)}) == 3
    again = PAIR.offer(A)
    assert len({stream, again[2], offer.tag, again[0].tag}) == 4


def test_pair_secrets_need_both_schemes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same encapsulation another X25519 key, or the reverse, gives another secret."""
    fixed = encapsulate(B.public)
    monkeypatch.setattr(crypto.masking_keys, "encapsulate", lambda _: fixed)
    first = PAIR.offer(A)[2]
    assert PAIR.offer(A)[2] == first
    assert PAIR.offer(C)[2] != first
    # Only the secret that was encapsulated is another one; the bytes on the way are the same.
    monkeypatch.setattr(crypto.masking_keys, "encapsulate", lambda _: (bytes(32), fixed[1]))
    assert PAIR.offer(A)[2] != first


def test_pair_streams_are_bound_to_context_parties_keys_and_ciphertext(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fixed = encapsulate(B.public)
    monkeypatch.setattr(crypto.masking_keys, "encapsulate", lambda _: fixed)
    pairs = [
        PAIR,
        Pair(OTHER, OTHER, (1, A.public), (2, B.public)),
        Pair(OTHER, CTX, (1, A.public), (3, B.public)),
        Pair(OTHER, CTX, (0, A.public), (2, B.public)),
        Pair(OTHER, CTX, (1, C.public), (2, B.public)),
    ]
    streams = [pair.offer(A)[2] for pair in pairs]
    offer = PAIR.offer(A)[0]
    flipped = offer.ciphertext[:-1] + bytes([offer.ciphertext[-1] ^ 1])
    monkeypatch.setattr(crypto.masking_keys, "encapsulate", lambda _: (fixed[0], flipped))
    streams.append(PAIR.offer(A)[2])
    assert len(set(streams)) == 6
    for pair in pairs[1:]:
        with pytest.raises(KeyRefused, match="tag of a pair secret"):
            pair.as_higher(B, offer)


def hkdf(secret: bytes, label: str, *context: bytes) -> bytes:
    """RFC 5869 with one block and no salt, info as framed in crypto.codec, written out again."""
    info = len(label).to_bytes(4, "little") + label.encode()
    info += len(context).to_bytes(4, "little")
    info += b"".join(len(part).to_bytes(4, "little") + part for part in context)
    key = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(key, info + b"\1", "sha256")


def digest(label: str, *parts: bytes) -> bytes:
    """Tagged SHA-256, written out again."""
    framed = [len(label).to_bytes(4, "little"), label.encode(), len(parts).to_bytes(4, "little")]
    framed += [piece for part in parts for piece in (len(part).to_bytes(4, "little"), part)]
    return hashlib.sha256(b"".join(framed)).digest()


def test_derivations_equal_an_independent_restatement() -> None:
    """From the two shared secrets on; and the key pairs of a secret, from the primitives alone."""
    label = "fedmeta/masking/v1/"
    one, two = (1).to_bytes(4, "little"), (2).to_bytes(4, "little")
    offer, escrow, stream = PAIR.offer(A)
    seed = b"".join(hkdf(b"b" * 32, f"{label}mask key ml-kem {part}") for part in "dz")
    kem = MLKEM768PrivateKey.from_seed_bytes(seed)
    curve = X25519PrivateKey.from_private_bytes(hkdf(b"b" * 32, label + "mask key x25519"))
    assert B.public == curve.public_key().public_bytes_raw() + kem.public_key().public_bytes_raw()
    agreed = curve.exchange(X25519PublicKey.from_public_bytes(A.public[:32]))
    encapsulated = kem.decapsulate(offer.ciphertext)
    ends = digest(label + "pair ends", A.public, B.public, offer.ciphertext)
    secret = hkdf(agreed + encapsulated, label + "pair", CTX, one, two, ends)
    assert stream == hkdf(secret, label + "pair stream")
    assert offer.tag == hkdf(secret, label + "pair tag")
    bound = digest(label + "escrow", OTHER, one, two, offer.ciphertext)
    key = hkdf(b"a" * 32, label + "escrow key", bound)
    assert AESGCM(key).decrypt(bytes(12), escrow, bound) == encapsulated


def test_a_forged_offer_or_escrow_is_refused_and_never_gives_another_stream() -> None:
    offer, escrow, _ = PAIR.offer(A)
    foreign, other_escrow, _ = PAIR.offer(A)

    def flip(data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1])

    for wrong in (
        replace(offer, tag=flip(offer.tag)),
        replace(offer, tag=foreign.tag),
        replace(offer, ciphertext=flip(offer.ciphertext)),
        replace(offer, ciphertext=foreign.ciphertext),
    ):
        with pytest.raises(KeyRefused, match="tag of a pair secret"):
            PAIR.as_higher(B, wrong)
        with pytest.raises(KeyRefused, match="pair secret"):
            PAIR.as_lower(A, wrong, escrow)
    for bad in (flip(escrow), other_escrow, bytes(ESCROW_BYTES), escrow[:-1]):
        with pytest.raises(KeyRefused, match="does not open"):
            PAIR.as_lower(A, offer, bad)
    with pytest.raises(KeyRefused, match="does not open"):
        PAIR.as_lower(C, offer, escrow)
    with pytest.raises(KeyRefused, match="tag of a pair secret"):
        PAIR.as_higher(C, offer)


def test_an_escrow_is_bound_to_its_attempt_and_pair() -> None:
    offer, escrow, _ = PAIR.offer(A)
    for pair in (
        Pair(CTX, CTX, (1, A.public), (2, B.public)),
        Pair(OTHER, CTX, (1, A.public), (3, B.public)),
        Pair(OTHER, CTX, (0, A.public), (2, B.public)),
    ):
        with pytest.raises(KeyRefused, match="does not open"):
            pair.as_lower(A, offer, escrow)


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
    # Even where the randomness repeats.
    assert same.mask[:32] != same.channel[:32]
    assert same.mask[32:] != same.channel[32:]


def test_channels_open_only_for_their_ends_direction_and_context() -> None:
    a, b, c = (HybridKey(bytes([k]) * 32, "test") for k in range(3))
    sealed = open_channel(CTX, a, 1).seal(b.public, 2, b"shares")
    assert len(sealed) == 6 + SEAL_OVERHEAD
    assert b"shares" not in sealed
    assert open_channel(CTX, b, 2).open(a.public, 1, sealed) == b"shares"
    for channel, peer, index in (
        (open_channel(OTHER, b, 2), a, 1),  # another attempt or view
        (open_channel(CTX, a, 1), b, 2),  # reflected to its sender
        (open_channel(CTX, b, 3), a, 1),  # for another client
        (open_channel(CTX, b, 2), a, 3),  # from another client
        (open_channel(CTX, b, 2), c, 1),
        (open_channel(CTX, c, 2), a, 1),
    ):
        with pytest.raises(KeyRefused, match="do not open"):
            channel.open(peer.public, index, sealed)
    for at in (0, CIPHERTEXT_BYTES - 1, CIPHERTEXT_BYTES, len(sealed) - 1):
        changed = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        with pytest.raises(KeyRefused, match="do not open"):
            open_channel(CTX, b, 2).open(a.public, 1, changed)
    for length in (0, 10, CIPHERTEXT_BYTES, SEAL_OVERHEAD - 1):
        with pytest.raises(KeyRefused, match="do not open"):
            open_channel(CTX, b, 2).open(a.public, 1, sealed[:length])


def test_a_seal_covers_what_is_attached() -> None:
    a, b = HybridKey(b"a" * 32, "test"), HybridKey(b"b" * 32, "test")
    sealed = open_channel(CTX, a, 1).seal(b.public, 2, b"shares", b"offer")
    assert open_channel(CTX, b, 2).open(a.public, 1, sealed, b"offer") == b"shares"
    for attached in (b"", b"offe", b"offer\0", b"other"):
        with pytest.raises(KeyRefused, match="do not open"):
            open_channel(CTX, b, 2).open(a.public, 1, sealed, attached)


@pytest.mark.parametrize("which", ["x25519", "ml-kem"])
def test_a_channel_needs_both_schemes(monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    """One of the two shared secrets is not enough to open."""
    a, b = HybridKey(b"a" * 32, "test"), HybridKey(b"b" * 32, "test")
    sealed = open_channel(CTX, a, 1).seal(b.public, 2, b"shares")
    lost = "agree" if which == "x25519" else "decapsulate"
    monkeypatch.setattr(HybridKey, lost, lambda *_: bytes(32))
    with pytest.raises(KeyRefused, match="do not open"):
        open_channel(CTX, b, 2).open(a.public, 1, sealed)


def test_both_directions_of_a_channel_have_their_own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal plaintexts would show equal bytes under one key, as the nonce is fixed."""
    a, b = HybridKey(b"a" * 32, "test"), HybridKey(b"b" * 32, "test")
    fixed = encapsulate(b.public)
    monkeypatch.setattr(crypto.channel, "encapsulate", lambda _: fixed)
    there = open_channel(CTX, a, 1).seal(b.public, 2, bytes(64))
    back = open_channel(CTX, b, 2).seal(a.public, 1, bytes(64))
    later = open_channel(OTHER, a, 1).seal(b.public, 2, bytes(64))
    another = Channel("another protocol/", CTX, a, 1).seal(b.public, 2, bytes(64))
    bodies = {sealed[CIPHERTEXT_BYTES:][:64] for sealed in (there, back, later, another)}
    assert len(bodies) == 4
