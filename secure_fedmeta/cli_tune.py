"""The command that searches; `cli` adds it to the others and maps errors to exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from secure_fedmeta.cli_ledger import Json

_CODES = {"completed": 0, "budget": 1, "aborted": 3}


def tune(
    config: Annotated[Path, typer.Argument(help="TOML file with a section [tune].")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, in TOML syntax."),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder that the search's directory is made in.")
    ] = Path("runs"),
    as_json: Json = False,
) -> None:
    """Choose algorithm and settings by equal trials, on validation clients alone.

    On data declared public this is free. On any other data every candidate is charged in full, and
    nothing starts unless the grants cover all of them.
    """
    from rich.console import Console

    from secure_fedmeta.config import load_config
    from secure_fedmeta.console import ConsoleProgress
    from secure_fedmeta.console_tune import render_tune
    from secure_fedmeta.errors import ConfigError
    from secure_fedmeta.tasks import Site
    from secure_fedmeta.trials import count_of
    from secure_fedmeta.tuning import tune as search

    settings = load_config(config, overrides or ())
    try:
        count = count_of(settings)
        rounds = None if count is None else count * settings.training.rounds
        with ConsoleProgress(rounds, quiet=as_json) as progress:
            site = Site(config.parent)
            result = search(settings, out=out, progress=progress, site=site)
    except ConfigError as error:
        raise error.in_file(str(config)) from error
    if as_json:
        print(json.dumps(result.found | {"directory": str(result.directory)}, allow_nan=False))
    else:
        Console(highlight=False).print(render_tune(result.directory, result.found))
    raise typer.Exit(_CODES[result.status])
