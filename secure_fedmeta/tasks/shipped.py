"""Data that ship with the product: files whose SHA-256 is checked at every read, and their tables.

A shipped table is declared in one file: its data dictionary, its clients, and what PROVENANCE.md
says of it. `HashedTableSource` makes the task source of these declarations, and
`ShippedTableSource` that of a table with blocks or options of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import ClassVar, Literal

from pydantic import Field

from secure_fedmeta.errors import DataError
from secure_fedmeta.tasks.blocked import BlockedSource
from secure_fedmeta.tasks.blocks import Blocking, by_hash, cut
from secure_fedmeta.tasks.protocol import Record, SourceInfo, SourceOptions
from secure_fedmeta.tasks.site import Site
from secure_fedmeta.tasks.table import Table, TableLayout, csv_sheet, gunzip, read_table


class BlockOptions(SourceOptions):
    """Options of a source that cuts records of as many people into blocks by a keyed hash.

    Attributes:
        records_per_block: mean records of a block. 14 makes nearly the most tasks of 10 records
            (about 6.4 for 100 records) and leaves 6 % of the records in blocks too small.
        k_support: support records for one draw.
        k_query: query records for one draw; a block needs k_support + k_query records.
        metric: what evaluation reports; average_precision suits a rare class.
    """

    records_per_block: int = Field(default=14, ge=2, le=1000)
    k_support: int = Field(default=5, ge=1)
    k_query: int = Field(default=5, ge=1)
    metric: Literal["auc", "average_precision"] = "auc"


@dataclass(frozen=True)
class ShippedFile:
    """A file in secure_fedmeta/data.

    Attributes:
        name: its name.
        sha256: of its bytes, in hex.
    """

    name: str
    sha256: str

    def read(self) -> bytes:
        """The file's bytes, their SHA-256 checked.

        Raises:
            DataError: the installed file is not the one that was released.
        """
        data = resources.files("secure_fedmeta.data").joinpath(self.name).read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != self.sha256:
            raise DataError(
                f"{self.name}: SHA-256 is {found}, expected {self.sha256}; reinstall the product"
            )
        return data

    def text(self) -> str:
        """The text inside a gzip-compressed UTF-8 file.

        Raises:
            DataError: as `read`.
        """
        return gunzip(self.read(), self.name)


@dataclass(frozen=True)
class ShippedTable:
    """A public table with a binary target that ships with the product.

    Attributes:
        file: the gzip-compressed CSV.
        layout: how its rows become records.
        licence: the data's licence, as far as it is known.
        provenance: where the data come from, in one sentence.
        metric: what evaluation reports.
    """

    file: ShippedFile
    layout: TableLayout
    licence: str
    provenance: str

    def read(self) -> Table:
        """The table's records, checked row by row.

        Raises:
            DataError: the installed file is not the one that was released.
        """
        return read_table(csv_sheet(self.file.text(), self.file.name), self.layout)


class ShippedTableSource(BlockedSource):
    """The clients of a shipped table, cut into blocks.

    Args:
        table: the table's declarations.
        blocking: its clients and their blocks.
        metric: what evaluation reports.
        k_support: support records for one draw.
        k_query: query records for one draw; a block needs k_support + k_query records.
        records: stand in for the shipped table's (`SourceClass`).

    Raises:
        DataError: the shipped file was changed, or given records lack a client, or leave one
            without a task.
    """

    def __init__(
        self,
        table: ShippedTable,
        blocking: Blocking,
        *,
        metric: Literal["auc", "average_precision"],
        k_support: int,
        k_query: int,
        records: Iterable[Record] | None,
    ) -> None:
        found = table.read() if records is None else Table(tuple(records))
        blocks = cut(
            found.records,
            names=blocking.counts,
            block_of=blocking.block_of,
            min_records=k_support + k_query,
        )
        info = SourceInfo(
            rows=len(found.records),
            clients=len(blocks.clients),
            tasks=sum(len(client.blocks) for client in blocks.clients.values()),
            task_bounds=blocking.counts,
            units=blocking.units,
            licence=table.licence,
            provenance=table.provenance,
            public=True,
            features=tuple(feature.name for feature in table.layout.dictionary.features),
            input_bounds=(-1.0, 1.0),
            output_dim=1,
            loss="cross_entropy",
            metric=metric,
            k_support=k_support,
            k_query=k_query,
            files={table.file.name: table.file.sha256},
            excluded={**found.excluded, **blocks.excluded},
            clipped=found.clipped,
            missing=found.missing,
        )
        super().__init__(info, blocks.clients, found.records)


class HashedTableSource(ShippedTableSource):
    """A shipped table whose rows are of as many people, in blocks of about `records_per_block`.

    A subclass declares its name, `table`, `client_records` and `block_key`; Options with other
    defaults where those fit better.

    Args:
        options: sizes.
        site: not needed: the table ships.
        records: stand in for the shipped table's (`SourceClass`).

    Attributes:
        table: the table's declarations.
        client_records: client -> its number of records, declared and rounded, never counted.
        block_key: key of the blocks; public, as the table is. A source of confidential records
            takes its key from the site.

    Raises:
        DataError: the shipped file was changed, or given records lack a client, or leave one
            without a task.
    """

    Options: ClassVar[type[SourceOptions]] = BlockOptions
    table: ClassVar[ShippedTable]
    client_records: ClassVar[Mapping[str, int]]
    block_key: ClassVar[bytes]

    def __init__(
        self, options: SourceOptions, *, site: Site, records: Iterable[Record] | None = None
    ) -> None:
        del site  # shipped
        chosen = BlockOptions.model_validate(options.model_dump())
        super().__init__(
            self.table,
            by_hash(self.block_key, self.client_records, chosen.records_per_block),
            metric=chosen.metric,
            k_support=chosen.k_support,
            k_query=chosen.k_query,
            records=records,
        )
