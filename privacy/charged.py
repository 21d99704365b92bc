"""What the rounds of a plan are charged as."""

from __future__ import annotations

from typing import TYPE_CHECKING

from privacy.errors import PlanRefused
from privacy.events import DiscreteGaussianRound, GaussianSteps, SkellamRound
from privacy.terms import EVENTS, check_int

if TYPE_CHECKING:
    from privacy.plan import PrivacyPlan


def event_of(
    plan: PrivacyPlan, survivors: int
) -> SkellamRound | DiscreteGaussianRound | GaussianSteps:
    """The event of a round with this many contributions; see `PrivacyPlan.event`.

    Raises:
        PlanRefused: fewer contributions than min_survivors, or more than clients.
    """
    if plan.local_steps is None:
        return sum_event_of(plan, survivors)
    check_int("survivors", survivors, plan.min_survivors, plan.clients)
    return GaussianSteps(
        unit=plan.unit,
        relation=plan.relation,
        rate=plan.rate,
        noise_multiplier=plan.noise_multiplier,
        steps=plan.local_steps,
        person_units=plan.person_units,
    )


def sum_event_of(plan: PrivacyPlan, survivors: int) -> SkellamRound | DiscreteGaussianRound:
    """The same where noise is in shares of a sum.

    Raises:
        PlanRefused: as for `event_of`, and with noise "local".
    """
    check_int("survivors", survivors, plan.min_survivors, plan.clients)
    if plan.mechanism not in EVENTS:
        raise PlanRefused(f"noise {plan.noise!r}: a sum has no noise of its own")
    return EVENTS[plan.mechanism](
        unit=plan.unit,
        relation=plan.relation,
        rate=plan.rate,
        l2=plan.l2,
        l1=plan.l1,
        share_variance=plan.share_variance,
        survivors=survivors,
        max_colluders=plan.max_colluders,
        clients=plan.clients,
        dimension=plan.dimension,
        person_units=plan.person_units,
        max_participations=plan.max_participations,
    )
