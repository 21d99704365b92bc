"""What grants allow: limits on counted events, each for one adversary or the worst of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

from privacy.accountant import BUDGETED, Adversary, claimed_epsilon, renyi_epsilon
from privacy.errors import BudgetExceeded, LedgerError
from privacy.events import Event, IntegerRound
from privacy.ledger_rows import WORST, Grant

MAX_AFFORDABLE = 1_000_000
_SpentOf: TypeAlias = Callable[[Grant, Counter[Event]], float]


def limited(grant: Grant) -> tuple[Adversary, ...]:
    """The adversaries that a grant limits."""
    return BUDGETED if grant.adversary is None else (grant.adversary,)


def spent_of(grant: Grant, counts: Counter[Event]) -> float:
    """What these events come to against the adversaries of this grant, as it is accounted for.

    Raises:
        EventRefused: events that cannot be composed.
    """
    return claimed_epsilon(counts, limited(grant), delta=grant.delta, order=grant.order)


def check_fits(grant: Grant, event: Event) -> None:
    """Raises LedgerError for an event of another unit than the grant's.

    A relation other than the unit's is refused when events are composed; the first of a
    population is composed with nothing and is compared here.
    """
    if event.unit is not grant.unit or event.relation is not grant.relation:
        raise LedgerError(
            f"an event of unit {event.unit} under {event.relation}, under a grant for unit "
            f"{grant.unit} under {grant.relation}"
        )


def check_budget(grants: Sequence[Grant], counts: Counter[Event], event: Event) -> None:
    """Raises BudgetExceeded where these events and one more would pass any of the limits."""
    more = counts + Counter([event])
    for grant in grants:
        requested = spent_of(grant, more)
        if not requested <= grant.epsilon:
            fits = affordable(grants, counts, event)
            raise BudgetExceeded(
                f"population {grant.population!r} would have spent epsilon {requested:.4f} of "
                f"{grant.epsilon!r} at delta {grant.delta!r} ({named(grant)}); {fits} more such "
                "rounds fit",
                requested=requested,
                granted=grant.epsilon,
                affordable_rounds=fits,
            )


def affordable(grants: Sequence[Grant], counts: Counter[Event], event: Event) -> int:
    """How many more events like this all the limits allow, at most MAX_AFFORDABLE.

    The search is for how many there may be together with those that there are: the next time, when
    there is one more, it asks for the same totals, which are kept. It begins where the limits end
    by Renyi divergence, which is instant.
    """
    held = counts[event]
    most = held + MAX_AFFORDABLE

    def within(spent: _SpentOf) -> Callable[[int], bool]:
        return lambda total: all(
            spent(grant, counts + Counter({event: total - held})) <= grant.epsilon
            for grant in grants
        )

    guess = _last(within(_renyi_of), 0, most)
    return max(0, _last(within(spent_of), guess, most) - held)


def _last(fits: Callable[[int], bool], guess: int, most: int) -> int:
    """The largest total up to `most` that fits, 0 if none does.

    Totals that fit are taken to be those up to some limit, which is looked for near the guess.
    """
    if guess and not fits(guess):
        low, high = 0, guess
    else:
        low, high, step = guess, most + 1, 1
        while low + step < high:
            if not fits(low + step):
                high = low + step
                break
            low, step = low + step, 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _renyi_of(grant: Grant, counts: Counter[Event]) -> float:
    """`spent_of` by an accountant that is instant; where the claim is another, a little more."""
    return renyi_epsilon(counts, limited(grant), delta=grant.delta, order=grant.order)


def turns_left(counts: Counter[Event], event: Event) -> int | None:
    """How many more events like this its clients have turns for, at most.

    A client of a sum has used one of its `max_participations` turns, and so may have clients whose
    messages were lost, which nobody but they can count. None where there are no turns, or where
    other events were charged to more or fewer clients, of whom nobody here knows which they are.
    """
    if not isinstance(event, IntegerRound) or event.max_participations is None:
        return None
    used = 0
    for other, count in counts.items():
        if not isinstance(other, IntegerRound) or other.clients != event.clients:
            return None
        used += count * other.survivors
    return max(0, event.clients * event.max_participations - used) // event.survivors


def named(grant: Grant) -> str:
    """In words: against whom, and how it is added up."""
    who = WORST if grant.adversary is None else grant.adversary.value
    how = "fixed plan" if grant.order is None else f"filter at order {grant.order}"
    return f"{who.replace('_', ' ')} adversary, {how}"
