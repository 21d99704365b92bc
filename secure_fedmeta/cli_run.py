"""The command that trains; `cli` adds it to the others and maps errors to exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secure_fedmeta.cli_output import (
    Json,
    Show,
    ShowOption,
    interrupted_in,
    refused_by_disk,
    resuming,
    show,
)

if TYPE_CHECKING:
    from secure_fedmeta.resumption import Found

_CODES = {"completed": 0, "budget": 1, "aborted": 3}


def run(
    config: Annotated[
        Path | None,
        typer.Argument(help="TOML file; left out: the only .toml file of this folder."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, in TOML syntax."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder that the run directory is made in.")] = Path(
        "runs"
    ),
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Trace the first rounds by stage; public data alone."),
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write the released figures as scalars, too.")
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="Go on with a run that was cut off, from its run directory."
        ),
    ] = None,
    progress: ShowOption = Show.AUTO,
    as_json: Json = False,
) -> None:
    """Train a federated meta-model and leave model, report and audit log in a run directory."""
    from secure_fedmeta.console_progress import display

    if resume is not None:
        _refuse_beside_resume(config, overrides)
        path = resume / "config.toml"
    else:
        path = config or _only_config(Path.cwd())
    shown = display(progress, as_json=as_json)
    try:
        with shown:
            shown.stage("starting")
            from secure_fedmeta.config import load_config
            from secure_fedmeta.errors import ConfigError
            from secure_fedmeta.instruments import chosen
            from secure_fedmeta.tasks import Site
            from secure_fedmeta.training import resume as train_on
            from secure_fedmeta.training import run as train

            watching = chosen(profile=profile, tensorboard=tensorboard)
            try:
                if resume is not None:
                    tell = _quiet if progress is Show.QUIET else _tell
                    result = train_on(resume, progress=shown, instruments=watching, tell=tell)
                else:
                    settings = load_config(path, overrides or ())
                    site = Site(path.parent)
                    result = train(
                        settings, out=out, progress=shown, site=site, instruments=watching
                    )
            except ConfigError as error:
                raise error if error.file else error.in_file(str(path)) from error
    except KeyboardInterrupt as stop:
        raise interrupted_in(shown.directory or resume, stop) from stop
    except OSError as error:
        raise refused_by_disk(error, resuming(shown.directory or resume)) from error
    if as_json:
        print(json.dumps(result.report))
    elif progress is Show.JSON:
        print(json.dumps({"kind": "report", "report": result.report}))
    elif progress is not Show.QUIET:
        show_report(result.directory, result.report)
        for line in (line for one in watching for line in one.lines()):
            print(line)
    raise typer.Exit(_CODES[result.status])


def _tell(found: Found) -> None:
    """Say what a resumed run found; stdout is for the report."""
    for line in found.lines():
        print(line, file=sys.stderr)


def _quiet(found: Found) -> None:
    """Say nothing."""


def _refuse_beside_resume(config: Path | None, overrides: list[str] | None) -> None:
    """A run goes on with its own settings, where it is."""
    from click import get_current_context
    from click.core import ParameterSource

    from secure_fedmeta.errors import ConfigError

    moved = get_current_context().get_parameter_source("out") is ParameterSource.COMMANDLINE
    if config is not None or overrides or moved:
        raise ConfigError(
            "goes on in its directory, with the settings that the run began with: leave out the "
            "config, --set and --out",
            key="--resume",
        )


def show_report(directory: Path, found: dict[str, Any]) -> None:
    """Print a run's closing tables."""
    from secure_fedmeta.console import render_report
    from secure_fedmeta.errors import RunDirectoryError
    from secure_fedmeta.reporting import HTML

    try:
        shown = render_report(directory, found)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunDirectoryError(
            f"{directory} holds a report that this version cannot show ({error!r}); "
            "fedmeta verify says whether it is as it was written"
        ) from error
    show(shown)
    if (page := directory / HTML).is_file():
        print(f"Report: {with_size(page)}")


def with_size(path: Path) -> str:
    """A file and its size."""
    return f"{path} ({path.stat().st_size / 1000:,.0f} kB)"


def _only_config(folder: Path) -> Path:
    from secure_fedmeta.errors import ConfigError

    found = sorted(folder.glob("*.toml"))
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.name for path in found) or "none"
    raise ConfigError(f"name a config: fedmeta run CONFIG (this folder's .toml files: {names})")
