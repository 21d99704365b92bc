"""A person's own data as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

SHOWN_INPUTS = 40
"""Pixels are inputs too, and nobody reads thousands of names; `--json` has them all."""


def render_check(found: Mapping[str, Any]) -> Group:
    """What `check_data` found."""
    parts: list[RenderableType] = []
    if found["notice"] is not None:
        parts.append(Text(found["notice"], style="bold"))
    clients = Table(title=f"{found['name']}: source {found['source']}", title_justify="left")
    for column in ("client", "part", "records", "tasks", "most tasks by declaration"):
        clients.add_column(column, justify="left" if column in ("client", "part") else "right")
    for client in found["clients"]:
        clients.add_row(*(str(value) for value in client.values()))
    clients.add_section()
    clients.add_row("all", "", str(found["rows"]), str(found["tasks"]), "")
    parts.append(clients)
    counted = Table("what", "where", "how many", title="Coded or left out", title_justify="left")
    for what in ("clipped", "missing", "excluded"):
        for where, count in found[what].items():
            counted.add_row(what, where, str(count))
    parts.append(counted if counted.row_count else Text("Nothing was coded or left out."))
    parts.append(Text(_inputs(found["inputs"])))
    parts.append(
        Text(f"Unit of the config: {found['unit']}. Allowed: {', '.join(found['units'])}.")
    )
    parts += [Text(f"Not allowed: {unit}: {why}.") for unit, why in found["lacking"].items()]
    return Group(*parts)


def _inputs(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_INPUTS
    rest = f" and {more:,} more (--json names them all)" if more > 0 else ""
    return f"Inputs ({len(names):,}): {', '.join(names[:SHOWN_INPUTS])}{rest}"
