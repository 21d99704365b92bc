"""The homomorphic sum step by step: what each party refuses, that it opens once, and its bytes."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.envelope import Step
from crypto.errors import (
    CryptoError,
    Malformed,
    MessageRefused,
    OutOfOrder,
    RingRefused,
    SumAborted,
    TermsRefused,
)
from crypto.he_messages import (
    Opened,
    OpenRequest,
    decode_ciphertexts,
    decode_key,
    encode_ciphertexts,
    encode_key,
)
from crypto.he_parameters import choose, parameters_for
from crypto.he_seal import KeyPair, SealFailed, scheme_for
from crypto.he_words import pack_words, packed_size, unpack_words
from crypto.secure_sum import SECURE_SUMS, Outgoing, Ready
from tests.crypto.harness import (
    EVIDENCE,
    INTENT,
    Run,
    another,
    make_terms,
    make_vectors,
    payload_of,
    resign,
    total,
)

KEY, INPUT, OPEN = range(3)


def started(clients: int = 3, **terms: Any) -> tuple[Run, dict[int, bytes], bytes]:
    """A run whose clients have answered; their uploads, and the request to the officer."""
    made = make_terms(clients, **terms)
    run = Run("he", made, make_vectors(made))
    run.requests.append(dict(run.begin().messages))
    uploads = {k: run.clients[k].step(message) for k, message in run.requests[0].items()}
    for k, upload in uploads.items():
        run.aggregator.receive(k, upload)
    run.ready = run.aggregator.advance()  # type: ignore[assignment]
    assert isinstance(run.ready, Ready)
    (request,) = run.aggregator.authorise(INTENT, EVIDENCE).messages.values()
    return run, uploads, request


def officer_of(run: Run) -> Any:
    (officer,) = run.officers.values()
    return officer


# --- the officer ----------------------------------------------------------------------------------


def test_the_officer_opens_once() -> None:
    run, _, request = started()
    officer = officer_of(run)
    answer = officer.step(request)
    for again in (request, resign(request, payload_of(request))):
        with pytest.raises(OutOfOrder, match="last step"):
            officer.step(again)
    run.aggregator.receive(4, answer)
    done = run.aggregator.advance()
    np.testing.assert_array_equal(done.total, total(run.terms, run.vectors, (1, 2, 3)))


def test_a_refused_request_costs_nothing() -> None:
    run, uploads, request = started()
    for bad in (b"", bytes(31), OpenRequest(INTENT, EVIDENCE, list(uploads.values())[:1]).encode()):
        with pytest.raises(MessageRefused) as caught:
            officer_of(run).step(resign(request, bad))
        assert caught.value.sender in (0, 1)
    run.aggregator.receive(4, officer_of(run).step(request))
    assert run.aggregator.advance().contributors == (1, 2, 3)


@pytest.mark.parametrize("who", [(2, 1, 3), (1, 1, 2), (1, 2, 2), (1, 1, 1)])
def test_the_officer_takes_distinct_clients_in_order(who: tuple[int, ...]) -> None:
    run, uploads, request = started()
    listed = OpenRequest(INTENT, EVIDENCE, [uploads[k] for k in who]).encode()
    with pytest.raises(MessageRefused, match="distinct clients"):
        officer_of(run).step(resign(request, listed))


def test_the_officer_takes_clients_of_the_cohort_alone() -> None:
    run, uploads, request = started(9, cohort=(1, 2, 3))
    outsider = bytearray(uploads[3])
    outsider[2] = 4
    listed = OpenRequest(INTENT, EVIDENCE, [uploads[1], uploads[2], bytes(outsider)]).encode()
    with pytest.raises(MessageRefused, match="of the cohort"):
        officer_of(run).step(resign(request, listed))
    listed = OpenRequest(INTENT, EVIDENCE, [uploads[1], uploads[2], bytes(110)]).encode()
    with pytest.raises(MessageRefused, match="of the cohort"):
        officer_of(run).step(resign(request, listed))


def test_a_smaller_set_may_be_opened_instead_but_not_as_well() -> None:
    run, uploads, request = started(4, min_survivors=3)
    fewer = OpenRequest(INTENT, EVIDENCE, [uploads[k] for k in (1, 2, 3)]).encode()
    answer = officer_of(run).step(resign(request, fewer))
    with pytest.raises(OutOfOrder):
        officer_of(run).step(request)
    with pytest.raises(MessageRefused, match="of other clients"):
        run.aggregator.receive(4 + 1, answer)


def test_noise_that_does_not_fit_ends_the_attempt_and_the_key() -> None:
    """Anything else than one answer, if only that it fails, could be asked again and again."""
    run, uploads, request = started()
    parameters = choose(run.terms)
    rng = np.random.default_rng(1)
    shape = (parameters.ciphertexts, 2, len(parameters.data_primes), 4096)
    noise = rng.integers(0, min(parameters.data_primes), shape, dtype=np.uint64)
    uploads[2] = resign(uploads[2], encode_ciphertexts(parameters, noise))
    listed = OpenRequest(INTENT, EVIDENCE, list(uploads.values())).encode()
    officer = officer_of(run)
    with pytest.raises(SumAborted, match="noise"):
        officer.step(resign(request, listed))
    assert officer._keys is None
    with pytest.raises(OutOfOrder):
        officer.step(request)


def test_a_vector_that_is_too_long_ends_the_attempt() -> None:
    run, uploads, request = started()
    client = run.client(2)
    client._terms = another(run.terms, length=7)  # type: ignore[attr-defined]
    client._vector = lambda: np.ones(7, dtype=np.int64)  # type: ignore[attr-defined]
    client._terms.__dict__["ctx1"] = run.terms.ctx1  # type: ignore[attr-defined]
    uploads[2] = client.step(run.requests[0][2])
    listed = OpenRequest(INTENT, EVIDENCE, list(uploads.values())).encode()
    with pytest.raises(SumAborted, match="behind the end"):
        officer_of(run).step(resign(request, listed))


def test_keys_are_fresh_and_erased() -> None:
    first, second = started()[0], started()[0]
    assert first.aggregator._signed_key != second.aggregator._signed_key  # type: ignore[attr-defined]
    officer = officer_of(first)
    keys = officer._keys
    assert keys is not None
    assert "redacted" in repr(officer)
    assert "redacted" in repr(keys)
    assert "redacted" in repr(first.clients[1])
    assert "HeAggregator" in repr(first.aggregator)
    other, _, request = started()
    officer = officer_of(other)
    keys = officer._keys
    officer.step(request)
    assert officer._keys is None
    assert keys is not None
    with pytest.raises(SealFailed, match="erased"):
        keys.decrypt(np.zeros((2, 1, 4096), dtype=np.uint64))


# --- the clients ----------------------------------------------------------------------------------


def test_a_client_answers_once_and_asks_for_its_vector_once() -> None:
    terms = make_terms(3)
    run = Run("he", terms, make_vectors(terms))
    requests = run.begin().messages
    run.clients[1]._vector = lambda: np.zeros(4, dtype=np.int64)  # type: ignore[attr-defined]
    with pytest.raises(RingRefused, match="allowed"):
        run.clients[1].step(requests[1])
    with pytest.raises(OutOfOrder):
        run.clients[1].step(requests[1])
    run.clients[2]._vector = lambda: np.full(5, 2**20)  # type: ignore[attr-defined]
    with pytest.raises(RingRefused, match="outside"):
        run.clients[2].step(requests[2])


def test_other_parameters_are_refused() -> None:
    """A smaller plaintext modulus would lose values, a larger one the exactness."""
    terms = make_terms(3, bits=20)
    run = Run("he", terms, make_vectors(terms))
    request = run.begin().messages[1]
    for other in (parameters_for(19, 3, 5), parameters_for(20, 300, 5)):
        payload = encode_key(other, KeyPair(scheme_for(other)).public)
        key = resign(payload_of(request), payload)
        with pytest.raises(MessageRefused, match="other parameters") as caught:
            run.clients[1].step(resign(request, key))
        assert caught.value.sender == 4
    run.clients[1].step(request)


# --- the aggregator -------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [KEY, OPEN])
def test_without_the_officer_there_is_no_sum(step: int) -> None:
    terms = make_terms(3)
    run = Run("he", terms, make_vectors(terms))
    with pytest.raises(SumAborted, match="officer 4: no answer"):
        run.drive({4: step})
    again = Run("he", terms, make_vectors(terms))

    def nonsense(at: int, party: int, answer: bytes) -> bytes:
        return resign(answer, b"nonsense") if at == step and party == 4 else answer

    with pytest.raises(SumAborted, match=r"officer 4: .* wanted"):
        again.drive(forge=nonsense)
    with pytest.raises(OutOfOrder):
        again.aggregator.advance()


def test_an_answer_for_another_intent_is_refused() -> None:
    run, _, request = started()
    answer = officer_of(run).step(request)
    payload = payload_of(answer)
    for changed in (bytes(32) + payload[32:], payload[:36] + bytes(4) + payload[40:]):
        with pytest.raises(MessageRefused, match="another intent or of other clients"):
            run.aggregator.receive(4, resign(answer, changed))
    for changed in (payload[:-1], payload + b"\0", b""):
        with pytest.raises(MessageRefused):
            run.aggregator.receive(4, resign(answer, changed))
    with pytest.raises(MessageRefused, match="signature"):
        run.aggregator.receive(4, resign(answer, payload, signer=0))
    run.aggregator.receive(4, answer)


def test_check_tells_what_to_change() -> None:
    protocol = SECURE_SUMS["he"]
    protocol.check(make_terms(3))
    for changes, match in (
        ({"max_colluders": 1, "threshold": 3}, "max_colluders is 1; allowed: 0"),
        ({"officers": 0}, "names 0 officers"),
        ({"officers": 2}, "names 2 officers"),
        ({"bits": 60}, "no exact BFV parameters"),
        ({"length": 400_000_000}, "in one message"),
    ):
        with pytest.raises(TermsRefused, match=match):
            protocol.check(make_terms(3, **changes))  # type: ignore[arg-type]


# --- bytes ----------------------------------------------------------------------------------------

PARAMETERS = parameters_for(28, 3, 5000)
RNG = np.random.default_rng(5)
LIMITS = np.array(PARAMETERS.data_primes, dtype=np.uint64)[:, None]
CIPHERTEXTS = RNG.integers(0, LIMITS, (1, 2, len(LIMITS), 4096), dtype=np.uint64)
ENCODED = encode_ciphertexts(PARAMETERS, CIPHERTEXTS)


def test_upload_is_as_long_as_the_parameters_say() -> None:
    assert len(LIMITS) == 2
    assert len(ENCODED) == PARAMETERS.upload_bytes
    np.testing.assert_array_equal(decode_ciphertexts(memoryview(ENCODED), PARAMETERS), CIPHERTEXTS)


@pytest.mark.parametrize("position", [(0, 0, 0, 0), (0, 1, 1, 4095), (0, 0, 1, 17)])
def test_a_coefficient_not_below_its_prime_is_refused(position: tuple[int, ...]) -> None:
    for above in (0, 1):
        changed = CIPHERTEXTS.copy()
        changed[position] = LIMITS[position[2], 0] + np.uint64(above)
        data = encode_ciphertexts(PARAMETERS, changed)
        with pytest.raises(Malformed, match="not below its prime"):
            decode_ciphertexts(memoryview(data), PARAMETERS)


def test_a_transparent_ciphertext_is_refused() -> None:
    several = parameters_for(28, 3, 20_000)
    words = np.repeat(CIPHERTEXTS, several.ciphertexts, axis=0)
    data = encode_ciphertexts(several, words)
    assert decode_ciphertexts(memoryview(data), several).shape == words.shape
    words[1, 1] = 0
    with pytest.raises(Malformed, match="transparent"):
        decode_ciphertexts(memoryview(encode_ciphertexts(several, words)), several)
    words[1, 1, 0, 3] = 1
    decode_ciphertexts(memoryview(encode_ciphertexts(several, words)), several)


@given(bits=st.integers(2, 63), groups=st.integers(1, 5), seed=st.integers(0, 2**32))
def test_packed_words_are_bit_strings_of_strided_groups(bits: int, groups: int, seed: int) -> None:
    """Against the definition in whole integers; 64 groups of them cross no block border."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 1 << bits, 64 * groups, dtype=np.uint64)
    packed = pack_words(words, bits)
    rows = np.frombuffer(packed, dtype="<u8").reshape(bits, groups)
    for j in range(groups):
        joined = sum(int(word) << (k * bits) for k, word in enumerate(words[j::groups]))
        assert joined.to_bytes(8 * bits, "little") == rows[:, j].tobytes()
    np.testing.assert_array_equal(unpack_words(memoryview(packed), words.size, bits), words)


