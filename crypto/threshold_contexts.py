"""What messages of the threshold sum are signed under, and the digests that they tell of.

Contexts make each step depend on what everybody was shown in the one before: a member that was
shown something else signs under another context, and its messages are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from crypto.codec import Writer, tagged_digest
from crypto.terms import Terms

Words = NDArray[np.uint64]

GRAPH: Final = b"threshold: star"
_LABEL: Final = "fedmeta/threshold/v1/"


def context_of_key(terms: Terms) -> bytes:
    """Context of commitments and of the signed key: terms and model, 32 bytes."""
    return terms.ctx2(b"", b"threshold: key")


def context_of_dealing(terms: Terms, commitments: Mapping[int, bytes]) -> bytes:
    """Context after the commitments: payloads by member."""
    return _next("dealing", context_of_key(terms), commitments)


def context_of_check(dealing: bytes, dealings: Mapping[int, bytes]) -> bytes:
    """Context after the dealings: payloads by member."""
    return _next("check", dealing, dealings)


def context_under(terms: Terms, key: bytes) -> bytes:
    """Context of uploads and of everything after them under an encoded key."""
    return terms.ctx2(digest_of_key(key), GRAPH)


def context_of_pads(context: bytes, held: bytes) -> bytes:
    """What the pads of answers are for: the test of a key, or the sum that members hold.

    Args:
        context: of the check.
        held: encoded, empty for the test.
    """
    return tagged_digest(_LABEL + "pads", context, held)


def digest_of_key(key: bytes) -> bytes:
    """What members sign of an encoded key, 32 bytes."""
    return tagged_digest(_LABEL + "key", key)


def seed_of_check(context: bytes, dealer: int, dealing: bytes) -> bytes:
    """What the factors of a dealer's check are hashed from: its dealing has every share's digest.

    Args:
        context: of the check.
        dealer: roster index.
        dealing: payload.
    """
    return tagged_digest(_LABEL + "check of a dealing", context, _index(dealer), dealing)


def digest_of_share(sealed: bytes) -> bytes:
    """What a dealing tells of a sealed share, 32 bytes: a key opens a ciphertext to one share."""
    return tagged_digest(_LABEL + "sealed share", sealed)


def digest_of_sum(total: Words) -> bytes:
    """What members tell of the sum of ciphertexts that they hold, 32 bytes."""
    return tagged_digest(_LABEL + "sum", np.ascontiguousarray(total, dtype="<u8").tobytes())


def _next(label: str, context: bytes, payloads: Mapping[int, bytes]) -> bytes:
    listed = [part for k in sorted(payloads) for part in (_index(k), payloads[k])]
    return tagged_digest(_LABEL + label, context, *listed)


def _index(member: int) -> bytes:
    return Writer().u32(member).done()
