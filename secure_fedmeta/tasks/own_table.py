"""A person's own table: CSV, Parquet or NPZ with declared columns, bounds and clients.

A record's id is a path: its client, its user and its task as far as they are declared, and then an
id of its own. With a user or a task a block is a folder of these paths; else the block follows from
a keyed hash of the whole path. The key is a secret that stays with the data, unless these are
public: whoever knows ids would otherwise know who is in one task with whom, and could choose ids
that gather in one task.

Without a column for it, a record's own id is its place among the rows of its folder. Taking a row
away then renames those behind it. In folders that changes nothing (they are the same sets of rows);
with hashing it would move other records to other tasks, so that the unit task, which adds or takes
away the rows of one task, is not promised. Nor is the unit record: in a table that is sorted by
what rows hold, a replaced record stands in another place, and those between move.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from secure_fedmeta.errors import DataError
from secure_fedmeta.tasks.blocked import BlockedSource
from secure_fedmeta.tasks.blocks import Blocking, by_hash, cut
from secure_fedmeta.tasks.dictionary import Category, Code, DataDictionary
from secure_fedmeta.tasks.own_table_features import dictionary_of
from secure_fedmeta.tasks.own_table_options import TableOptions
from secure_fedmeta.tasks.own_table_target import target_column, target_of, task_of
from secure_fedmeta.tasks.protocol import ClientData, Record, SourceInfo, SourceOptions
from secure_fedmeta.tasks.schema import Columns, Schema
from secure_fedmeta.tasks.site import Site
from secure_fedmeta.tasks.table import Place, Row, Sheet, Table, TableLayout, read_table
from secure_fedmeta.tasks.table_files import open_table

NO_USER = "no column says which person a record is of; declare data.options.user"
NO_RECORD = (
    "without record ids, taking a record away renumbers those behind it, which would move to other "
    "tasks; declare data.options.record, or the tasks with data.options.task"
)
INPUT_BOUNDS = (-1.0, 1.0)
NAME = r"[^\x00-\x1f\x7f-\x9f]{1,200}"
_PUBLIC_KEY = b"secure-fedmeta/table/1"
_ID = "\0record"
"""The column of a record's path; no file can hold a column of this name by accident."""


class OwnTableSource(BlockedSource):
    """A table in a file of the user's own.

    Args:
        options: what is declared of it.
        site: the folder that its path starts from, and the secret that keys its blocks.
        records: stand in for the file's (`SourceClass`); their ids are paths as above.

    Raises:
        ConfigError: the file is of another kind, or its reader is not installed.
        DataError: the file breaks what was declared, or leaves a client without a task.
    """

    Options: ClassVar[type[SourceOptions]] = TableOptions
    name = "table"

    def __init__(
        self, options: SourceOptions, *, site: Site, records: Iterable[Record] | None = None
    ) -> None:
        chosen = TableOptions.model_validate(options.model_dump())
        dictionary = _dictionary(chosen)
        table = _read(chosen, site, dictionary) if records is None else Table(tuple(records))
        blocking = _blocking(chosen, site)
        blocks = cut(
            table.records,
            names=blocking.counts,
            block_of=blocking.block_of,
            min_records=chosen.k_support + chosen.k_query,
        )
        _check_bounds(blocks.clients, blocking.counts)
        schema = self.schema(chosen)
        info = SourceInfo(
            rows=len(table.records),
            clients=len(blocks.clients),
            tasks=sum(len(client.blocks) for client in blocks.clients.values()),
            task_bounds=blocking.counts,
            units=blocking.units,
            licence=chosen.licence,
            provenance=f"{Path(chosen.path).name}, a table of the user's own",
            public=chosen.public,
            features=schema.features,
            input_bounds=schema.input_bounds,
            output_dim=schema.output_dim,
            loss=schema.loss,
            metric=schema.metric,
            k_support=schema.k_support,
            k_query=chosen.k_query,
            lacking=_lacking(blocking.units),
            excluded={**table.excluded, **blocks.excluded},
            clipped=table.clipped,
            missing=table.missing,
        )
        super().__init__(info, blocks.clients, table.records)

    @classmethod
    def schema(cls, options: SourceOptions) -> Schema:
        """What a model of such a table reads and predicts; the table itself is not read."""
        chosen = TableOptions.model_validate(options.model_dump())
        output_dim, loss, metric = task_of(chosen.target)
        return Schema(
            features=tuple(one.name for one in dictionary_of(chosen.features).features),
            input_bounds=INPUT_BOUNDS,
            output_dim=output_dim,
            loss=loss,
            metric=metric,
            k_support=chosen.k_support,
            columns=Columns(chosen.features, chosen.target),
        )


