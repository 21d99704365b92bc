"""Every client of the shipped tables held out once, with the examples' settings as they are.

    python -m benchmarks.table_folds --sources heart thyroid --json

Clients are sorted by name; fold f holds out those with index i where i mod FOLDS = f, and trains
privately on the others with the settings of the source's example. Nothing is chosen, so that no
score is looked at before it is reported. Two numbers follow each fold's training clients, from
public bounds: the divisor of the sum, in proportion, and how many clients may drop out, which are
as many as in the example. The data are public; on private data all folds together would be charged,
and a fold's epsilon would not be the whole cost.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks._common import arguments, machine, report, versions
from secure_fedmeta.config import Config, load_config, parse_config
from secure_fedmeta.evaluation import Interval
from secure_fedmeta.tasks import TaskSource, build_source
from secure_fedmeta.training import run

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
FOLDS = {"heart": 4, "lending": 5, "migraine": 4, "thyroid": 5}
ARMS = ("no_adaptation", "local_k", "local_all", "fedavg_ft", "meta")


def main() -> None:
    """Run the folds of each source and print the JSON object."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--sources", nargs="+", choices=tuple(FOLDS), default=tuple(FOLDS))
    parser.add_argument("--set", dest="overrides", nargs="+", default=(), metavar="KEY=VALUE")
    options = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["FEDMETA_STATE_DIR"] = f"{scratch}/state"
        found = {
            name: _source(name, options.overrides, options.seed, Path(scratch))
            for name in options.sources
        }
    result = {
        "benchmark": "table_folds",
        "seed": options.seed,
        "settings": list(options.overrides),
        "ratios": {
            f"{name}_meta_vs_local_k": row["means"]["meta"] / row["means"]["local_k"]
            for name, row in found.items()
        },
        "sources": found,
        "seconds": time.perf_counter() - started,
        "machine": machine(),
        "versions": versions("secure-fedmeta", "torch", "numpy"),
    }
    lines = [
        f"{name:9} {row['metric']:18} {arm:14} {row['means'][arm]:.3f} ± {row['ci95'][arm]:.3f}"
        for name, row in found.items()
        for arm in ARMS
    ]
    report(result, lines=lines, quiet=options.json)


def _source(name: str, overrides: Sequence[str], seed: int, scratch: Path) -> dict[str, Any]:
    """All folds of one source: each client's score in each arm, their means and intervals."""
    base = load_config(EXAMPLES / f"{name}.toml", overrides)
    source = build_source(base.data.source, base.data.options)
    scores: dict[str, dict[str, float]] = {arm: {} for arm in ARMS}
    epsilons: list[float] = []
    for fold in range(FOLDS[name]):
        config = fold_config(base, source, fold, FOLDS[name], seed)
        result = run(config, out=scratch / "runs").report
        epsilons.append(result["privacy"]["spent_epsilon"])
        for arm in ARMS:
            scores[arm] |= result["held_out"][arm]["per_client"]
    return {
        "metric": source.info.metric,
        "means": {arm: fmean(values.values()) for arm, values in scores.items()},
        "ci95": {arm: Interval.over(values).ci95 for arm, values in scores.items()},
        "per_client": scores,
        "epsilon_per_fold": epsilons,
    }


def fold_config(base: Config, source: TaskSource, fold: int, folds: int, seed: int) -> Config:
    """The example's config with every `folds`-th client held out, from the one at place `fold`."""
    names = source.clients()
    held_out = [name for i, name in enumerate(names) if i % folds == fold]
    bounds = source.info.task_bounds
    before = sum(bounds[name] for name in names if name not in base.data.held_out)
    after = sum(bounds[name] for name in names if name not in held_out)
    spare = len(names) - len(base.data.held_out) - base.privacy.min_survivors
    tree = base.model_dump(mode="json", exclude_none=True)
    tree["data"]["held_out"] = held_out
    tree["model"]["init_seed"] = seed
    tree["privacy"]["expected_units"] = round(base.privacy.expected_units * after / before)
    tree["privacy"]["min_survivors"] = len(names) - len(held_out) - spare
    return parse_config(tree)


if __name__ == "__main__":
    main()
