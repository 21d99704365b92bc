"""What every registered secure sum does with officers: names them, survives those it may lose."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from crypto.errors import TermsRefused
from crypto.secure_sum import SECURE_SUMS
from tests.crypto.harness import (
    STEPS,
    Run,
    make_terms,
    make_vectors,
    seat,
    seeded,
    terms_for,
    total,
)

pytestmark = pytest.mark.parametrize("name", sorted(SECURE_SUMS))


@pytest.mark.parametrize("step", range(max(STEPS.values())))
def test_as_many_officers_as_may_be_lost_are_lost_at_any_step(name: str, step: int) -> None:
    terms = terms_for(name, 4)
    vectors = make_vectors(terms)
    spare = len(terms.roster.officers) - terms.committee_threshold
    for lost in combinations(terms.roster.officer_indices, spare):
        done = Run(name, terms, vectors).drive(dict.fromkeys(lost, step))
        np.testing.assert_array_equal(done.total, total(terms, vectors, terms.cohort))


def test_officers_are_those_of_the_roster(name: str) -> None:
    protocol, members = SECURE_SUMS[name], SECURE_SUMS[name].committee(3, 2).members
    if members == 0:
        terms = make_terms(3, officers=2)
        with pytest.raises(TermsRefused, match="no officers"):
            protocol.officer(terms, seat(4, seeded(0)))
        return
    terms = terms_for(name, 3)
    for index, who in ((4, 5), (3, 3), (0, 0), (4 + members, 4)):
        with pytest.raises(TermsRefused, match=f"officer {index}"):
            protocol.officer(terms, seat(index, seeded(0), signer=who))
    with pytest.raises(TermsRefused, match="officers"):
        protocol.check(make_terms(3, officers=0))