def test_packed_words_cross_block_borders() -> None:
    words = np.random.default_rng(2).integers(0, 1 << 59, 64 * 8200, dtype=np.uint64)
    packed = pack_words(words, 59)
    assert len(packed) == packed_size(words.size, 59) == 64 * 8200 * 59 // 8
    np.testing.assert_array_equal(unpack_words(memoryview(packed), words.size, 59), words)
    for other in (packed[:-1], packed + b"\0", b""):
        with pytest.raises(Malformed, match="59 bits in"):
            unpack_words(memoryview(other), words.size, 59)


def test_the_bytes_of_an_upload_are_frozen() -> None:
    """A change of format needs a new version of the envelope, not a new digest here."""
    words = (np.arange(CIPHERTEXTS.size, dtype=np.uint64) * np.uint64(2**40 + 15)).reshape(
        CIPHERTEXTS.shape
    ) % LIMITS
    assert (
        hashlib.sha256(PARAMETERS.encode() + encode_ciphertexts(PARAMETERS, words)).hexdigest()
        == "2f67656a833313ebe369a86f893a439b8d87bc4f1fbccbf1b01495af6fd1d8ab"
    )


@pytest.mark.parametrize(("size", "fits"), [(0, False), (109, False), (110, True)])
def test_an_upload_is_as_long_as_a_sealed_message(size: int, fits: bool) -> None:
    """Else a request of a few bytes for each would take a hundred times as much memory."""
    request = memoryview(OpenRequest(INTENT, EVIDENCE, [bytes(size)]).encode())
    if fits:
        assert OpenRequest.decode(request).uploads == [bytes(size)]
        return
    with pytest.raises(Malformed, match=f"an upload of {size} bytes; allowed: 110 or more"):
        OpenRequest.decode(request)