def _dictionary(options: TableOptions) -> DataDictionary:
    """The declared columns, and the inputs."""
    names = [name for name in (options.record, options.user, options.task) if name is not None]
    others = (
        Category(options.client, tuple(options.declared)),
        *(Code(name, NAME, "1 to 200 printable characters") for name in names),
        target_column(options.target),
    )
    return dictionary_of(options.features, *others)


def _read(options: TableOptions, site: Site, dictionary: DataDictionary) -> Table:
    columns = [column.name for column in dictionary.columns]
    sheet = open_table(site.folder / options.path, columns)
    layout = TableLayout(
        dictionary=dictionary,
        record=_ID,
        place=lambda row: Place(
            str(row[options.client]), None if options.user is None else str(row[options.user])
        ),
        target=target_of(options.target),
    )
    table = read_table(
        replace(sheet, columns=(*sheet.columns, _ID), rows=_with_paths(sheet, options)), layout
    )
    if not table.records:
        raise DataError(f"{sheet.file}: holds no row")
    return table


def _with_paths(sheet: Sheet, options: TableOptions) -> Iterator[Row]:
    """The rows with the path of their record.

    Raises:
        DataError: two records of one client have the same id; names both places.
    """
    folders = [c for c in (options.client, options.user, options.task) if c is not None]
    places: Counter[str] = Counter()
    seen: dict[str, int] = {}
    for where, cells in sheet.rows:
        folder = "/".join(quote(cells[column], safe="") for column in folders)
        if options.record is None:
            places[folder] += 1
            path = f"{folder}/{places[folder]}"
        else:
            own = cells[options.record]
            path = f"{folder}/{quote(own, safe='')}"
            key = f"{cells[options.client]}\0{own}"
            if key in seen:
                raise DataError(
                    f"{where}, {options.record} = {own!r}: client {cells[options.client]!r} has "
                    f"this record in {where.counted} {seen[key]} already; ids must be unique"
                )
            seen[key] = where.number
        yield where, {**cells, _ID: path}


def _blocking(options: TableOptions, site: Site) -> Blocking:
    if options.records is not None:
        key = _PUBLIC_KEY if options.public else site.block_secret()
        found = by_hash(key, options.records, options.records_per_block)
        units = found.units if options.record is not None else found.units - {"record", "task"}
        return replace(found, units=units)
    units = frozenset({"record", "task", "client"})
    return Blocking(
        options.declared,
        lambda record: record.id.rpartition("/")[0],
        units if options.user is None else units | {"user"},
    )


def _check_bounds(clients: Mapping[str, ClientData], bounds: Mapping[str, int]) -> None:
    for name, client in clients.items():
        if len(client.blocks) > bounds[name]:
            raise DataError(
                f"client {name!r} has {len(client.blocks)} tasks, more than the {bounds[name]} of "
                "data.options.max_tasks: declare a larger bound, or take rows out"
            )


def _lacking(units: frozenset[str]) -> dict[str, str]:
    reasons = {"user": NO_USER, "task": NO_RECORD, "record": NO_RECORD}
    return {unit: reason for unit, reason in reasons.items() if unit not in units}
