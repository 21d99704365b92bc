"""What a list of events shows, as one sum of Renyi divergences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from privacy.events import (
    DiscreteGaussianRound,
    Event,
    GaussianSteps,
    IntegerRound,
    NonPrivate,
    PrivateEvent,
)
from privacy.rdp import (
    ORDERS,
    Divergences,
    discrete_gaussian_rdp,
    gaussian_rdp,
    skellam_rdp,
)
from privacy.sampled import sampled_add_remove, sampled_replace
from privacy.unit import Relation


class Question(StrEnum):
    """Whose change is bounded.

    UNIT: one configured unit under its relation.
    RECORD: one record replaced inside one unit; the unit keeps its coin, its vector moves anywhere.
    PERSON: person_units whole units, each with its own coin, change together.
    """

    UNIT = "unit"
    RECORD = "record"
    PERSON = "person"


def most_turns(counts: Mapping[Event, int]) -> int:
    """Most of the capped events in which one client took part; 0 where none is capped."""
    return max(
        (
            event.max_participations
            for event in counts
            if isinstance(event, IntegerRound) and event.max_participations is not None
        ),
        default=0,
    )


def total_divergence(
    counts: Mapping[Event, int], shares_of: Callable[[IntegerRound], int], question: Question
) -> Divergences | None:
    """The sum over all events; None with a NonPrivate event.

    Of events with max_participations only the dearest count, as many as one client may be in.

    Args:
        counts: events of one unit and relation -> how often each occurred.
        shares_of: how many of a round's noise shares the adversary does not know.
        question: whose change is bounded.

    Returns:
        float64 [511], a bound on the divergence at each of ORDERS.
    """
    total: Divergences = np.zeros_like(ORDERS)
    capped: list[tuple[Divergences, int]] = []
    persons = 1
    for event, count in counts.items():
        if isinstance(event, NonPrivate):
            return None
        shares = 1 if isinstance(event, GaussianSteps) else shares_of(event)
        one = _one_event(event, shares, question)
        if isinstance(event, GaussianSteps):
            total = total + (count * event.steps) * one
        elif event.max_participations is None:
            total = total + count * one
        else:
            capped.append((one, count))
            persons = max(persons, event.person_units)
    if capped:
        # The clients of one person may take part in different rounds.
        most = most_turns(counts) * (persons if question is Question.PERSON else 1)
        total = total + _dearest(capped, most)
    return total


def _dearest(charges: Sequence[tuple[Divergences, int]], most: int) -> Divergences:
    """The sum of the `most` largest charges at each order."""
    values = np.stack([value for value, _ in charges])
    often = np.array([count for _, count in charges], dtype=np.int64)
    order = np.argsort(-values, axis=0, kind="stable")
    ranked, count = np.take_along_axis(values, order, axis=0), often[order]
    before = np.cumsum(count, axis=0) - count
    used: NDArray[np.int64] = np.clip(most - before, 0, count)
    total: Divergences = np.add.reduce(used * ranked, axis=0)
    return total


@lru_cache(maxsize=1024)
def _one_event(event: PrivateEvent, shares: int, question: Question) -> Divergences:
    """What one event, or one step of it, shows at ORDERS; read-only, for it is kept."""
    bound = _noise_bound(event, shares)
    units = event.person_units if question is Question.PERSON else 1
    # Without sampling only the largest shift counts.
    steps = range(1, units + 1) if event.rate < 1.0 else range(units, units + 1)
    found = sampled_add_remove([bound(j) for j in steps], event.rate)
    if question is Question.RECORD or event.relation is Relation.REPLACE_ONE:
        found = sampled_replace(found, [bound(2 * j) for j in steps], event.rate)
    kept = found[: len(ORDERS)].copy()
    kept.flags.writeable = False
    return kept


def _noise_bound(event: PrivateEvent, shares: int) -> Callable[[int], Divergences]:
    """Shift in units' vectors -> divergence of the noise alone."""
    if isinstance(event, GaussianSteps):
        z = event.noise_multiplier
        return lambda j: gaussian_rdp(z / j)
    if isinstance(event, DiscreteGaussianRound):
        return lambda j: discrete_gaussian_rdp(
            j * event.l2, j * event.l1, event.dimension, event.share_variance, shares
        )
    return lambda j: skellam_rdp(j * event.l2, j * event.l1, shares * event.share_variance)
