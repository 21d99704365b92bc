"""What the commands on agents show, as tables and lines. Prints nothing itself."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


def render_answer(found: dict[str, Any]) -> RenderableType:
    """Predictions, one line for each row, what they mean, and the score where there is one."""
    table = Table(title=f"{found['target']}, by {found['way']}", title_justify="left")
    table.add_column("row", justify="right")
    table.add_column("prediction", justify="right")
    classes = found["classes"] is not None
    for heading in ("probability",) if classes else ("low", "high"):
        table.add_column(heading, justify="right")
    for number, one in enumerate(found["predictions"], start=1):
        if classes:
            cells = [str(one["prediction"]), _number(one["probability"], "{:.3f}")]
        else:
            cells = [_number(one[key], "{:.4g}") for key in ("prediction", "low", "high")]
        table.add_row(str(number), *map(Text, cells))
    lines: list[RenderableType] = [table, Text(f"Confidence: {found['confidence']}.")]
    lines += [
        Text(f"{column}: {count} values were set to the declared bound.")
        for column, count in found["clipped"].items()
    ]
    if found["score"] is not None:
        lines.append(Text(f"Score on the targets of this file: {found['metric']} {found['score']}"))
    return Group(*lines, Text(found["notice"]))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
