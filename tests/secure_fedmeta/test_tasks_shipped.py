"""The shipped tables of patients and loans: what each counts, codes, leaves out and refuses."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping

import pytest

from secure_fedmeta.errors import DataError
from secure_fedmeta.tasks import SourceInfo, TaskSource, build_source
from secure_fedmeta.tasks import heart as heart_source
from secure_fedmeta.tasks import lending as lending_source
from secure_fedmeta.tasks import migraine as migraine_source
from secure_fedmeta.tasks import thyroid as thyroid_source
from secure_fedmeta.tasks.blocks import SMALL_BLOCK_ROWS, SMALL_BLOCKS
from secure_fedmeta.tasks.shipped import ShippedTable
from secure_fedmeta.tasks.table import Table, csv_sheet, read_table

TABLES: dict[str, ShippedTable] = {
    "heart": heart_source.TABLE,
    "lending": lending_source.TABLE,
    "migraine": migraine_source.TABLE,
    "thyroid": thyroid_source.TABLE,
}


@pytest.fixture(scope="module")
def sources() -> Mapping[str, TaskSource]:
    return {name: build_source(name, {}) for name in TABLES}


@pytest.fixture(scope="module")
def first_rows() -> Mapping[str, dict[str, str]]:
    """The first row of each shipped table."""
    return {
        name: next(csv.DictReader(io.StringIO(table.file.text()))) for name, table in TABLES.items()
    }


def left_out(info: SourceInfo) -> dict[str, int]:
    """The rows that are no record, without the blocks that are too small."""
    return {
        reason: count
        for reason, count in info.excluded.items()
        if reason not in (SMALL_BLOCKS, SMALL_BLOCK_ROWS)
    }


def test_every_row_of_heart_is_accounted_for(sources: Mapping[str, TaskSource]) -> None:
    info = sources["heart"].info
    assert left_out(info) == {
        "records whose hospital is doubtful": 1,
        "records that repeat another in every column": 2,
    }
    assert info.rows + 3 == 920
    assert info.clipped == {}
    assert info.missing["chol"] == 172 + 30 - 1  # zeros, empty cells; row 406 has one and is gone
    assert info.missing["ca"] == 611 - 3
    ids = {record.id for record in sources["heart"].records()}
    assert not ids & {"304", "406", "908"}
    assert {"303", "305", "405", "860"} <= ids


def test_rows_left_out_as_repeated_repeat_the_rows_that_are_kept() -> None:
    text = TABLES["heart"].file.text()
    rows = {row.pop("Record"): row for row in csv.DictReader(io.StringIO(text))}
    assert rows["406"] == rows["405"]
    assert rows["908"] == rows["860"]
    repeats = sum(n - 1 for n in Counter(tuple(row.values()) for row in rows.values()).values())
    assert repeats == 2


def test_every_row_of_thyroid_is_accounted_for(sources: Mapping[str, TaskSource]) -> None:
    info = sources["thyroid"].info
    assert left_out(info) == {thyroid_source.SMALL_SITE: 3}
    assert info.rows + 3 == 9172
    assert info.clipped == {"age": 4}
    assert info.missing["sex"] == 307


def test_every_row_of_lending_is_accounted_for(sources: Mapping[str, TaskSource]) -> None:
    info = sources["lending"].info
    assert left_out(info) == {lending_source.SMALL_STATE: 337}
    assert info.rows + 337 == 9857
    assert info.clipped == info.missing == {}


def test_every_row_of_migraine_is_accounted_for(sources: Mapping[str, TaskSource]) -> None:
    info = sources["migraine"].info
    assert info.rows == 4152
    assert info.excluded == {SMALL_BLOCKS: 1, SMALL_BLOCK_ROWS: 7}
    assert info.tasks == 133 - 1


@pytest.mark.parametrize(
    ("name", "positives"),
    [("heart", 509 - 1), ("migraine", 2666), ("thyroid", 2401 - 1)],
)
def test_the_target_is_one_for_what_is_looked_for(
    sources: Mapping[str, TaskSource], name: str, positives: int
) -> None:
    """Of the rows left out, 908 of heart and one of WEST are positive."""
    assert sum(record.y for record in sources[name].records()) == positives


def test_bad_loans_of_states_with_fifty_loans_are_the_positives(
    sources: Mapping[str, TaskSource],
) -> None:
    rows = list(csv.DictReader(io.StringIO(TABLES["lending"].file.text())))
    loans = Counter(row["addr_state"] for row in rows)
    kept = {row["Record"]: row for row in rows if loans[row["addr_state"]] >= 50}
    assert {record.id: record.y for record in sources["lending"].records()} == {
        number: float(row["Class"] == "bad") for number, row in kept.items()
    }


@pytest.mark.parametrize(
    ("name", "declared"),
    [
        ("heart", heart_source.CLIENT_RECORDS),
        ("lending", lending_source.CLIENT_RECORDS),
        ("thyroid", thyroid_source.CLIENT_RECORDS),
    ],
)
def test_declared_records_are_round_and_near_those_held(
    sources: Mapping[str, TaskSource], name: str, declared: Mapping[str, int]
) -> None:
    source = sources[name]
    assert source.clients() == tuple(sorted(declared))
    for client, count in declared.items():
        assert count % 10 == 0
        assert abs(count - len(source.client(client).y)) <= 10


def test_a_person_with_migraine_is_one_block_of_one_group(
    sources: Mapping[str, TaskSource],
) -> None:
    source = sources["migraine"]
    assert source.info.units == {"record", "task", "user", "client"}
    groups = {record.user: record.client for record in source.records()}
    assert len(groups) == 133
    assert all(groups[record.user] == record.client for record in source.records())
    days = Counter(record.user for record in source.records())
    for name in source.clients():
        for block in source.client(name).blocks:
            assert block.id == block.user
            assert len(block) == days[block.user]
    assert max(Counter(groups.values()).values()) <= migraine_source.MOST_PEOPLE


@pytest.mark.parametrize("name", list(TABLES))
def test_columns_that_say_client_or_target_are_no_features(
    first_rows: Mapping[str, dict[str, str]], sources: Mapping[str, TaskSource], name: str
) -> None:
    other = {
        "heart": {"dataset": "VA Long Beach", "num": "3"},
        "lending": {"addr_state": "TX", "Class": "bad"},
        "migraine": {"id": "2", "headache": "no"},
        "thyroid": {"referral_source": "SVI", "target": "K"},
    }
    assert sources[name].info.input_dim == len(set(sources[name].info.features))
    (one,) = of_rows(name, first_rows[name]).records
    (two,) = of_rows(name, {**first_rows[name], **other[name]}).records
    assert one.client != two.client
    assert one.y != two.y
    assert one.x.tolist() == two.x.tolist()


def of_rows(name: str, *rows: dict[str, str]) -> Table:
    """The table of these rows."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return read_table(csv_sheet(text.getvalue(), f"{name}.csv"), TABLES[name].layout)


