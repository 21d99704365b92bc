"""What a person declares of a table of their own: columns, bounds, vocabularies, clients.

Everything here stands in the config, which all parties of a run read. It is declared from what the
columns mean; nothing may be taken from the data, since what is read off them leaves the clients
outside the privacy budget.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, StringConstraints, model_validator

from secure_fedmeta.config_base import Count, Name
from secure_fedmeta.tasks.protocol import SourceOptions

Missing = Literal["refuse", "code"]
Column = Annotated[str, StringConstraints(min_length=1)]


class FeatureOptions(SourceOptions):
    """A column that the model sees: a number between bounds, or a word of a vocabulary.

    Attributes:
        low: lowest value of a number; lower ones are refused.
        high: its highest value.
        above: what is done with a higher one.
        scale: "log" puts log(1 + value) between the bounds, for amounts of any order.
        codes: numbers that stand for a missing value.
        values: the vocabulary of a column of words.
        encode: one input for each word, or one for the word's place in the list.
        missing: what is done with an empty cell; "code" adds an input that says so.
    """

    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    above: Literal["refuse", "clip"] = "refuse"
    scale: Literal["linear", "log"] = "linear"
    codes: tuple[FiniteFloat, ...] = Field(default=(), strict=False)
    values: tuple[Column, ...] = Field(default=(), strict=False)
    encode: Literal["one-hot", "ordinal"] = "one-hot"
    missing: Missing = "refuse"

    @model_validator(mode="after")
    def _number_or_words(self) -> Self:
        _check_kind(self.low, self.high, self.values)
        if self.values:
            if (self.above, self.scale, self.codes) != ("refuse", "linear", ()):
                raise ValueError("above, scale and codes are for numbers; leave them out")
        elif self.encode != "one-hot":
            raise ValueError("encode is for a column with values; leave it out")
        if self.scale == "log" and self.low is not None and self.low < 0:
            raise ValueError(f'scale "log" needs low at least 0, not {self.low:g}')
        if self.codes and self.missing == "refuse":
            raise ValueError('codes stand for missing values; they need missing = "code"')
        return self

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Low and high of a number; None for a column of words."""
        return _bounds(self.low, self.high)


class TargetOptions(SourceOptions):
    """The column that is predicted; a row without it is refused.

    Attributes:
        column: its name.
        values: two words, of which the second is the positive one, or the words of more classes.
        low: lowest value of a number.
        high: its highest value; the model sees the target between -1 and 1.
        above: what is done with a higher one.
    """

    column: Column
    values: tuple[Column, ...] = Field(default=(), strict=False)
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    above: Literal["refuse", "clip"] = "refuse"

    @model_validator(mode="after")
    def _number_or_words(self) -> Self:
        _check_kind(self.low, self.high, self.values)
        if self.values and self.above != "refuse":
            raise ValueError("above is for numbers; leave it out")
        return self

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Low and high of a number; None for a column of words."""
        return _bounds(self.low, self.high)


class TableOptions(SourceOptions):
    """Options of the source `table`.

    Attributes:
        path: the file: .csv, .parquet or .npz; relative paths start at the config's folder.
        client: the column that says which client holds a row.
        record: the column of a record id that is unique in its client and stays with the record.
        user: the column that says which person a row is of.
        task: the column that says which task a row belongs to.
        records: client -> declared number of records, for tasks cut by a keyed hash.
        max_tasks: client -> declared bound on its tasks, with `task` or `user`.
        records_per_block: mean records of a task that is cut by hash.
        k_support: support records for one draw.
        k_query: query records for one draw.
        public: whether everybody may see the data; then counts are shown, and nothing is secret.
        licence: the data's licence, for reports.
        target: what is predicted.
        features: column -> how the model sees it.
    """

    path: Column
    client: Column
    record: Column | None = None
    user: Column | None = None
    task: Column | None = None
    records: dict[Name, Count] | None = None
    max_tasks: dict[Name, Count] | None = None
    records_per_block: int = Field(default=14, ge=2, le=1000)
    k_support: int = Field(default=5, ge=1)
    k_query: int = Field(default=5, ge=1)
    public: bool = False
    licence: str = "not stated"
    target: TargetOptions
    features: dict[Column, FeatureOptions]

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        named = self.task is not None or self.user is not None
        if named and (self.max_tasks is None or self.records is not None):
            raise ValueError(
                "with task or user, set max_tasks, each client's largest number of tasks, and "
                "leave records out"
            )
        if not named and (self.records is None or self.max_tasks is not None):
            raise ValueError(
                "without task or user, set records, each client's declared number of records, and "
                "leave max_tasks out"
            )
        if not self.declared:
            raise ValueError("name at least one client")
        if not self.features:
            raise ValueError("declare at least one feature")
        places = [self.client, self.record, self.user, self.task, self.target.column]
        used = Counter(name for name in (*places, *self.features) if name is not None)
        if twice := [name for name, count in used.items() if count > 1]:
            raise ValueError(f"column {twice[0]!r} is declared twice; give each column one part")
        return self

    @property
    def declared(self) -> dict[str, int]:
        """Client -> its declared number, of records or of tasks; names every client."""
        return self.records or self.max_tasks or {}


def _bounds(low: float | None, high: float | None) -> tuple[float, float] | None:
    return None if low is None or high is None else (low, high)


def _check_kind(low: float | None, high: float | None, values: tuple[str, ...]) -> None:
    """A number has both bounds, a column of words has values, and nothing has both.

    Raises:
        ValueError: says what to set.
    """
    bounded = (low is not None) + (high is not None)
    if (bounded == 2) == bool(values) or bounded == 1:
        raise ValueError("set low and high for a number, or values for words")
    if low is not None and high is not None and not low < high:
        raise ValueError(f"low {low:g} must be below high {high:g}")
    if values and (len(values) < 2 or len(set(values)) != len(values)):
        raise ValueError("values must be two or more different words")
