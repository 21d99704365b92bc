"""Tables in files: CSV, Parquet and NPZ become sheets of the same text cells.

A number is written out so that reading it gives the same number again; true and false are those
words; null is an empty cell. So the same table gives the same records whichever file it comes from,
and the policy for values is the data dictionary's alone.

Nothing in a file is trusted: sizes are checked before anything of that size is made, and nothing is
unpickled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from secure_fedmeta.errors import DataError
from secure_fedmeta.tasks.files import read_regular
from secure_fedmeta.tasks.table import Row, Sheet, csv_sheet
from secure_fedmeta.tasks.table_limits import MAX_BYTES, MAX_ROWS, need_columns, too_many_rows

Reader = Callable[[bytes, str, Sequence[str], Sequence[str]], Sheet]


def open_table(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Sheet:
    """The named columns of a table; of what else is in the file only the names are looked at.

    Args:
        path: a file that ends in .csv, .parquet or .npz.
        columns: those that are needed.
        optional: those that are read where they are there.

    Raises:
        DataError: the file has another ending, cannot be read, is not what its ending says, is too
            large, or lacks a column, or its reader is not installed. While rows are read: the same,
            for what shows only then.
    """
    if path.suffix not in READERS:
        raise DataError(f"{path}: a table must end in {', '.join(READERS)}")
    return READERS[path.suffix](read_regular(path, MAX_BYTES), path.name, columns, optional)


def _csv(data: bytes, file: str, columns: Sequence[str], optional: Sequence[str]) -> Sheet:
    del optional  # rows of text hold every column
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text ({error}); save it as CSV UTF-8") from error
    sheet = csv_sheet(text, file)
    need_columns(columns, sheet.columns, file)
    return Sheet(file, sheet.columns, _limited(sheet.rows, file))


def _limited(rows: Iterable[Row], file: str) -> Iterator[Row]:
    for number, row in enumerate(rows, start=1):
        if number > MAX_ROWS:
            raise too_many_rows(file)
        yield row


def _npz(data: bytes, file: str, columns: Sequence[str], optional: Sequence[str]) -> Sheet:
    from secure_fedmeta.tasks.table_npz import npz_sheet

    return npz_sheet(data, file, columns, optional)


def _parquet(data: bytes, file: str, columns: Sequence[str], optional: Sequence[str]) -> Sheet:
    try:
        from secure_fedmeta.tasks.table_parquet import parquet_sheet
    except ModuleNotFoundError as error:
        raise DataError(
            f"{file}: Parquet needs pyarrow: pip install 'secure-fedmeta[parquet]'"
        ) from error
    return parquet_sheet(data, file, columns, optional)


READERS: Final[dict[str, Reader]] = {".csv": _csv, ".npz": _npz, ".parquet": _parquet}
