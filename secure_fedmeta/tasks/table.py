"""Tables: rows of text cells, read by a data dictionary, become the records of clients.

Every row is checked against the dictionary, also one that is then left out. Rows that are left out
are counted by reason; clipped and missing values are counted by column over the rows that stay.
Which client and which person a row belongs to, and its target, are functions of the row's declared
columns and of its record id, never of other rows.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from secure_fedmeta.errors import DataError
from secure_fedmeta.tasks.dictionary import DataDictionary, Tally, Value, Where
from secure_fedmeta.tasks.protocol import Record


@dataclass(frozen=True)
class Place:
    """Whose a row is.

    Attributes:
        client: the client that holds it.
        user: the person behind it where a person may have several rows; else None.
    """

    client: str
    user: str | None = None


@dataclass(frozen=True)
class Excluded:
    """That a row is no record, and why, in words that a report can count under."""

    reason: str


@dataclass(frozen=True)
class TableLayout:
    """How a table's rows become records.

    Attributes:
        dictionary: its columns and the inputs made of them.
        record: the column of the record id; a row's other functions see it as a string.
        place: the client (and user) of a row, or why it is left out.
        target: the target of a row that stays.
    """

    dictionary: DataDictionary
    record: str
    place: Callable[[Mapping[str, Value]], Place | Excluded]
    target: Callable[[Mapping[str, Value]], float]


@dataclass(frozen=True, eq=False)
class Table:
    """The records of the clients, and what was left out or coded on the way to them.

    Attributes:
        records: in the order of the rows.
        excluded: reason -> rows left out.
        clipped: column -> values set to the declared high bound.
        missing: column -> missing values.
    """

    records: tuple[Record, ...]
    excluded: Mapping[str, int] = field(default_factory=dict)
    clipped: Mapping[str, int] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)


Row: TypeAlias = tuple[Where, Mapping[str, str]]


@dataclass(frozen=True, eq=False)
class Sheet:
    """A table as text, wherever it comes from.

    Attributes:
        file: its name, for messages.
        columns: the names of its columns.
        rows: the cells of each row by column, at least those that were asked for, and where they
            stand; read once.
    """

    file: str
    columns: tuple[str, ...]
    rows: Iterable[Row]


def gunzip(data: bytes, file: str) -> str:
    """The text inside gzip-compressed UTF-8.

    Args:
        data: the compressed bytes.
        file: their name, for messages.

    Raises:
        DataError: they are no such thing.
    """
    try:
        return gzip.decompress(data).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not gzip-compressed UTF-8 text ({error})") from error


def csv_sheet(text: str, file: str) -> Sheet:
    """A CSV text, its rows counted by the line that they end on.

    Raises:
        DataError: the header names a column twice. While rows are read: the text is not CSV, or a
            row has more or fewer cells than the header.
    """
    lines = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = tuple(lines.fieldnames or ())
    except csv.Error as error:
        raise DataError(f"{file}, line {lines.line_num}: not CSV ({error})") from error
    check_columns(columns, file)
    return Sheet(file, columns, _csv_rows(lines, file))


def _csv_rows(lines: csv.DictReader[str], file: str) -> Iterator[Row]:
    needed = len(lines.fieldnames or ())
    try:
        for cells in lines:
            if None in cells or None in cells.values():
                raise DataError(
                    f"{file}, line {lines.line_num}: needs {needed} cells, like the header"
                )
            yield Where(file, lines.line_num), cells
    except csv.Error as error:
        raise DataError(f"{file}, line {lines.line_num}: not CSV ({error})") from error


def check_columns(columns: Sequence[str], file: str) -> None:
    """Refuse a header that names a column twice.

    Raises:
        DataError: names the column.
    """
    for name, count in Counter(columns).items():
        if count > 1:
            raise DataError(f"{file}: column {name!r} comes {count} times; names must be unique")


def read_table(sheet: Sheet, layout: TableLayout) -> Table:
    """Read a table with the columns of the layout's data dictionary; others are ignored.

    Args:
        sheet: its cells.
        layout: how its rows become records.

    Raises:
        DataError: there is no such table, or a row breaks the data dictionary.
    """
    layout.dictionary.check_header(sheet.columns, sheet.file)
    if layout.record not in sheet.columns:
        raise DataError(f"{sheet.file}: missing column {layout.record}, the record id")
    records: list[Record] = []
    excluded: Counter[str] = Counter()
    held = Tally()
    for where, cells in sheet.rows:
        tally = Tally()
        row = layout.dictionary.read(cells, where, tally)
        record_id = cells[layout.record]
        if record_id == "":
            raise where.refuse(layout.record, "", "a record id")
        row[layout.record] = record_id
        place = layout.place(row)
        if isinstance(place, Excluded):
            excluded[place.reason] += 1
            continue
        x = layout.dictionary.encode(row)
        records.append(Record(record_id, place.client, place.user, x, layout.target(row)))
        held.clipped.update(tally.clipped)
        held.missing.update(tally.missing)
    return Table(tuple(records), dict(excluded), dict(held.clipped), dict(held.missing))
