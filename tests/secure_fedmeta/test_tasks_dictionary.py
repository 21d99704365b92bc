"""Data dictionaries: every policy for a value that is missing, malformed or out of bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_fedmeta.errors import DataError
from secure_fedmeta.tasks.dictionary import (
    Category,
    Code,
    DataDictionary,
    Feature,
    Number,
    Tally,
    Value,
    Where,
    indicator,
    linear,
    logarithm,
    on,
)

HERE = Where("loans.csv", 17)
AGE = Number("Age", "years", 18, 80)
INCOME = Number("Income", "currency", 0, 1000, above="clip", missing="code")
RECORDS = Category("Records", ("no", "yes"))
HOME = Category("Home", ("owner", "rent"), missing="code")


@pytest.mark.parametrize(
    "cell", ["", "17.9", "80.1", "nan", "inf", "-inf", "1e999", "x", " 20", "2_0", "0x20", "٢٠"]
)
def test_a_refused_number_is_named_with_file_line_column_and_bounds(cell: str) -> None:
    with pytest.raises(DataError) as caught:
        AGE.read(cell, HERE, Tally())
    expected = f"loans.csv, line 17, Age = {cell!r}: allowed is a number from 18 to 80"
    assert str(caught.value) == expected


@pytest.mark.parametrize(("cell", "value"), [("18", 18.0), ("80.0", 80.0), ("2e1", 20.0)])
def test_bounds_are_allowed_values(cell: str, value: float) -> None:
    tally = Tally()
    assert AGE.read(cell, HERE, tally) == value
    assert not tally.clipped
    assert not tally.missing


def test_higher_values_are_clipped_and_counted_where_declared() -> None:
    tally = Tally()
    assert INCOME.read("1000.5", HERE, tally) == 1000.0
    assert INCOME.read("1000", HERE, tally) == 1000.0
    assert tally.clipped == {"Income": 1}


def test_a_clipped_value_is_at_its_bound_and_no_missing_one() -> None:
    """Bounds are often written as whole numbers; a feature must not take them for a gap."""
    whole = Number("Income", "", 0, 1000, above="clip", missing="code")
    row: dict[str, Value] = {"Income": whole.read("2000", HERE, Tally())}
    assert Feature("income", "", on(float, "Income"), 0, 1000).scaled(row) == 1.0
    assert logarithm("income", "Income", 0, 1000).scaled(row) == 1.0


@pytest.mark.parametrize("cell", ["-1", "nan", "inf", "1e999"])
def test_clipping_does_not_excuse_negative_or_infinite_values(cell: str) -> None:
    with pytest.raises(DataError, match=r"higher values are set to it\) or empty"):
        INCOME.read(cell, HERE, Tally())


def test_missing_values_are_counted_where_declared() -> None:
    tally = Tally()
    assert INCOME.read("", HERE, tally) is None
    assert HOME.read("", HERE, tally) is None
    assert tally.missing == {"Income": 1, "Home": 1}


def test_declared_codes_stand_for_a_missing_value_and_others_do_not() -> None:
    chol = Number("chol", "mg/dl", 50, 700, missing="code", codes=(0.0, -9.0))
    tally = Tally()
    assert [chol.read(cell, HERE, tally) for cell in ("0", "0.0", "-9", "")] == [None] * 4
    assert tally.missing == {"chol": 4}
    assert chol.read("50", HERE, tally) == 50.0
    with pytest.raises(DataError, match="50 to 700 or empty or 0 for missing or -9 for missing"):
        chol.read("1", HERE, tally)


@pytest.mark.parametrize(("column", "cell"), [(RECORDS, ""), (RECORDS, "Yes"), (HOME, "NaN")])
def test_words_outside_the_vocabulary_are_refused(column: Category, cell: str) -> None:
    with pytest.raises(DataError, match=rf"line 17, {column.name} = '{cell}': allowed is \w+, \w+"):
        column.read(cell, HERE, Tally())


@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_features_stay_between_minus_one_and_one(value: float) -> None:
    feature = Feature("age", "Age", on(float, "Age"), 18, 65)
    assert -1.0 <= feature.scaled({"Age": value}) <= 1.0


def test_features_scale_linearly_between_their_bounds() -> None:
    feature = Feature("age", "Age", on(float, "Age"), 20, 60)
    assert [feature.scaled({"Age": age}) for age in (10.0, 20.0, 30.0, 40.0, 60.0, 70.0)] == [
        -1.0,
        -1.0,
        -0.5,
        0.0,
        1.0,
        1.0,
    ]


def test_a_missing_column_gives_the_middle_of_a_feature_and_its_indicator() -> None:
    row: dict[str, Value] = {"Income": None, "Expenses": 40.0}
    ratio = Feature("ratio", "", on(lambda a, b: a / b, "Income", "Expenses"), 0, 4)
    assert ratio.scaled(row) == 0.0
    assert logarithm("income", "Income", 1, 7).scaled(row) == 0.0
    assert linear("income", "Income", 1, 7).scaled(row) == 0.0
    assert indicator("missing", "Income", None).scaled(row) == 1.0
    assert indicator("missing", "Income", None).scaled({"Income": 0.0}) == 0.0


def test_logarithms_are_of_the_shifted_column_between_its_shifted_bounds() -> None:
    low, high = 0.0, 99.0
    assert logarithm("a", "A", low, high).scaled({"A": 9.0}) == pytest.approx(0.0)
    shifted = logarithm("a", "A", 0.0, 0.99, plus=0.01)
    assert shifted.formula == "log(0.01 + A)"
    assert shifted.scaled({"A": 0.0}) == -1.0
    assert shifted.scaled({"A": 0.09}) == pytest.approx(0.0)


def test_codes_have_the_declared_form_from_end_to_end() -> None:
    code = Code("Grade", r"[A-G][1-5]", "a letter A to G and a digit 1 to 5")
    assert code.read("C4", HERE, Tally()) == "C4"
    for cell in ("", "C6", "C44", "C4\n"):
        with pytest.raises(DataError, match=r"line 17, Grade = .*: allowed is a letter A to G"):
            code.read(cell, HERE, Tally())


def test_a_dictionary_reads_and_encodes_a_row() -> None:
    dictionary = DataDictionary(
        (AGE, RECORDS),
        (
            Feature("age", "Age", on(float, "Age"), 20, 60),
            indicator("records", "Records", "yes"),
        ),
    )
    row = dictionary.read({"Age": "50", "Records": "yes", "Other": "?"}, HERE, Tally())
    assert row == {"Age": 50.0, "Records": "yes"}
    encoded = dictionary.encode(row)
    assert encoded.dtype == np.float32
    assert encoded.tolist() == [0.5, 1.0]


def test_missing_columns_are_named_and_further_ones_allowed() -> None:
    dictionary = DataDictionary((AGE, RECORDS), ())
    dictionary.check_header(["Extra", "Records", "Age"], "loans.csv")
    with pytest.raises(DataError, match=r"loans\.csv: missing column Records; needed are Age, Rec"):
        dictionary.check_header(["Age"], "loans.csv")
