"""Files of tables: the same table in every form, and files that are hostile or damaged."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import zipfile
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fedmeta.errors import DataError
from secure_fedmeta.tasks import build_source, check_options
from secure_fedmeta.tasks.table import Sheet
from secure_fedmeta.tasks.table_files import open_table
from tests.secure_fedmeta.own_tables import contents, csv_text, options, rows, site

Value = float | int | str | None


def cells(sheet: Sheet) -> list[tuple[str, ...]]:
    return [tuple(row.values()) for _, row in sheet.rows]


def npz(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "t.npz", **arrays)
    return folder / "t.npz"


def parquet(folder: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), folder / "t.parquet")
    return folder / "t.parquet"


# --- one table, three files ---------------------------------------------------------------------

numbers = st.one_of(
    st.none(),
    st.floats(0, 1000),
    st.integers(0, 1000),
    st.sampled_from([5e-324, 1e-7, 999.9999999999999]),
)


@settings(max_examples=8)
@given(incomes=st.lists(numbers, min_size=80, max_size=80), exact=st.booleans())
def test_the_same_table_gives_the_same_source_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, incomes: list[float | None], exact: bool
) -> None:
    folder = tmp_path_factory.mktemp("forms")
    held = rows()
    if exact:  # numbers as numbers in every file; NPZ has none that are missing
        incomes = [0.5 if value is None else float(value) for value in incomes]
    for row, value in zip(held, incomes, strict=True):
        row["income"] = "" if value is None else repr(value)
    (folder / "loans.csv").write_text(csv_text(held))
    words = {name: [row[name] for row in held] for name in held[0]}
    np.savez_compressed(
        folder / "loans.npz",
        **{**words, "income": np.array(incomes) if exact else np.array(words["income"])},
    )
    frame = pa.table({**words, "income": pa.array(incomes, pa.float64())})
    pq.write_table(frame, folder / "loans.parquet", row_group_size=33)
    declared = options(features__income={"low": 0, "high": 1000, "missing": "code"})
    found = [
        build_source("table", {**declared, "path": f"loans.{form}"}, site(folder))
        for form in ("csv", "npz", "parquet")
    ]
    assert contents(found[0]) == contents(found[1]) == contents(found[2])
    assert found[0].info.missing == found[1].info.missing == found[2].info.missing
    assert len(contents(found[0])) >= 4


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1.5, 0.1], ["1.5", "0.1"]),
        ([3, -7], ["3", "-7"]),
        ([True, False], ["true", "false"]),
        (["a", "ä,\n"], ["a", "ä,\n"]),
        ([float("nan"), float("inf")], ["nan", "inf"]),
    ],
)
def test_values_are_written_as_a_csv_file_would_hold_them(
    tmp_path: Path, values: list[Any], text: list[str]
) -> None:
    for path in (npz(tmp_path, a=np.array(values)), parquet(tmp_path, a=values)):
        assert cells(open_table(path, ["a"])) == [(cell,) for cell in text]


def test_narrow_floats_keep_their_value_and_nulls_are_empty(tmp_path: Path) -> None:
    narrow = np.array([0.1, 2.0], np.float32)
    (first,), _ = cells(open_table(npz(tmp_path, a=narrow), ["a"]))
    assert float(first) == float(np.float32(0.1)) != 0.1
    nulls = parquet(tmp_path, a=pa.array(["x", None, "x"]).dictionary_encode())
    assert cells(open_table(nulls, ["a"])) == [("x",), ("",), ("x",)]


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("\ufeffa,b\n1,2\n".encode())
    assert cells(open_table(tmp_path / "t.csv", ["a", "b"])) == [("1", "2")]


def test_places_are_lines_of_csv_and_rows_of_the_others(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a\n"x\ny"\nz\n')
    assert [str(where) for where, _ in open_table(tmp_path / "t.csv", ["a"]).rows] == [
        "t.csv, line 3",
        "t.csv, line 4",
    ]
    for path in (npz(tmp_path, a=[1, 2]), parquet(tmp_path, a=[1, 2])):
        assert [str(where) for where, _ in open_table(path, ["a"]).rows] == [
            f"{path.name}, row 1",
            f"{path.name}, row 2",
        ]


# --- what is refused ----------------------------------------------------------------------------


def member(header: bytes, content: bytes = b"", **names: bytes) -> bytes:
    """An NPZ file whose array `a` has this header."""
    padded = header + b" " * (63 - (10 + len(header)) % 64) + b"\n"
    body = b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + content
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", body)
        for name, more in names.items():
            archive.writestr(f"{name}.npy", more)
    return packed.getvalue()


def described(descr: str, shape: str) -> bytes:
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()


def saved(**arrays: Any) -> bytes:
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=True, **arrays)
    return packed.getvalue()


def flipped(data: bytes) -> bytes:
    return data[:60] + bytes([data[60] ^ 255]) + data[61:]


def packed_by(method: int, data: bytes) -> bytes:
    """The archive with another number for its compression, in both of its headers."""
    central = data.rindex(b"PK\x01\x02")
    number = method.to_bytes(2, "little")
    local = data[:8] + number + data[10:central]
    return local + data[central : central + 10] + number + data[central + 12 :]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(saved(a=np.array(["x", None])), "never unpickled", id="objects"),
        pytest.param(saved(a=np.ones((2, 2))), r"shape \(2, 2\)", id="matrix"),
        pytest.param(saved(a=np.ones(2, complex)), "dtype complex128", id="complex"),
        pytest.param(saved(a=np.array(["2020"], "M8[D]")), "dtype datetime64", id="dates"),
        pytest.param(saved(a=np.array([b"x"])), r"dtype \|S1", id="bytes"),
        pytest.param(saved(a=np.array(["x" * 10_001])), "dtype <U10001", id="long text"),
        pytest.param(saved(b=np.ones(2)), "missing column a; the file has b", id="column"),
        pytest.param(
            member(described("<f8", "(900000,)")), "900000 values of its header", id="lying header"
        ),
        pytest.param(member(described("<f8", "(10**9,)")), "savez", id="expression"),
        pytest.param(member(described("<f8", "(2000000,)")), "more than 1,000,000 rows", id="rows"),
        pytest.param(member(described("<f8", "(1,)"), b"x" * 9), "1 values of its", id="leftover"),
        pytest.param(
            member(described("<U1", "(1,)"), b"\x00\xd8\x00\x00"), "savez", id="surrogate"
        ),
        pytest.param(
            member(described("<U1", "(1,)"), b"\xff" * 4), "no character", id="no character"
        ),
        pytest.param(member(b"nonsense"), "savez", id="header"),
        pytest.param(member(b"((("), "numpy cannot read", id="open header"),
        pytest.param(member(b"{[]: 1}"), "numpy cannot read", id="header of lists"),
        pytest.param(
            member(b"{'descr': ('<f8',), 'fortran_order': False, 'shape': (2,)}"),
            "numpy cannot read",
            id="half a dtype",
        ),
        pytest.param(flipped(saved(a=np.ones(9))), "savez", id="flipped"),
        pytest.param(saved(a=np.ones(9))[:-30], "savez", id="cut"),
        pytest.param(b"", "savez", id="empty"),
        pytest.param(packed_by(99, saved(a=np.ones(9))), "savez.*not supported", id="method"),
    ],
)
def test_hostile_npz_files_are_refused_by_name(tmp_path: Path, data: bytes, expected: str) -> None:
    (tmp_path / "t.npz").write_bytes(data)
    with pytest.raises(DataError, match=r"^t\.npz.*" + expected):
        open_table(tmp_path / "t.npz", ["a"])


def test_arrays_of_different_lengths_and_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="differ in length: a 2, b 3"):
        open_table(npz(tmp_path, a=[1, 2], b=[1, 2, 3]), ["a", "b"])
    with zipfile.ZipFile(tmp_path / "t.npz", "a") as archive, pytest.warns(match="Dupl"):
        archive.writestr("a.npy", b"")
    with pytest.raises(DataError, match="'a' comes 2 times"):
        open_table(tmp_path / "t.npz", ["a"])


def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = member(described("<f8", "(1000000,)"), bytes(8_000_000))
    assert len(bomb) < 20_000
    (tmp_path / "t.npz").write_bytes(bomb)
    pq.write_table(pa.table({"a": np.arange(40_000)}), tmp_path / "t.parquet")
    for form in ("npz", "parquet"):
        monkeypatch.setattr(f"secure_fedmeta.tasks.table_{form}.MAX_BYTES", 100_000)
        with pytest.raises(DataError, match="unpacks to more than"):
            open_table(tmp_path / f"t.{form}", ["a"])


@pytest.mark.parametrize(
    ("kind", "told", "allowed"), [("numbers", 2**13, 200_000), ("words", 2**20, 1_100_000)]
)
def test_a_parquet_file_whose_summary_understates_it_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, told: int, allowed: int
) -> None:
    path = tmp_path / "t.parquet"
    numbers = np.arange(125_000)
    values = numbers if kind == "numbers" else [f"{number:08d}" for number in numbers]
    # Rows as the file has them, so that nothing but the sizes is false.
    pq.write_table(pa.table({"a": values}), path, use_dictionary=kind == "words")
    summary = pq.ParquetFile(path).metadata.row_group(0).column(0)
    true, lie = varint(summary.total_uncompressed_size), varint(told)
    data = path.read_bytes()
    assert data.count(true) == 2  # of the column and of its row group
    assert len(lie) == len(true)
    path.write_bytes(data.replace(true, lie))
    monkeypatch.setattr("secure_fedmeta.tasks.table_parquet.MAX_BYTES", allowed)
    rows = open_table(path, ["a"]).rows
    with pytest.raises(DataError, match=r"t\.parquet: unpacks to more than"):
        list(islice(rows, 30_000))  # and not only at the end of 125,000


def varint(number: int) -> bytes:
    """A positive number as Thrift's compact protocol writes it."""
    left, found = number << 1, bytearray()
    while left >= 128:
        found.append(left & 127 | 128)
        left >>= 7
    return bytes([*found, left])


