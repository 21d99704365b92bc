"""What the ledger's rows say, checked on their way in and out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from privacy.accountant import Adversary
from privacy.errors import LedgerError
from privacy.events import MAX_INT, Event, event_from_json
from privacy.rdp import MAX_ORDER, MIN_ORDER
from privacy.unit import RELATION_OF, Relation, Unit

EXPORT_VERSION = 2
WORST = "worst"
MIN_AMOUNT = 2.0**-1022
MAX_NAME = 200


@dataclass(frozen=True)
class Grant:
    """What an approver allows a population to spend.

    Attributes:
        population: whose data; the ledger's key.
        unit, relation: the unit of privacy that the epsilon is about, and how neighbours differ.
        adversary: against whom the limit holds; None: the worst of all that a budget limits.
        epsilon, delta: the limit, both positive normal numbers, delta < 1.
        order: the Renyi order at which everything is added up, declared before anything was
            charged: a filter, which holds for settings chosen from earlier results too. None: the
            smallest epsilon over all orders, which holds for plans that were fixed beforehand.
        approver: who is answerable.
        granted: when, with a time zone.
        expires: from when on nothing more is reserved; None: never.
    """

    population: str
    unit: Unit
    relation: Relation
    adversary: Adversary | None
    epsilon: float
    delta: float
    order: int | None
    approver: str
    granted: datetime
    expires: datetime | None

    @property
    def family(self) -> tuple[Unit, Relation, float, int | None]:
        """What all grants of one population have in common; None of it can change."""
        return self.unit, self.relation, self.delta, self.order

    def to_json(self) -> dict[str, str | int | None]:
        """Plain data, real numbers as shortest decimal strings, times in ISO 8601."""
        return {
            "population": self.population,
            "unit": self.unit.value,
            "relation": self.relation.value,
            "adversary": WORST if self.adversary is None else self.adversary.value,
            "rdp_order": self.order,
            "epsilon": repr(self.epsilon),
            "delta": repr(self.delta),
            "approver": self.approver,
            "granted": self.granted.isoformat(),
            "expires": None if self.expires is None else self.expires.isoformat(),
        }


@dataclass(frozen=True)
class Account:
    """Where a population stands.

    Attributes:
        grants: what is in force, the one for the worst adversary first; empty: none was granted.
        spent: for each grant, the epsilon that everything charged comes to.
        charged: how many events were reserved.
        opened: how many of them were committed.
        last: the newest event; None: nothing was charged.
        affordable: how many more events like the newest one fit all grants, at most 1,000,000;
            None without event or grant.
        turns_left: how many more of them its clients have turns for, at most; None where it has no
            turns, or nobody here can count them.
    """

    grants: tuple[Grant, ...]
    spent: tuple[float, ...]
    charged: int
    opened: int
    last: Event | None
    affordable: int | None
    turns_left: int | None


@dataclass(frozen=True)
class Charged:
    """What one attempt was charged.

    Attributes:
        event: its event.
        opened: whether it was noted that the sum was opened.
    """

    event: Event
    opened: bool

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Charged:
        """The charge of a row. Raises LedgerError for an event that cannot be read."""
        return cls(read_event(row["event"]), row["committed"] is not None)


def read_grant(row: Mapping[Any, Any]) -> Grant:
    """A grant from its plain data, checked like a new one. Raises LedgerError."""
    try:
        return Grant(
            population=name_of("population", row["population"]),
            unit=unit_of(row["unit"]),
            relation=Relation(row["relation"]),
            adversary=adversary_of(row["adversary"]),
            order=order_of(row["rdp_order"]),
            epsilon=amount_of("epsilon", float(row["epsilon"])),
            delta=delta_of(float(row["delta"])),
            approver=name_of("approver", row["approver"]),
            granted=time_of(row["granted"]),
            expires=None if row["expires"] is None else time_of(row["expires"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LedgerError(f"a grant is damaged: {error!r}") from error


def write_event(event: Event) -> str:
    """The event as one line of JSON with sorted keys: equal events are equal text."""
    return json.dumps(event.to_json(), sort_keys=True, separators=(",", ":"))


def read_event(text: str) -> Event:
    """The event of one line. Raises LedgerError or, for an unknown one, EventRefused."""
    try:
        return event_from_json(json.loads(text))
    except (ValueError, AttributeError) as error:
        raise LedgerError(f"an event is damaged: {error!r}") from error


def read_export(
    exported: Mapping[str, Any],
) -> tuple[str, list[Grant], list[dict[str, Any]]]:
    """The parts of an export, checked like what arrives through `grant` and `reserve`."""
    try:
        if exported["version"] != EXPORT_VERSION:
            raise LedgerError(
                f"an export of version {exported['version']!r} is not known, only {EXPORT_VERSION}"
            )
        population = name_of("population", exported["population"])
        granted = [read_grant(row) for row in exported["grants"]]
        reserved = [
            {
                "id": name_of("id", row["id"]),
                "population": row["population"],
                "run": name_of("run", row["run"]),
                "round": index_of("round", row["round"]),
                "attempt": index_of("attempt", row["attempt"]),
                "event": write_event(event_from_json(row["event"])),
                "plan_digest": digest_of(bytes.fromhex(row["plan_digest"])),
                "reserved": time_of(row["reserved"]).isoformat(),
                "committed": row["committed"] and time_of(row["committed"]).isoformat(),
            }
            for row in exported["reservations"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LedgerError(f"not an export of a ledger: {error!r}") from error
    others = {row["population"] for row in reserved} | {grant.population for grant in granted}
    if not others <= {population}:
        raise LedgerError("an export holds one population only")
    return population, granted, reserved


def amount_of(name: str, value: object) -> float:
    """A positive, finite, normal number; the rest could be read as nothing or as everything."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LedgerError(f"{name} {value!r} is not a number")
    try:
        amount = float(value)
    except OverflowError as error:
        raise LedgerError(f"{name} is too large for a float64") from error
    if not MIN_AMOUNT <= amount < math.inf:
        raise LedgerError(f"{name} {value!r} is not positive, finite and normal")
    return amount


