"""Events -> epsilon at a delta, for each adversary.

The claim is a proved bound of the mechanism that runs. Integer noise: Renyi divergence at integer
orders ("rdp"), composed by addition. Gaussian noise alone: the figures of gaussian.py, of which
the first is the claim. Both kinds together: "rdp" of both. The figures named gaussian_reference_*
are those of a Gaussian with the same noise multiplier beside integer noise; they are printed for
comparison and are no statement about the integer mechanism.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from privacy import gaussian
from privacy.compose import Question, most_turns, total_divergence
from privacy.errors import EventRefused
from privacy.events import (
    Event,
    GaussianSteps,
    IntegerRound,
    NonPrivate,
    known_shares,
)
from privacy.rdp import ORDERS, order_index, rdp_epsilon
from privacy.unit import Relation

REFERENCE = "gaussian_reference_"
REFERENCES = ("exact", "prv", "rdp")
"""Accountants of the figures beside integer noise; pld would take seconds to say much the same."""


class Adversary(StrEnum):
    """Who looks, and hence how much of the noise stands between it and a unit.

    AGGREGATOR: sees every opened sum; all survivors' shares.
    COLLUDERS: the aggregator with max_colluders clients, whose shares it subtracts.
    PARTICIPANTS: up to max_colluders clients alone, or one client where nobody is assumed to
        collude; they see every global model, from which the sums follow, and subtract the shares
        that they added, so this is never less than COLLUDERS.
    RECIPIENTS: those who get the final model; no credit for the rounds that they do not see.
    BROKEN_SUM: one client's message read alone, as when the secure sum fails: one share.

    Honest units keep their secret coins against all of them. Noise that a client adds to its own
    steps (GaussianSteps) stands in full against each.
    """

    AGGREGATOR = "aggregator"
    COLLUDERS = "aggregator_and_colluders"
    PARTICIPANTS = "participants"
    RECIPIENTS = "recipients"
    BROKEN_SUM = "broken_sum"


BUDGETED = (
    Adversary.AGGREGATOR,
    Adversary.COLLUDERS,
    Adversary.PARTICIPANTS,
    Adversary.RECIPIENTS,
)
"""The adversaries that a budget limits: all who see no more than the protocol shows."""


@dataclass(frozen=True)
class AdversarySpend:
    """What one adversary's view costs.

    Attributes:
        epsilon: per accountant, for the configured unit: the claim, and "rdp" at integer orders,
            which anybody can recompute by hand.
        record: epsilon of one record replaced inside one unit.
        person: epsilon of one person who makes up person_units whole units. Records in k units
            that others share count as 2 k: the units stay, and their vectors move.
        claim: the key of `epsilon` that is a proved bound of what ran.
    """

    epsilon: Mapping[str, float]
    record: float
    person: float
    claim: str

    @property
    def claimed(self) -> float:
        """The proved epsilon."""
        return self.epsilon[self.claim]


@dataclass(frozen=True)
class Spend:
    """Epsilon of a list of events at one delta.

    Attributes:
        delta: the delta at which every epsilon holds.
        events: how many events were composed.
        adversaries: one entry per adversary.
    """

    delta: float
    events: int
    adversaries: Mapping[Adversary, AdversarySpend]

    @property
    def worst(self) -> float:
        """Largest claim over the adversaries that a budget limits (all but BROKEN_SUM)."""
        return max(self.adversaries[adversary].claimed for adversary in BUDGETED)

    def to_json(self) -> dict[str, object]:
        """Plain data, real numbers as shortest decimal strings ("inf" for no bound)."""
        return {
            "delta": repr(self.delta),
            "events": self.events,
            "adversaries": {
                adversary.value: {
                    "claim": spent.claim,
                    "epsilon": {name: repr(value) for name, value in spent.epsilon.items()},
                    "record": repr(spent.record),
                    "person": repr(spent.person),
                }
                for adversary, spent in self.adversaries.items()
            },
        }


def spend(events: Sequence[Event], *, delta: float, order: int | None = None) -> Spend:
    """The claims on these events, composed. Equal events are counted, not repeated.

    Nothing is 0; with a NonPrivate event every figure is infinity. The list is never changed, and
    no query changes the answer of another.

    Args:
        events: what was charged.
        delta: of every figure.
        order: the Renyi order declared beforehand, for events that were chosen from earlier
            results: every figure is then "rdp" at this order. None: the best accountant and order,
            for events fixed beforehand (see `rdp_epsilon`).

    Raises:
        EventRefused: events of different units or relations, a delta outside (0, 1), or an order
            outside 2 to 512.
    """
    return spend_counted(Counter(events), delta=delta, order=order)


def spend_counted(counts: Mapping[Event, int], *, delta: float, order: int | None = None) -> Spend:
    """`spend` for events given with how often each occurred."""
    _check_composable(counts)
    adversaries: dict[Adversary, AdversarySpend] = {}
    for adversary in Adversary:
        name, epsilon = _claim(counts, adversary, delta, order)
        figures = {name: epsilon}
        if name != "rdp":
            figures["rdp"] = _rdp(counts, adversary, delta, order, Question.UNIT)
        adversaries[adversary] = AdversarySpend(
            epsilon=figures,
            record=_beside(counts, adversary, delta, order, Question.RECORD),
            person=_beside(counts, adversary, delta, order, Question.PERSON),
            claim=name,
        )
    return Spend(delta=delta, events=sum(counts.values()), adversaries=adversaries)


def claimed_epsilon(
    counts: Mapping[Event, int],
    adversaries: Sequence[Adversary],
    *,
    delta: float,
    order: int | None = None,
) -> float:
    """The largest claim of `spend_counted` over these adversaries, and nothing else of it.

    Raises:
        EventRefused: as `spend`.
    """
    _check_composable(counts)
    return max(_claim(counts, one, delta, order)[1] for one in adversaries)


def renyi_epsilon(
    counts: Mapping[Event, int],
    adversaries: Sequence[Adversary],
    *,
    delta: float,
    order: int | None = None,
) -> float:
    """The same by Renyi divergence at integer orders: instant, and near where it is no claim.

    Raises:
        EventRefused: as `spend`.
    """
    _check_composable(counts)
    return max(_rdp(counts, one, delta, order, Question.UNIT) for one in adversaries)


def spend_with_reference(
    events: Sequence[Event], *, delta: float, order: int | None = None
) -> Spend:
    """`spend`, with the figures of all accountants beside each claim (seconds).

    Beside Gaussian noise these are the other accountants' for the same noise. Beside integer noise
    they belong to a Gaussian of the same size, and their names begin with "gaussian_reference_".
    """
    counts = Counter(events)
    claims = spend_counted(counts, delta=delta, order=order)
    return replace(
        claims,
        adversaries={
            adversary: replace(
                spent,
                epsilon={
                    **_others(counts, adversary, delta),
                    spent.claim: spent.claimed,
                },
            )
            for adversary, spent in claims.adversaries.items()
        },
    )


def rdp_at(events: Sequence[Event], *, order: int, adversary: Adversary) -> float:
    """Renyi divergence at one order of all events together, for one configured unit.

    What a filter adds up (see `rdp_epsilon`); `spend` with this order is what it says in epsilon.

    Args:
        events: the events, in any order.
        order: an integer from 2 to 512.
        adversary: who looks.

    Returns:
        A bound on the divergence; infinity with a NonPrivate event, 0 for nothing.

    Raises:
        EventRefused: an order out of range, or events that cannot be composed.
    """
    counts = Counter(events)
    _check_composable(counts)
    total = total_divergence(counts, shares_against(adversary), Question.UNIT)
    index = order_index(order)
    return math.inf if total is None else float(total[index])


def noise_variance(event: IntegerRound, adversary: Adversary) -> float:
    """Variance per coordinate of the noise that this adversary cannot subtract, in steps^2."""
    return unknown_shares(event, adversary) * event.share_variance


def unknown_shares(event: IntegerRound, adversary: Adversary) -> int:
    """How many shares of a sum's noise this adversary does not know."""
    if adversary in (Adversary.AGGREGATOR, Adversary.RECIPIENTS):
        return event.survivors
    if adversary is Adversary.COLLUDERS:
        return event.survivors - event.max_colluders
    if adversary is Adversary.PARTICIPANTS:
        return event.survivors - known_shares(event.max_colluders)
    return 1


