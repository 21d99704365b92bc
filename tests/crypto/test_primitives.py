"""Published vectors for every primitive, and own derivations against independent restatements."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from crypto.codec import frame
from crypto.errors import KeyRefused
from crypto.keys import AgreementKey, Identity, check_agreement_key, derive, draw, verify
from crypto.prg import _BLOCK, add_stream, expand, subtract_stream
from crypto.ring import Ring


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


# RFC 8032 section 7.1, tests 1 to 3: secret key, public key, message, signature.
ED25519 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e3970"
            "1cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613"
            "d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760"
            "984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), ED25519)
def test_ed25519_of_rfc_8032(seed: str, public: str, message: str, signature: str) -> None:
    signer = Identity.from_seed(unhex(seed))
    assert signer.public == unhex(public)
    assert signer.sign(unhex(message)) == unhex(signature)
    assert verify(unhex(public), unhex(signature), unhex(message))
    assert not verify(unhex(public), unhex(signature), unhex(message) + b"\0")
    assert not verify(unhex(public), unhex(signature)[:-1], unhex(message))
    assert not verify(identity_of_another(), unhex(signature), unhex(message))
    assert not verify(b"short", unhex(signature), unhex(message))


def identity_of_another() -> bytes:
    return Identity.from_seed(bytes(32)).public


def test_x25519_of_rfc_7748() -> None:
    # RFC 7748 section 6.1. Our keys come from HKDF, so the primitive is checked on its own.
    alice = X25519PrivateKey.from_private_bytes(
        unhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    )
    bob_public = unhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    assert alice.public_key().public_bytes_raw() == unhex(
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    )
    assert alice.exchange(X25519PublicKey.from_public_bytes(bob_public)) == unhex(
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    )


def test_hkdf_of_rfc_5869() -> None:
    # Test cases 1 and 3 (case 3: no salt, no info: the way derive uses it).
    first = HKDF(
        SHA256(), 42, salt=unhex("000102030405060708090a0b0c"), info=unhex("f0f1f2f3f4f5f6f7f8f9")
    ).derive(unhex("0b" * 22))
    assert first == unhex(
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    third = HKDF(SHA256(), 42, salt=None, info=b"").derive(unhex("0b" * 22))
    assert third == unhex(
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


@given(secret=st.binary(min_size=1, max_size=64), parts=st.lists(st.binary(max_size=40)))
def test_derive_is_hkdf_over_the_framed_context(secret: bytes, parts: list[bytes]) -> None:
    pseudorandom = hmac.digest(bytes(32), secret, "sha256")
    info = frame("label", *parts)
    assert derive(secret, "label", *parts) == hmac.digest(pseudorandom, info + b"\1", "sha256")


def test_aes_256_ctr_of_sp_800_38a() -> None:
    # SP 800-38A F.5.5 (CTR-AES256.Encrypt).
    key = unhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    counter = unhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    plain = unhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    sealed = unhex(
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
    )
    encryptor = Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor()
    assert encryptor.update(plain) + encryptor.finalize() == sealed


def test_stream_starts_with_the_encryption_of_two() -> None:
    # Zeros encrypted under the zero key and nonce: the GCM specification (McGrew and Viega),
    # test case 14.
    block = unhex("cea7403d4d606b6e074ec5d3baf39d18")
    np.testing.assert_array_equal(expand(bytes(32), Ring(32), 4), np.frombuffer(block, "<u4"))
    half = np.frombuffer(block, "<u8")
    np.testing.assert_array_equal(expand(bytes(32), Ring(62), 2), half % np.uint64(2**62))
    np.testing.assert_array_equal(
        expand(bytes(32), Ring(5), 4), np.frombuffer(block, "<u4") % np.uint32(32)
    )


@pytest.mark.parametrize("bits", [7, 32, 33, 62])
def test_stream_is_aes_of_the_counter_over_block_borders(bits: int) -> None:
    key, ring = hashlib.sha256(b"key").digest(), Ring(bits)
    length = 2 * _BLOCK // ring.lane.itemsize + 5
    counters = b"".join((k + 2).to_bytes(16, "big") for k in range(-(-length * 8 // 16)))
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 independent of CTR
    lanes = np.frombuffer(encryptor.update(counters), dtype=ring.lane)[:length]
    expected = lanes.astype(np.uint64) % np.uint64(2**bits)
    np.testing.assert_array_equal(expand(key, ring, length), expected)


def test_adding_then_subtracting_a_stream_gives_back_the_accumulator() -> None:
    for bits in (20, 40):
        before = np.arange(100_000, dtype=Ring(bits).lane)
        total = before.copy()
        add_stream(total, b"k" * 32)
        assert (total != before).mean() > 0.99
        subtract_stream(total, b"k" * 32)
        np.testing.assert_array_equal(total, before)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_streams_have_full_width_keys(length: int) -> None:
    with pytest.raises(KeyRefused, match="allowed: 32"):
        expand(bytes(length), Ring(8), 1)


# Points of order 1, 2, 4 and 8 on the curve and its twist (RFC 7748 section 6.1 asks for the
# check; the list is that of the Curve25519 paper's author, cr.yp.to/ecdh.html#validate).
SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("public", SMALL_ORDER)
def test_keys_of_small_order_are_refused(public: str) -> None:
    own = AgreementKey(b"s" * 32, "test")
    for call in (own.agree, check_agreement_key):
        with pytest.raises(KeyRefused, match="no shared secret"):
            call(unhex(public))


def test_agreement_is_symmetric_and_labels_separate() -> None:
    a, b = AgreementKey(b"a" * 32, "test"), AgreementKey(b"b" * 32, "test")
    assert a.agree(b.public) == b.agree(a.public)
    assert AgreementKey(b"a" * 32, "other").public != a.public
    check_agreement_key(a.public)
    with pytest.raises(KeyRefused):
        a.agree(b"short")


def test_short_randomness_is_refused() -> None:
    assert draw(lambda n: b"x" * n, 5) == b"xxxxx"
    with pytest.raises(KeyRefused, match="31 bytes, 32 needed"):
        draw(lambda n: bytes(n - 1))
    with pytest.raises(KeyRefused, match="identity seed is 31"):
        Identity.from_seed(bytes(31))
    with pytest.raises(KeyRefused, match="identity seed is str"):
        Identity.from_seed("x" * 32)
