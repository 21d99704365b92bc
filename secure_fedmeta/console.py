"""What the command line shows: reports, plans and accounts as tables. Prints nothing itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from secure_fedmeta.assessment_view import render_assessment

_ARMS = {
    "no_adaptation": "meta-model, no adaptation",
    "local_k": "local, k examples",
    "local_all": "local, all own examples (cross-validated)",
    "fedavg_ft": "FedAvg + fine-tuning",
    "meta": "meta-model, adapted on k examples",
}


_COUNTS = ("rows", "clients", "tasks")
LABELS = {
    "query_loss": "protected training loss",
    "query_loss_unadapted": "protected training loss before adaptation",
    "unclipped": "protected share of units within the clip",
}
"""Private metrics in words."""


def render_report(directory: Path, report: dict[str, Any]) -> RenderableType:
    """The closing tables of a run: scores, epsilon per adversary, cost, and where the files are."""
    lines: list[RenderableType] = []
    if report["not_private"]:
        lines.append(Text("NOT PRIVATE: all secrets of this run follow from one seed", "bold red"))
    lines += [_scores(report), _adversaries(report)]
    lines += [Text(line) for line in _facts_of_run(report)]
    if "assessment" in report:
        lines.append(render_assessment(report["assessment"]))
    lines.append(Text(f"Files: {directory}"))
    return Group(*lines)


def render_plan(planned: dict[str, Any]) -> RenderableType:
    """The tables of a planned run: its claim per adversary, its noise, and a plain verdict."""
    found = f"noise multiplier {planned['noise_multiplier']:.6g}"
    if planned["target_epsilon"] is not None:
        found = f"target epsilon {planned['target_epsilon']:g}: {found}"
    noise = planned["noise"]
    lines: list[RenderableType] = [
        Text(
            f"{planned['mechanism']} noise, rate {planned['rate']:g}, "
            f"{planned['rounds']} rounds; {found}"
        ),
        Text(f"The claim is about {planned['unit_in_words']}."),
        _planned_adversaries(planned),
        Text(_legend(planned)),
        Text(
            f"Noise of a round's average: {noise['per_coordinate']:.4g} per coordinate, "
            f"{noise['norm']:.4g} over {planned['dimension']} coordinates; the average itself is "
            f"at most {noise['signal_norm']:.4g} long."
        ),
        Text(f"Verdict: {planned['verdict']['level']}. {planned['verdict']['reason']}"),
    ]
    lines += [Text(f"Curve: {path}") for path in planned.get("plots", ())]
    return Group(*lines)


def _legend(planned: dict[str, Any]) -> str:
    names = {name for row in planned["adversaries"].values() for name in row["epsilon"]}
    text = (
        "record: one record replaced; k: one person who makes up "
        f"{planned['person_units']} whole units."
    )
    if any(name.startswith("gaussian") for name in names):
        text += " Gauss: Gaussian noise of the same size, for comparison only."
    return text


def _planned_adversaries(planned: dict[str, Any]) -> Table:
    rows = planned["adversaries"]
    accountants = dict.fromkeys(row["claim"] for row in rows.values())
    accountants |= dict.fromkeys(name for row in rows.values() for name in row["epsilon"])
    table = Table(
        title=f"Epsilon at delta {planned['delta']:g}, unit {planned['unit']} (* the claim)",
        title_justify="left",
    )
    table.add_column("adversary")
    short = {name: name.replace("gaussian_reference_", "Gauss ") for name in accountants}
    for heading in (*short.values(), "record", f"k = {planned['person_units']}"):
        table.add_column(heading, justify="right")
    for name, row in rows.items():
        figures = [
            "-"
            if key not in row["epsilon"]
            else epsilon_of(row["epsilon"][key]) + ("*" if key == row["claim"] else "")
            for key in accountants
        ]
        table.add_row(
            name.replace("_", " "), *figures, epsilon_of(row["record"]), epsilon_of(row["person"])
        )
    return table


def _scores(report: dict[str, Any]) -> Table:
    held_out = report["held_out"]
    table = Table(
        title=f"Held-out clients ({len(held_out['clients'])}): mean {held_out['metric']}, "
        f"{held_out['support']} examples to adapt",
        title_justify="left",
    )
    table.add_column("model")
    table.add_column(f"mean {held_out['metric']}", justify="right")
    table.add_column("95 % interval over clients", justify="right")
    for arm, label in _ARMS.items():
        found = held_out[arm]
        if found is None:
            table.add_row(label, "-", held_out["not_run"][arm])
        else:
            table.add_row(label, *interval_of(found))
    return table


def interval_of(found: dict[str, Any]) -> tuple[str, str]:
    """A mean over clients and its 95 % interval, in words where there is no number."""
    mean, width = found["mean"], found["ci95"]
    if mean is None:
        return "infinite", "the model diverged"
    one = len(found["per_client"]) == 1
    return f"{mean:.3f}", "one client" if one or width is None else f"± {width:.3f}"


def _adversaries(report: dict[str, Any]) -> Table:
    privacy = report["privacy"]
    table = Table(
        title=f"Epsilon at delta {privacy['delta']}, unit {privacy['unit']}", title_justify="left"
    )
    table.add_column("adversary")
    headings = ("claim", "one record replaced", f"person, k = {privacy['person_units']}")
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, found in report["adversaries"].items():
        claim = found["epsilon"][found["claim"]]
        table.add_row(
            name.replace("_", " "),
            *(epsilon_of(v) for v in (claim, found["record"], found["person"])),
        )
    return table


def epsilon_of(value: float | None) -> str:
    """An epsilon as tables show it; None is no bound."""
    return "infinite" if value is None or math.isinf(value) else f"{value:.3f}"


def _facts_of_run(report: dict[str, Any]) -> list[str]:
    rounds, traffic, loss = report["rounds"], report["bytes_per_client"], report["distortion"]
    lines = [
        (
            f"Status: {report['status']}; {rounds['completed']} of {rounds['planned']} rounds "
            f"released, {rounds['aborted']} aborted; "
            f"training took {report['seconds']['training']:.1f} s"
        ),
        (
            f"Bytes per client: {traffic['sent']:,} sent, {traffic['received']:,} received; its "
            f"protected vector takes {traffic['upload']:,} in each round"
        ),
        (
            f"Distortion without noise: {loss['relative']:.2%} of an average at the clip bound, by "
            f"formula. In L2 norm: rounding {loss['rounding']:.2g}, noise {loss['noise']:.2g}. "
            f"{loss['verdict']}"
        ),
    ]
    lines += [
        f"{LABELS[name].capitalize()}: {found['last']:.3g} ± {found['last_noise_std']:.2g} in the "
        f"last round, {found['mean']:.3g} ± {found['mean_noise_std']:.2g} over all (± one standard "
        "deviation of the noise)"
        for name, found in report["protected"].items()
    ]
    clip = report["clip"]
    if clip["quantile"] is not None and clip["first"] is not None:
        lines.append(
            f"Clip bound: from {clip['first']:.3g} to {clip['last']:.3g}, towards "
            f"{clip['quantile']:.0%} of the units"
        )
    lines += [_budget(report["budget"])]
    lines += [f"Note: {note}" for note in report["notes"]]
    return lines


def _budget(budget: dict[str, Any]) -> str:
    """The population and what is left of its grant against the worst adversary."""
    grant = budget["grants"][0]
    spent = "infinite" if grant["spent"] is None else f"{grant['spent']:.3f}"
    fits = _room(budget) or "not known how many more rounds fit"
    return (
        f"Budget: {budget['population']} has spent epsilon {spent} of {grant['granted']:g} "
        f"({budget['filter']}, granted by {grant['approver']}); {fits}"
    )


def _room(row: dict[str, Any]) -> str:
    """How many more rounds fit, in words; empty where it is not known."""
    more = row["affordable_rounds"]
    return {
        None: "",
        "nothing": "the grants set no limit to further rounds like the last one",
        "turns": f"clients have turns for at most {more} more like the last one",
        "grants": f"{more} more like the last one fit",
    }[row["limited_by"]]


def render_datasets(rows: list[dict[str, Any]], note: str) -> RenderableType:
    """The list of data sets, and what its counts are."""
    table = Table("name")
    for heading in _COUNTS:
        table.add_column(heading, justify="right")
    table.add_column("units", min_width=15)
    table.add_column("licence")
    for row in rows:
        counts = ("-" if row[name] is None else f"{row[name]:,}" for name in _COUNTS)
        table.add_row(row["name"], *counts, ", ".join(row["units"] or ()), row["licence"])
    told = [Text(f"{row['name']}: {row['provenance'] or 'as its options say'}") for row in rows]
    return Group(table, *told, Text(note))


def render_accounts(rows: list[dict[str, Any]]) -> RenderableType:
    """The accounts of a ledger: for each population a line, and a table of its grants."""
    if not rows:
        return Text("Nothing was granted or charged yet.")
    return Group(*(part for row in rows for part in _account(row)))


def _account(row: dict[str, Any]) -> list[RenderableType]:
    charged = f"{row['charged']} rounds charged, {row['opened']} of them opened"
    if not row["grants"]:
        return [Text(f"{row['population']}: no grant; {charged}")]
    fits = _room(row)
    basis = f"unit {row['unit']}, delta {row['delta']:g}, {row['filter']}"
    table = Table("limits", "granted", "spent", "remaining", "approver", "until")
    for grant in row["grants"]:
        table.add_row(
            grant["adversary"].replace("_", " "),
            f"{grant['granted']:g}",
            epsilon_of(grant["spent"]),
            f"{grant['remaining']:.3f}",
            grant["approver"],
            grant["expires"] or "for ever",
        )
    facts = [basis, charged, fits] if fits else [basis, charged]
    return [Text(f"{row['population']}: {'; '.join(facts)}"), table]
