"""Runs that end in every way that a report can look like, each a small real one."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest

from privacy.rng import SecureRandom
from secure_fedmeta import attacks
from secure_fedmeta.assess import assess
from secure_fedmeta.config import load_config
from secure_fedmeta.plants import planted
from secure_fedmeta.reporting import HTML, render, render_again
from secure_fedmeta.reporting.files import read_records
from secure_fedmeta.results import read_report, write_assessment
from secure_fedmeta.training import run
from tests.secure_fedmeta.federation import default_ledger, tiny

CREDIT = Path(__file__).resolve().parents[2] / "examples" / "credit.toml"

NAMES = (
    "<script>document.title = 'taken'</script>",
    '"><img src=https://example.org/x.png onerror=taken()>',
    "</td></table><h1>taken</h1>",
    "&lt;b&gt; & 'quoted' `code` \u202etaken",
    "x" * 300,
    "<style>* { display: none }</style>",
)
"""Names of clients that try to be more than text."""


def demo(folder: Path) -> Path:
    """The demo, with fewer rounds."""
    changes = ("training.rounds=4", "training.evaluate_every=2", "evaluation.repeats=4")
    return run(load_config(CREDIT, changes), out=folder).directory / HTML


def aborted(folder: Path) -> Path:
    """No client ever answers."""
    changes = {"transport.drop": 0.999999999, "training.on_abort": "stop"}
    return run(tiny(changes), out=folder).directory / HTML


def no_budget(folder: Path) -> Path:
    """The population's grant ends the run before its last round."""
    default_ledger().grant("people", unit="task", epsilon=2.0, delta=1e-5, approver=NAMES[0])
    return run(tiny({"ledger.population": "people"}), out=folder).directory / HTML


def not_private(folder: Path) -> Path:
    """Every secret follows from a seed, the secure sum is none, and no client is held out."""
    changes = {"not_private.seed": 1, "secure_sum.protocol": "plain"}
    changes |= {"secure_sum.allow_insecure": True, "data.options.held_out_clients": 0}
    return run(tiny(changes), out=folder).directory / HTML


def assessed(folder: Path) -> Path:
    """The page rendered again, beside an assessment that found a planted bug."""
    directory = run(tiny(), out=folder).directory
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attacks, "TRIALS", 200)  # what they find is not looked at here
        found = assess(tiny(), planted("half-noise"), SecureRandom.from_os(), lambda text: None)
    write_assessment(directory, found | {"planted": "half-noise"})
    page = folder / "assessed.html"
    render_again(directory, {HTML: page})
    return page


def names_of_html(folder: Path) -> Path:
    """A report whose clients, notes and reasons have the names above: a source may be anybody's."""
    directory = run(tiny({"data.options.held_out_clients": 4}), out=folder).directory
    found = read_report(directory)
    text = json.dumps(found)
    clients = [*found["held_out"]["meta"]["per_client"], *found["data"]["training_clients"]]
    for client, name in zip(clients, cycle(NAMES)):
        text = text.replace(json.dumps(client), json.dumps(name + client))
    found = json.loads(text) | {"notes": list(NAMES)}
    found["rounds"]["abort_reasons"] = list(NAMES)
    page = folder / "names.html"
    page.write_text(render(found, read_records(directory))[HTML])
    return page


STATES: dict[str, Callable[[Path], Path]] = {
    made.__name__: made for made in (demo, aborted, no_budget, not_private, assessed, names_of_html)
}
"""What it shows -> makes the run in a folder; the page."""
