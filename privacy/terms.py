"""The terms of a plan, and which of them go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NotRequired, TypedDict

from privacy.compression import Compression
from privacy.errors import EventRefused, PlanRefused
from privacy.events import (
    DiscreteGaussianRound,
    Mechanism,
    SkellamRound,
    check_unit,
    known_shares,
)
from privacy.extras import Extras
from privacy.local import DISTRIBUTED, LOCAL, check_distributed, check_local
from privacy.rdp import MIN_DISCRETE_SIGMA
from privacy.unit import RELATION_OF, Unit

EVENTS: Mapping[Mechanism, type[SkellamRound] | type[DiscreteGaussianRound]] = {
    Mechanism.SKELLAM: SkellamRound,
    Mechanism.DISCRETE_GAUSSIAN: DiscreteGaussianRound,
}
"""What opening a sum is charged as, by the noise in it."""


class Terms(TypedDict):
    """What every plan states, apart from its noise. All of it is public.

    Attributes:
        delta: delta of the whole run, in (0, 1).
        rounds: rounds of the whole run, failed attempts included.
        clip: C, L2 bound of one unit's vector.
        parameters: d, coordinates of one unit's vector: the parameters of the model.
        expected_units: the constant that a sum is divided by; never a count taken from the data.
        max_units_per_client: most units that one client may encode in one round.
        clients: clients of the federation.
        min_survivors: fewer contributions than this are never opened; at least 2, and more than
            max_colluders.
        max_colluders: contributing clients that may work with the aggregator. With 0, every
            client still knows the noise that it added itself.
        person_units: units that one person may hold, for the figure beside the claim.
        unit: the unit of privacy: task if left out.
        mechanism: the noise: Skellam if left out.
        noise: "distributed", in shares inside the secure sum, or "local": each client adds all that
            its own units need to each of its own steps.
        rate: probability with which each unit takes part in a round, by a secret coin of its own;
            1.0 for unit client, whose participation is seen.
        max_participations: unit client only: rounds in which a client takes part at most, over
            everything that its population is charged. Each client has to count for itself.
        tasks_per_user: unit user only: tasks of one user, at most, which are clipped apart. None: a
            user's tasks are added up and clipped once, which moves the sum less.
        compression: the public linear map before the sum; left out: none.
        value_bits: bits of one coordinate of one unit's integer vector, its sign included, from 8
            to 20; None: as many as make rounding cost little.
        local_steps: noise "local" only: noisy steps that a client takes in a round.
        local_lr: noise "local" only: their size.
        extras: private metrics and an adaptive clip, inside the same norm bound; left out: none.
    """

    delta: float
    rounds: int
    clip: float
    parameters: int
    expected_units: int
    max_units_per_client: int
    clients: int
    min_survivors: int
    max_colluders: int
    person_units: int
    unit: NotRequired[Unit]
    mechanism: NotRequired[Mechanism]
    noise: NotRequired[str]
    rate: NotRequired[float]
    max_participations: NotRequired[int | None]
    tasks_per_user: NotRequired[int | None]
    compression: NotRequired[Compression]
    value_bits: NotRequired[int | None]
    local_steps: NotRequired[int | None]
    local_lr: NotRequired[float | None]
    extras: NotRequired[Extras]


def check_supported(
    *,
    unit: Unit,
    mechanism: Mechanism,
    noise: str,
    rate: float,
    max_participations: int | None,
    tasks_per_user: int | None,
    max_units_per_client: int,
    share_variance: float,
    compression: Compression,
    value_bits: int | None,
    local_steps: int | None,
    local_lr: float | None,
    delta: float,
    extras: Extras,
) -> None:
    """Refuse what no proved bound covers, with the reason.

    Raises:
        PlanRefused: names the value and what is allowed. The arguments are fields of the
    """
    if not isinstance(unit, Unit):
        raise PlanRefused(f"unit {unit!r} is not one of {', '.join(Unit)}")
    try:
        check_unit(unit, RELATION_OF[unit], rate, max_participations)
    except EventRefused as error:
        raise PlanRefused(str(error)) from error
    if noise == LOCAL and extras.count:
        raise PlanRefused(
            f"noise {noise!r} with metrics or an adaptive clip: no noise is added in the sum, and "
            "none would be on them; leave them out, or set noise to 'distributed'"
        )
    if noise == LOCAL:
        check_local(
            unit=unit,
            mechanism=mechanism,
            local_steps=local_steps,
            local_lr=local_lr,
            compression=compression,
            value_bits=value_bits,
            variance=share_variance,
            rate=rate,
            delta=delta,
        )
    elif noise == DISTRIBUTED:
        check_distributed(local_steps=local_steps, local_lr=local_lr)
    else:
        raise PlanRefused(f"noise {noise!r}: allowed are {DISTRIBUTED!r} and {LOCAL!r}")
    if noise == DISTRIBUTED and mechanism not in EVENTS:
        raise PlanRefused(
            f"mechanism {mechanism!s}: shares of Gaussian noise do not add up to what a bound is "
            f"proved for; allowed: {', '.join(EVENTS)}, or noise 'local'"
        )
    if tasks_per_user is not None and unit is not Unit.USER:
        raise PlanRefused(f"tasks_per_user with unit {unit}: allowed for unit user alone")
    if unit is Unit.CLIENT and max_units_per_client != 1:
        raise PlanRefused(
            f"max_units_per_client {max_units_per_client!r} with unit client: its one final "
            "vector is clipped as a whole, so that only 1 is allowed"
        )
    discrete = mechanism is Mechanism.DISCRETE_GAUSSIAN
    if discrete and not share_variance >= MIN_DISCRETE_SIGMA**2:
        raise PlanRefused(
            f"one client's noise has variance {share_variance:.3g}; sums of discrete "
            f"Gaussians are bounded from {MIN_DISCRETE_SIGMA**2} on"
        )


def vectors_of(tasks_per_user: int | None) -> int:
    """How many vectors of one unit are clipped, each by itself."""
    if tasks_per_user is None:
        return 1
    check_int("tasks_per_user", tasks_per_user, 1, 2**20)
    return tasks_per_user


def honest_shares(noise: str, clients: int, min_survivors: int, max_colluders: int) -> int:
    """Contributors whose noise adds up and stays secret from the aggregator and every coalition.

    With noise "local" a client relies on its own alone.
    """
    check_int("clients", clients, 2, 2**31)
    check_int("min_survivors", min_survivors, 2, clients)
    check_int("max_colluders", max_colluders, 0, min_survivors - 1)
    return 1 if noise == LOCAL else min_survivors - known_shares(max_colluders)


def variance_of_share(z: float, l2: int, honest: int) -> float:
    """Variance of one share for which the honest ones together reach z * l2."""
    return (z * l2) ** 2 / honest


def check_int(name: str, value: object, least: int, most: int) -> None:
    """Refuse what is no int within the range. Raises PlanRefused."""
    if type(value) is not int or not least <= value <= most:
        raise PlanRefused(f"{name} {value!r} is not an integer from {least} to {most}")


def check_real(name: str, value: object, least: float, most: float) -> None:
    """Refuse what is no float within the range, NaN included. Raises PlanRefused."""
    if type(value) is not float or not least <= value <= most:
        raise PlanRefused(f"{name} {value!r} is not a float from {least!r} to {most!r}")