def inputs(name: str, row: dict[str, str]) -> dict[str, float]:
    """Feature -> value for one row."""
    (record,) = of_rows(name, row).records
    features = (feature.name for feature in TABLES[name].layout.dictionary.features)
    return dict(zip(features, record.x.tolist(), strict=True))


def test_missing_heart_values_are_the_middle_and_tell_nothing_else(
    first_rows: Mapping[str, dict[str, str]],
) -> None:
    row = first_rows["heart"]
    gone = inputs("heart", {**row, "chol": "0", "trestbps": "", "thal": "", "ca": "", "slope": ""})
    assert gone["cholesterol"] == gone["pressure"] == gone["vessels"] == 0.0
    assert not any(value for name, value in gone.items() if name.startswith(("thal", "slope")))
    assert not any("missing" in name for name in gone)
    assert inputs("heart", {**row, "chol": "250"})["cholesterol"] == 0.0
    assert inputs("heart", {**row, "chol": "400"})["cholesterol"] == 1.0


def test_assays_are_seen_from_both_ends_of_the_reference_range(
    first_rows: Mapping[str, dict[str, str]],
) -> None:
    def tsh(cell: str) -> tuple[float, ...]:
        found = inputs("thyroid", {**first_rows["thyroid"], "TSH": cell})
        return tuple(found[f"TSH {half}"] for half in ("below", "above", "missing"))

    assert tsh("1") == (1.0, -1.0, 0.0)  # inside the range
    assert tsh("0.01") == (-1.0, -1.0, 0.0)
    assert tsh("200") == (1.0, 1.0, 0.0)
    assert tsh("20") == pytest.approx((1.0, 0.0, 0.0))  # halfway in logarithms, 4 to 100
    assert tsh("") == (0.0, 0.0, 1.0)


def test_grades_and_years_of_work_are_numbers(first_rows: Mapping[str, dict[str, str]]) -> None:
    row = first_rows["lending"]
    ends = {"sub_grade": "G5", "emp_length": "emp_ge_10"}
    assert inputs("lending", {**row, "sub_grade": "A1", "emp_length": "emp_lt_1"})["grade"] == -1.0
    assert inputs("lending", {**row, **ends})["grade"] == 1.0
    assert inputs("lending", {**row, **ends})["employed"] == 1.0
    unknown = inputs("lending", {**row, "emp_length": "emp_unk"})
    assert unknown["employed"] == 0.0
    assert unknown["employment unknown"] == 1.0


@pytest.mark.parametrize(
    ("name", "column", "cell"),
    [
        ("heart", "dataset", "Basel"),
        ("heart", "trestbps", "1"),
        ("heart", "num", "5"),
        ("lending", "addr_state", "XX"),
        ("lending", "sub_grade", "H1"),
        ("migraine", "id", ""),
        ("migraine", "headache", "maybe"),
        ("thyroid", "target", "K,"),
        ("thyroid", "age", "-1"),
        ("thyroid", "TSH", "0"),
    ],
)
def test_values_outside_the_dictionaries_are_refused_by_name(
    first_rows: Mapping[str, dict[str, str]], name: str, column: str, cell: str
) -> None:
    with pytest.raises(DataError) as caught:
        of_rows(name, {**first_rows[name], column: cell})
    assert f"{name}.csv, line 2, {column} = {cell!r}: allowed is " in str(caught.value)


@pytest.mark.parametrize("name", ["heart", "lending"])
def test_the_metric_is_the_one_that_is_asked_for(
    sources: Mapping[str, TaskSource], name: str
) -> None:
    assert sources[name].info.metric == "auc"
    asked = build_source(name, {"metric": "average_precision"})
    assert asked.info.metric == "average_precision"
