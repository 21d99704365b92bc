"""What an assessment looks like on a terminal. Prints nothing itself."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


def render_assessment(found: dict[str, Any]) -> RenderableType:
    """The table of an assessment: what was checked, what was found, and what would have failed."""
    lines: list[RenderableType] = []
    if found["planted"] is not None:
        lines.append(Text(f"PLANTED BUG in the assessed copy: {found['planted']}", "bold red"))
    lines.append(_checks(found))
    if found["matching"]:
        lines.append(
            Text(
                "Gradient matching, which of the known tasks is in it: "
                + "; ".join(
                    f"{row['view'].replace('_', ' ')} {row['right']:.2f} "
                    f"({row['right_ci95'][0]:.2f} to {row['right_ci95'][1]:.2f})"
                    for row in found["matching"]
                )
                + f"; chance {found['matching'][0]['chance']:.2f}."
            )
        )
    lines.append(
        Text(
            f"A right pipeline fails anything with probability {found['false_alarm']:.2g} at most. "
            f"It took {found['seconds']:.0f} s."
        )
    )
    verdict = "passed" if found["passed"] else "FAILED: " + ", ".join(found["failed"])
    lines.append(Text(f"Assessment: {verdict}"))
    return Group(*lines)


def _checks(found: dict[str, Any]) -> Table:
    table = Table(title="Does the pipeline do what its plan says?", title_justify="left")
    for heading in ("", "check", "found", "looks for", "power"):
        table.add_column(heading)
    words = {True: "ok", False: "FAILED", None: "not run"}
    for check in found["checks"]:
        power = "-" if check["power"] is None else f"{math.floor(check['power'] * 1e4) / 1e4:g}"
        row = (words[check["passed"]], check["name"], check["found"], check["catches"], power)
        table.add_row(*row, style="red" if check["passed"] is False else None)
    return table
