"""Published vectors, as shipped by `cryptography-vectors`, run against our own wrappers.

Ours separate domains: keys are derived from a secret and a label, streams start at counter 2 under
one nonce. Where a published input cannot be given to a wrapper as it is, exactly one name of the
wrapper's module is replaced by the smallest thing that lets it in, and the test says which.
What stays out: HKDF with a salt (`derive` has none), and the CTR vectors of SP 800-38A, whose first
counter 0xfcfdfeff lies 67 GB into a stream of ours; `test_primitives` has them on the primitive.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

import cryptography
import cryptography_vectors
import numpy as np
import pytest

from crypto.errors import KeyRefused
from crypto.hybrid import CIPHERTEXT_BYTES, HybridKey
from crypto.keys import KEY_BYTES, AgreementKey, Identity, derive, verify
from crypto.prg import add_stream, expand, subtract_stream
from crypto.ring import Ring

unhex = bytes.fromhex
Patch = pytest.MonkeyPatch


def read(*path: str) -> list[str]:
    file = resources.files("cryptography_vectors").joinpath(*path)
    return file.read_text().splitlines()


def records(*path: str) -> Iterator[dict[str, str]]:
    """Records of `name = value` lines; every COUNT begins one, bracketed lines are names too."""
    record: dict[str, str] = {}
    for line in read(*path):
        name, found, value = line.strip("[] \n").partition("=")
        if line.startswith("#") or not found:
            continue
        name = name.strip().lower()
        if name == "count" and "count" in record:
            yield record
            record = {}
        record[name] = value.strip()
    yield record


def test_the_vectors_belong_to_the_library() -> None:
    assert cryptography_vectors.__version__ == cryptography.__version__


def test_x25519(monkeypatch: Patch) -> None:
    """RFC 7748 section 5.2; seam: `derive`, so that the private key is the vector's scalar."""
    monkeypatch.setattr("crypto.keys.derive", lambda secret, label: secret)
    vectors = list(records("asymmetric", "X25519", "rfc7748.txt"))
    assert len(vectors) == 3
    for vector in vectors:
        scalar, point, out = (unhex(vector[k]) for k in ("input_scalar", "input_u", "output_u"))
        assert AgreementKey(scalar, "").agree(point) == out
        # X25519 clears five bits of a scalar and none of those from 8 to 15.
        other = bytes([scalar[0], scalar[1] ^ 1]) + scalar[2:]
        assert AgreementKey(other, "").agree(point) != out


def test_hkdf_sha256(monkeypatch: Patch) -> None:
    """RFC 5869 A.3 and the library's long one: no salt, as in `derive`; seam: `frame` gives info.

    HKDF's shorter output is the beginning of its longer one.
    """
    monkeypatch.setattr("crypto.keys.frame", lambda label, *context: unhex(label))
    vectors = [
        *records("KDF", "rfc-5869-HKDF-SHA256.txt"),
        *records("KDF", "hkdf-generated.txt"),
    ]
    unsalted = [vector for vector in vectors if not vector["salt"]]
    assert (len(vectors), len(unsalted)) == (4, 2)
    for vector in unsalted:
        secret, out = unhex(vector["ikm"]), unhex(vector["okm"])
        assert derive(secret, vector["info"]) == out[:KEY_BYTES]
        assert derive(secret, "00") != out[:KEY_BYTES]


