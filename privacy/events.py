"""What was released, as immutable facts. Epsilon is a query on them (see accountant.py).

The JSON form is strict: exactly the fields, integers as integers, real numbers as the shortest
decimal string that reads back to the same float64, nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar, Self, TypeAlias, TypeVar

from privacy.errors import EventRefused
from privacy.rdp import MIN_DISCRETE_SIGMA, l1_bound
from privacy.unit import RELATION_OF, Relation, Unit

_Enum = TypeVar("_Enum", bound=StrEnum)

MAX_INT = 2**53 - 1
"""Largest integer that every JSON reader keeps."""
MIN_RATE = 2.0**-20
MAX_PERSON_UNITS = 1000
"""A person in more units than this is worth no figure: none of them would be below 1000."""


class Mechanism(StrEnum):
    """The noise that stands between a unit and a release.

    SKELLAM, DISCRETE_GAUSSIAN: integers, in shares of all clients, inside the secure sum.
    GAUSSIAN: real numbers, added by a client to its own steps.
    """

    SKELLAM = "skellam"
    DISCRETE_GAUSSIAN = "discrete-gaussian"
    GAUSSIAN = "gaussian"


def known_shares(max_colluders: int) -> int:
    """Noise shares that clients who take part know: those of all colluders, or one's own alone."""
    return max(max_colluders, 1)


def check_unit(unit: Unit, relation: Relation, rate: float, max_participations: int | None) -> None:
    """Refuse combinations that no proved bound covers, with the reason.

    Raises:
        EventRefused: a relation that is not the unit's; a rate outside [2^-20, 1]; unit client with
            a rate below 1, since who takes part is seen; a cap on participations for another unit,
            whose coins nobody counts.
    """
    if not isinstance(unit, Unit) or relation is not RELATION_OF[unit]:
        raise EventRefused(
            f"unit {unit!s} under {relation!s}: allowed are "
            + ", ".join(f"{unit} under {relation}" for unit, relation in RELATION_OF.items())
        )
    if type(rate) is not float or not MIN_RATE <= rate <= 1.0:
        raise EventRefused(f"rate {rate!r} is not a float from 2^-20 to 1.0")
    if unit is Unit.CLIENT and rate != 1.0:
        raise EventRefused(
            f"rate {rate!r} with unit client: the aggregator sees which clients take part, so that "
            "no coin hides one; allowed is 1.0, with max_participations where clients take turns"
        )
    if max_participations is not None:
        _check_int("max_participations", max_participations, least=1)
        if unit is not Unit.CLIENT:
            raise EventRefused(
                f"max_participations {max_participations} with unit {unit}: only a client counts "
                "in how many rounds it took part; secret coins cannot be capped"
            )


