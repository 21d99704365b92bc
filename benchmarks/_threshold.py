"""The threshold sum beside the others in benchmarks/homomorphic.py: one vector, no envelopes."""

from __future__ import annotations

import math
import os
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from crypto.he_messages import encode_ciphertexts
from crypto.he_packing import to_coefficients
from crypto.he_seal import Encryptor, scheme_for
from crypto.threshold_key import KeyPart, KeyShare, common_polynomial, summed
from crypto.threshold_messages import encode_answer
from crypto.threshold_opening import Opener
from crypto.threshold_pads import pad_of, pair_key
from crypto.threshold_parameters import ThresholdParameters, openings_of, parameters_for
from crypto.threshold_sharing import deal

Words = NDArray[np.uint64]

MEMBERS: Final = 5
THRESHOLD: Final = 3
_ASKED: Final = (1, 3, 5)


class Ours:
    """Client, members and aggregator of `crypto.threshold` for one vector."""

    def __init__(self, values: NDArray[np.int64], bits: int, clients: int) -> None:
        lane = bits + math.ceil(math.log2(clients))
        self.parameters: ThresholdParameters = parameters_for(
            lane, clients, values.size, MEMBERS, THRESHOLD
        )
        self._values = values
        scheme = self.parameters.scheme
        a = common_polynomial(b"benchmark", scheme)
        points = range(1, MEMBERS + 1)
        parts = [KeyPart(scheme, a, os.urandom) for _ in points]
        dealt = [
            deal(part.secret, points, THRESHOLD, scheme.data_primes, os.urandom) for part in parts
        ]
        self._shares = {
            x: KeyShare(self.parameters, summed([d[x].words for d in dealt], scheme.data_primes), x)
            for x in _ASKED
        }
        halves = {x: os.urandom(32) for x in _ASKED}
        self._pairs = {
            x: {y: pair_key(bytes(32), {x: halves[x], y: halves[y]}) for y in _ASKED if y != x}
            for x in _ASKED
        }
        public = summed([part.public for part in parts], scheme.key_primes)
        self._encryptor = Encryptor(scheme_for(scheme), np.stack([public, a]))
        self._opener = Opener(self.parameters)

    def encrypt(self) -> bytes:
        """From the vector to the packed upload."""
        scheme = self.parameters.scheme
        return encode_ciphertexts(scheme, self.encrypted())

    def encrypted(self) -> Words:
        """The ciphertexts, [count, 2, primes, N]."""
        return self._encryptor.encrypt_all(to_coefficients(self._values, self.parameters.scheme))

    def part(self, ciphertexts: Words, member: int = _ASKED[0]) -> Words:
        """One member's smudged part of the decryption."""
        scheme = self.parameters.scheme
        shape = ciphertexts[:, 1].shape
        pad = pad_of(member, self._pairs[member], _ASKED, bytes(32), shape, scheme.data_primes)
        return self._shares[member].answer(ciphertexts[:, 1], _ASKED, pad, os.urandom)

    def parts(self, ciphertexts: Words) -> list[Words]:
        """Those of all members that are asked."""
        return [self.part(ciphertexts, member) for member in _ASKED]

    def combine(self, ciphertexts: Words, parts: list[Words]) -> NDArray[np.int64]:
        """From the parts to the vector."""
        return self._opener.open(ciphertexts, parts, self._values.size)

    def to_json(self, parts: list[Words]) -> dict[str, Any]:
        """Committee, parameters, and the bound that the smudging meets."""
        chosen = self.parameters
        return {
            "members": MEMBERS,
            "threshold": THRESHOLD,
            "lanes": chosen.scheme.lanes,
            "prime_bits": [q.bit_length() for q in chosen.scheme.key_primes],
            "smudging_bits": round(math.log2(chosen.smudging), 2),
            "hiding_log2": round(chosen.hiding_log2, 4),
            "sets_counted": openings_of(MEMBERS, THRESHOLD),
            "part_bytes_per_value": round(
                len(encode_answer(parts[0], chosen.scheme)) / self._values.size, 3
            ),
        }
