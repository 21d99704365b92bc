"""Tables in Parquet files, read by pyarrow: columns of bools, integers, floats and text.

Rows and unpacked bytes are checked by the file's own summary before a page is unpacked, and again
while they are read, since a summary may be false. Text is kept as places in a list of different
words while it is read, so that a word that a small file repeats a million times is made once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from secure_fedmeta.errors import DataError
from secure_fedmeta.tasks.dictionary import Where
from secure_fedmeta.tasks.table import Row, Sheet, check_columns
from secure_fedmeta.tasks.table_limits import (
    MAX_BYTES,
    MAX_CELL,
    MAX_ROWS,
    cell_text,
    need_columns,
    too_large,
    too_long,
    too_many_rows,
)

_BATCH = 4096
_DAMAGE = (pa.ArrowException, OSError, ValueError)


def parquet_sheet(
    data: bytes, file: str, columns: Sequence[str], optional: Sequence[str] = ()
) -> Sheet:
    """The named columns of a Parquet file as a sheet, its rows counted from 1.

    Args:
        data: the file.
        file: its name, for messages.
        columns: those that are needed.
        optional: those that are read where they are there.

    Raises:
        DataError: the file is no Parquet file, names a column twice or lacks one, is too large, or
            a needed column is not of bools, integers, floats or text. While rows are read: a page
            is damaged, or a text too long.
    """
    try:
        opened = pq.ParquetFile(pa.BufferReader(data))
        schema = opened.schema_arrow
        check_columns(schema.names, file)
        need_columns(columns, schema.names, file)
        taken = (*columns, *(name for name in optional if name in schema.names))
        for name in taken:
            _check_type(schema.field(name).type, file, name)
        _check_size(opened.metadata, file, set(taken))
        words = [name for name in taken if _is_text(schema.field(name).type)]
        opened = pq.ParquetFile(pa.BufferReader(data), read_dictionary=words)
    except _DAMAGE as error:
        raise DataError(f"{file}: not a Parquet file that pyarrow reads ({error})") from error
    return Sheet(file, tuple(schema.names), _rows(opened, file, taken))


def _rows(opened: Any, file: str, columns: Sequence[str]) -> Iterator[Row]:
    number = unpacked = 0
    try:
        for batch in opened.iter_batches(batch_size=_BATCH, columns=list(columns)):
            unpacked += sum(_bytes(batch.column(name), fresh=number == 0) for name in columns)
            if unpacked > MAX_BYTES:
                raise too_large(file)
            held = [_values(batch.column(name), file, name) for name in columns]
            for values in zip(*held, strict=True):
                number += 1
                cells = dict(zip(columns, map(cell_text, values), strict=True))
                yield Where(file, number, "row"), cells
    except _DAMAGE as error:
        raise DataError(f"{file}, row {number + 1}: cannot be read ({error})") from error


def _bytes(column: Any, *, fresh: bool) -> int:
    """What a column of a batch takes; the list of words is in every batch, and counts once."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    return int(column.indices.nbytes) + (int(column.dictionary.nbytes) if fresh else 0)


def _values(column: Any, file: str, name: str) -> list[Any]:
    """The values of one column of a batch, as Python's own.

    By way of numpy where that says the same: pyarrow makes an object of its own for each value.
    """
    values: list[Any]
    if pa.types.is_dictionary(column.type):
        words = column.dictionary.to_pylist()
        if any(len(word) > MAX_CELL for word in words if word is not None):
            raise too_long(file, name)
        places = column.indices.fill_null(len(words)).to_numpy().tolist()
        values = [*words, None]
        return [values[place] for place in places]
    if column.null_count:
        values = column.to_pylist()
        return values
    values = column.to_numpy(zero_copy_only=False).tolist()
    return values


def _check_size(summary: Any, file: str, columns: set[str]) -> None:
    """Refuse a table that takes too much once it is unpacked, before it is."""
    if summary.num_rows > MAX_ROWS:
        raise too_many_rows(file)
    groups = [summary.row_group(index) for index in range(summary.num_row_groups)]
    chunks = [group.column(index) for group in groups for index in range(group.num_columns)]
    sizes = [chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in columns]
    if sum(sizes) > MAX_BYTES:
        raise too_large(file)


def _is_text(kind: Any) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner))


def _check_type(kind: Any, file: str, name: str) -> None:
    plain = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_null)
    if not (_is_text(kind) or any(check(kind) for check in plain)):
        raise DataError(
            f"{file}, {name}: is of type {kind}; allowed are bool, integers, floats and text"
        )
