"""Five folds over the applicant segments of the credit data, each fold one private training.

    python -m benchmarks.credit_folds --json

Segments are sorted by name; fold f holds out those with index i where i mod 5 = f. Within each fold
the learner's settings are chosen among CANDIDATES by an inner split of the fold's own training
segments, never on the segments that the fold reports. Every fold is a population of its own at
epsilon 3; the data are public, so that neither the choice nor the folds together are charged. On
private data both would be: `composed_epsilon` is what the reported trainings cost together, the
most for a task that is in four of the five.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks._common import arguments, machine, report, versions
from privacy.accountant import spend
from privacy.events import Event
from secure_fedmeta.config import Config, load_config, parse_config
from secure_fedmeta.evaluation import Evaluation, Interval
from secure_fedmeta.pipeline import assemble
from secure_fedmeta.randomness import Randomness
from secure_fedmeta.scoring import personaliser, train_in_clear_as_planned
from secure_fedmeta.tasks import build_source
from secure_fedmeta.training import run

FOLDS, INNER_FOLDS, INNER_REPEATS = 5, 3, 3
CANDIDATES = tuple(
    {"privacy": {"clip": clip}, "learner": {"inner_lr": inner_lr}}
    for clip, inner_lr in product((0.1, 0.3), (0.1, 1.0))
)
ARMS = ("no_adaptation", "local_k", "local_all", "fedavg_ft", "meta")


def main() -> None:
    """Run the folds and print the JSON object."""
    options = arguments(__doc__.splitlines()[0]).parse_args()
    names = build_source("credit", {}).clients()
    base = load_config(Path(str(resources.files("secure_fedmeta.templates") / "credit.toml")))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["FEDMETA_STATE_DIR"] = f"{scratch}/state"
        folds = [_fold(base, names, fold, options.seed, Path(scratch)) for fold in range(FOLDS)]
    scores = {arm: _merged(fold["scores"][arm] for fold in folds) for arm in ARMS}
    means = {arm: fmean(scores[arm].values()) for arm in ARMS}
    result = {
        "benchmark": "credit_folds",
        "seed": options.seed,
        "ratios": {"meta_vs_local_k": means["meta"] / means["local_k"]},
        **{arm: means[arm] for arm in ARMS},
        "ci95": {arm: Interval.over(scores[arm]).ci95 for arm in ARMS},
        "meta_minus_local_k": means["meta"] - means["local_k"],
        "per_client": scores,
        "epsilon_per_fold": [fold["epsilon"] for fold in folds],
        "max_epsilon": max(fold["epsilon"] for fold in folds),
        "composed_epsilon": _composed([fold["events"] for fold in folds], base.privacy.delta),
        "chosen": [fold["chosen"] for fold in folds],
        "seconds": time.perf_counter() - started,
        "machine": machine(),
        "versions": versions("secure-fedmeta", "torch", "numpy"),
    }
    lines = [f"{arm:15} {means[arm]:.3f} ± {Interval.over(scores[arm]).ci95:.3f}" for arm in ARMS]
    report(result, lines=lines, quiet=options.json)


def _fold(
    base: Config, names: Sequence[str], fold: int, seed: int, scratch: Path
) -> dict[str, Any]:
    """Choose on the fold's training segments, train once with the chosen settings, score."""
    held_out = [name for i, name in enumerate(names) if i % FOLDS == fold]
    training = [name for name in names if name not in held_out]
    chosen = max(CANDIDATES, key=lambda choice: _inner(base, choice, training, held_out, seed))
    config = _variant(base, choice=chosen, held_out=held_out, clients=len(training), seed=seed)
    result = run(config, out=scratch / "runs")
    table = result.report["held_out"]
    adversaries = result.report["adversaries"]
    return {
        "scores": {arm: table[arm]["per_client"] for arm in ARMS},
        "epsilon": max(
            found["epsilon"][found["claim"]]
            for name, found in adversaries.items()
            if name != "broken_sum"
        ),
        "events": [assemble(config).plan.event(len(training))] * config.training.rounds,
        "chosen": chosen,
    }


def _inner(
    base: Config,
    choice: Mapping[str, Any],
    training: Sequence[str],
    held_out: Sequence[str],
    seed: int,
) -> float:
    """Mean adapted AUC of a candidate on segments that neither it nor the fold's report uses."""
    scores: dict[str, float] = {}
    for inner in range(INNER_FOLDS):
        judged = [name for i, name in enumerate(training) if i % INNER_FOLDS == inner]
        absent = [*held_out, *judged]
        clients = len(training) - len(judged)
        config = _variant(base, choice=choice, held_out=absent, clients=clients, seed=seed)
        parts = assemble(config)
        evaluation = Evaluation(parts.source, judged, support=5, repeats=INNER_REPEATS)
        model = train_in_clear_as_planned(parts, parts.learner, Randomness())
        scores |= evaluation.adapted(personaliser(parts), model)
    return fmean(scores.values())


def _variant(
    base: Config, *, choice: Mapping[str, Any], held_out: Sequence[str], clients: int, seed: int
) -> Config:
    """The example's config with a candidate's settings; two of its clients may drop out."""
    tree = base.model_dump(mode="json", exclude_none=True)
    tree["data"]["held_out"] = list(held_out)
    tree["model"]["init_seed"] = seed
    tree["privacy"]["min_survivors"] = clients - 2
    for section, values in choice.items():
        tree[section] |= values
    return parse_config(tree)


def _merged(parts: Any) -> dict[str, float]:
    merged: dict[str, float] = {}
    for part in parts:
        merged |= part
    return merged


def _composed(folds: Sequence[Sequence[Event]], delta: float) -> float:
    """Epsilon for a task that is in all trainings but the one that it is held out from."""
    return max(
        spend([e for i, fold in enumerate(folds) if i != left_out for e in fold], delta=delta).worst
        for left_out in range(len(folds))
    )


if __name__ == "__main__":
    main()
