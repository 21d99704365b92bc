"""What SEAL's own loader takes from a file: every hole is open there and closed in our decoder.

`test_he_attacks` has transparent ciphertexts, trailing bytes and a third polynomial; here are the
others, and what a compressed bomb does to a build that unpacks it.
"""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tenseal.sealapi as seal
import zstandard

from crypto.errors import Malformed, MessageRefused
from crypto.he_messages import decode_ciphertexts
from crypto.he_parameters import choose
from crypto.he_seal import Scheme, scheme_for
from tests.crypto.harness import Run, make_terms, make_vectors, resign
from tests.crypto.test_he_attacks import native, rewritten

# Body of a ciphertext that SEAL writes: parameters' id 32 | NTT form 1 | size 8 | degree 8 |
# primes 8 | scale 8 | correction 8 | inner header 16, its length in the last 8 | words 8 | words.
NTT_AT, SIZE_AT, INNER_AT, COUNT_AT, WORDS_AT = 32, 33, 81, 89, 97
INFLATED = 256 << 20


def with_size(plain: bytes, size: int) -> bytes:
    """A ciphertext of another number of polynomials, in a file that fits it."""
    body = bytearray(plain[16:])
    half = (len(body) - WORDS_AT) // 2
    body[SIZE_AT : SIZE_AT + 8] = struct.pack("<Q", size)
    inner = struct.unpack_from("<Q", body, INNER_AT)[0]
    body[INNER_AT : INNER_AT + 8] = struct.pack("<Q", inner + (size - 2) * half)
    body[COUNT_AT : COUNT_AT + 8] = struct.pack("<Q", size * half // 8)
    return rewritten(plain, bytes(body[:WORDS_AT]) + (bytes(body[-half:]) * size)[: size * half])


def empty(plain: bytes) -> bytes:
    return with_size(plain, 0)


def four_polynomials(plain: bytes) -> bytes:
    return with_size(plain, 4)


def in_ntt_form(plain: bytes) -> bytes:
    at = 16 + NTT_AT
    return plain[:at] + b"\1" + plain[at + 1 :]


def bomb(plain: bytes, saved: bytes) -> bytes:
    """A well-formed ciphertext and zeros behind it, which compress to next to nothing."""
    packed = zstandard.ZstdCompressor(level=1).compress(plain[16:] + bytes(INFLATED))
    return rewritten(saved, packed, compression=2)


@pytest.fixture(scope="module")
def scheme() -> Scheme:
    return scheme_for(choose(make_terms(3)))


def refused_as_an_upload(crafted: bytes) -> None:
    """A client signs it and sends it: refused by its name, and not decoded."""
    terms = make_terms(3)
    with pytest.raises(Malformed):
        decode_ciphertexts(memoryview(crafted), choose(terms))
    run = Run("he", terms, make_vectors(terms))
    requests = run.begin().messages
    answer = run.clients[2].step(requests[2])
    with pytest.raises(MessageRefused) as caught:
        run.aggregator.receive(2, resign(answer, crafted))
    assert caught.value.sender == 2
    run.aggregator.receive(2, answer)


@pytest.mark.parametrize("hole", [empty, four_polynomials, in_ntt_form])
def test_a_hole_of_the_loader_is_closed_in_our_decoder(
    hole: Callable[[bytes], bytes], scheme: Scheme, tmp_path: Path
) -> None:
    _, plain = native(scheme, tmp_path)
    crafted = hole(plain)
    path = tmp_path / "crafted"
    path.write_bytes(crafted)
    loaded = seal.Ciphertext()
    loaded.load(scheme.context, str(path))
    expected = {"empty": 0, "four_polynomials": 4, "in_ntt_form": 2}[hole.__name__]
    assert loaded.size() == expected
    assert loaded.is_ntt_form() is (hole is in_ntt_form)
    refused_as_an_upload(crafted)


UNPACK = """
import pathlib, re, sys
from crypto.he_seal import _unpacked
def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) << 10
crafted = pathlib.Path(sys.argv[1]).read_bytes()
before = peak()
_unpacked(crafted)
print(peak() - before)
"""


def test_a_bomb_fills_the_memory_of_whoever_unpacks_foreign_bytes(
    scheme: Scheme, tmp_path: Path
) -> None:
    """SEAL takes it for a ciphertext. A build that read it as it reads its own files would be full.

    Ours refuses it by its length; the peak of this process does not move.
    """
    saved, plain = native(scheme, tmp_path)
    crafted = bomb(plain, saved)
    assert len(crafted) < 300_000
    path = tmp_path / "bomb"
    path.write_bytes(crafted)
    seal.Ciphertext().load(scheme.context, str(path))
    told = subprocess.run(
        [sys.executable, "-c", UNPACK, str(path)], capture_output=True, text=True, check=True
    )
    assert int(told.stdout) >= INFLATED
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused_as_an_upload(crafted)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < INFLATED // 8
