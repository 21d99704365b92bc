"""Tables in NPZ files: one array for each column, all of one dimension and one length.

The arrays are read from the zip archive without numpy's own reader, which makes an array of any
size that a header asks for before it looks at the data. Arrays of objects would have to be
unpickled, and are refused.
"""

from __future__ import annotations

import lzma
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from tokenize import TokenError
from typing import IO, Any, Final

import numpy as np

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
    too_many_rows,
)

_SUFFIX: Final = ".npy"
_HEADERS: Final[Mapping[tuple[int, int], Callable[..., Any]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_DAMAGE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,  # an encrypted member, or a compression that zipfile does not know
    ValueError,  # a header that numpy does not take
)
_NO_HEADER: Final = (SyntaxError, TokenError, TypeError, LookupError)
"""What numpy stumbles over in a header, beside the ValueError that it means to raise."""


def npz_sheet(
    data: bytes, file: str, columns: Sequence[str], optional: Sequence[str] = ()
) -> Sheet:
    """The named arrays of an NPZ file as a sheet, its rows counted from 1.

    Args:
        data: the file.
        file: its name, for messages.
        columns: those that are needed.
        optional: those that are read where they are there.

    Raises:
        DataError: the file is no NPZ file, holds an array twice or lacks one, is too large, or a
            needed array is not of bools, integers, floats or text, in one dimension and as long as
            the others.
    """
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(_SUFFIX)]
            names = [info.filename.removesuffix(_SUFFIX) for info in members]
            check_columns(names, file)
            need_columns(columns, names, file)
            held = dict(zip(names, members, strict=True))
            taken = (*columns, *(name for name in optional if name in held))
            if sum(held[name].file_size for name in taken) > MAX_BYTES:
                raise too_large(file)
            found = {name: _column(archive, held[name], file, name) for name in taken}
    except _DAMAGE as error:
        raise DataError(f"{file}: not a file of numpy.savez ({error})") from error
    lengths = {name: len(values) for name, values in found.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"{file}: arrays differ in length: {shown}")
    return Sheet(file, tuple(names), _rows(found, file))


def _rows(found: Mapping[str, list[Any]], file: str) -> Iterator[Row]:
    for number, values in enumerate(zip(*found.values(), strict=True), start=1):
        cells = dict(zip(found, map(cell_text, values), strict=True))
        yield Where(file, number, "row"), cells


def _column(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: str, name: str) -> list[Any]:
    """The values of one array, as Python's own."""
    with archive.open(info) as member:
        shape, dtype = _header(member, file, name)
        if dtype.hasobject:
            raise DataError(
                f"{file}, {name}: holds Python objects, which are never unpickled; save words as "
                "an array of text, numpy.array(words, dtype=str)"
            )
        if not (_is_number(dtype) or (dtype.kind == "U" and 0 < dtype.itemsize <= 4 * MAX_CELL)):
            raise DataError(
                f"{file}, {name}: is of dtype {dtype}; allowed are bool, integers, floats and "
                f"text of 1 to {MAX_CELL:,} characters"
            )
        if len(shape) != 1:
            raise DataError(f"{file}, {name}: has shape {shape}; allowed is one dimension")
        if shape[0] > MAX_ROWS:
            raise too_many_rows(file)
        size = shape[0] * dtype.itemsize
        content = member.read(size + 1)
        if len(content) != size:
            raise DataError(f"{file}, {name}: does not hold the {shape[0]} values of its header")
    if dtype.kind == "U":
        points = np.frombuffer(content, np.dtype("u4").newbyteorder(dtype.byteorder))
        if points.max(initial=0) > sys.maxunicode:
            raise DataError(f"{file}, {name}: holds what is no character")
    values: list[Any] = np.frombuffer(content, dtype).tolist()
    if dtype.kind == "U":
        "".join(values).encode()  # a lone surrogate is no character either: ValueError
    return values


def _is_number(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biuf" and dtype.itemsize <= 8


def _header(member: IO[bytes], file: str, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version not in _HEADERS:
        raise DataError(f"{file}, {name}: is of version {version}; allowed are 1.0 and 2.0")
    try:
        shape, _, dtype = _HEADERS[version](member, max_header_size=10_000)
    except _NO_HEADER as error:
        raise DataError(f"{file}, {name}: has a header that numpy cannot read ({error})") from error
    return shape, dtype
