"""The command that searches; `cli` adds it to the others and maps errors to exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from secure_fedmeta.cli_output import Interrupted, Json, Show, ShowOption, show

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
    progress: ShowOption = Show.AUTO,
    as_json: Json = False,
) -> None:
    """Choose algorithm and settings by equal trials, on validation clients alone.

    On data declared public this is free. On any other data every candidate is charged in full, and
    nothing starts unless the grants cover all of them.
    """
    from secure_fedmeta.console_progress import display

    shown = display(progress, as_json=as_json)
    try:
        with shown:
            shown.stage("starting")
            from secure_fedmeta.config import load_config
            from secure_fedmeta.console_tune import render_tune
            from secure_fedmeta.errors import ConfigError
            from secure_fedmeta.tasks import Site
            from secure_fedmeta.tuning import tune as search

            settings = load_config(config, overrides or ())
            try:
                site = Site(config.parent)
                result = search(settings, out=out, progress=shown, site=site)
            except ConfigError as error:
                raise error.in_file(str(config)) from error
    except KeyboardInterrupt as stop:
        raise _interrupted(shown.directory, stop) from stop
    found = result.found | {"directory": str(result.directory)}
    if as_json:
        print(json.dumps(found, allow_nan=False))
    elif progress is Show.JSON:
        print(json.dumps({"kind": "report", "report": found}, allow_nan=False))
    elif progress is not Show.QUIET:
        show(render_tune(result.directory, result.found))
    raise typer.Exit(_CODES[result.status])


def _interrupted(directory: Path | None, stop: KeyboardInterrupt) -> Interrupted:
    """What is kept of a search: it does not go on where it was."""
    if directory is None:
        return Interrupted("no candidate was begun; call it again", stop)
    if not (directory / "tune.json").is_file():
        return Interrupted("no candidate ended, and what was charged stays charged", stop)
    return Interrupted(
        f"candidates that ended are in {directory / 'tune.json'}, and what was charged stays "
        "charged; a new search begins with the first candidate",
        stop,
    )
