"""What a table in a file may take, and what it must have; the same for every kind of file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from secure_fedmeta.errors import DataError

MAX_BYTES: Final = 2**28
"""Bytes of a file, and of the columns that are unpacked from it: 256 MiB."""
MAX_ROWS: Final = 1_000_000
MAX_CELL: Final = 10_000
"""Characters of a cell of Parquet and NPZ; Python's CSV reader stops at 131,072 by itself."""


def need_columns(needed: Sequence[str], found: Sequence[str], file: str) -> None:
    """Refuse a file that lacks a column.

    Raises:
        DataError: names the columns that are missing, and those that are there.
    """
    if lacking := [name for name in needed if name not in found]:
        held = ", ".join(found) or "none"
        raise DataError(f"{file}: missing column {', '.join(lacking)}; the file has {held}")


def too_many_rows(file: str) -> DataError:
    """The error for a table with too many rows."""
    return DataError(f"{file}: has more than {MAX_ROWS:,} rows, the most that is read")


def too_large(file: str) -> DataError:
    """The error for a table whose columns take too much once they are unpacked."""
    return DataError(f"{file}: unpacks to more than {MAX_BYTES:,} bytes, the most that is read")


def too_long(file: str, column: str) -> DataError:
    """The error for a text that is too long for a cell."""
    return DataError(f"{file}, {column}: holds a text of more than {MAX_CELL:,} characters")


def cell_text(value: object) -> str:
    """A value as a CSV file would hold it.

    Args:
        value: None, a bool, an int, a float, or text; others have no cell.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)
