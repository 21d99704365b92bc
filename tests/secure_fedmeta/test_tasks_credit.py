"""The credit source: what it ships, how it codes rows, what it refuses."""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from secure_fedmeta.errors import DataError
from secure_fedmeta.tasks import SourceInfo, build_source, shipped
from secure_fedmeta.tasks.credit import SMALL_SEGMENT, TABLE, UNKNOWN_SEGMENT
from secure_fedmeta.tasks.credit_dictionary import CLIENT_RECORDS, CREDIT
from secure_fedmeta.tasks.table import Table, csv_sheet, gunzip, read_table

ROW = {
    "Record": "1",
    "Status": "bad",
    "Seniority": "9",
    "Home": "rent",
    "Time": "60",
    "Age": "30",
    "Marital": "married",
    "Records": "no",
    "Job": "freelance",
    "Expenses": "70",
    "Income": "130",
    "Assets": "0",
    "Debt": "0",
    "Amount": "800",
    "Price": "1000",
}


def table(*changes: dict[str, str], drop: str | None = None) -> Table:
    """The table of rows that differ from ROW as given."""
    names = [name for name in ROW if name != drop]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**ROW, **change} for change in changes)
    return parsed(text.getvalue(), "loans.csv.gz")


def parsed(text: str, file: str) -> Table:
    return read_table(csv_sheet(text, file), TABLE.layout)


def encoded(**change: str) -> dict[str, float]:
    """Feature -> value for one row."""
    (record,) = table(change).records
    return dict(zip((feature.name for feature in CREDIT.features), record.x.tolist(), strict=True))


@pytest.fixture(scope="module")
def info() -> SourceInfo:
    return build_source("credit", {}).info


def test_the_shipped_table_is_counted_row_by_row(info: SourceInfo) -> None:
    assert info.excluded[SMALL_SEGMENT] == 203
    assert info.excluded[UNKNOWN_SEGMENT] == 7
    assert info.rows == 4244
    assert info.rows + 203 + 7 == 4454
    assert info.missing == {"Income": 339, "Assets": 41, "Debt": 12, "Marital": 1}
    assert info.clipped == {"Assets": 5, "Debt": 3, "Price": 1}
    assert info.public
    assert info.units == {"record", "task", "client"}


def test_declared_records_are_within_ten_of_those_held() -> None:
    source = build_source("credit", {})
    assert source.clients() == tuple(sorted(CLIENT_RECORDS))
    for name, declared in CLIENT_RECORDS.items():
        assert declared % 10 == 0
        assert abs(declared - len(source.client(name).y)) <= 10


def test_job_home_and_label_are_no_features(info: SourceInfo) -> None:
    assert info.input_dim == len(set(info.features)) == 18
    assert encoded(Job="fixed", Home="owner", Status="good") == encoded()


def test_a_row_is_coded_as_declared() -> None:
    assert encoded() == pytest.approx(
        {
            "seniority": 2 * math.log(10) / math.log(51) - 1,
            "time": 2 * 54 / 66 - 1,
            "age": 2 * 12 / 47 - 1,
            "expenses": 0.0,
            "income": 2 * math.log(131 / 21) / math.log(801 / 21) - 1,
            "income missing": 0.0,
            "assets": -1.0,
            "assets missing": 0.0,
            "debt": -1.0,
            "price": 2 * math.log(1001 / 301) / math.log(5001 / 301) - 1,
            "financed": 0.5,
            "burden": 2 * math.log((800 / 60 / 60) / 0.05) / math.log(40) - 1,
            "records": 0.0,
            "marital married": 1.0,
            "marital single": 0.0,
            "marital separated": 0.0,
            "marital divorced": 0.0,
            "marital widow": 0.0,
        },
        abs=1e-6,
    )


def test_missing_values_are_coded_as_declared() -> None:
    values = encoded(Income="", Assets="", Debt="", Marital="")
    assert values["income missing"] == values["assets missing"] == 1.0
    assert values["income"] == values["assets"] == values["debt"] == values["burden"] == 0.0
    assert not any(value for name, value in values.items() if name.startswith("marital"))


def test_no_income_left_is_the_highest_burden() -> None:
    assert encoded(Income="10", Expenses="200")["burden"] == 1.0


def test_the_target_is_one_for_bad() -> None:
    records = table({"Status": "bad"}, {"Record": "2", "Status": "good"}).records
    assert [record.y for record in records] == [1.0, 0.0]


