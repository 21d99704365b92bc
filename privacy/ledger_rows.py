"""What the ledger's rows say, checked on their way in and out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from privacy.errors import LedgerError
from privacy.events import MAX_INT, Event, event_from_json
from privacy.unit import Unit

EXPORT_VERSION = 1
MIN_AMOUNT = 2.0**-1022
MAX_NAME = 200


@dataclass(frozen=True)
class Grant:
    """What an approver allows a population to spend.

    Attributes:
        population: whose data; the ledger's key.
        unit: the unit of privacy that the epsilon is about.
        epsilon, delta: the limit, both positive normal numbers, delta < 1.
        approver: who is answerable.
        granted: when, with a time zone.
        expires: from when on nothing more is reserved; None: never.
    """

    population: str
    unit: Unit
    epsilon: float
    delta: float
    approver: str
    granted: datetime
    expires: datetime | None

    def to_json(self) -> dict[str, str | None]:
        """Plain data, real numbers as shortest decimal strings, times in ISO 8601."""
        return {
            "population": self.population,
            "unit": self.unit.value,
            "epsilon": repr(self.epsilon),
            "delta": repr(self.delta),
            "approver": self.approver,
            "granted": self.granted.isoformat(),
            "expires": None if self.expires is None else self.expires.isoformat(),
        }


def read_grant(row: Mapping[Any, Any]) -> Grant:
    """A grant from its plain data, checked like a new one. Raises LedgerError."""
    try:
        return Grant(
            population=name_of("population", row["population"]),
            unit=unit_of(row["unit"]),
            epsilon=amount_of("epsilon", float(row["epsilon"])),
            delta=delta_of(float(row["delta"])),
            approver=name_of("approver", row["approver"]),
            granted=_time(row["granted"]),
            expires=None if row["expires"] is None else _time(row["expires"]),
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
            raise LedgerError(f"an export of version {exported['version']!r} is not known")
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
                "reserved": _time(row["reserved"]).isoformat(),
                "committed": row["committed"] and _time(row["committed"]).isoformat(),
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


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"time {text!r} lacks a time zone")
    return time
