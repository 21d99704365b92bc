"""The command line: the only place that reads arguments, prints, or chooses an exit code.

Exit codes: 0 fine, 1 a check failed (verification, budget), 2 bad input or config, 3 a round could
not complete. Heavy imports happen inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secure_fedmeta.cli_agent import act, agent_app, examples, personalize
from secure_fedmeta.cli_compare import compare
from secure_fedmeta.cli_data import check
from secure_fedmeta.cli_ledger import ledger_app
from secure_fedmeta.cli_output import (
    Commands,
    DiskRefused,
    Interrupted,
    Json,
    Show,
    print_anywhere,
    show,
    stopped_once,
    visible,
)
from secure_fedmeta.cli_run import run, show_report, with_size
from secure_fedmeta.cli_tune import tune

if TYPE_CHECKING:
    from privacy.plan import PrivacyPlan

OK, CHECK_FAILED, BAD_INPUT, ROUND_FAILED = 0, 1, 2, 3

app = typer.Typer(
    name="fedmeta",
    cls=Commands,
    help="Privacy-hardened federated meta-learning: train, verify, report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(ledger_app, name="ledger")
app.command()(run)
app.command()(tune)
app.command()(check)
app.command()(compare)
app.command()(personalize)
app.command()(act)
app.command()(examples)
app.add_typer(agent_app, name="agent")


@app.command()
def verify(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    key: Annotated[str | None, typer.Option(help="The log's public key (vkey string).")] = None,
    pinned: Annotated[
        Path | None, typer.Option(help="A checkpoint of this log that you kept.")
    ] = None,
    unpinned: Annotated[
        bool,
        typer.Option(
            "--unpinned", help="Accept a log that no key vouches for: its signature is not checked."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a run's audit log from the first entry to its signed head."""
    from secure_fedmeta.console_progress import display

    with display(Show.AUTO, as_json=as_json) as shown:
        shown.stage("verifying the log")
        from secure_fedmeta.verification import verify_run

        outcome = verify_run(run_directory, key=key, pinned=pinned, unpinned=unpinned)
    if as_json:
        print(json.dumps(outcome.to_json()))
    else:
        for line in outcome.lines():
            print(visible(line))
    raise typer.Exit(OK if outcome.accepted else CHECK_FAILED)


@app.command()
def report(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    html: Annotated[Path | None, typer.Option(help="Render the page anew, into this file.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Render it as Markdown, into this file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the report of a finished run, or render its page anew with a later assessment."""
    from secure_fedmeta.console_progress import display

    with display(Show.AUTO, as_json=as_json) as shown:
        shown.stage("reading the report")
        from secure_fedmeta.reporting import HTML, MARKDOWN, render_again
        from secure_fedmeta.results import read_assessment, read_report

        targets = {HTML: html, MARKDOWN: markdown}
        given = {form: path for form, path in targets.items() if path is not None}
        render_again(run_directory, given)
        found = read_report(run_directory)
        assessment = read_assessment(run_directory)
    if assessment is not None:
        found["assessment"] = assessment
    if as_json:
        print(json.dumps(found))
    else:
        show_report(run_directory, found)
        for path in given.values():
            print(f"Rendered: {with_size(path)}")


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="Name of an example, such as credit or sinusoid.")],
    as_json: Json = False,
) -> None:
    """Write an example configuration to start from."""
    from secure_fedmeta.templates import write_template

    path = write_template(name, Path.cwd())
    print(json.dumps({"file": str(path)}) if as_json else f"Wrote {path}. Next: fedmeta run {path}")


@app.command()
def plan(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file to plan for, in place of the options.")
    ] = None,
    mechanism: Annotated[
        str,
        typer.Option(
            help="skellam or discrete-gaussian: integers in the secure sum. gaussian: each client "
            "adds noise to its own steps."
        ),
    ] = "skellam",
    unit: Annotated[str, typer.Option(help="record, task, user or client.")] = "task",
    rate: Annotated[float, typer.Option(help="Probability that a unit is drawn in a round.")] = 1.0,
    noise_multiplier: Annotated[
        float | None, typer.Option(help="Noise over sensitivity; its epsilon is shown.")
    ] = None,
    target_epsilon: Annotated[
        float | None, typer.Option(help="Epsilon; the least noise that meets it is shown.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Rounds, or steps with gaussian.")] = 100,
    delta: Annotated[float, typer.Option(help="Delta of the whole run.")] = 1e-5,
    clients: Annotated[int, typer.Option(help="Clients of the federation.")] = 10,
    min_survivors: Annotated[
        int | None, typer.Option(help="Fewest contributions that are opened; left out: all.")
    ] = None,
    max_colluders: Annotated[int, typer.Option(help="Contributors that may collude.")] = 1,
    dimension: Annotated[int, typer.Option(help="Coordinates of the summed vector.")] = 1000,
    expected_units: Annotated[int, typer.Option(help="Public divisor of a round's sum.")] = 100,
    person_units: Annotated[int, typer.Option(help="Units that one person may hold.")] = 2,
    clip: Annotated[float, typer.Option(help="L2 bound of one unit's vector.")] = 1.0,
    max_participations: Annotated[
        int | None, typer.Option(help="Unit client: most rounds that one client is in.")
    ] = None,
    tasks_per_user: Annotated[
        int | None, typer.Option(help="Unit user: most tasks of one user, clipped apart.")
    ] = None,
    adversary: Annotated[
        str | None, typer.Option(help="Show this adversary only, such as aggregator.")
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder to draw curves in, as SVG.")] = None,
    as_json: Json = False,
) -> None:
    """Price a setting beforehand: epsilon of a noise, or the noise for a target epsilon."""
    from secure_fedmeta.console_progress import display

    with display(Show.AUTO, as_json=as_json) as shown:
        shown.stage("pricing the plan")
        from secure_fedmeta import planning
        from secure_fedmeta.console import render_plan

        only = planning.adversary_named(adversary)
        if config is None:
            request = planning.Request(
                mechanism=mechanism,
                unit=unit,
                rate=rate,
                noise_multiplier=noise_multiplier,
                target_epsilon=target_epsilon,
                rounds=rounds,
                delta=delta,
                clients=clients,
                min_survivors=min_survivors,
                max_colluders=max_colluders,
                dimension=dimension,
                expected_units=expected_units,
                person_units=person_units,
                clip=clip,
                max_participations=max_participations,
                tasks_per_user=tasks_per_user,
            )
            planned = planning.outlook(request)
        else:
            _refuse_options_beside(config)
            planned = planning.outlook_of(_plan_of(config))
        found = planning.to_json(planned, adversary=only)
        if plots is not None:
            drawn = planning.draw(planned, plots, announce=shown.stage)
            found["plots"] = [str(path) for path in drawn]
    if as_json:
        print(json.dumps(found, allow_nan=False))
    else:
        show(render_plan(found))


