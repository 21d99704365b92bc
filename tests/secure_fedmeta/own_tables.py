"""A small table of one's own, changed at will, and the source over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from secure_fedmeta.tasks import Site, TaskSource, build_source
from tests.secure_fedmeta.federation import changed

SECRET = bytes(range(32))
COLUMNS = ("bank", "loan", "person", "income", "home", "late")
OPTIONS: dict[str, Any] = {
    "path": "loans.csv",
    "client": "bank",
    "record": "loan",
    "records": {"north": 40, "south": 40},
    "records_per_block": 10,
    "k_support": 2,
    "k_query": 2,
    "target": {"column": "late", "values": ["no", "yes"]},
    "features": {
        "income": {"low": 0, "high": 1000},
        "home": {"values": ["own", "rent"]},
    },
}


def options(**changes: Any) -> dict[str, Any]:
    """The options with keys changed, `a__b` naming b in a; None removes a key."""
    return changed(OPTIONS, changes, separator="__")


def rows() -> list[dict[str, str]]:
    """Forty loans of each of two banks, by ten people."""
    return [
        {
            "bank": bank,
            "loan": f"L{number}",
            "person": f"{bank}-{number % 5}",
            "income": str(number * 20),
            "home": ("own", "rent")[number % 2],
            "late": ("no", "yes")[number % 3 % 2],
        }
        for bank in ("north", "south")
        for number in range(40)
    ]


def csv_text(cells: Sequence[Mapping[str, str]]) -> str:
    """These rows as CSV; no cell needs quotes."""
    lines = [",".join(row[name] for name in COLUMNS) for row in cells]
    return "\n".join([",".join(COLUMNS), *lines, ""])


def source(
    folder: Path, cells: Sequence[Mapping[str, str]] | None = None, **changes: Any
) -> TaskSource:
    """The source over these rows, as CSV in the folder."""
    (folder / "loans.csv").write_text(csv_text(rows() if cells is None else cells))
    return build_source("table", options(**changes), site(folder))


def site(folder: Path, secret: bytes = SECRET) -> Site:
    """The folder, with a secret that is none."""
    return Site(folder, lambda: secret)


def contents(found: TaskSource) -> dict[str, tuple[bytes, bytes]]:
    """Block id -> inputs and targets, byte for byte."""
    return {
        block.id: (block.x.tobytes(), block.y.tobytes())
        for name in found.clients()
        for block in found.client(name).blocks
    }