@settings(max_examples=100)
@given(data=st.data())
def test_decoders_take_exact_bytes_alone(data: st.DataObject) -> None:
    noise = data.draw(st.binary(max_size=300))
    changed = bytearray(ENCODED)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(ENCODED) - 1))
    for bad in (noise, bytes(changed[:cut]), bytes(changed) + noise[:1] + b"\0"):
        with pytest.raises(Malformed):
            decode_ciphertexts(memoryview(bad), PARAMETERS)
        with pytest.raises(Malformed):
            decode_key(memoryview(bad), PARAMETERS)
    for value in (bytes(changed), ENCODED):
        try:
            words = decode_ciphertexts(memoryview(value), PARAMETERS)
        except Malformed:
            continue
        assert encode_ciphertexts(PARAMETERS, words) == value
        assert (words < LIMITS).all()
    ring = make_terms(3, bits=20).ring
    for decode, encode in (
        (OpenRequest.decode, OpenRequest.encode),
        (lambda value: Opened.decode(value, ring, 5), lambda opened: opened.encode(ring)),
    ):
        for value in (noise, INTENT + noise):
            try:
                read = decode(memoryview(value))
            except Malformed:
                continue
            assert encode(read) == value


@settings(max_examples=30)
@given(data=st.data())
def test_signed_nonsense_of_insiders_never_gives_a_wrong_sum(data: st.DataObject) -> None:
    """A client signs arbitrary changes of its upload, the officer of its key and its answer.

    A client can choose its own input, of the whole sum nothing else.
    """
    terms = make_terms(4, min_survivors=3)
    run = Run("he", terms, make_vectors(terms))
    step, party = data.draw(st.sampled_from([(KEY, 5), (INPUT, 2), (OPEN, 5)]))

    def forge(at: int, who: int, answer: bytes) -> bytes:
        if (at, who) != (step, party):
            return answer
        payload = bytearray(payload_of(answer))
        if data.draw(st.booleans()):
            return resign(answer, data.draw(st.binary(max_size=300)))
        spot = data.draw(st.integers(0, (len(payload) if step is not OPEN else 36) - 1))
        payload[spot] ^= data.draw(st.integers(1, 255))
        return resign(answer, bytes(payload))

    try:
        done = run.drive(forge=forge)
    except SumAborted:
        return
    expected = total(terms, run.vectors, done.contributors)
    if step is not INPUT or 2 not in done.contributors:
        np.testing.assert_array_equal(done.total, expected)


