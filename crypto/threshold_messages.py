"""Bytes of the threshold sum, decoded strictly, and the contexts that they are signed under.

Formats (little-endian; words as in crypto.he_words; a bundle is byte strings by roster index, a
set is strictly increasing u32 behind their number):
    commitment     H(b_i) 32 bytes | hybrid public key of the channel
    dealt          signed dealing behind its length | bundle of sealed shares, by recipient
    sealed share   half of a pair key 32 bytes | share, through crypto.channel
    dealing        words of b_i | bundle of digests of the sealed shares, by recipient
    delivery       bundle of signed dealings | bundle of sealed shares, both by dealer
    check          set of dealers complained of | if empty: for each dealer and prime in order its
                   combinations, u64 each
    sign request   bundle of signed checks | count u32 | count sets
    signed         signed endorsement behind its length | for each set asked for: words of an answer
    endorsement    H(key) 32 bytes | set of the dealers | set of those that sign
    key            parameters | words of b
    signed key     key behind its length | bundle of signed endorsements
    held           intent 32 bytes | set of clients | H(sum of their ciphertexts) 32 bytes
    part request   count u32 | count sets
    parts          for each set asked for: words of an answer
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from crypto.channel import SEAL_OVERHEAD
from crypto.codec import Reader, Writer, tagged_digest
from crypto.errors import Malformed
from crypto.he_parameters import Parameters
from crypto.he_words import pack_polynomials, packed_polynomials_size, unpack_polynomials
from crypto.hybrid import HYBRID_KEY_BYTES, check_hybrid_key
from crypto.keys import KEY_BYTES
from crypto.terms import DIGEST_BYTES
from crypto.threshold_parameters import MAX_MEMBERS, ThresholdParameters
from crypto.threshold_sharing import repeats_of, share_size

Words = NDArray[np.uint64]
Set = tuple[int, ...]
Combinations = tuple[tuple[int, ...], ...]

_LABEL: Final = "fedmeta/threshold/v1/"


@dataclass(frozen=True)
class Commitment:
    """A member's first message: its part of the key, hidden, and where shares are sealed to."""

    digest: bytes
    channel: bytes

    @staticmethod
    def digest_of(context: bytes, member: int, part: bytes) -> bytes:
        """H(b_i); b_i is a fresh ring-LWE sample, so that nobody guesses it."""
        return tagged_digest(_LABEL + "part of a key", context, Writer().u32(member).done(), part)

    def encode(self) -> bytes:
        """Encode strictly."""
        writer = Writer().fixed(self.digest, DIGEST_BYTES)
        return writer.fixed(self.channel, HYBRID_KEY_BYTES).done()

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Commitment:
        """Decode strictly.

        Raises:
            Malformed: not exactly one commitment.
            KeyRefused: a channel key that cannot be used.
        """
        reader = Reader(payload)
        found = cls(reader.fixed(DIGEST_BYTES), reader.fixed(HYBRID_KEY_BYTES))
        reader.end()
        check_hybrid_key(found.channel)
        return found


@dataclass(frozen=True)
class Dealing:
    """What a dealer shows to everybody.

    Attributes:
        part: packed words of b_i.
        digests: of the shares that it sealed, by recipient.
    """

    part: bytes
    digests: Mapping[int, bytes]

    def encode(self) -> bytes:
        """Encode strictly."""
        return Writer().sized(self.part).bundle(self.digests).done()

    @classmethod
    def decode(cls, payload: bytes | memoryview) -> Dealing:
        """Decode strictly; the words are decoded by decode_part.

        Raises:
            Malformed: not exactly one dealing.
        """
        reader = Reader(payload)
        found = cls(reader.sized(), reader.bundle())
        reader.end()
        return found


