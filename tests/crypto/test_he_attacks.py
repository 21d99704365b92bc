"""Attacks on the homomorphic sum: each works where this code is weakened, or where it warns."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tenseal.sealapi as seal
import zstandard

import crypto.he_uploads
from crypto.envelope import EVERYBODY, Heading, Step
from crypto.envelope import seal as sign
from crypto.errors import CryptoError, Malformed, MessageRefused, OutOfOrder, SumAborted
from crypto.he_messages import (
    Opened,
    OpenRequest,
    context_of_key,
    decode_ciphertexts,
    encode_ciphertexts,
    encode_key,
)
from crypto.he_packing import from_coefficients
from crypto.he_parameters import DEGREE, Parameters, choose
from crypto.he_seal import Encryptor, KeyPair, Scheme, SealFailed, scheme_for
from crypto.secure_sum import SECURE_SUMS
from crypto.terms import Terms
from tests.crypto.harness import (
    EVIDENCE,
    INTENT,
    Run,
    identity,
    make_terms,
    make_vectors,
    payload_of,
    resign,
    total,
)
from tests.crypto.test_he import officer_of, started

Words = np.ndarray

# --- a "sum" of one client ------------------------------------------------------------------------


def alone(run: Run, uploads: dict[int, bytes], request: bytes) -> np.ndarray:
    """What the officer answers to a request for client 1 alone, signed by the aggregator."""
    listed = OpenRequest(INTENT, EVIDENCE, [uploads[1]]).encode()
    answer = officer_of(run).step(resign(request, listed))
    opened = Opened.decode(memoryview(payload_of(answer)), run.terms.ring, run.terms.length)
    return run.terms.ring.decode(opened.total)


def test_the_sum_of_one_client_is_not_opened() -> None:
    run, uploads, request = started(min_survivors=3)
    with pytest.raises(MessageRefused, match="1 uploads; allowed: 3 or more"):
        alone(run, uploads, request)


def test_without_the_officers_own_count_one_client_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, uploads, request = started(min_survivors=3)
    monkeypatch.setattr(Terms, "quorum", property(lambda self: 1))
    np.testing.assert_array_equal(alone(run, uploads, request), run.vectors[1])


def test_an_aggregator_that_adds_itself_would_choose_what_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Were the officer to take sums instead of signed uploads, three copies would open one."""
    run, uploads, request = started(min_survivors=3)
    same = [uploads[1]] * 3
    with pytest.raises(MessageRefused, match="distinct"):
        officer_of(run).step(resign(request, OpenRequest(INTENT, EVIDENCE, same).encode()))
    renamed = [uploads[1], *(resigned_as(uploads[1], k) for k in (2, 3))]
    with pytest.raises(MessageRefused, match="signature"):
        officer_of(run).step(resign(request, OpenRequest(INTENT, EVIDENCE, renamed).encode()))
    monkeypatch.setattr(
        crypto.he_uploads, "unseal", lambda message, heading, roster: memoryview(message)[46:-64]
    )
    answer = officer_of(run).step(resign(request, OpenRequest(INTENT, EVIDENCE, renamed).encode()))
    opened = Opened.decode(memoryview(payload_of(answer)), run.terms.ring, run.terms.length)
    tripled = run.terms.ring.decode(opened.total)
    np.testing.assert_array_equal(
        run.terms.ring.encode(tripled),
        (3 * run.vectors[1]).view(np.uint64) & np.uint64(run.terms.ring.modulus - 1),
    )


def resigned_as(upload: bytes, sender: int) -> bytes:
    """The upload of somebody else under another name, signed by the aggregator's own key."""
    heading = Heading(Step.HE_INPUT, sender, 4, upload[10:42])
    return sign(identity(0), heading, payload_of(upload))


# --- the key in the sum ---------------------------------------------------------------------------


def times_secret(words: Words, secret: Words, prime: int) -> Words:
    """c * s modulo X^N + 1 and a prime below 2^60, for ternary s."""
    found = np.zeros(DEGREE, dtype=np.uint64)
    q = np.uint64(prime)
    negated = np.where(words == 0, words, q - words)
    both = np.concatenate([negated, words, negated])
    for k in np.flatnonzero(secret):
        shifted = both[DEGREE - k : 2 * DEGREE - k]
        if secret[k] < 0:
            shifted = np.where(shifted == 0, shifted, q - shifted)
        found += shifted
        found = np.minimum(found, found - q)
    return found


