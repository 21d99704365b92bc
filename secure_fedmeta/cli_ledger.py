"""The commands on ledgers; `cli` adds them to the others and maps errors to exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from secure_fedmeta.cli_output import Json, Show, show

ledger_app = typer.Typer(help="Privacy budgets over many runs.", no_args_is_help=True)
LedgerUrl = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        metavar="URL",
        help="sqlite:///FILE or postgresql://HOST/DATABASE; left out: the one in the state folder.",
    ),
]
Populations = Annotated[list[str], typer.Argument(metavar="POPULATION...", help="Whose data.")]


@ledger_app.command("show")
def ledger_show(
    populations: Annotated[
        list[str] | None,
        typer.Argument(metavar="[POPULATION]...", help="Whose data; left out: everybody's."),
    ] = None,
    ledger: LedgerUrl = None,
    as_json: Json = False,
) -> None:
    """Show what was granted, what is spent, and how many more rounds like the last one fit."""
    from secure_fedmeta.console_progress import display

    with display(Show.AUTO, as_json=as_json) as shown:
        shown.stage("reading the ledger")
        from secure_fedmeta.accounts import accounts
        from secure_fedmeta.budget import open_ledger

        rows = accounts(open_ledger(ledger), populations or ())
    if as_json:
        print(json.dumps({"populations": rows}))
        return
    from secure_fedmeta.console import render_accounts

    show(render_accounts(rows))


@ledger_app.command("grant")
def ledger_grant(
    populations: Populations,
    epsilon: Annotated[float, typer.Option(help="Limit over all rounds of all runs.")],
    approver: Annotated[str, typer.Option(help="Who answers for it.")],
    unit: Annotated[str, typer.Option(help="record, task, user or client.")] = "task",
    delta: Annotated[float, typer.Option(help="Delta at which the limit holds.")] = 1e-5,
    expires: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="From when on nothing is charged: 2027-01-31, in UTC."),
    ] = None,
    adversary: Annotated[
        str, typer.Option(help="Whom it limits; the first grant is for the worst of them.")
    ] = "worst",
    order: Annotated[
        int | None,
        typer.Option(
            help="Renyi order of a filter, for settings chosen from results; left out: fixed plans."
        ),
    ] = None,
    ledger: LedgerUrl = None,
    as_json: Json = False,
) -> None:
    """Grant populations a budget; what they have spent stays spent."""
    from secure_fedmeta.accounts import accounts, grant
    from secure_fedmeta.budget import open_ledger

    opened = open_ledger(ledger)
    for population in populations:
        grant(
            opened,
            population,
            unit=unit,
            epsilon=epsilon,
            delta=delta,
            approver=approver,
            expires=expires,
            adversary=adversary,
            order=order,
        )
    if as_json:
        print(json.dumps({"populations": accounts(opened, populations)}))
        return
    for population in populations:
        print(f"Granted {population} epsilon {epsilon:g} at delta {delta:g} for unit {unit}.")


@ledger_app.command("export")
def ledger_export(
    population: Annotated[str, typer.Argument(help="Whose data.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write, which must not exist; left out: stdout.")
    ] = None,
    ledger: LedgerUrl = None,
    as_json: Json = False,
) -> None:
    """Write everything that a population was granted and charged, as a backup."""
    from secure_fedmeta.accounts import export, write_new
    from secure_fedmeta.budget import open_ledger

    exported = export(open_ledger(ledger), population)
    if out is None:
        print(json.dumps(exported))
        return
    write_new(out, json.dumps(exported))
    count = len(exported["reservations"])
    facts = {"file": str(out), "population": population, "reservations": count}
    print(json.dumps(facts) if as_json else f"Wrote {count} charges of {population} to {out}.")


@ledger_app.command("restore")
def ledger_restore(
    file: Annotated[Path, typer.Argument(help="What `fedmeta ledger export` wrote.")],
    ledger: LedgerUrl = None,
    as_json: Json = False,
) -> None:
    """Add what an export holds and the ledger lacks; nothing is changed or removed."""
    from secure_fedmeta.console_progress import display

    with display(Show.AUTO, as_json=as_json) as shown:
        shown.stage("adding to the ledger")
        from secure_fedmeta.accounts import read_export
        from secure_fedmeta.budget import open_ledger

        exported = read_export(file)
        added = open_ledger(ledger).restore(exported)
    population = exported.get("population")
    facts = {"population": population, "added": added}
    print(json.dumps(facts) if as_json else f"Added {added} charges of {population}.")
