"""What everybody checks of a key in the making, members and aggregator alike; nothing is secret.

Each complaint names a member. Of a dealing and a check that do not fit, one of the two members
deviates, and nobody else can tell which: both are named, and the attempt is over.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from crypto.envelope import EVERYBODY, Heading, Step, refusing, unseal
from crypto.errors import Malformed, MessageRefused
from crypto.keys import Roster
from crypto.terms import Terms
from crypto.threshold_contexts import context_of_key, digest_of_key
from crypto.threshold_messages import (
    Check,
    Commitment,
    Dealing,
    Endorsement,
    Set,
    decode_key,
    decode_part,
)
from crypto.threshold_parameters import ThresholdParameters
from crypto.threshold_sharing import lies_on_polynomial

Words = NDArray[np.uint64]


def point_of(roster: Roster, member: int) -> int:
    """A member's point in Shamir's scheme: its place among the officers, from 1."""
    return member - len(roster.members)


def checked_part(
    terms: Terms,
    parameters: ThresholdParameters,
    commitments: Mapping[int, bytes],
    dealer: int,
    dealing: Dealing,
) -> Words:
    """The part of the key in a dealing, [key primes, N].

    Args:
        terms: of the attempt.
        parameters: of the sum.
        commitments: payloads by member.
        dealer: who dealt, one of those that committed.
        dealing: what it showed.

    Raises:
        MessageRefused: the part is not the one committed to, or there is not one share for every
            other member that committed.
    """
    with refusing(dealer, Step.THRESHOLD_DEALING):
        digest = Commitment.digest_of(context_of_key(terms), dealer, dealing.part)
        if digest != Commitment.decode(commitments[dealer]).digest:
            raise Malformed("the part of the key is not the one committed to")
        if dealing.digests.keys() != commitments.keys() - {dealer}:
            raise Malformed("the shares are not for those that committed")
        return decode_part(dealing.part, parameters.scheme)


def check_checks(
    roster: Roster, parameters: ThresholdParameters, checks: Mapping[int, Check], dealers: Set
) -> None:
    """Refuse dealings that some members cannot use, or that lie on no polynomial.

    Args:
        roster: of the attempt.
        parameters: of the sum.
        checks: by member.
        dealers: whose dealings were checked.

    Raises:
        MessageRefused: naming the dealer, and who complains.
    """
    label = Step.THRESHOLD_CHECK.label
    primes, threshold = parameters.scheme.data_primes, parameters.threshold
    for member, check in checks.items():
        for dealer in check.complaints:
            raise MessageRefused(
                dealer, label, f"member {member} complains that its share does not open"
            )
    for dealer in dealers:
        for at, prime in enumerate(primes):
            rows = {point_of(roster, k): c.combinations[dealer][at] for k, c in checks.items()}
            for values in zip(*rows.values(), strict=True):
                if not lies_on_polynomial(dict(zip(rows, values, strict=True)), threshold, prime):
                    raise MessageRefused(
                        dealer,
                        label,
                        f"the shares that member {dealer} dealt do not fit together, or one of the"
                        f" members {sorted(checks)} tells of another share than it got",
                    )


def check_signed_key(
    terms: Terms, parameters: ThresholdParameters, key: bytes, endorsements: Mapping[int, bytes]
) -> Words:
    """The first polynomial [key primes, N] of a key that a qualified committee signed.

    At least t members have signed this very key, the same list of signers all, and each dealt a
    part of it: with fewer than t that deviate one of them is honest, and then nobody knows the
    secret key.

    Args:
        terms: of the attempt.
        parameters: of the sum.
        key: encoded.
        endorsements: signed, by member.

    Raises:
        MessageRefused: one is not signed by its member, or is none.
        Malformed: too few of them, they differ, or they are for another key.
    """
    signers = tuple(sorted(endorsements))
    officers, least = set(terms.roster.officer_indices), parameters.threshold
    if not set(signers) <= officers or len(signers) < least:
        raise Malformed(f"the key is signed by {signers}; allowed: {least} or more of the officers")
    context = context_of_key(terms)
    for member, message in endorsements.items():
        heading = Heading(Step.THRESHOLD_KEY, member, EVERYBODY, context)
        with refusing(member, Step.THRESHOLD_KEY):
            endorsed = Endorsement.decode(unseal(message, heading, terms.roster))
        if endorsed.key != digest_of_key(key):
            raise Malformed(f"member {member} signed another key")
        if endorsed.signers != signers:
            raise Malformed(f"not all that member {member} signed with are there")
        if not set(signers) <= set(endorsed.dealers):
            raise Malformed("a member that signed the key has no part in it")
    return decode_key(key, parameters)
