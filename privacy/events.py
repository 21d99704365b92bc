"""What was released, as immutable facts. Epsilon is a query on them (see accountant.py).

The JSON form is strict: exactly the fields, integers as integers, real numbers as the shortest
decimal string that reads back to the same float64, nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar, TypeAlias, TypeVar

from privacy.errors import EventRefused
from privacy.rdp import l1_bound
from privacy.unit import Relation, Unit

_Enum = TypeVar("_Enum", bound=StrEnum)

MAX_INT = 2**53 - 1
"""Largest integer that every JSON reader keeps."""


def known_shares(max_colluders: int) -> int:
    """Noise shares that clients who take part know: those of all colluders, or one's own alone."""
    return max(max_colluders, 1)


@dataclass(frozen=True)
class SkellamRound:
    """One opened sum of integer vectors with Skellam noise from each surviving client.

    Attributes:
        unit, relation: what the bounds below hold for.
        rate: probability with which each unit took part; 1.0 is all that is accounted for here.
        l2: Delta, largest L2 norm in integer steps that one unit's vector can have.
        l1: largest L1 norm of the same; exactly what l2 and the dimension imply.
        share_variance: variance per coordinate of the noise that one client added, steps^2.
        survivors: clients whose vectors, and hence shares, are in the sum.
        max_colluders: survivors that the adversary may hold, whose shares it can subtract. At
            least one survivor more than `known_shares` of it is left.
        clients: clients of the federation.
        dimension: coordinates of the vector.
        person_units: units that one person may hold, for the figure printed beside the claim.
    """

    kind: ClassVar[str] = "skellam_round"
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

    def __post_init__(self) -> None:
        if (self.unit, self.relation) != (Unit.TASK, Relation.ADD_REMOVE):
            raise EventRefused(
                f"unit {self.unit} under {self.relation}: a Skellam round is accounted for "
                "unit task under add_remove only"
            )
        if self.rate != 1.0:
            raise EventRefused(f"rate {self.rate!r}: a Skellam round is accounted for rate 1 only")
        for name in ("l2", "l1", "survivors", "clients", "dimension", "person_units"):
            _check_int(name, getattr(self, name), least=1)
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

    def to_json(self) -> dict[str, str | int]:
        """The strict JSON form."""
        return {
            "kind": self.kind,
            "unit": self.unit.value,
            "relation": self.relation.value,
            "rate": repr(self.rate),
            "l2": self.l2,
            "l1": self.l1,
            "share_variance": repr(self.share_variance),
            "survivors": self.survivors,
            "max_colluders": self.max_colluders,
            "clients": self.clients,
            "dimension": self.dimension,
            "person_units": self.person_units,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> SkellamRound:
        """The event that `to_json` wrote. Raises EventRefused for anything else."""
        _check_fields(cls, body)
        return cls(
            unit=_member(Unit, body["unit"]),
            relation=_member(Relation, body["relation"]),
            rate=_decimal("rate", body["rate"]),
            share_variance=_decimal("share_variance", body["share_variance"]),
            **{name: body[name] for name in _SKELLAM_INTS},
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

    def to_json(self) -> dict[str, str | int]:
        """The strict JSON form."""
        return {
            "kind": self.kind,
            "unit": self.unit.value,
            "relation": self.relation.value,
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> NonPrivate:
        """The event that `to_json` wrote. Raises EventRefused for anything else."""
        _check_fields(cls, body)
        if not isinstance(body["reason"], str):
            raise EventRefused("reason is not a string")
        return cls(_member(Unit, body["unit"]), _member(Relation, body["relation"]), body["reason"])


Event: TypeAlias = SkellamRound | NonPrivate

_KINDS: dict[str, type[SkellamRound] | type[NonPrivate]] = {
    SkellamRound.kind: SkellamRound,
    NonPrivate.kind: NonPrivate,
}
_SKELLAM_INTS = ("l2", "l1", "survivors", "max_colluders", "clients", "dimension", "person_units")


def event_from_json(body: Mapping[str, Any]) -> Event:
    """Read an event of any known kind. Raises EventRefused for an unknown one."""
    kind = body.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise EventRefused(f"unknown event kind {kind!r}; known: {', '.join(sorted(_KINDS))}")
    return _KINDS[kind].from_json(body)


def _check_fields(cls: type[SkellamRound] | type[NonPrivate], body: Mapping[str, Any]) -> None:
    expected = {"kind", *(field.name for field in fields(cls))}
    if set(body) != expected or body["kind"] != cls.kind:
        raise EventRefused(
            f"a {cls.kind} event has exactly the fields {', '.join(sorted(expected))}"
        )


def _check_int(name: str, value: object, *, least: int) -> None:
    if type(value) is not int or not least <= value <= MAX_INT:
        raise EventRefused(f"{name} {value!r} is not an integer from {least} to 2^53 - 1")


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