@dataclass(frozen=True)
class Check:
    """What a member tells of the shares that it was dealt.

    Attributes:
        complaints: dealers whose share does not open.
        combinations: of the shares, by dealer; empty where there are complaints.
    """

    complaints: Set
    combinations: Mapping[int, Combinations]

    def encode(self) -> bytes:
        """Encode strictly."""
        writer = Writer().indices(self.complaints)
        for dealer in sorted(self.combinations):
            for row in self.combinations[dealer]:
                for word in row:
                    writer.u64(word)
        return writer.done()

    @classmethod
    def decode(cls, payload: bytes | memoryview, dealers: Set, primes: Sequence[int]) -> Check:
        """Decode strictly.

        Raises:
            Malformed: not exactly these words, or one that is not below its prime.
        """
        reader = Reader(payload)
        complaints = reader.indices()
        if complaints:
            reader.end()
            if not set(complaints) <= set(dealers):
                raise Malformed("a complaint is about nobody that dealt")
            return cls(complaints, {})
        found = {
            dealer: tuple(tuple(reader.u64() for _ in range(repeats_of(p))) for p in primes)
            for dealer in dealers
        }
        reader.end()
        for rows in found.values():
            if any(max(row) >= prime for row, prime in zip(rows, primes, strict=True)):
                raise Malformed("a combination is not below its prime")
        return cls((), found)


@dataclass(frozen=True)
class Endorsement:
    """What a member signs: a key, whose parts are in it, and who signs it too."""

    key: bytes
    dealers: Set
    signers: Set

    def encode(self) -> bytes:
        """Encode strictly."""
        writer = Writer().fixed(self.key, DIGEST_BYTES)
        return writer.indices(self.dealers).indices(self.signers).done()

    @classmethod
    def decode(cls, payload: memoryview) -> Endorsement:
        """Decode strictly.

        Raises:
            Malformed: not exactly one endorsement.
        """
        reader = Reader(payload)
        found = cls(reader.fixed(DIGEST_BYTES), reader.indices(), reader.indices())
        reader.end()
        return found


@dataclass(frozen=True)
class Held:
    """What a member says that it holds and will answer for, and for nothing else."""

    intent: bytes
    survivors: Set
    total: bytes

    def encode(self) -> bytes:
        """Encode strictly."""
        writer = Writer().fixed(self.intent, DIGEST_BYTES).indices(self.survivors)
        return writer.fixed(self.total, DIGEST_BYTES).done()

    @classmethod
    def decode(cls, payload: memoryview | bytes) -> Held:
        """Decode strictly.

        Raises:
            Malformed: not exactly that.
        """
        reader = Reader(payload)
        found = cls(reader.fixed(DIGEST_BYTES), reader.indices(), reader.fixed(DIGEST_BYTES))
        reader.end()
        return found


def sealed_share_size(scheme: Parameters) -> int:
    """Bytes of a share that one member seals to another, and of its half of their pair key."""
    return SEAL_OVERHEAD + KEY_BYTES + share_size(scheme.data_primes, scheme.degree)


def encode_pair(first: Mapping[int, bytes], second: Mapping[int, bytes]) -> bytes:
    """Two bundles."""
    return Writer().bundle(first).bundle(second).done()


def decode_pair(payload: memoryview) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """Two bundles.

    Raises:
        Malformed: not exactly two bundles.
    """
    reader = Reader(payload)
    first, second = reader.bundle(), reader.bundle()
    reader.end()
    return first, second


def decode_bundle(payload: memoryview) -> dict[int, bytes]:
    """One bundle.

    Raises:
        Malformed: not exactly one bundle.
    """
    reader = Reader(payload)
    found = reader.bundle()
    reader.end()
    return found


def encode_sized_and_bundle(first: bytes, second: Mapping[int, bytes]) -> bytes:
    """One message behind its length, and a bundle."""
    return Writer().sized(first).bundle(second).done()


def decode_sized_and_bundle(payload: memoryview) -> tuple[bytes, dict[int, bytes]]:
    """Inverse of encode_sized_and_bundle.

    Raises:
        Malformed: not exactly that.
    """
    reader = Reader(payload)
    first, second = reader.sized(), reader.bundle()
    reader.end()
    return first, second


