"""What `fedmeta datasets` lists: every registered source with its default options.

Counts are statistics of raw data, so that they are told of public data only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crypto.progress import Ticker
from secure_fedmeta.tasks.registry import SOURCES, build_source, needs_data

COUNTS = ("rows", "clients", "tasks")
NOTE = (
    "With default options. Counts are shown of public data only: of confidential data they would "
    "be statistics that no budget covers."
)


def catalogue() -> Iterator[dict[str, Any]]:
    """One row for each source, by name.

    Returns:
        name, rows, clients, tasks, units (sorted), licence, provenance. Counts are None where the
        data are not public. Where options have no default, such as the path of a file, there are
        no data yet, and all but the name is None.

    Raises:
        DataError: a shipped file was changed.
    """
    names = SOURCES.names()
    ticker = Ticker("reading data: source", len(names))
    for name in names:
        ticker.add(1)
        if needs_data(name):
            empty = dict.fromkeys((*COUNTS, "units", "licence", "provenance"))
            yield {"name": name, **empty}
            continue
        info = build_source(name, {}).info
        yield {
            "name": name,
            **{count: getattr(info, count) if info.public else None for count in COUNTS},
            "units": sorted(info.units),
            "licence": info.licence,
            "provenance": info.provenance,
        }