@dataclass(frozen=True)
class IntegerRound:
    """One opened sum of integer vectors with integer noise from each surviving client.

    The kinds differ in the noise: `SkellamRound`, `DiscreteGaussianRound`.

    Attributes:
        unit, relation: what the bounds below hold for.
        rate: probability with which each unit took part, by a secret coin of its own.
        l2: Delta, largest L2 norm in integer steps of the vector of one unit (of the one task that
            a record is in).
        l1: largest L1 norm of the same; exactly what l2 and the dimension imply.
        share_variance: variance per coordinate of the noise that one client added, steps^2.
        survivors: clients whose vectors, and hence shares, are in the sum.
        max_colluders: survivors that the adversary may hold, whose shares it can subtract. At
            least one survivor more than `known_shares` of it is left.
        clients: clients of the federation.
        dimension: coordinates of the vector.
        person_units: units that one person may hold, for the figure printed beside the claim.
        max_participations: unit client only: a client joined this event only if it had taken part
            in fewer than this many of the population's events; None: no such cap.
    """

    kind: ClassVar[str]
    unit: Unit
    relation: Relation
    rate: float
    l2: int
    l1: int
    share_variance: float
    survivors: int
    max_colluders: int
    clients: int
    dimension: int
    person_units: int
    max_participations: int | None

    def __post_init__(self) -> None:
        check_unit(self.unit, self.relation, self.rate, self.max_participations)
        for name in ("l2", "l1", "survivors", "clients", "dimension"):
            _check_int(name, getattr(self, name), least=1)
        _check_int("person_units", self.person_units, least=1, most=MAX_PERSON_UNITS)
        _check_int("max_colluders", self.max_colluders, least=0)
        if not (math.isfinite(self.share_variance) and self.share_variance > 0.0):
            raise EventRefused(f"share_variance {self.share_variance!r} is not positive and finite")
        known = known_shares(self.max_colluders)
        if not known < self.survivors <= self.clients:
            raise EventRefused(
                f"{self.survivors} survivors: allowed is more than the {known} whose shares a "
                f"participant may know and at most the {self.clients} clients"
            )
        if self.l1 != l1_bound(self.l2, self.dimension):
            raise EventRefused(
                f"l1 {self.l1} is not the bound {l1_bound(self.l2, self.dimension)} that "
                f"l2 {self.l2} in {self.dimension} dimensions implies"
            )

    def to_json(self) -> dict[str, str | int | None]:
        """The strict JSON form."""
        return _to_json(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """The event that `to_json` wrote. Raises EventRefused for anything else."""
        _check_fields(cls, body)
        return cls(
            unit=_member(Unit, body["unit"]),
            relation=_member(Relation, body["relation"]),
            rate=_decimal("rate", body["rate"]),
            share_variance=_decimal("share_variance", body["share_variance"]),
            **{name: body[name] for name in _ROUND_INTS},
        )


@dataclass(frozen=True)
class SkellamRound(IntegerRound):
    """A round whose shares are Skellam noise; their sum is Skellam noise of the summed variance."""

    kind: ClassVar[str] = "skellam_round"


@dataclass(frozen=True)
class DiscreteGaussianRound(IntegerRound):
    """A round whose shares are discrete Gaussian noise; their sum is not, but nearly.

    share_variance is the parameter sigma^2 of one share, at least 1/4: below it nothing is proved.
    """

    kind: ClassVar[str] = "discrete_gaussian_round"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.share_variance < MIN_DISCRETE_SIGMA**2:
            raise EventRefused(
                f"share_variance {self.share_variance!r}: sums of discrete Gaussians are bounded "
                f"from {MIN_DISCRETE_SIGMA**2} on"
            )


@dataclass(frozen=True)
class GaussianSteps:
    """Steps of one client's own optimiser with Gaussian noise; what it sends follows from them.

    The client's messages are private by themselves, against everyone. Each unit lives in one
    client, so that clients with the same settings compose in parallel: this one event, with all the
    steps of the run, stands for all of them.

    Attributes:
        unit, relation: task under add_remove, or record under replace_one.
        rate: probability with which each task takes part in a step, by a secret coin of its own.
        noise_multiplier: z, standard deviation per coordinate over the norm bound of one task.
        steps: how many.
        person_units: units that one person may hold.
    """

    kind: ClassVar[str] = "gaussian_steps"
    unit: Unit
    relation: Relation
    rate: float
    noise_multiplier: float
    steps: int
    person_units: int

    def __post_init__(self) -> None:
        if self.unit not in (Unit.TASK, Unit.RECORD):
            raise EventRefused(
                f"unit {self.unit!s} with noise at the client: its optimiser bounds one task, so "
                "allowed are task and record"
            )
        check_unit(self.unit, self.relation, self.rate, None)
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier > 0.0):
            raise EventRefused(
                f"noise_multiplier {self.noise_multiplier!r} is not positive and finite"
            )
        _check_int("steps", self.steps, least=1)
        _check_int("person_units", self.person_units, least=1, most=MAX_PERSON_UNITS)

    def to_json(self) -> dict[str, str | int | None]:
        """The strict JSON form."""
        return _to_json(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> GaussianSteps:
        """The event that `to_json` wrote. Raises EventRefused for anything else."""
        _check_fields(cls, body)
        return cls(
            unit=_member(Unit, body["unit"]),
            relation=_member(Relation, body["relation"]),
            rate=_decimal("rate", body["rate"]),
            noise_multiplier=_decimal("noise_multiplier", body["noise_multiplier"]),
            steps=body["steps"],
            person_units=body["person_units"],
        )


@dataclass(frozen=True)
class NonPrivate:
    """A release without any bound: whatever is composed with it has epsilon infinity.

    Attributes:
        unit, relation: of the run that released it.
        reason: why there is no bound, for the report.
    """

    kind: ClassVar[str] = "non_private"
    unit: Unit
    relation: Relation
    reason: str

    def to_json(self) -> dict[str, str | int | None]:
        """The strict JSON form."""
        return _to_json(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> NonPrivate:
        """The event that `to_json` wrote. Raises EventRefused for anything else."""
        _check_fields(cls, body)
        if not isinstance(body["reason"], str):
            raise EventRefused("reason is not a string")
        return cls(_member(Unit, body["unit"]), _member(Relation, body["relation"]), body["reason"])


Event: TypeAlias = SkellamRound | DiscreteGaussianRound | GaussianSteps | NonPrivate
PrivateEvent: TypeAlias = SkellamRound | DiscreteGaussianRound | GaussianSteps

_KINDS: dict[str, type[Event]] = {
    event.kind: event for event in (SkellamRound, DiscreteGaussianRound, GaussianSteps, NonPrivate)
}
_ROUND_INTS = (
    "l2",
    "l1",
    "survivors",
    "max_colluders",
    "clients",
    "dimension",
    "person_units",
    "max_participations",
)


def event_from_json(body: Mapping[str, Any]) -> Event:
    """Read an event of any known kind. Raises EventRefused for an unknown one."""
    kind = body.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise EventRefused(f"unknown event kind {kind!r}; known: {', '.join(sorted(_KINDS))}")
    return _KINDS[kind].from_json(body)


def _to_json(event: IntegerRound | GaussianSteps | NonPrivate) -> dict[str, str | int | None]:
    body: dict[str, str | int | None] = {"kind": event.kind}
    for field in fields(event):
        value = getattr(event, field.name)
        body[field.name] = repr(value) if isinstance(value, float) else value
    return body | {"unit": event.unit.value, "relation": event.relation.value}


def _check_fields(
    cls: type[IntegerRound | GaussianSteps | NonPrivate], body: Mapping[str, Any]
) -> None:
    expected = {"kind", *(field.name for field in fields(cls))}
    if set(body) != expected or body["kind"] != cls.kind:
        raise EventRefused(
            f"a {cls.kind} event has exactly the fields {', '.join(sorted(expected))}"
        )


def _check_int(name: str, value: object, *, least: int, most: int = MAX_INT) -> None:
    if type(value) is not int or not least <= value <= most:
        allowed = "2^53 - 1" if most == MAX_INT else str(most)
        raise EventRefused(f"{name} {value!r} is not an integer from {least} to {allowed}")


def _member(enum: type[_Enum], value: object) -> _Enum:
    for member in enum:
        if isinstance(value, str) and value == member.value:
            return member
    raise EventRefused(f"{value!r} is not one of {', '.join(member.value for member in enum)}")


def _decimal(name: str, text: object) -> float:
    """A float64 from its own shortest decimal string, and from no other spelling."""
    try:
        value = float(text) if isinstance(text, str) else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or repr(value) != text:
        raise EventRefused(f"{name} {text!r} is not a finite number in its shortest decimal form")
    return value