def shares_against(adversary: Adversary) -> Callable[[IntegerRound], int]:
    """`unknown_shares` of any event, for this adversary."""
    return lambda event: unknown_shares(event, adversary)


def _check_composable(counts: Mapping[Event, int]) -> None:
    kinds = {(event.unit, event.relation) for event in counts}
    if len(kinds) > 1:
        named = ", ".join(sorted(f"{unit} under {relation}" for unit, relation in kinds))
        raise EventRefused(f"events of different units or relations never compose: {named}")


def _claim(
    counts: Mapping[Event, int], adversary: Adversary, delta: float, order: int | None
) -> tuple[str, float]:
    """The accountant of the claim, and the claim."""
    course = _course_of_steps(counts)
    if course is not None and order is None:
        if _relation(counts) is not Relation.REPLACE_ONE:
            return gaussian.claim(course, delta)
        replaced = gaussian.replace_one(course, delta)
        if replaced is not None:
            return _replaced_by(course), replaced
    return "rdp", _rdp(counts, adversary, delta, order, Question.UNIT)


def _beside(
    counts: Mapping[Event, int],
    adversary: Adversary,
    delta: float,
    order: int | None,
    question: Question,
) -> float:
    """The figure of one record or one person."""
    course = _course_of_steps(counts)
    found: float | None = None
    if course is not None and order is None:
        units = {event.person_units for event in counts if isinstance(event, GaussianSteps)}
        if question is Question.RECORD:
            found = gaussian.replace_one(course, delta)
        elif _relation(counts) is Relation.ADD_REMOVE:
            found = gaussian.together(course, delta, max(units))
    return _rdp(counts, adversary, delta, order, question) if found is None else found


