"""Turns are public, equal up to one, and never more than a client may take."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.turns import cohort, cohort_size
from privacy.unit import Unit
from tests.privacy.plans import with_noise


@given(clients=st.integers(2, 60), rounds=st.integers(1, 90), most=st.none() | st.integers(1, 90))
def test_nobody_is_asked_more_often_than_it_may(
    clients: int, rounds: int, most: int | None
) -> None:
    size = cohort_size(clients, rounds, most)
    asked: Counter[int] = Counter()
    for round_index in range(1, rounds + 1):
        members = cohort(round_index, clients, size)
        assert len(set(members)) == len(members) == size
        assert list(members) == sorted(members)
        assert set(members) <= set(range(1, clients + 1))
        asked.update(members)
    counts = [asked[client] for client in range(1, clients + 1)]
    assert max(counts) <= (rounds if most is None else most)
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("rounds", "most", "size"), [(10, None, 10), (10, 10, 10), (10, 12, 10), (20, 10, 5), (7, 2, 2)]
)
def test_cohorts_are_as_large_as_the_turns_allow(rounds: int, most: int | None, size: int) -> None:
    """One client more in each round would be one turn too many for somebody."""
    plan = with_noise(
        unit=Unit.CLIENT, max_units_per_client=1, rounds=rounds, max_participations=most
    )
    assert plan.cohort_size == size
    assert len(plan.cohort(3)) == size
    if most is not None and size < plan.clients:
        assert (size + 1) * rounds > plan.clients * most
    assert plan.turns == min(rounds, most or rounds)


def test_everybody_takes_part_where_nothing_limits_it() -> None:
    assert with_noise().cohort(17) == tuple(range(1, 11))


def test_the_order_goes_around() -> None:
    assert [cohort(k, 5, 2) for k in (1, 2, 3, 4)] == [(1, 2), (3, 4), (1, 5), (2, 3)]