def decrypt_with(secret: Words, words: Words, parameters: Parameters) -> Words:
    (prime,) = parameters.data_primes
    phase = words[0, 0] + times_secret(words[1, 0], secret, prime)
    numbers = [int(c) % prime for c in phase]
    modulus = 1 << parameters.plain_bits
    rounded = [(c * modulus + prime // 2) // prime % modulus for c in numbers]
    return np.array(rounded, dtype=np.uint64)


def test_a_client_that_deviates_reads_the_key_in_the_sum() -> None:
    """Why max_colluders must be 0: client 2 adds (0, k q/t), and the sum shows k s.

    Every check passes: signatures, formats, noise budget. The key then opens the others' uploads.
    """
    terms = make_terms(5, bits=20, length=2 * DEGREE)
    parameters = choose(terms)
    (prime,) = parameters.data_primes
    rng = np.random.default_rng(3)
    vectors = {k: rng.integers(-1000, 1000, terms.length) for k in terms.cohort}
    run = Run("he", terms, vectors)
    k = 1 << 17
    shift = np.uint64((k * prime + (1 << parameters.plain_bits - 1)) >> parameters.plain_bits)
    uploads: dict[int, bytes] = {}

    def forge(step: int, client: int, answer: bytes) -> bytes:
        if step == 1:
            uploads[client] = answer
        if (step, client) != (1, 2):
            return answer
        words = decode_ciphertexts(memoryview(payload_of(answer)), parameters)
        words[0, 1, 0, 0] = (words[0, 1, 0, 0] + shift) % np.uint64(prime)
        return resign(answer, encode_ciphertexts(parameters, words))

    done = run.drive(forge=forge)
    assert done.contributors == terms.cohort
    secret = np.rint(done.total[:DEGREE] / k).astype(np.int64)
    assert set(np.unique(secret)) == {-1, 0, 1}
    stolen = decode_ciphertexts(memoryview(payload_of(uploads[1])), parameters)
    coefficients = decrypt_with(secret, stolen[0], parameters)
    opened = from_coefficients(coefficients[None], parameters, terms.length)
    np.testing.assert_array_equal(opened, vectors[1])


# --- keys -----------------------------------------------------------------------------------------


def test_a_key_that_the_officer_did_not_sign_is_refused() -> None:
    """The aggregator that swaps in its own key would read every upload."""
    terms = make_terms(3)
    run = Run("he", terms, make_vectors(terms))
    request = run.begin().messages[1]
    own = KeyPair(scheme_for(choose(terms)))
    payload = encode_key(choose(terms), own.public)
    heading = Heading(Step.HE_KEY, 4, EVERYBODY, context_of_key(terms))
    for swapped in (
        sign(identity(0), heading, payload),
        sign(identity(2), heading, payload),
        sign(identity(4), Heading(Step.HE_KEY, 4, EVERYBODY, bytes(32)), payload),
        sign(identity(4), Heading(Step.HE_KEY, 4, EVERYBODY, terms.ctx1), payload),
        sign(identity(4), Heading(Step.HE_KEY, 4, 0, context_of_key(terms)), payload),
    ):
        with pytest.raises(MessageRefused) as caught:
            run.clients[1].step(resign(request, swapped))
        assert caught.value.sender == 4
    run.clients[1].step(request)


def test_uploads_under_another_key_attempt_or_round_are_refused() -> None:
    run, uploads, request = started(min_survivors=3)
    other_key, foreign, _ = started(min_survivors=3)
    assert other_key.terms == run.terms
    _, earlier, _ = started(min_survivors=3, round_number=1)
    for stray in (foreign[2], earlier[2]):
        listed = OpenRequest(INTENT, EVIDENCE, [uploads[1], stray, uploads[3]]).encode()
        with pytest.raises(MessageRefused, match="another round, attempt") as caught:
            officer_of(run).step(resign(request, listed))
        assert caught.value.sender == 2
        fresh = Run("he", run.terms, run.vectors)
        fresh.begin()
        with pytest.raises(MessageRefused, match="another round, attempt"):
            fresh.aggregator.receive(2, stray)


def test_a_signed_ciphertext_under_another_key_ends_the_attempt() -> None:
    """The client itself signs it: nothing in the bytes tells, but the noise of the sum does."""
    run, uploads, request = started(min_survivors=3)
    _, foreign, _ = started(min_survivors=3)
    uploads[2] = resign(uploads[2], payload_of(foreign[2]))
    listed = OpenRequest(INTENT, EVIDENCE, list(uploads.values())).encode()
    with pytest.raises(SumAborted, match="noise"):
        officer_of(run).step(resign(request, listed))
    with pytest.raises(OutOfOrder):
        officer_of(run).step(request)


def test_an_error_that_somebody_keeps_holds_no_key() -> None:
    """A traceback keeps the officer's frames: a logger that stores it would store the key."""
    run, uploads, request = started(min_survivors=3)
    _, foreign, _ = started(min_survivors=3)
    wrong = {**uploads, 2: resign(uploads[2], payload_of(foreign[2]))}
    listed = OpenRequest(INTENT, EVIDENCE, list(wrong.values())).encode()
    with pytest.raises(SumAborted, match="noise") as caught:
        officer_of(run).step(resign(request, listed))
    frames = [entry.frame for entry in caught.traceback]
    kept = [value for at in frames for value in at.f_locals.values() if isinstance(value, KeyPair)]
    assert kept
    words = decode_ciphertexts(memoryview(payload_of(uploads[1])), choose(run.terms))
    for keys in kept:
        with pytest.raises(SealFailed, match="erased"):
            keys.decrypt(words[0])


def test_the_officer_alone_reads_an_upload_as_the_notes_say() -> None:
    """Nobody has to help it: the protocol hands it the key and every upload."""
    run, uploads, _ = started(min_survivors=3)
    parameters = choose(run.terms)
    words = decode_ciphertexts(memoryview(payload_of(uploads[1])), parameters)
    keys = vars(officer_of(run))["_keys"]
    rows = np.stack([keys.decrypt(ciphertext)[0] for ciphertext in words])
    found = from_coefficients(rows, parameters, run.terms.length)
    np.testing.assert_array_equal(found, run.vectors[1])
    told = SECURE_SUMS["he"].capabilities()
    assert any("can read every vector by itself" in note for note in told.notes)


# --- transparent ciphertexts ----------------------------------------------------------------------


def test_uploads_that_cancel_to_a_transparent_sum_are_refused() -> None:
    run, uploads, request = started(min_survivors=3)
    parameters = choose(run.terms)
    primes = np.array(parameters.data_primes, dtype=np.uint64)[:, None]
    words = {
        k: decode_ciphertexts(memoryview(payload_of(upload)), parameters)
        for k, upload in uploads.items()
    }
    cancelling = words[3].copy()
    cancelling[:, 1] = (2 * primes - words[1][:, 1] - words[2][:, 1]) % primes
    uploads[3] = resign(uploads[3], encode_ciphertexts(parameters, cancelling))
    listed = OpenRequest(INTENT, EVIDENCE, list(uploads.values())).encode()
    with pytest.raises(MessageRefused, match="transparent"):
        officer_of(run).step(resign(request, listed))


# --- what SEAL's loader takes ---------------------------------------------------------------------


def native(scheme: Scheme, tmp_path: Path) -> tuple[bytes, bytes]:
    """A ciphertext as SEAL writes it, and the same without compression."""
    encryptor = Encryptor(scheme, KeyPair(scheme).public)
    words = encryptor.encrypt(np.ones(DEGREE, dtype=np.uint64))
    thing = scheme.ciphertext(words)
    path = tmp_path / "ciphertext"
    thing.save(str(path))
    saved = path.read_bytes()
    body = zstandard.ZstdDecompressor().decompressobj().decompress(saved[16:])
    return saved, rewritten(saved, body)


def rewritten(saved: bytes, body: bytes, compression: int = 0) -> bytes:
    size = struct.pack("<Q", 16 + len(body))
    return saved[:5] + bytes([compression]) + saved[6:8] + size + body


def transparent(saved: bytes, plain: bytes) -> bytes:
    half = (len(plain) - 16 - 97) // 2
    return plain[:-half] + bytes(half)


def trailing(saved: bytes, plain: bytes) -> bytes:
    return plain + b"anything"


def other_size(saved: bytes, plain: bytes) -> bytes:
    """Three polynomials where a fresh ciphertext has two."""
    body = bytearray(plain[16:])
    half = (len(body) - 97) // 2
    body[33:41] = struct.pack("<Q", 3)
    inner = struct.unpack_from("<Q", body, 81)[0]
    body[81:89] = struct.pack("<Q", inner + half)
    body[89:97] = struct.pack("<Q", 3 * half // 8)
    return rewritten(saved, bytes(body) + bytes(body[-half:]))


HOLES = [transparent, trailing, other_size]


@pytest.mark.parametrize("hole", HOLES)
def test_what_seal_loads_our_decoder_refuses(
    hole: Callable[[bytes, bytes], bytes], tmp_path: Path
) -> None:
    run, _, _ = started(min_survivors=3)
    parameters = choose(run.terms)
    scheme = scheme_for(parameters)
    crafted = hole(*native(scheme, tmp_path))
    path = tmp_path / "crafted"
    path.write_bytes(crafted)
    seal.Ciphertext().load(scheme.context, str(path))
    with pytest.raises(Malformed):
        decode_ciphertexts(memoryview(crafted), parameters)
    fresh = Run("he", run.terms, run.vectors)
    requests = fresh.begin().messages
    answer = fresh.clients[2].step(requests[2])
    with pytest.raises(MessageRefused) as caught:
        fresh.aggregator.receive(2, resign(answer, crafted))
    assert caught.value.sender == 2


def test_a_compressed_bomb_is_never_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few kB that SEAL would inflate to 64 MB: refused by length, and nothing is decompressed."""
    run, uploads, request = started(min_survivors=3)
    scheme = scheme_for(choose(run.terms))
    saved, plain = native(scheme, tmp_path)
    packed = zstandard.ZstdCompressor(level=1).compress(plain[16:] + bytes(64 << 20))
    bomb = rewritten(saved, packed, compression=2)
    assert len(bomb) < 200_000
    loaded: list[object] = []
    monkeypatch.setattr(Scheme, "_loaded", lambda *parts: loaded.append(parts))
    monkeypatch.setattr(
        "crypto.he_seal.zstandard.ZstdDecompressor", lambda: loaded.append("decompressed")
    )
    uploads[2] = resign(uploads[2], bomb)
    listed = OpenRequest(INTENT, EVIDENCE, list(uploads.values())).encode()
    with pytest.raises(MessageRefused) as caught:
        officer_of(run).step(resign(request, listed))
    assert caught.value.sender == 2
    assert loaded == []


def test_every_byte_that_seal_loads_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random signed payloads at every step to everybody: SEAL is not called once for them."""
    run, uploads, request = started(min_survivors=3)
    fresh = Run("he", run.terms, run.vectors)
    requests = fresh.begin().messages
    key = payload_of(requests[1])
    calls: list[object] = []
    monkeypatch.setattr(Scheme, "_loaded", lambda *parts: calls.append(parts))
    for size in (0, 1, 16, 97, 65_649):
        noise = os.urandom(size)
        with pytest.raises(CryptoError):
            fresh.clients[1].step(resign(requests[1], resign(key, noise)))
        listed = OpenRequest(INTENT, EVIDENCE, [uploads[1], resign(uploads[2], noise), uploads[3]])
        with pytest.raises(CryptoError):
            officer_of(run).step(resign(request, listed.encode()))
    assert calls == []


def test_after_all_that_an_honest_run_is_exact() -> None:
    terms = make_terms(3)
    run = Run("he", terms, make_vectors(terms))
    done = run.drive()
    np.testing.assert_array_equal(done.total, total(terms, run.vectors, terms.cohort))