def test_other_segments_are_checked_then_excluded_and_not_tallied() -> None:
    found = table(
        {"Income": "5000"},
        {"Record": "2", "Job": "others", "Home": "ignore", "Income": ""},
        {"Record": "3", "Job": "", "Income": "5000"},
        {"Record": "4", "Home": ""},
    )
    assert [record.client for record in found.records] == ["freelance-rent"]
    assert found.excluded == {SMALL_SEGMENT: 1, UNKNOWN_SEGMENT: 2}
    assert found.clipped == {"Income": 1}
    assert found.missing == {}
    with pytest.raises(DataError, match="Age = '7'"):
        table({"Job": "others", "Home": "ignore", "Age": "7"})


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("Status", ""),
        ("Status", "ugly"),
        ("Seniority", "51"),
        ("Seniority", ""),
        ("Time", "5"),
        ("Time", "73"),
        ("Age", "17"),
        ("Age", "nan"),
        ("Marital", "MARRIED"),
        ("Records", ""),
        ("Job", "retired"),
        ("Home", "boat"),
        ("Expenses", "-1"),
        ("Expenses", ""),
        ("Income", "-1"),
        ("Income", "NaN"),
        ("Assets", "inf"),
        ("Debt", "many"),
        ("Amount", "0"),
        ("Price", "0"),
        ("Record", ""),
    ],
)
def test_values_outside_the_dictionary_are_refused_by_name(column: str, cell: str) -> None:
    with pytest.raises(DataError) as caught:
        table({}, {"Record": "2", column: cell})
    assert f"loans.csv.gz, line 3, {column} = {cell!r}: allowed is " in str(caught.value)


@pytest.mark.parametrize("column", list(ROW))
def test_a_missing_column_is_refused_by_name(column: str) -> None:
    with pytest.raises(DataError, match=rf"loans\.csv\.gz: missing column {column}"):
        table({}, drop=column)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        pytest.param(
            lambda text: gzip.compress(text + b"1,good\n"), "line 3: needs 15", id="short"
        ),
        pytest.param(
            lambda text: gzip.compress(text.rstrip() + b",9\n"), "line 2: needs 15", id="long"
        ),
        pytest.param(lambda text: gzip.compress(text + b'"open'), "not CSV", id="quote"),
        pytest.param(
            lambda text: gzip.compress(text.replace(b"Home", b"Job", 1)),
            "column 'Job' comes 2 times",
            id="column twice",
        ),
        pytest.param(lambda text: gzip.compress(b""), "missing column Status", id="empty"),
        pytest.param(lambda text: gzip.compress(b"\xff" + text), "not gzip-compressed", id="utf8"),
        pytest.param(lambda text: gzip.compress(text)[:-9], "not gzip-compressed", id="cut"),
        pytest.param(lambda text: text, "not gzip-compressed", id="plain"),
        pytest.param(
            lambda text: gzip.compress(text)[:10] + b"\xff" * 40, "not gzip-compressed", id="zlib"
        ),
    ],
)
def test_damaged_tables_are_refused(damage: Callable[[bytes], bytes], expected: str) -> None:
    text = ",".join(ROW).encode() + b"\n" + ",".join(ROW.values()).encode() + b"\n"
    file = "loans.csv.gz"
    assert len(parsed(gunzip(gzip.compress(text), file), file).records) == 1
    with pytest.raises(DataError, match=expected) as caught:
        parsed(gunzip(damage(text), file), file)
    assert "loans.csv.gz" in str(caught.value)


def test_a_changed_shipped_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / TABLE.file.name).write_bytes(TABLE.file.read() + b"\0")
    monkeypatch.setattr(shipped.resources, "files", lambda package: tmp_path)
    with pytest.raises(DataError, match=r"credit\.csv\.gz: SHA-256 is .* expected 15c80c63"):
        build_source("credit", {})


def test_larger_blocks_make_fewer_tasks() -> None:
    found = {m: build_source("credit", {"records_per_block": m}).info.tasks for m in (14, 28)}
    assert found[14] > 1.5 * found[28]


def test_smaller_tasks_need_smaller_blocks() -> None:
    source = build_source("credit", {"k_support": 2, "k_query": 3, "records_per_block": 8})
    sizes = [len(block) for name in source.clients() for block in source.client(name).blocks]
    assert min(sizes) >= 5
    assert np.mean(sizes) == pytest.approx(9, abs=1.5)
