"""Masking as callers see it: what it refuses before a party exists, and after a restart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from crypto.errors import MessageRefused, TermsRefused
from crypto.secure_sum import SECURE_SUMS
from crypto.terms import Committee
from tests.crypto.harness import (
    Run,
    another,
    client_seat,
    identity,
    make_terms,
    make_vectors,
    resign,
    seat,
)

MASKING = SECURE_SUMS["masking"]


def test_there_is_no_committee() -> None:
    assert MASKING.committee(0, 0) == Committee(members=0, threshold=0)
    assert MASKING.committee(3, 2) == Committee(members=0, threshold=0)


def test_there_are_no_officers() -> None:
    terms = make_terms(4)
    with pytest.raises(TermsRefused, match="officer 5 of 'masking', which has no officers"):
        MASKING.officer(terms, seat(5, bytes))
    with pytest.raises(TermsRefused, match="officer 5 of 'masking', which has no officers"):
        MASKING.restore_officer(terms, seat(5, bytes), b"")


def restored(index: int, terms: Any, state: bytes, signer: int) -> object:
    vector = np.zeros(terms.length, dtype=np.int64)
    taken = client_seat(index, lambda: vector, bytes, signer=signer)
    return MASKING.restore_client(terms, taken, state)


def test_parties_are_checked_again_when_they_are_restored() -> None:
    terms = make_terms(4)
    run = Run("masking", terms, make_vectors(terms))
    unsafe = another(terms, threshold=2, min_survivors=3)
    client, aggregator = run.clients[1].save(), run.aggregator.save()
    restored(1, terms, client, 1)
    MASKING.restore_aggregator(terms, identity(0), aggregator)
    with pytest.raises(TermsRefused, match="both shares of one client"):
        restored(1, unsafe, client, 1)
    with pytest.raises(TermsRefused, match="not the one in the roster"):
        restored(1, terms, client, 2)
    with pytest.raises(TermsRefused, match="both shares of one client"):
        MASKING.restore_aggregator(unsafe, identity(0), aggregator)
    with pytest.raises(TermsRefused, match="not the one in the roster"):
        MASKING.restore_aggregator(terms, identity(1), aggregator)


def test_an_invitation_is_the_aggregators_for_this_client_and_attempt() -> None:
    terms = make_terms(4)
    request = Run("masking", terms, make_vectors(terms)).aggregator.begin().messages[1]
    MASKING.check_invitation(terms, index=1, message=request)
    for message, index, under in (
        (request, 2, terms),
        (request, 1, another(terms, attempt=1)),
        (resign(request, b"", signer=2), 1, terms),
        (request[:-1], 1, terms),
    ):
        with pytest.raises(MessageRefused):
            MASKING.check_invitation(under, index=index, message=message)
