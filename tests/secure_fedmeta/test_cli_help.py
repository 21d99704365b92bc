"""Every command says what it does and what each of its words means."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
import typer
from typer.testing import CliRunner

from secure_fedmeta.cli import app


def commands(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and group, with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))


ALL = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", ALL, ids=lambda path: " ".join(path) or "fedmeta")
def test_help_names_everything(path: tuple[str, ...]) -> None:
    command = ALL[path]
    shown = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, [*path, "--help"])
    assert shown.exit_code == 0
    assert command.help is not None
    assert command.help.endswith(".")
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{parameter.name} is not explained"
        for option in parameter.opts if isinstance(parameter, click.Option) else ():
            assert option in shown.output
    for name in getattr(command, "commands", {}):
        assert name in shown.output
