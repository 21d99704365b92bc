"""What whoever decrypts does with uploads first: it checks them and adds them itself.

A ciphertext does not show what it sums, so that nobody may decrypt what somebody else added.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crypto.envelope import Heading, Step, refusing, unseal
from crypto.errors import Malformed
from crypto.he_messages import decode_ciphertexts
from crypto.he_parameters import Parameters
from crypto.progress import Ticker
from crypto.terms import Terms

Words = NDArray[np.uint64]


def senders_of(terms: Terms, uploads: Sequence[bytes | memoryview]) -> tuple[int, ...]:
    """The clients that uploads name, increasing; whether it is true is for sum_of to check.

    Raises:
        Malformed: not distinct clients of the cohort in order, or too few of them.
    """
    senders = [int.from_bytes(bytes(upload[2:6]), "little") for upload in uploads]
    if senders != sorted(set(senders)) or not set(senders) <= set(terms.cohort):
        raise Malformed("the uploads are not from distinct clients of the cohort, in order")
    if len(senders) < terms.quorum:
        raise Malformed(f"{len(senders)} uploads; allowed: {terms.quorum} or more")
    return tuple(senders)


def sum_of(
    terms: Terms,
    parameters: Parameters,
    uploads: Sequence[bytes | memoryview],
    *,
    step: Step,
    recipient: int,
    context: bytes,
) -> Words:
    """Check every client's signature and bytes, and add, [ciphertexts, 2, data primes, N].

    Args:
        terms: of the attempt.
        parameters: of the ciphertexts.
        uploads: sealed ciphertexts of the clients that senders_of named.
        step: that they were sent in.
        recipient: that they were sealed to.
        context: that they were sealed under, which has the key in it.

    Raises:
        MessageRefused: one is not what its client sealed, or holds no ciphertexts.
        Malformed: the sum is transparent.
    """
    total: Words | None = None
    ticker = Ticker("adding: upload", len(uploads))
    for sender, upload in zip(senders_of(terms, uploads), uploads, strict=True):
        payload = unseal(upload, Heading(step, sender, recipient, context), terms.roster)
        with refusing(sender, step):
            words = decode_ciphertexts(payload, parameters)
        total = words if total is None else add_into(total, words, parameters)
        ticker.add(1)
    if total is None or not total[:, 1].reshape(len(total), -1).any(axis=1).all():
        raise Malformed("transparent: the second polynomials add up to zero")
    return total


def add_into(total: Words, words: Words, parameters: Parameters) -> Words:
    """Add ciphertexts to a sum, in place."""
    primes = np.array(parameters.data_primes, dtype=np.uint64)[:, None]
    total += words
    # of x and x - q modulo 2^64 the smaller is x mod q, since x < 2q < 2^64
    np.minimum(total, total - primes, out=total)
    return total
