"""The data dictionary of the credit table: columns, bounds, features and clients, all public.

Bounds are round numbers from what a column means (an adult's age, loans of 6 to 72 months) and the
source's order of magnitude; the currency is the source's, which does not name it. A feature's range
is narrower where almost all meaning lies in a part of the column's, and values beyond it saturate.
Amount is no feature of its own: it is Price times the financed share, and both are there.

Clients are segments of job and housing: *proxies* for institutions with unlike customers, not
institutions. Job and Home say which client a record belongs to, are the same for all its records,
and are no features. The declared number of records of each client is public and rounded to ten; the
number of blocks follows from it and stays as it is when records come or go.
"""

from __future__ import annotations

import math

from secure_fedmeta.tasks.dictionary import (
    Category,
    DataDictionary,
    Feature,
    Number,
    indicator,
    linear,
    logarithm,
    on,
)

RECORD = "Record"
TARGET = "Status"
BAD = "bad"
JOB = "Job"
HOME = "Home"

# Segments that hold at least 50 records, with the number of their records rounded to ten.
CLIENT_RECORDS = {
    "fixed-other": 210,
    "fixed-owner": 1310,
    "fixed-parents": 480,
    "fixed-priv": 170,
    "fixed-rent": 630,
    "freelance-other": 60,
    "freelance-owner": 580,
    "freelance-parents": 140,
    "freelance-rent": 200,
    "others-owner": 100,
    "partime-owner": 120,
    "partime-parents": 140,
    "partime-rent": 110,
}

_MARITAL = ("married", "single", "separated", "divorced", "widow")


def _burden(amount: float, time: float, income: float, expenses: float) -> float:
    """Instalment as a share of income left after expenses, at least one unit being left."""
    return (amount / time) / max(income - expenses, 1.0)


CREDIT = DataDictionary(
    columns=(
        Category(TARGET, ("good", BAD)),
        Category(JOB, ("fixed", "freelance", "partime", "others"), missing="code"),
        Category(HOME, ("owner", "rent", "parents", "priv", "other", "ignore"), missing="code"),
        Number("Seniority", "years in the job", 0, 50),
        Number("Time", "months of the loan", 6, 72),
        Number("Age", "years", 18, 80),
        Category("Marital", _MARITAL, missing="code"),
        Category("Records", ("no", "yes")),
        Number("Expenses", "currency a month", 0, 200, above="clip"),
        Number("Income", "currency a month", 0, 1000, above="clip", missing="code"),
        Number("Assets", "currency", 0, 100_000, above="clip", missing="code"),
        Number("Debt", "currency", 0, 20_000, above="clip", missing="code"),
        Number("Amount", "currency lent", 1, 5000, above="clip"),
        Number("Price", "currency, of what is bought", 1, 10_000, above="clip"),
    ),
    features=(
        logarithm("seniority", "Seniority", 0, 50),
        linear("time", "Time", 6, 72),
        linear("age", "Age", 18, 65),
        linear("expenses", "Expenses", 20, 120),
        logarithm("income", "Income", 20, 800),
        indicator("income missing", "Income", None),
        logarithm("assets", "Assets", 0, 100_000),
        indicator("assets missing", "Assets", None),
        logarithm("debt", "Debt", 0, 20_000),
        logarithm("price", "Price", 300, 5000),
        Feature("financed", "Amount / Price", on(lambda a, p: a / p, "Amount", "Price"), 0.2, 1.0),
        Feature(
            "burden",
            "log((Amount / Time) / max(Income - Expenses, 1))",
            on(lambda *values: math.log(_burden(*values)), "Amount", "Time", "Income", "Expenses"),
            math.log(0.05),
            math.log(2.0),
        ),
        indicator("records", "Records", "yes"),
        *(indicator(f"marital {value}", "Marital", value) for value in _MARITAL),
    ),
)
