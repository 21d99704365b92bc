"""Which rows count in a round, and to which unit they belong.

Poisson sampling: every unit has an independent coin of its own in every round, thrown by its client
from the client's own generator. The coins amplify only as long as nobody sees them:

- every client uploads in every round, the same number of bytes, also when no unit was drawn;
- rows of units that were not drawn are made zero and go through all steps like the others, so that
  the work after the draw does not depend on it; a client that computes drawn units only must answer
  at a fixed time instead;
- how many were drawn, and any figure computed from them alone, never leaves the client; coins are
  never stored and never thrown again for the same attempt;
- nothing is skipped, retried or cut off because many or few were drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.errors import PlanRefused
from privacy.rng import SecureRandom
from privacy.unit import Unit

_COINS = 2.0**53
"""A fraction from the generator is a multiple of 2^-53."""


def throw_coins(units: int, rate: float, rng: SecureRandom) -> NDArray[np.bool_]:
    """Independent coins, each true with probability floor(rate * 2^53) / 2^53 <= rate.

    Args:
        units: how many, >= 0.
        rate: q, in (0, 1]; 1.0 gives true throughout and draws nothing.
        rng: the client's own generator.

    Returns:
        bool [units].

    Raises:
        PlanRefused: a negative number of units.
    """
    if units < 0:
        raise PlanRefused(f"{units} units to draw from; allowed: 0 or more")
    if rate == 1.0:
        return np.ones(units, dtype=np.bool_)
    return rng.fractions(units) < math.floor(rate * _COINS) / _COINS


def checked_coins(
    drawn: NDArray[np.bool_] | None, least: int, unit: Unit, rate: float
) -> NDArray[np.bool_]:
    """The round's coins.

    Args:
        drawn: what `throw_coins` gave; None at rate 1.0 alone.
        least: units that there are rows of; of a user there may be none.
        unit: the unit of privacy.
        rate: q.

    Returns:
        bool [units], units >= least.

    Raises:
        PlanRefused: none where they are needed, another shape or dtype, too few, too many, or one
            that leaves a unit out at rate 1.0.
    """
    if drawn is None:
        if rate < 1.0:
            raise PlanRefused(
                f"rate {rate!r} needs this round's coins: give drawn=plan.draw(units, rng)"
            )
        return np.ones(least, dtype=np.bool_)
    if drawn.dtype != np.bool_ or drawn.ndim != 1:
        raise PlanRefused(f"coins are {drawn.dtype} {drawn.shape}; allowed: bool [units]")
    if len(drawn) < least or (unit is not Unit.USER and len(drawn) > least):
        raise PlanRefused(f"{len(drawn)} coins for {least} units; allowed: one for each")
    if rate == 1.0 and not drawn.all():
        raise PlanRefused("at rate 1.0 no unit is left out, but a coin says so")
    return drawn


def checked_users(
    users: NDArray[np.int64] | None, rows: int, most: int | None
) -> NDArray[np.int64]:
    """The grouping, which says for each row whose it is.

    Args:
        users: user of each row, numbered from 0.
        rows: how many rows there are.
        most: rows that one user may have; None: any number.

    Returns:
        int64 [rows].

    Raises:
        PlanRefused: no grouping, another shape or dtype, a negative number, or too many rows of one
            user.
    """
    if users is None or users.shape != (rows,) or users.dtype != np.int64:
        found = "nothing" if users is None else f"{users.dtype} {users.shape}"
        raise PlanRefused(
            f"unit user needs the user of each row; allowed: int64 [{rows}]; found {found}"
        )
    if rows and int(users.min()) < 0:
        raise PlanRefused(f"users are numbered from 0; found {int(users.min())}")
    largest = int(np.unique(users, return_counts=True)[1].max()) if rows else 0
    if most is not None and largest > most:
        raise PlanRefused(
            f"a user has {largest} tasks; allowed: at most {most}, each clipped apart; raise "
            "tasks_per_user, or leave it out to clip their sum once"
        )
    return users


def count_of(users: NDArray[np.int64]) -> int:
    """How many users a grouping numbers, those without rows included."""
    return int(users.max()) + 1 if len(users) else 0


def sum_per_user(
    vectors: NDArray[np.floating[Any]], users: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """One row per user: the sum of the user's rows, in their order, not yet clipped.

    It depends on that user's rows alone. A sum that is not finite stays so, for the clipping to
    take as zero.

    Args:
        vectors: float [k, d].
        users: int64 [k], from 0 to count - 1.
        count: how many users.

    Returns:
        float64 [count, d]; a user without rows is zero.
    """
    sums = np.zeros((count, vectors.shape[1]))
    with np.errstate(over="ignore", invalid="ignore"):
        np.add.at(sums, users, vectors.astype(np.float64))
    return sums


def zero_unless(
    keep: NDArray[np.bool_], vectors: NDArray[np.floating[Any]]
) -> NDArray[np.floating[Any]]:
    """The rows that are kept, and zero in place of the others: float [k, d], a new array."""
    return np.where(keep[:, None], vectors, vectors.dtype.type(0.0))


@dataclass(frozen=True)
class Rows:
    """What is clipped, each row by itself.

    Attributes:
        vectors: float [r, d]; rows that do not count may hold anything.
        counts: which rows are drawn and there at all: bool [r].
        cut: metrics of each row, float64 [r, m]; None where nobody asks for any.
    """

    vectors: NDArray[np.floating[Any]]
    counts: NDArray[np.bool_]
    cut: NDArray[np.float64] | None


def rows_of(
    vectors: NDArray[np.floating[Any]],
    cut: NDArray[np.float64] | None,
    drawn: NDArray[np.bool_] | None,
    users: NDArray[np.int64] | None,
    *,
    unit: Unit,
    rate: float,
    most_units: int,
    tasks_per_user: int | None,
) -> Rows:
    """Group rows by unit and throw out nothing: what was not drawn is marked.

    Args:
        vectors: float [k, d], one row per unit; for unit user one per task.
        cut: fractions of the largest metrics, float64 [k, m]; a user's are averaged.
        drawn: see `checked_coins`.
        users: see `checked_users`; unit user only.
        unit: the unit of privacy.
        rate: q.
        most_units: `max_units_per_client`.
        tasks_per_user: rows of one user that are clipped apart, at most; None: they are summed.

    Raises:
        PlanRefused: too many units, coins or users or metrics that do not fit the rows, or users
            for another unit.
    """
    if cut is not None and len(cut) != len(vectors):
        raise PlanRefused(f"metrics of {len(cut)} rows for {len(vectors)}; allowed: one for each")
    if unit is not Unit.USER:
        if users is not None:
            raise PlanRefused(f"users were given for unit {unit}, whose rows are units")
        check_units(len(vectors) if drawn is None else len(drawn), most_units)
        return Rows(vectors, checked_coins(drawn, len(vectors), unit, rate), cut)
    users = checked_users(users, len(vectors), tasks_per_user)
    least = count_of(users)
    check_units(least if drawn is None else len(drawn), most_units)
    keep = checked_coins(drawn, least, unit, rate)
    if tasks_per_user is not None:
        return Rows(vectors, keep[users], cut)
    count = len(keep)
    tasks = np.bincount(users, minlength=count)
    if cut is not None:
        cut = sum_per_user(cut, users, count) / np.maximum(tasks, 1)[:, None]
    return Rows(sum_per_user(vectors, users, count), keep & (tasks > 0), cut)


def check_units(units: int, most: int) -> None:
    """Refuse more units than planned. Raises PlanRefused."""
    if units > most:
        raise PlanRefused(f"{units} units; allowed: at most {most} per client")