def delta_of(value: object) -> float:
    """An amount below 1."""
    delta = amount_of("delta", value)
    if delta >= 1.0:
        raise LedgerError(f"delta {delta!r} is not below 1")
    return delta


def unit_of(value: str) -> Unit:
    """A unit of privacy by its name."""
    try:
        return Unit(value)
    except ValueError as error:
        raise LedgerError(f"unit {value!r} is not one of {', '.join(Unit)}") from error


def relation_of(unit: Unit) -> Relation:
    """How neighbours of this unit differ."""
    return RELATION_OF[unit]


def adversary_of(value: str) -> Adversary | None:
    """An adversary by its name; None for "worst"."""
    try:
        return None if value == WORST else Adversary(value)
    except ValueError as error:
        raise LedgerError(
            f"adversary {value!r} is not one of {WORST}, {', '.join(Adversary)}"
        ) from error


def order_of(value: object) -> int | None:
    """A Renyi order that the accountant has, or None."""
    if value is None:
        return None
    if type(value) is not int or not MIN_ORDER <= value <= MAX_ORDER:
        raise LedgerError(f"order {value!r} is not an integer from {MIN_ORDER} to {MAX_ORDER}")
    return value


def name_of(what: str, value: object) -> str:
    """A printable name that is neither empty nor long."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise LedgerError(f"{what} {value!r} is not 1 to {MAX_NAME} printable characters")
    return value


def index_of(what: str, value: object) -> int:
    """A count from zero."""
    if type(value) is not int or not 0 <= value <= MAX_INT:
        raise LedgerError(f"{what} {value!r} is not an integer from 0 to 2^53 - 1")
    return value


def digest_of(value: bytes) -> str:
    """The hexadecimal form of a 32-byte digest."""
    if not isinstance(value, bytes) or len(value) != 32:
        raise LedgerError("a plan digest has 32 bytes")
    return value.hex()


def time_of(text: str) -> datetime:
    """A moment with a time zone. Raises ValueError without one."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"time {text!r} lacks a time zone")
    return time
