"""Task sources for the contract suites: large ones in a small form, others on small files.

Sources that ship and are not named here run with their defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from PIL import Image

from secure_fedmeta.tasks import (
    SOURCES,
    Record,
    Site,
    SourceOptions,
    TaskSource,
    check_options,
    needs_data,
)

SHIPPED = [name for name in SOURCES.names() if not needs_data(name)]

SMALL: dict[str, dict[str, Any]] = {
    "sinusoid": {
        "clients": 4,
        "held_out_clients": 1,
        "persons": 3,
        "points": 8,
        "k_support": 3,
        "k_query": 3,
    },
    "shakespeare": {
        "roles": 5,
        "stride": 60,
        "max_tasks": 2,
        "k_support": 3,
        "k_query": 3,
    },
    "synthetic": {
        "clients": 4,
        "held_out_clients": 1,
        "max_rows": 60,
        "records_per_block": 20,
        "k_support": 3,
        "k_query": 3,
    },
    "vowels": {"ways": 5, "repetitions": 6},  # blocks that survive the loss of some records
}


def options_of(name: str) -> dict[str, Any]:
    """The options that tests build this source with."""
    return SMALL.get(name, {})


@cache
def small_source(name: str) -> TaskSource:
    """The source in its small form."""
    return _made(name, check_options(name, options_of(name)), Site())


def own_source(case: str, folder: Path) -> TaskSource:
    """The source of a case of `OWN`, over files that are written into the folder."""
    name, write = OWN[case]
    return _made(name, check_options(name, write(folder)), Site(folder, lambda: bytes(range(32))))


def rebuilt(source: TaskSource, records: list[Record]) -> TaskSource:
    """The same source over other records."""
    return _made(source.name, *_MADE[source], records)


_MADE: WeakKeyDictionary[TaskSource, tuple[SourceOptions, Site]] = WeakKeyDictionary()


def _made(
    name: str, options: SourceOptions, site: Site, records: list[Record] | None = None
) -> TaskSource:
    source = SOURCES.get(name)(options, site=site, records=records)
    _MADE[source] = (options, site)
    return source


# --- files of one's own -------------------------------------------------------------------------

CLIENTS = ("north", "south", "west")
_FEATURES = {
    "income": {"low": 0, "high": 1000, "above": "clip", "missing": "code", "scale": "log"},
    "home": {"values": ["own", "rent"], "missing": "code"},
}


def table_by_hash(folder: Path) -> dict[str, Any]:
    """Rows with ids, for tasks that are cut by hash."""
    records = dict.fromkeys(CLIENTS, 60)
    return _table(folder, record="loan", records=records, records_per_block=10)


def table_of_users(folder: Path) -> dict[str, Any]:
    """Rows of people without ids, one task each."""
    return _table(folder, user="person", max_tasks=dict.fromkeys(CLIENTS, 8))


def _table(folder: Path, **options: Any) -> dict[str, Any]:
    lines = ["bank,loan,person,income,home,late"]
    for place, client in enumerate(CLIENTS):
        for row in range(60):
            income = "" if row % 17 == 0 else str((row * 37 + place * 11) % 1100)
            home = ("own", "rent", "")[(row + place) % 3]
            person = f"{client}-{row % 7}"
            late = ("no", "yes")[row * row % 5 % 2]
            lines.append(f"{client},L{row},{person},{income},{home},{late}")
    (folder / "loans.csv").write_text("\n".join(lines) + "\n")
    return {
        "path": "loans.csv",
        "client": "bank",
        "k_support": 3,
        "k_query": 3,
        "target": {"column": "late", "values": ["no", "yes"]},
        "features": _FEATURES,
        **options,
    }


def images(folder: Path) -> dict[str, Any]:
    """Tiny greyscale images, nine of each of twelve classes."""
    for place, client in enumerate(CLIENTS):
        for label in range(12):
            held = folder / "images" / client / f"class {label}"
            held.mkdir(parents=True)
            for number in range(9):
                shade = (place * 91 + label * 17 + number * 5) % 256
                Image.new("L", (4, 4), shade).save(held / f"{number}.png")
    return {
        "path": "images",
        "classes": dict.fromkeys(CLIENTS, 12),
        "classes_per_block": 4,
        "ways": 2,
        "shots": 2,
        "queries": 1,
        "side": 4,
    }


OWN: Mapping[str, tuple[str, Callable[[Path], dict[str, Any]]]] = {
    "images": ("images", images),
    "table by hash": ("table", table_by_hash),
    "table of users": ("table", table_of_users),
}
"""Case -> source and what makes its options."""