@pytest.mark.parametrize("form", ["csv", "npz", "parquet"])
def test_too_many_rows_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    module = "files" if form == "csv" else form
    (tmp_path / "t.csv").write_text("a\n1\n2\n3\n")
    npz(tmp_path, a=[1, 2, 3])
    parquet(tmp_path, a=[1, 2, 3])
    monkeypatch.setattr(f"secure_fedmeta.tasks.table_{module}.MAX_ROWS", 3)
    assert len(cells(open_table(tmp_path / f"t.{form}", ["a"]))) == 3
    monkeypatch.setattr(f"secure_fedmeta.tasks.table_{module}.MAX_ROWS", 2)
    with pytest.raises(DataError, match=rf"t\.{form}: has more than"):
        cells(open_table(tmp_path / f"t.{form}", ["a"]))


def test_a_large_file_is_not_read_and_a_pipe_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.csv").write_text("a\n1\n")
    monkeypatch.setattr("secure_fedmeta.tasks.table_files.MAX_BYTES", 3)
    with pytest.raises(DataError, match="larger than 3 bytes"):
        open_table(tmp_path / "t.csv", ["a"])
    os.mkfifo(tmp_path / "p.csv")
    (tmp_path / "d.csv").mkdir()
    for name in ("p.csv", "d.csv"):
        with pytest.raises(DataError, match=r"no regular file|Is a directory"):
            open_table(tmp_path / name, ["a"])
    with pytest.raises(DataError, match=r"none\.csv: cannot be read: No such file"):
        open_table(tmp_path / "none.csv", ["a"])


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"a": [[1], [2]]}, "a: is of type list"),
        ({"a": pa.array([0, 1], pa.date32())}, "a: is of type date32"),
        ({"b": [1]}, "missing column a; the file has b"),
        ({"a": ["x" * 10_001] * 3}, "text of more than 10,000 characters"),
    ],
)
def test_parquet_columns_that_are_no_cells_are_refused(
    tmp_path: Path, columns: dict[str, Any], expected: str
) -> None:
    with pytest.raises(DataError, match=r"^t\.parquet.*" + expected):
        cells(open_table(parquet(tmp_path, **columns), ["a"]))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[:-20], id="cut"),
        pytest.param(lambda data: data[:4] + b"\xff" * 40 + data[44:], id="page"),
        pytest.param(lambda data: data[:-30] + b"\xff" * 22 + data[-8:], id="summary"),
    ],
)
def test_damaged_parquet_files_are_refused(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = parquet(tmp_path, a=[str(number) for number in range(50)])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"^t\.parquet"):
        cells(open_table(path, ["a"]))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a,a\n1,2\n", "'a' comes 2 times"),
        (b"a,b\n1\n", "line 2: needs 2 cells"),
        (b"a,b\n1,2,3\n", "line 2: needs 2 cells"),
        (b'a\n"x\n', "not CSV"),
        (b"a\n\xff\n", "not UTF-8"),
        (b"", "missing column a; the file has none"),
    ],
)
def test_broken_csv_files_are_refused(tmp_path: Path, data: bytes, expected: str) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(DataError, match=r"^t\.csv.*" + expected):
        cells(open_table(tmp_path / "t.csv", ["a"]))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One table in each form, by ending."""
    folder = tmp_path_factory.mktemp("good")
    words, values = [f"ä{number % 5}" for number in range(40)], np.arange(40) / 7
    lines = [f"{word},{value}" for word, value in zip(words, values, strict=True)]
    (folder / "t.csv").write_text("\n".join(["a,b", *lines, ""]))
    np.savez_compressed(folder / "t.npz", a=words, b=values)
    pq.write_table(pa.table({"a": words, "b": values}), folder / "t.parquet")
    return {form: (folder / f"t.{form}").read_bytes() for form in ("csv", "npz", "parquet")}


@settings(max_examples=100)
@given(
    form=st.sampled_from(["csv", "npz", "parquet"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=6),
    length=st.floats(0.5, 1),
)
def test_damage_anywhere_gives_a_table_or_the_readers_own_error(
    good: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
    form: str,
    changes: list[tuple[float, int]],
    length: float,
) -> None:
    data = bytearray(good[form])
    for place, value in changes:
        data[int(place * len(data))] ^= value
    path = tmp_path_factory.mktemp("damaged") / f"t.{form}"
    path.write_bytes(data[: int(length * len(data))] if length < 0.9 else data)
    with contextlib.suppress(DataError):
        assert len(cells(open_table(path, ["a", "b"]))) <= 1000


def test_other_endings_and_a_missing_reader_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"t\.xlsx: a table must end in \.csv, \.npz, \.parquet"):
        open_table(tmp_path / "t.xlsx", ["a"])
    path = parquet(tmp_path, a=[1])
    monkeypatch.setitem(sys.modules, "secure_fedmeta.tasks.table_parquet", None)
    with pytest.raises(DataError, match=r"t\.parquet: .*pip install 'secure-fedmeta\[parquet\]'"):
        open_table(path, ["a"])


@pytest.mark.parametrize("header_only", [["bank,loan,person,income,home,late"]])
def test_a_table_without_rows_is_refused(tmp_path: Path, header_only: Sequence[str]) -> None:
    (tmp_path / "loans.csv").write_text("\n".join(header_only) + "\n")
    assert check_options("table", options())
    with pytest.raises(DataError, match=r"loans\.csv: holds no row"):
        build_source("table", options(), site(tmp_path))
