"""The command that compares runs; `cli` adds it to the others and maps errors to exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from secure_fedmeta.cli_output import Json, Show, show, visible

_CHECK_FAILED = 1


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", help="Directories of finished runs.")
    ],
    unpinned: Annotated[
        bool, typer.Option("--unpinned", help="Accept logs that no pin of yours vouches for.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the scores into this file, .svg or .png.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show runs side by side: settings that differ, scores, epsilon, noise, bytes and time.

    A run whose log does not verify is refused.
    """
    from secure_fedmeta.console_progress import display

    with display(Show.AUTO, as_json=as_json) as shown:
        shown.stage("reading and verifying the runs")
        from secure_fedmeta import comparison
        from secure_fedmeta.console_compare import render_comparison

        try:
            found = comparison.compare(runs, unpinned=unpinned)
        except comparison.NotVerified as error:
            print(f"fedmeta: {visible(str(error))}", file=sys.stderr)
            raise typer.Exit(_CHECK_FAILED) from error
        if plot is not None:
            shown.stage("drawing the scores")
            comparison.draw(found, plot)
    if as_json:
        print(json.dumps(found, allow_nan=False))
    else:
        show(render_comparison(found))
        if plot is not None:
            print(f"Plot: {plot}")
