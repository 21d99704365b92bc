"""The command that says what is in a person's own data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from secure_fedmeta.cli_output import Json, Show, show


def check(
    config: Annotated[Path, typer.Argument(help="TOML file whose data are read and checked.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, in TOML syntax."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Read the data of a config as a run would, and say what is in them; nothing is trained.

    The figures are for whoever holds the data: they are exact, and no noise protects them.
    """
    from secure_fedmeta.console_progress import display

    with display(Show.AUTO, as_json=as_json) as shown:
        shown.stage("reading data")
        from secure_fedmeta.config import load_config
        from secure_fedmeta.console_data import render_check
        from secure_fedmeta.data_check import check_data
        from secure_fedmeta.errors import ConfigError
        from secure_fedmeta.tasks import Site

        settings = load_config(config, overrides or ())
        try:
            found = check_data(settings, site=Site(config.parent))
        except ConfigError as error:
            raise error.in_file(str(config)) from error
    if as_json:
        print(json.dumps(found))
    else:
        show(render_check(found))