@app.command()
def assess(
    config: Annotated[Path, typer.Argument(help="TOML file whose pipeline is put to the test.")],
    plant: Annotated[
        str | None,
        typer.Option(
            help="Put a bug into the assessed copy, to see it noticed: half-noise, "
            "double-sensitivity, no-clip, reused-seed, missing-share or shuffle."
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder that assess.json is written to, such as a run directory.")
    ] = Path(),
    as_json: Json = False,
) -> None:
    """Test whether the pipeline of a config does what its privacy claim says."""
    from secure_fedmeta.console_progress import display

    with display(Show.AUTO, as_json=as_json) as shown:
        shown.stage("starting")
        from privacy.rng import SecureRandom
        from secure_fedmeta.assess import assess as put_to_the_test
        from secure_fedmeta.assessment_view import render_assessment
        from secure_fedmeta.config import load_config
        from secure_fedmeta.errors import ConfigError
        from secure_fedmeta.plants import planted
        from secure_fedmeta.results import check_folder, write_assessment
        from secure_fedmeta.tasks import Site

        check_folder(out)
        settings, mechanism = load_config(config), planted(plant)
        try:
            found = put_to_the_test(
                settings,
                mechanism,
                SecureRandom.from_os(),
                shown.stage,
                site=Site(config.parent),
            )
        except ConfigError as error:
            raise error if error.file else error.in_file(str(config)) from error
    found |= {"planted": plant}
    write_assessment(out, found)
    if as_json:
        print(json.dumps(found, allow_nan=False))
    else:
        show(render_assessment(found))
    raise typer.Exit(OK if found["passed"] else CHECK_FAILED)


@app.command()
def datasets(as_json: Json = False) -> None:
    """List the data sets that ship, their sizes, licences and units of privacy."""
    from secure_fedmeta.console_progress import display

    with display(Show.AUTO, as_json=as_json) as shown:
        shown.stage("reading data")
        from crypto.progress import listening
        from secure_fedmeta.console import render_datasets
        from secure_fedmeta.tasks.catalogue import NOTE, catalogue

        with listening(shown.stage):
            rows = list(catalogue())
    if as_json:
        print(json.dumps({"datasets": rows, "note": NOTE}))
    else:
        show(render_datasets(rows, NOTE))


def main() -> None:
    """Entry point: one line per expected error, and its exit code."""
    from audit.errors import AuditError
    from crypto.errors import CryptoError
    from privacy.errors import BudgetExceeded, LedgerUnavailable, PrivacyError
    from secure_fedmeta.errors import FedmetaError

    print_anywhere()
    try:
        with stopped_once():
            app()
    except (Interrupted, DiskRefused) as error:
        _fail(error, ROUND_FAILED)
    except BudgetExceeded as error:
        _fail(error, CHECK_FAILED)
    except LedgerUnavailable as error:
        _fail(error, ROUND_FAILED)
    except (AuditError, CryptoError, PrivacyError, FedmetaError) as error:
        _fail(error, BAD_INPUT)


def _plan_of(path: Path) -> PrivacyPlan:
    from secure_fedmeta.config import load_config
    from secure_fedmeta.errors import ConfigError
    from secure_fedmeta.pipeline import assemble
    from secure_fedmeta.tasks import Site

    try:
        return assemble(load_config(path), site=Site(path.parent)).plan
    except ConfigError as error:
        raise error if error.file else error.in_file(str(path)) from error


def _refuse_options_beside(config: Path) -> None:
    """A config says everything; an option that would contradict it is refused."""
    from click import get_current_context
    from click.core import ParameterSource

    from secure_fedmeta.errors import ConfigError

    context = get_current_context()
    for name in context.params:
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in ("config", "adversary", "plots", "as_json"):
            raise ConfigError(
                f"stands beside a config, which says it already: leave out one of them ({config})",
                key=f"--{name.replace('_', '-')}",
            )


def _fail(error: object, code: int) -> None:
    with contextlib.suppress(OSError):  # where the terminal has gone nobody can be told
        print(f"fedmeta: {visible(str(error))}", file=sys.stderr, flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
