"""What the command line asks of a ledger: accounts as plain data, grants from text, backups."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from privacy.errors import LedgerError
from privacy.ledger import Ledger
from privacy.ledger_rows import Grant, adversary_of, unit_of
from secure_fedmeta.budget import filter_name, grant_row, room
from secure_fedmeta.errors import DataError, in_options

_OPTIONS = ("unit", "epsilon", "delta", "approver", "expires", "adversary", "order")


def accounts(ledger: Ledger, populations: Sequence[str]) -> list[dict[str, Any]]:
    """Where each population stands; of none named, all.

    Raises:
        LedgerError: one that the ledger does not know.
    """
    known = ledger.populations()
    rows = []
    for population in populations or known:
        _check_known(population, known)
        found = ledger.account(population)
        first = found.grants[0] if found.grants else None
        rows.append(
            {
                "population": population,
                "unit": None if first is None else first.unit.value,
                "relation": None if first is None else first.relation.value,
                "delta": None if first is None else first.delta,
                "filter": None if first is None else filter_name(first.order),
                "grants": [
                    grant_row(grant, spent)
                    for grant, spent in zip(found.grants, found.spent, strict=True)
                ],
                "charged": found.charged,
                "opened": found.opened,
                **room(found.affordable, found.turns_left),
            }
        )
    return rows


def grant(
    ledger: Ledger,
    population: str,
    *,
    unit: str,
    epsilon: float,
    delta: float,
    approver: str,
    expires: str | None,
    adversary: str,
    order: int | None,
) -> Grant:
    """Make a grant as it was typed.

    Raises:
        LedgerError: a value that is unknown or out of range, or that contradicts an earlier grant.
    """
    try:
        return ledger.grant(
            population,
            unit=unit_of(unit),
            epsilon=epsilon,
            delta=delta,
            approver=approver,
            expires=None if expires is None else _moment(expires),
            adversary=adversary_of(adversary),
            order=order,
        )
    except LedgerError as error:
        raise type(error)(in_options(str(error), _OPTIONS)) from error


def export(ledger: Ledger, population: str) -> dict[str, Any]:
    """Everything of one population.

    Raises:
        LedgerError: the ledger does not know it: its backup would be empty.
    """
    _check_known(population, ledger.populations())
    return ledger.export(population)


def write_new(path: Path, text: str) -> None:
    """Write a file that does not exist yet.

    Raises:
        DataError: it exists, or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error


def read_export(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        DataError: it cannot be read, or is no JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is not an export of a ledger: no JSON object")
    return found


def _check_known(population: str, known: Sequence[str]) -> None:
    if population not in known:
        names = ", ".join(known) or "none"
        raise LedgerError(f"population {population!r} is not in the ledger; there: {names}")


def _moment(text: str) -> datetime:
    """A date, or a time, in UTC where no zone is given."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise LedgerError(f"expires {text!r} is no date such as 2027-01-31: {error}") from error
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
