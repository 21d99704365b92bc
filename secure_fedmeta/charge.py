"""A client's own account: what it lets be taken from its data, whatever the aggregator affords.

The aggregator's ledger limits a population over all runs that this aggregator charges. It says
nothing of what another aggregator, or the same one with another ledger, takes from the same client.
A client's own ledger does: before it computes anything from its data it reserves the round there,
and without the reservation it does not answer.

A client cannot tell how many others will be in the sum, so it charges the dearest event that its
plan permits: `min_survivors` contributions. Sums of fewer are never opened; with more, more noise
that nobody knows is in the sum, and every bound is smaller. A round that is aborted afterwards
stays charged: whether its sum was opened, the client never learns for certain.

Where a plan lets a client take part in at most p of all the rounds that its population is charged
(`max_participations`), the aggregator charges p rounds, however many there are, and the client's
own ledger is what makes that true over runs: it refuses the round after the p-th, whatever it was
charged for. Its own account does not take part in the discount: each contribution is charged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Protocol, TypeAlias

from crypto.errors import MessageRefused
from crypto.progress import tell
from privacy.errors import PrivacyError
from privacy.events import GaussianSteps
from privacy.gaussian import MAX_PRV_STEPS
from privacy.ledger import Ledger
from privacy.plan import PrivacyPlan

STEP = "own ledger"


class Charge(Protocol):
    """Where a client charges each contribution."""

    def reserve(self, *, round_index: int, attempt: int) -> None:
        """Charge one contribution; durable when this returns, once for each round and attempt.

        Raises:
            MessageRefused: it is not affordable, or cannot be charged: nothing may be computed.
        """
        ...

    def has_room(self) -> bool:
        """Whether one more contribution would be affordable now; True where nobody can tell."""
        ...


Charges: TypeAlias = Mapping[str, Charge] | None
"""Client name -> where it charges; None: clients keep no ledger."""


def with_room(charges: Charges, names: Sequence[str], *, enough: int) -> int:
    """How many of these clients could be charged for one more contribution, counted to `enough`.

    To ask a ledger takes some milliseconds, and there may be many.
    """
    able = (name for name in names if charges is None or charges[name].has_room())
    return len(tuple(islice(able, enough)))


def tell_accounting(plan: PrivacyPlan) -> None:
    """Tell that the steps so far are being charged: of very many sampled ones it takes seconds."""
    if plan.rate < 1.0 and plan.rounds * (plan.local_steps or 0) > MAX_PRV_STEPS:
        tell("accounting for the noisy steps so far")


class Uncounted:
    """No ledger: a client that counts the planned rounds of one run and nothing over runs."""

    def reserve(self, *, round_index: int, attempt: int) -> None:
        """Nothing is charged."""

    def has_room(self) -> bool:
        """Nothing is counted over runs."""
        return True


class OwnLedger:
    """A ledger that belongs to the client.

    Args:
        ledger: the client's own.
        population: its data, as the ledger names them.
        run: names the client's part in the run; never used twice.
        plan: the client's own copy of the plan.
    """

    def __init__(self, ledger: Ledger, population: str, run: str, plan: PrivacyPlan) -> None:
        self._ledger = ledger
        self._population = population
        self._run = run
        event = plan.worst_event()
        # Nobody else counts the turns of this account: to it, each contribution is one more.
        if not isinstance(event, GaussianSteps):
            event = replace(event, max_participations=None)
        self._event = event
        self._most = plan.max_participations
        self._digest = plan.digest()

    def reserve(self, *, round_index: int, attempt: int) -> None:
        """Charge the dearest event of the plan; see Charge."""
        try:
            self._check_turns(more=1)
            self._ledger.reserve(
                self._population, self._run, round_index, attempt, self._event, self._digest
            )
            # Another process may have been charged in between: of two last ones none goes on.
            self._check_turns(more=0)
        except PrivacyError as error:
            raise MessageRefused(None, STEP, str(error)) from error

    def has_room(self) -> bool:
        """Whether grants and turns leave room for one more; nothing is charged."""
        try:
            self._check_turns(more=1)
            return self._ledger.affordable(self._population, self._event) > 0
        except MessageRefused:
            return False
        except PrivacyError:  # the reservation will fail, or not, and say why
            return True

    def _check_turns(self, *, more: int) -> None:
        """Raises MessageRefused where so many more contributions are one too many."""
        if self._most is None:
            return
        found = self._ledger.counts(self._population).total() + more
        if found > self._most:
            raise MessageRefused(
                None, STEP, f"contribution {found}; max_participations is {self._most}"
            )