def _others(counts: Mapping[Event, int], adversary: Adversary, delta: float) -> dict[str, float]:
    """The figures of all accountants of a Gaussian of this size."""
    own = _course_of_steps(counts)
    prefix = REFERENCE if own is None else ""
    course = _reference_course(counts, adversary) if own is None else own
    if not counts or course is None:
        empty = 0.0 if not counts else math.inf
        return dict.fromkeys((f"{REFERENCE}{name}" for name in REFERENCES), empty)
    if _relation(counts) is not Relation.REPLACE_ONE:
        names = REFERENCES if own is None else gaussian.ACCOUNTANTS
        figures = gaussian.add_remove(course, delta, names)
    else:
        replaced = gaussian.replace_one(course, delta)
        figures = {} if replaced is None else {_replaced_by(course): replaced}
        if own is not None:
            figures["rdp"] = _rdp(counts, adversary, delta, None, Question.UNIT)
    return {f"{prefix}{name}": value for name, value in figures.items()}


def _replaced_by(course: gaussian.Course) -> str:
    return "pld" if any(rate != 1.0 for _, rate, _ in course) else "exact"


def _relation(counts: Mapping[Event, int]) -> Relation:
    return next(iter(counts)).relation


def _course_of_steps(counts: Mapping[Event, int]) -> gaussian.Course | None:
    """The whole history as Gaussian steps; None where there is none, or something else in it."""
    course: list[tuple[float, float, int]] = []
    for event, count in counts.items():
        if not isinstance(event, GaussianSteps):
            return None
        course.append((event.noise_multiplier, event.rate, count * event.steps))
    return tuple(course) or None


def _reference_course(counts: Mapping[Event, int], adversary: Adversary) -> gaussian.Course | None:
    """Gaussian rounds of the same relative noise; None with a NonPrivate event."""
    course: list[tuple[float, float, int]] = []
    capped: list[tuple[float, int]] = []
    for event, count in counts.items():
        if isinstance(event, NonPrivate):
            return None
        if isinstance(event, GaussianSteps):
            course.append((event.noise_multiplier, event.rate, count * event.steps))
            continue
        z = math.sqrt(noise_variance(event, adversary)) / event.l2
        if event.max_participations is None:
            course.append((z, event.rate, count))
        else:
            capped.append((z, count))
    left = most_turns(counts)
    for z, count in sorted(capped):
        if left > 0:
            course.append((z, 1.0, min(count, left)))
            left -= count
    return tuple(course)


def _rdp(
    counts: Mapping[Event, int],
    adversary: Adversary,
    delta: float,
    order: int | None,
    question: Question,
) -> float:
    total = total_divergence(counts, shares_against(adversary), question)
    epsilon = rdp_epsilon(np.zeros_like(ORDERS) if total is None else total, delta, order=order)
    if total is None:
        return math.inf
    return epsilon if counts else 0.0
