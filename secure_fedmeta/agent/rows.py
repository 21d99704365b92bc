"""Files of examples: a table as people keep it, or a model's inputs by name.

An agent of a table of one's own takes the same columns as the table that its model was trained on:
those that the config declares as features, and the target's where there are labels. Any other
column is passed over, as it was in training. An agent of any other source takes the inputs by name,
between the source's bounds, and the column `target`: the number of a class from 0, or a number.
There no other column is allowed, so that a misspelt `target` is not taken for none.

CSV, Parquet and NPZ are read by the readers of tables, which refuse by file, row and column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from secure_fedmeta.agent.spec import AgentSpec
from secure_fedmeta.errors import DataError
from secure_fedmeta.tasks.dictionary import (
    Category,
    DataDictionary,
    Number,
    Tally,
    Value,
    Where,
)
from secure_fedmeta.tasks.own_table_features import dictionary_of
from secure_fedmeta.tasks.own_table_target import target_column, target_of
from secure_fedmeta.tasks.protocol import Floats
from secure_fedmeta.tasks.table_files import open_table

TARGET: Final = "target"
LARGEST_TARGET: Final = 1e6
"""Of a number that is predicted, where the source declares no bound."""


@dataclass(frozen=True, eq=False, repr=False)
class Rows:
    """Examples of a file.

    Attributes:
        x: inputs, `[n, features] float32`.
        y: targets, `[n] float32`; None where the file has none, or a column of empty cells.
        clipped: column -> values set to the declared bound.
    """

    x: Floats
    y: Floats | None
    clipped: Mapping[str, int]


@dataclass(frozen=True, eq=False, repr=False)
class Row:
    """One row of a file.

    Attributes:
        where: it stands.
        cells: column -> cell.
        x: inputs, `[features] float32`.
        y: target; None where there is none.
    """

    where: Where
    cells: Mapping[str, str]
    x: Floats
    y: float | None


@dataclass(frozen=True)
class ClassNumber:
    """A column of class numbers from 0.

    Attributes:
        name: the column.
        classes: how many there are.
    """

    name: str
    classes: int

    def read(self, cell: str, where: Where, tally: Tally) -> float:
        """The cell's class.

        Raises:
            DataError: it names none.
        """
        value = Number(self.name, "", 0, self.classes - 1).read(cell, where, tally)
        if value is None or not value.is_integer():
            raise where.refuse(self.name, cell, f"a whole number from 0 to {self.classes - 1}")
        return value


class Reader:
    """Reads the examples of one agent, and says predictions in the words of its files.

    Args:
        spec: of the agent.
    """

    def __init__(self, spec: AgentSpec) -> None:
        self._spec = spec
        columns = spec.columns
        if columns is None:
            self._inputs = DataDictionary(
                tuple(Number(name, "", spec.low, spec.high) for name in spec.features), ()
            )
            self._target: Number | Category | ClassNumber = _plain_target(spec)
            self._encode = self._by_name
            self._wanted: Callable[[Mapping[str, Value]], float] = _plain
        else:
            self._inputs = dictionary_of(columns.features)
            self._target = target_column(columns.target)
            self._encode = self._inputs.encode
            self._wanted = target_of(columns.target)

    @property
    def target(self) -> str:
        """The name of the target's column."""
        return self._target.name

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the input columns."""
        return tuple(column.name for column in self._inputs.columns)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The word of each class; None where a number is predicted."""
        if isinstance(self._target, Category):
            return self._target.values
        if isinstance(self._target, ClassNumber):
            return tuple(str(number) for number in range(self._target.classes))
        return None

    def read(self, path: Path) -> Rows:
        """The examples of a file; its targets where it has any.

        Raises:
            DataError: the file is of another kind, its reader is not installed, it cannot be read,
                holds no row, or breaks what the columns may hold.
        """
        x, y, tally, bare = [], [], Tally(), None
        for row in self._each(path, tally):
            x.append(row.x)
            if row.y is not None:
                y.append(row.y)
            elif bare is None:
                bare = row.where
        if not x:
            raise DataError(f"{path.name}: holds no row")
        if y and bare is not None:
            raise bare.refuse(self.target, "", "a target for every row, or for none")
        targets = np.array(y, dtype=np.float32) if y else None
        return Rows(np.stack(x), targets, dict(tally.clipped))

    def each(self, path: Path) -> Iterator[Row]:
        """Every row of a file; as `read`."""
        return self._each(path, Tally())

    def _each(self, path: Path, tally: Tally) -> Iterator[Row]:
        sheet = open_table(path, self.columns, [self.target])
        if self._spec.columns is None:
            _refuse_others(sheet.columns, {*self.columns, self.target}, path.name)
        for where, cells in sheet.rows:
            x, y = self._encode(self._inputs.read(cells, where, tally)), None
            if cells.get(self.target):
                held = self._target.read(cells[self.target], where, tally)
                y = self._wanted({self.target: held})
            yield Row(where, cells, x, y)

    def read_labelled(self, path: Path) -> tuple[Floats, Floats]:
        """Inputs and targets of a file of examples.

        Raises:
            DataError: as `read`, or the file has no targets.
        """
        found = self.read(path)
        if found.y is None:
            raise DataError(
                f"{path.name}: column {self.target} is missing or empty; examples need their target"
            )
        return found.x, found.y

    def shown(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Predicted numbers in the target's own units."""
        columns = self._spec.columns
        bounds = None if columns is None else columns.target.bounds
        if bounds is None:
            return values
        low, high = bounds
        return low + (values + 1.0) / 2.0 * (high - low)

    def _by_name(self, row: Mapping[str, Value]) -> Floats:
        return np.array([row[name] for name in self._spec.features], dtype=np.float32)


def _plain_target(spec: AgentSpec) -> Number | ClassNumber:
    if spec.classes is None:
        return Number(TARGET, "", -LARGEST_TARGET, LARGEST_TARGET)
    return ClassNumber(TARGET, spec.classes)


def _plain(row: Mapping[str, Value]) -> float:
    value = row[TARGET]
    if not isinstance(value, float):
        raise DataError(f"{TARGET} is no number")
    return value


def _refuse_others(found: tuple[str, ...], known: set[str], file: str) -> None:
    if others := [name for name in found if name not in known]:
        raise DataError(
            f"{file}: unknown column {', '.join(map(repr, others[:5]))}; allowed are the inputs "
            f"and {TARGET}"
        )