# --- SEAL behind its module -----------------------------------------------------------------------


def test_seal_is_loaded_by_those_who_encrypt_alone() -> None:
    code = (
        "import sys, secure_fedmeta.cli, crypto.secure_sum as s;"
        "[p.capabilities() for p in s.SECURE_SUMS.values()];"
        "s.SECURE_SUMS['he'].aggregator_class();"
        "sys.exit('tenseal' in sys.modules or 'zstandard' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_key_pair_is_never_pickled_or_shown() -> None:
    pair = KeyPair(scheme_for(PARAMETERS))
    assert repr(pair) == "KeyPair(redacted)"
    with pytest.raises(TypeError):
        __import__("pickle").dumps(pair)


def test_arrays_of_another_shape_never_reach_seal() -> None:
    scheme = scheme_for(PARAMETERS)
    with pytest.raises(SealFailed, match="allowed"):
        scheme.ciphertext(np.zeros((3, 2, 4096), dtype=np.uint64))
    assert issubclass(SealFailed, CryptoError)


@dataclass
class Saved:
    """Something that saves given bytes."""

    content: bytes

    def save(self, path: str) -> None:
        Path(path).write_bytes(self.content)


def test_what_seal_writes_is_checked_too() -> None:
    file = scheme_for(PARAMETERS)._file
    header = struct.Struct("<HBBBBHQ")
    assert file.saved(Saved(header.pack(0xA15E, 16, 4, 0, 0, 0, 20) + b"body"))[1] == b"body"
    for compression, size in ((1, 20), (3, 20), (0, 19)):
        with pytest.raises(SealFailed, match="20 bytes"):
            file.saved(Saved(header.pack(0xA15E, 16, 4, 0, compression, 0, size) + b"body"))


def test_threads_and_forked_processes_never_read_each_others_ciphertexts() -> None:
    code = """
import os, sys, threading
import numpy as np
from crypto.he_parameters import parameters_for
from crypto.he_seal import Encryptor, KeyPair, scheme_for
sys.setswitchinterval(1e-6)
scheme = scheme_for(parameters_for(20, 3, 4096))
wrong = []
def work(mark):
    keys = KeyPair(scheme)
    encryptor = Encryptor(scheme, keys.public)
    for k in range(12):
        sent = np.full(4096, 100 * mark + k, dtype=np.uint64)
        found, budget = keys.decrypt(encryptor.encrypt(sent))
        if budget < 1 or (found != sent).any():
            wrong.append(mark)
def content():
    return os.pread(scheme._file._fd, 1 << 20, 0)
before = content()
child = os.fork()
if child == 0:
    work(9)
    os._exit(len(wrong))
failed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
if content() != before:
    sys.exit("the child wrote into its parent's file")
threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit(failed + len(wrong))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_threads_of_a_forked_child_wait_for_its_own_file() -> None:
    """Were it opened at first use, a second thread could meet a closed file, or anybody's."""
    code = """
import os, sys, threading, time
import tenseal.sealapi as seal
from crypto.he_parameters import parameters_for
from crypto.he_seal import scheme_for
file = scheme_for(parameters_for(20, 3, 4096))._file
child = os.fork()
if child == 0:
    real, failed = os.memfd_create, []
    os.memfd_create = lambda *given: (time.sleep(0.2), real(*given))[1]
    def work():
        try:
            file.saved(seal.Plaintext(8))
        except Exception as error:
            failed.append(error)
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads: thread.start(); time.sleep(0.05)
    for thread in threads: thread.join()
    os._exit(len(failed))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_steps_have_labels() -> None:
    assert Step.HE_OPEN.label == "he open"
    assert isinstance(Run("he", make_terms(3), {}).begin(), Outgoing)
