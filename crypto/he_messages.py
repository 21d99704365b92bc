"""Bytes of the homomorphic sum: our own packed formats, decoded strictly.

Formats (little-endian; words of prime q take bit_length(q) bits each, see crypto.he_words):
    public key    parameters, then for each key prime in order 2 * N words (b and a, transformed)
    ciphertexts   for each data prime in order 2 * N words (c0, c1) of every ciphertext in order
    open request  intent 32 bytes | evidence behind its length | count u32 | count sealed uploads
                  behind their lengths
    opened sum    intent 32 bytes | count u32 | count client indices u32 | packed ring residues

A decoder takes exact lengths only, every word below its prime, and neither a public key nor a
ciphertext whose second polynomial is zero (it would be transparent: no key is needed to read it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from crypto.codec import Reader, Writer, tagged_digest
from crypto.envelope import SEALED_OVERHEAD
from crypto.errors import Malformed
from crypto.he_parameters import Parameters
from crypto.he_words import pack_polynomials, unpack_polynomials
from crypto.ring import Ring
from crypto.terms import Terms

INTENT_BYTES: Final = 32
GRAPH: Final = b"he: star"
_KEY: Final = b"he: key"

Words = NDArray[np.uint64]


def encode_key(parameters: Parameters, key: Words) -> bytes:
    """Encode a public key [2, key primes, N] behind its parameters."""
    return parameters.encode() + pack_polynomials(key[None], parameters.key_primes)


def decode_key(payload: memoryview, parameters: Parameters) -> Words:
    """The public key [2, key primes, N].

    Raises:
        Malformed: other parameters than these, or not exactly one key.
    """
    reader = Reader(payload)
    own = parameters.encode()
    if reader.fixed(len(own)) != own:
        raise Malformed("the key is for other parameters")
    key: Words = _unpack_pairs(reader.rest(), 1, parameters.key_primes, parameters.degree)[0]
    return key


def context_of_key(terms: Terms) -> bytes:
    """Context that the public key is signed over, 32 bytes.

    It has the model in it, so that an officer at another one shows before any vector is computed
    and any budget charged, not when the sum is to be opened.
    """
    return terms.ctx2(b"", _KEY)


def context_under(terms: Terms, payload: bytes | memoryview) -> bytes:
    """Context that uploads under the public key of this payload are signed over, 32 bytes.

    A ciphertext under another key, of another attempt or at another model has another one.
    """
    key_id = tagged_digest("fedmeta/he/key/v1", bytes(payload))
    return terms.ctx2(key_id, GRAPH)


def encode_ciphertexts(parameters: Parameters, ciphertexts: Words) -> bytes:
    """Encode [ciphertexts, 2, data primes, N]."""
    return pack_polynomials(ciphertexts, parameters.data_primes)


def decode_ciphertexts(payload: memoryview, parameters: Parameters) -> Words:
    """Ciphertexts [ciphertexts, 2, data primes, N].

    Raises:
        Malformed: not exactly these words, one not below its prime, or a transparent ciphertext.
    """
    return _unpack_pairs(payload, parameters.ciphertexts, parameters.data_primes, parameters.degree)


@dataclass(frozen=True)
class OpenRequest:
    """What the officer is asked to add and decrypt.

    Attributes:
        intent: digest of the logged intent, 32 bytes.
        evidence: shows that it was logged; see IntentCheck.
        uploads: the survivors' sealed ciphertexts; who sent each stands in its signed heading.
    """

    intent: bytes
    evidence: bytes
    uploads: Sequence[bytes | memoryview]

    def encode(self) -> bytes:
        """Encode strictly."""
        writer = Writer().fixed(self.intent, INTENT_BYTES).sized(self.evidence)
        writer.u32(len(self.uploads))
        for upload in self.uploads:
            writer.sized(bytes(upload))
        return writer.done()

    @classmethod
    def decode(cls, payload: memoryview) -> OpenRequest:
        """Decode strictly.

        Raises:
            Malformed: not exactly one request, or an upload too short for a sealed message.
        """
        reader = Reader(payload)
        intent, evidence = reader.fixed(INTENT_BYTES), reader.sized()
        uploads: list[memoryview] = [_upload(reader) for _ in range(reader.u32())]
        reader.end()
        return cls(intent, evidence, uploads)


@dataclass(frozen=True)
class Opened:
    """What the officer answers.

    Attributes:
        intent: digest of the logged intent, 32 bytes.
        survivors: clients whose ciphertexts are in the sum, increasing.
        total: ring residues of the sum, [length].
    """

    intent: bytes
    survivors: tuple[int, ...]
    total: NDArray[np.uint64]

    def encode(self, ring: Ring) -> bytes:
        """Encode strictly."""
        writer = Writer().fixed(self.intent, INTENT_BYTES).u32(len(self.survivors))
        for survivor in self.survivors:
            writer.u32(survivor)
        return writer.done() + ring.pack(self.total)

    @classmethod
    def decode(cls, payload: memoryview, ring: Ring, length: int) -> Opened:
        """Decode strictly; every residue is below 2^bits by its width.

        Raises:
            Malformed: not exactly one opened sum of `length` residues.
        """
        reader = Reader(payload)
        intent = reader.fixed(INTENT_BYTES)
        survivors = tuple(reader.u32() for _ in range(reader.u32()))
        return cls(intent, survivors, ring.unpack(reader.rest(), length))


def _upload(reader: Reader) -> memoryview:
    """Many of a few bytes each would take a hundred times as much memory as the message."""
    upload = reader.sized_view()
    if len(upload) < SEALED_OVERHEAD:
        raise Malformed(f"an upload of {len(upload)} bytes; allowed: {SEALED_OVERHEAD} or more")
    return upload


def _unpack_pairs(data: memoryview, count: int, primes: tuple[int, ...], degree: int) -> Words:
    found = unpack_polynomials(data, (count, 2), primes, degree)
    if not found[:, 1].reshape(count, -1).any(axis=1).all():
        raise Malformed("transparent: a second polynomial is zero")
    return found
