"""Data dictionaries: what a table's columns may hold, and how a row becomes a model's input.

Everything here is declared in code from what the columns mean. Nothing is fitted: no mean, no
quantile, no vocabulary is taken from the data, since such statistics of raw client data would leave
the clients outside the privacy budget.

Policy for values, the same for all columns:
- below the low bound, not a finite number, or not in the vocabulary: refused, naming file, row and
  column;
- above the high bound: refused or set to the bound and counted, as the column declares;
- missing (an empty cell, or a value that the column declares to stand for a missing one): refused
  or coded as the features declare and counted, likewise.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from secure_fedmeta.errors import DataError
from secure_fedmeta.tasks.protocol import Floats

Value: TypeAlias = float | str | None

_SHOWN = 80
# Digits with an optional point and exponent: no blanks, no underscores, no nan, no inf.
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Where:
    """Where a value stands, for messages.

    Attributes:
        file: the file's name.
        number: of the line or the row, from 1.
        counted: which of the two.
    """

    file: str
    number: int
    counted: Literal["line", "row"] = "line"

    def __str__(self) -> str:
        return f"{self.file}, {self.counted} {self.number}"

    def refuse(self, column: str, cell: str, allowed: str) -> DataError:
        """The error for one cell, of which a long one is shown in part."""
        shown = repr(cell) if len(cell) <= _SHOWN else f"{cell[:_SHOWN]!r}..."
        return DataError(f"{self}, {column} = {shown}: allowed is {allowed}")


@dataclass
class Tally:
    """Values that were coded by declared policy: column -> how many."""

    clipped: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Number:
    """A numeric column.

    Attributes:
        name: the column.
        unit: what one is.
        low: lowest value allowed.
        high: highest value allowed.
        above: what is done with a higher one.
        missing: what is done with an empty cell.
        codes: values that stand for a missing one, inside the bounds or not.
    """

    name: str
    unit: str
    low: float
    high: float
    above: Literal["refuse", "clip"] = "refuse"
    missing: Literal["refuse", "code"] = "refuse"
    codes: tuple[float, ...] = ()

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""
        above = " (higher values are set to it)" if self.above == "clip" else ""
        missing = ""
        if self.missing == "code":
            missing = " or empty" + "".join(f" or {code:g} for missing" for code in self.codes)
        return f"a number from {self.low:g} to {self.high:g}{above}{missing}"

    def read(self, cell: str, where: Where, tally: Tally) -> float | None:
        """The cell's value inside the bounds; None if it is missing and may be.

        Raises:
            DataError: see the module's policy.
        """
        value = float(cell) if _NUMBER.fullmatch(cell) else math.nan
        if self.missing == "code" and (cell == "" or value in self.codes):
            tally.missing[self.name] += 1
            return None
        if not math.isfinite(value) or value < self.low:
            raise where.refuse(self.name, cell, self.allowed)
        if value > self.high:
            if self.above == "refuse":
                raise where.refuse(self.name, cell, self.allowed)
            tally.clipped[self.name] += 1
            return float(self.high)
        return value


@dataclass(frozen=True)
class Category:
    """A column with a declared vocabulary.

    Attributes:
        name: the column.
        values: the vocabulary.
        missing: what is done with an empty cell.
    """

    name: str
    values: tuple[str, ...]
    missing: Literal["refuse", "code"] = "refuse"

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""
        return ", ".join(self.values) + (" or empty" if self.missing == "code" else "")

    def read(self, cell: str, where: Where, tally: Tally) -> str | None:
        """The cell's value; None if it is missing and may be.

        Raises:
            DataError: see the module's policy.
        """
        if cell == "" and self.missing == "code":
            tally.missing[self.name] += 1
            return None
        if cell not in self.values:
            raise where.refuse(self.name, cell, self.allowed)
        return cell


@dataclass(frozen=True)
class Code:
    """A column of codes of a declared form, too many to list.

    Attributes:
        name: the column.
        pattern: a regular expression that a whole cell must match.
        allowed: the form in words.
    """

    name: str
    pattern: str
    allowed: str

    def read(self, cell: str, where: Where, tally: Tally) -> str:
        """The cell.

        Raises:
            DataError: it has another form.
        """
        if not re.fullmatch(self.pattern, cell):
            raise where.refuse(self.name, cell, self.allowed)
        return cell


@dataclass(frozen=True)
class Feature:
    """One input of the model.

    Attributes:
        name: the input's name.
        formula: how it is computed, in words.
        compute: value from a row's columns; None where a column that it needs is missing.
        low: the value that becomes -1; lower ones saturate.
        high: the value that becomes 1; higher ones saturate.
    """

    name: str
    formula: str
    compute: Callable[[Mapping[str, Value]], float | None]
    low: float
    high: float

    def scaled(self, row: Mapping[str, Value]) -> float:
        """The input in [-1, 1]; 0, the middle of its range, where it cannot be computed."""
        value = self.compute(row)
        if value is None:
            return 0.0
        scaled = 2.0 * (value - self.low) / (self.high - self.low) - 1.0
        return min(1.0, max(-1.0, scaled))


def on(
    function: Callable[..., float], *columns: str
) -> Callable[[Mapping[str, Value]], float | None]:
    """`function` of numeric columns; None where one of them is missing."""

    def compute(row: Mapping[str, Value]) -> float | None:
        values = [row[column] for column in columns]
        numbers = [value for value in values if isinstance(value, float)]
        return function(*numbers) if len(numbers) == len(values) else None

    return compute


def is_value(column: str, value: Value) -> Callable[[Mapping[str, Value]], float | None]:
    """1 where the column holds `value` (None: is missing), else 0; for a feature on [-1, 1]."""
    return lambda row: 1.0 if row[column] == value else 0.0


def linear(name: str, column: str, low: float, high: float) -> Feature:
    """The column itself, `low` to `high`."""
    return Feature(name, column, on(float, column), low, high)


def logarithm(name: str, column: str, low: float, high: float, *, plus: float = 1.0) -> Feature:
    """log(plus + column) for a column from `low` to `high`."""
    return Feature(
        name,
        f"log({plus:g} + {column})",
        on(lambda value: math.log(plus + value), column),
        math.log(plus + low),
        math.log(plus + high),
    )


def indicator(name: str, column: str, value: Value) -> Feature:
    """1 where the column holds `value` (None: is missing), else 0."""
    held = "missing" if value is None else value
    return Feature(name, f"1 if {column} is {held}", is_value(column, value), -1, 1)


@dataclass(frozen=True)
class DataDictionary:
    """Columns and features of one table."""

    columns: tuple[Number | Category | Code, ...]
    features: tuple[Feature, ...]

    def read(self, cells: Mapping[str, str], where: Where, tally: Tally) -> dict[str, Value]:
        """The values of one row.

        Raises:
            DataError: a value breaks its column's declaration.
        """
        return {
            column.name: column.read(cells[column.name], where, tally) for column in self.columns
        }

    def check_header(self, header: Sequence[str], file: str) -> None:
        """Refuse a table that lacks a declared column; further columns are ignored.

        Raises:
            DataError: names the missing columns.
        """
        lacking = [column.name for column in self.columns if column.name not in header]
        if lacking:
            raise DataError(
                f"{file}: missing column {', '.join(lacking)}; needed are "
                f"{', '.join(column.name for column in self.columns)}"
            )

    def encode(self, row: Mapping[str, Value]) -> Floats:
        """`[features] float32`, each in [-1, 1]."""
        return np.array([feature.scaled(row) for feature in self.features], dtype=np.float32)
