"""What a durable charge costs, and what clients' own ledgers add to a round of the credit example.

    OMP_NUM_THREADS=1 python -m benchmarks.ledger --json

A charge is one reservation: a connection, a transaction, the composition of everything that the
population was charged, and the syncs of database and mark. How long a disk takes to sync decides.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Callable
from importlib import resources
from itertools import count
from pathlib import Path

from benchmarks._common import arguments, in_turn, machine, report, versions
from privacy.ledger import Ledger
from privacy.plan import PrivacyPlan
from secure_fedmeta.config import Config, load_config
from secure_fedmeta.pipeline import assemble
from secure_fedmeta.training import run

CHARGES = 40
HISTORY = 2000
RUNS = 3


def main() -> None:
    """Time both and print the JSON object."""
    options = arguments(__doc__.splitlines()[0]).parse_args()
    example = Path(str(resources.files("secure_fedmeta.templates") / "credit.toml"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["FEDMETA_STATE_DIR"] = str(folder / "state")
        short = ["training.rounds=15", "training.evaluate_every=99"]
        plain = load_config(example, short)
        parts = assemble(plain)
        charges = in_turn(
            {
                "empty": _charging(folder / "empty.sqlite", parts.plan, history=0),
                "long": _charging(folder / "long.sqlite", parts.plan, history=HISTORY),
            },
            rounds=CHARGES,
        )
        url = f"sqlite:///{folder / 'clients.sqlite'}"
        for name in parts.training:
            _granted(Ledger(url), f"credit/{name}", parts.plan)
        own = load_config(example, [*short, f"ledger.client_url={url}"])
        rounds: dict[str, list[float]] = {"without": [], "with": []}
        for _ in range(RUNS):
            rounds["without"] += _seconds(plain, folder / "runs")
            rounds["with"] += _seconds(own, folder / "runs")
    medians = {name: statistics.median(values) for name, values in rounds.items()}
    result = {
        "benchmark": "ledger",
        "charge": {name: timing.to_json() for name, timing in charges.items()},
        "clients": len(parts.training),
        "round_ms": {name: round(1e3 * value, 2) for name, value in medians.items()},
        "ratios": {
            "charge_after_2000_over_empty": charges["long"].median / charges["empty"].median,
            "round_with_own_ledgers_over_without": medians["with"] / medians["without"],
        },
        "machine": machine(),
        "versions": versions("secure-fedmeta", "sqlalchemy"),
    }
    lines = [
        f"charge, {name} ledger: {timing.median * 1e3:.1f} ms" for name, timing in charges.items()
    ]
    lines += [f"round {name} own ledgers: {value * 1e3:.0f} ms" for name, value in medians.items()]
    report(result, lines=lines, quiet=options.json)


def _granted(ledger: Ledger, population: str, plan: PrivacyPlan) -> None:
    ledger.grant(population, unit=plan.unit, epsilon=1e9, delta=plan.delta, approver="benchmark")


def _charging(file: Path, plan: PrivacyPlan, *, history: int) -> Callable[[], object]:
    """Charges one round more at each call, in a ledger with a history."""
    ledger = Ledger(f"sqlite:///{file}")
    _granted(ledger, "p", plan)
    if history:
        ledger.reserve("p", "first", 0, 0, plan.worst_event(), plan.digest())
        exported = ledger.export("p")
        (row,) = exported["reservations"]
        exported["reservations"] = [
            row | {"id": f"id{index}", "run": "earlier", "round": index} for index in range(history)
        ]
        ledger.restore(exported)
    indices = count()
    return lambda: ledger.reserve("p", "r", next(indices), 0, plan.worst_event(), plan.digest())


def _seconds(config: Config, out: Path) -> list[float]:
    lines = (run(config, out=out).directory / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["seconds"] for line in lines]


if __name__ == "__main__":
    main()