def stream(key: bytes, size: int) -> bytes:
    """`size` bytes of a stream of ours, read off a ring whose values are whole 4-byte lanes."""
    return expand(key, Ring(32), -(-size // 4)).astype("<u4").tobytes()[:size]


def test_aes_256_in_counter_mode_of_rfc_3686(monkeypatch: Patch) -> None:
    """Its counters start at 1, ours at 2: from the second block on they are the same stream.

    Seam: the nonce, which is that of the vector. One vector of a single block stays out.
    """
    vectors = list(records("ciphers", "AES", "CTR", "aes-256-ctr.txt"))
    compared = 0
    for vector in vectors:
        nonce, counter = unhex(vector["iv"])[:12], unhex(vector["iv"])[12:]
        assert counter == (1).to_bytes(4, "big")
        monkeypatch.setattr("crypto.prg._NONCE", nonce)
        plain, sealed = unhex(vector["plaintext"])[16:], unhex(vector["ciphertext"])[16:]
        compared += len(plain)
        assert xor(stream(unhex(vector["key"]), len(plain)), plain) == sealed
    assert (len(vectors), compared) == (3, 36 - 16 + 32 - 16)


def test_aes_256_counter_blocks_of_gcm(monkeypatch: Patch) -> None:
    """NIST's GCM vectors with a nonce of 96 bits: their ciphertext is counter mode from 2 on.

    Seam: the nonce. Adding and subtracting the stream give the same lanes.
    """
    compared = 0
    keylen = "0"
    for vector in records("ciphers", "AES", "GCM", "gcmEncryptExtIV256.rsp"):
        keylen = vector.get("keylen", keylen)
        plain, nonce = unhex(vector["pt"]), unhex(vector["iv"])
        if len(nonce) != 12 or not plain:
            continue
        monkeypatch.setattr("crypto.prg._NONCE", nonce)
        key, sealed = unhex(vector["key"]), unhex(vector["ct"])
        assert xor(stream(key, len(plain)), plain) == sealed
        compared += 1
        if compared == 1:
            flipped = bytes([key[0] ^ 1]) + key[1:]
            assert xor(stream(flipped, len(plain)), plain) != sealed
            total = np.zeros(4, dtype="<u4")
            subtract_stream(total, key)
            add_stream(total, key)
            assert not total.any()
    assert keylen == "256"
    assert compared > 1000


def xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def test_ed25519() -> None:
    """The 1024 vectors of ed25519.cr.yp.to: keys and signatures byte for byte, and what is wrong.

    No seam: an identity's seed is the private key of RFC 8032. S + L in place of S is what a
    verifier that does not check S < L takes as a second signature.
    """
    order = 2**252 + 27742317777372353535851937790883648493
    lines = read("asymmetric", "Ed25519", "sign.input")
    assert len(lines) == 1024
    previous = bytes(64)
    for line in lines:
        secret, public, message, signed = (unhex(part) for part in line.split(":")[:4])
        signature = signed[:64]
        identity = Identity.from_seed(secret[:32])
        assert identity.public == public
        assert identity.sign(message) == signature
        assert verify(public, signature, message)
        at = len(message) % 64
        flipped = signature[:at] + bytes([signature[at] ^ 0x10]) + signature[at + 1 :]
        malleable = int.from_bytes(signature[32:], "little") + order
        for wrong in (
            (flipped, message),
            (previous, message),
            (signature, message + b"\0"),
            (signature[:32] + malleable.to_bytes(32, "little"), message),
            (signature[:63], message),
        ):
            assert not verify(public, *wrong)
        previous = signature


def test_ml_kem_768(monkeypatch: Patch) -> None:
    """Key generation from d and z, decapsulation, and implicit rejection of what is forged.

    Seam: `derive`, so that d and z are those of the vector. Encapsulation cannot be fed: the
    library draws its randomness itself.
    """
    vectors = list(records("asymmetric", "MLKEM", "kat_MLKEM_768.rsp"))
    assert len(vectors) >= 100
    for vector in vectors:
        halves = {"ml-kem d": unhex(vector["d"]), "ml-kem z": unhex(vector["z"])}

        def half(secret: bytes, label: str, halves: dict[str, bytes] = halves) -> bytes:
            return halves[label.removeprefix("vector ")]

        monkeypatch.setattr("crypto.hybrid.derive", half)
        key = HybridKey(bytes(KEY_BYTES), "vector")
        assert key.public[KEY_BYTES:] == unhex(vector["pk"])
        assert key.decapsulate(unhex(vector["ct"])) == unhex(vector["ss"])
        assert key.decapsulate(unhex(vector["ct_n"])) == unhex(vector["ss_n"])
    with pytest.raises(KeyRefused, match="another length"):
        key.decapsulate(bytes(CIPHERTEXT_BYTES - 1))