def encode_sized_and_sized(first: bytes, second: bytes) -> bytes:
    """Two byte strings behind their lengths."""
    return Writer().sized(first).sized(second).done()


def decode_sized_and_sized(payload: memoryview) -> tuple[bytes, memoryview]:
    """Inverse of encode_sized_and_sized.

    Raises:
        Malformed: not exactly that.
    """
    reader = Reader(payload)
    first, second = reader.sized(), reader.sized_view()
    reader.end()
    return first, second


def encode_bundle_and_sets(first: Mapping[int, bytes], sets: Sequence[Set]) -> bytes:
    """A bundle and sets of members."""
    return Writer().bundle(first).done() + encode_sets(sets)


def decode_bundle_and_sets(payload: memoryview) -> tuple[dict[int, bytes], tuple[Set, ...]]:
    """Inverse of encode_bundle_and_sets.

    Raises:
        Malformed: not exactly that.
    """
    reader = Reader(payload)
    return reader.bundle(), decode_sets(reader.rest())


def encode_sets(sets: Sequence[Set]) -> bytes:
    """Sets of members."""
    writer = Writer().u32(len(sets))
    for members in sets:
        writer.indices(members)
    return writer.done()


def decode_sets(payload: bytes | memoryview) -> tuple[Set, ...]:
    """Sets of members, all different.

    Raises:
        Malformed: not exactly some sets, or one of more members than a committee has.
    """
    reader = Reader(payload)
    found = tuple(_one_set(reader) for _ in range(reader.u32()))
    reader.end()
    if len(set(found)) != len(found):
        raise Malformed("a set is asked for twice")
    return found


def _one_set(reader: Reader) -> Set:
    """One by one, so that many long lists never are in memory together."""
    members = reader.indices()
    if len(members) > MAX_MEMBERS:
        raise Malformed(f"a set of {len(members)} members; allowed: up to {MAX_MEMBERS}")
    return members


def encode_part(part: Words, scheme: Parameters) -> bytes:
    """Words [key primes, N] of a part of a public key, or of their sum."""
    return pack_polynomials(part, scheme.key_primes)


def decode_part(data: bytes | memoryview, scheme: Parameters) -> Words:
    """Inverse of encode_part.

    Raises:
        Malformed: not exactly these words, or one that is not below its prime.
    """
    return unpack_polynomials(memoryview(data), (), scheme.key_primes, scheme.degree)


def encode_key(parameters: ThresholdParameters, total: Words) -> bytes:
    """The first polynomial of a public key behind its parameters; the second is a hash."""
    return parameters.encode() + encode_part(total, parameters.scheme)


def decode_key(key: bytes, parameters: ThresholdParameters) -> Words:
    """Inverse of encode_key.

    Raises:
        Malformed: other parameters than these, or not exactly one polynomial.
    """
    own = parameters.encode()
    reader = Reader(key)
    if reader.fixed(len(own)) != own:
        raise Malformed("the key is for other parameters")
    return decode_part(reader.rest(), parameters.scheme)


def encode_answer(answer: Words, scheme: Parameters) -> bytes:
    """The answer [count, data primes, N] of one member in one set."""
    return pack_polynomials(answer, scheme.data_primes)


def decode_answers(
    payload: bytes | memoryview, sets: int, count: int, scheme: Parameters
) -> list[Words]:
    """Answers in `sets` sets at `count` polynomials, [count, data primes, N] each.

    Raises:
        Malformed: not exactly these words, or one that is not below its prime.
    """
    reader = Reader(payload)
    size = packed_polynomials_size(count, scheme.data_primes, scheme.degree)
    views = [reader.view(size) for _ in range(sets)]
    reader.end()
    return [unpack_polynomials(v, (count,), scheme.data_primes, scheme.degree) for v in views]
