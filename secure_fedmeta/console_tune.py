"""What the command line shows of a search. Prints nothing itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from secure_fedmeta.console import epsilon_of, interval_of


def render_tune(directory: Path, found: dict[str, Any]) -> RenderableType:
    """The table of a search's candidates, what was looked at, and what it cost."""
    seen, effort, charge = found["looked_at"], found["effort"], found["charge"]
    protected = found["scores"] == "protected"
    over = (
        f"mean {found['metric']} of training tasks over the last {effort['score_rounds']} rounds, "
        "under the noise that is charged"
        if protected
        else f"mean {found['metric']} over the validation clients"
    )
    table = Table(
        title=f"{len(found['candidates'])} of {effort['candidates']} candidates, "
        f"{effort['rounds']} rounds each; {over} ({found['better']} is better)",
        title_justify="left",
    )
    table.add_column("")
    table.add_column("settings", min_width=27)
    for heading in (f"mean {found['metric']}", "95 % interval", "epsilon alone", "seconds"):
        table.add_column(heading, justify="right")
    for row in found["candidates"]:
        table.add_row(
            f"{row['number']}{' *' if row['number'] == found['chosen'] else ''}",
            "\n".join(f"{key} = {value}" for key, value in row["settings"].items()),
            *_score_of(row, protected=protected),
            "free" if charge is None else epsilon_of(row["epsilon"]),
            f"{row['seconds']:.1f}",
        )
    judges = (
        "; scores are theirs, protected."
        if protected
        else f"; scores on {', '.join(seen['validation_clients'])} "
        f"(public {seen['validation_is_public']})."
    )
    lines: list[RenderableType] = [
        table,
        Text(f"Looked at: training on {', '.join(seen['training_clients'])}{judges}"),
        Text(f"Not looked at: {', '.join(found['not_looked_at']) or 'nobody is held out'}."),
        Text(_charge_of_search(charge)),
    ]
    if found["chosen"] is None:
        lines.append(Text("No candidate could be chosen."))
    else:
        lines.append(Text(f"Chosen: candidate {found['chosen']}, as {directory / found['config']}"))
        lines += [] if found["selection"] is None else [Text(_selection(found["selection"]))]
        lines += [] if found["lead"] is None else [Text(_lead(found["lead"], protected=protected))]
    lines.append(Text(f"Files: {directory}"))
    return Group(*lines)


def _selection(selection: dict[str, Any]) -> str:
    return (
        f"Recipients of {selection['model']} and the chosen config alone: epsilon "
        f"{epsilon_of(selection['epsilon'])}, if the number of trials and all other files of the "
        "search stay secret. Nobody else has this figure."
    )


def _score_of(row: dict[str, Any], *, protected: bool) -> tuple[str, str]:
    """A candidate's score and its interval, in words where there is no number."""
    if row["status"] != "completed":
        return "-", row["status"]
    if protected:
        if row["score"] is None:
            return "-", "no round"
        return f"{row['score']:.3f}", f"± {row['ci95']:.3f}"
    if not row["per_client"]:
        return "-", row["status"]
    return interval_of({"mean": row["score"], "ci95": row["ci95"], "per_client": row["per_client"]})


def _lead(lead: dict[str, Any], *, protected: bool) -> str:
    mean, width = lead["mean"], lead["ci95"]
    head = f"Its lead over candidate {lead['over']}"
    if mean is None:
        return f"{head} is no number: one of them diverged."
    if width is None:
        return f"{head} is {mean:.4f}, on one client: that says little."
    beside = "the noise" if protected else "the spread over clients"
    shows = "" if mean > width else f"; it does not show beside {beside}"
    unit = "by the noise of both" if protected else "client by client"
    return f"{head} is {mean:.4f} ± {width:.4f}, {unit}{shows}."


def _charge_of_search(charge: dict[str, Any] | None) -> str:
    if charge is None:
        return "Charged: nothing; the data are declared public."
    worst = max(charge["epsilon"].values())
    return (
        f"Charged: {charge['rounds']} rounds to {charge['population']}, together epsilon "
        f"{worst:.3f} at delta {charge['delta']:g} against the worst adversary; it has spent "
        f"{charge['population_spent']:.3f} of {charge['granted']:g}. A run of the chosen config "
        "is charged on top."
    )
