"""What helps at the same epsilon: noise over rounds, clip, averaging, sharing less than all.

    python -m benchmarks.utility --json

Three parts, of which `--part` picks one. `mechanism` computes, without any data, how much noise is
left in what the server makes of the sums. `credit` and `sinusoid` train the two examples with one
thing changed at a time. What has to be chosen is chosen on validation clients: on credit by an
inner split of each fold's training segments, on sinusoids on people of other data seeds. Scores are
those of clients that neither trained nor chose. The data are public; on private data every training
would be charged (`fedmeta tune`).
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks._arms import (
    BANDS,
    TAILS,
    Arm,
    Outcome,
    Trial,
    clients_of,
    example,
    run_trial,
)
from benchmarks._common import arguments, machine, report, versions
from benchmarks._correlated import (
    least_noise,
    noise_of,
    schedule,
    searched,
    square_root,
    workload,
)
from secure_fedmeta.evaluation import Interval
from secure_fedmeta.server_opt import ServerOptimiser

FOLDS, INNER_FOLDS = 5, 3
VALIDATION_SEEDS = (100, 101)
CREDIT_CLIPS = (0.05, 0.1, 0.2, 0.4, 0.8)
SINUSOID_CLIPS = (0.3, 1.0, 3.0, 10.0)
SINUSOID_RATES = (0.03, 0.06)
MOMENTUM_RATES = (0.3, 1.0, 3.0)
SHIPPED = Arm("as shipped")
INDEPENDENT, SCHEDULED = (
    Arm("independent", shape="independent"),
    Arm("scheduled", shape="scheduled"),
)
BANDED = Arm("banded", shape="banded")
HEAD_ONLY = Arm("head only", {"learner": {"algorithm": "anil_head"}})
LOW_RANK = Arm("low rank", {"compression": {"kind": "low-rank", "rotate": True, "keep": 0.5}})

Run = Callable[[Sequence[Trial]], list[Outcome]]
"""Does trainings, in any order, and gives their outcomes in the order asked for."""


def main() -> None:
    """Run the parts and print the JSON object."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--part", choices=PARTS, help="only this part")
    options = parser.parse_args()
    started = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:

        def run(trials: Sequence[Trial]) -> list[Outcome]:
            found = []
            for number, outcome in enumerate(pool.map(run_trial, trials), start=1):
                found.append(outcome)
                print(f"training {number} of {len(trials)}", file=sys.stderr)
            return found

        names = PARTS if options.part is None else (options.part,)
        parts = {name: PARTS[name](run, options.seed) for name in names}
    result = {
        "benchmark": "utility",
        "seed": options.seed,
        **parts,
        "seconds": time.perf_counter() - started,
        "machine": machine(),
        "versions": versions("secure-fedmeta", "torch", "numpy"),
    }
    report(
        result, lines=[line for part in parts.values() for line in _lines(part)], quiet=options.json
    )


def mechanism(run: Run, seed: int) -> dict[str, Any]:
    """Noise in what a linear server makes of the sums, over that of equal independent noise."""
    del run, seed
    rounds = {}
    for count in (20, 40, 80, 100):
        work = np.tril(np.ones((count, count)))
        equal = noise_of(work, np.eye(count))
        strategies = {
            "scheduled": schedule(work),
            f"square root, {BANDS} bands": square_root(count, BANDS),
            "square root": square_root(count, count),
            f"searched, {BANDS} bands": searched(work, bands=BANDS),
            "searched": searched(work, bands=count),
        }
        rounds[count] = {name: noise_of(work, c) / equal for name, c in strategies.items()}
        rounds[count]["bound"] = least_noise(work) / equal
    return {
        "iterates_by_rounds": rounds,
        "released_model": _released(),
        "taking_turns": _turns(40),
    }


def _released() -> dict[str, dict[str, float]]:
    """The least noise in the released model over that of equal noise, by server and averaging."""
    found: dict[str, dict[str, float]] = {}
    for name in ("sgd", "momentum"):
        for label, part in TAILS.items():
            first = None if part == 1.0 else round(part * 40)
            _, model = workload(ServerOptimiser(name, 1.0, average_from=first), 40)
            found.setdefault(name, {})[label] = least_noise(model) / noise_of(model, np.eye(40))
    return found


def _turns(count: int) -> dict[int, dict[str, float]]:
    """Every unit in every so-manieth round alone, over all units in all rounds with equal noise.

    A sum over one unit in k is divided by a k-th, so that its noise in the average is k times it.
    """
    work = np.tril(np.ones((count, count)))
    equal = noise_of(work, np.eye(count))
    found = {}
    for every in (1, 2, 4, 10):
        strategies = {"equal": np.eye(count)}
        strategies |= {
            f"searched, {bands} bands": searched(work, bands=bands, every=every)
            for bands in (BANDS, count)
        }
        found[every] = {
            name: every * noise_of(work, c, every=every) / equal for name, c in strategies.items()
        }
    return found


def credit(run: Run, seed: int) -> dict[str, Any]:
    """Five folds over the segments; choices by an inner split of each fold's training segments.

    Its logistic regression is all head, and its 19 parameters are too few for a rotation.
    """
    names = clients_of("credit")
    momentum = {
        shape: [_momentum(lr, shape) for lr in MOMENTUM_RATES]
        for shape in ("independent", "scheduled")
    }
    clips = [_clip(value) for value in CREDIT_CLIPS]
    candidates = [*clips, *momentum["independent"], *momentum["scheduled"]]
    folds = [names[fold::FOLDS] for fold in range(FOLDS)]
    trials = []
    for held_out in folds:
        inner = [name for name in names if name not in held_out]
        trials += [
            Trial("credit", arm, tuple(inner[k::INNER_FOLDS]), held_out, 0, seed)
            for arm in candidates
            for k in range(INNER_FOLDS)
        ]
    validation = _collect(trials, run(trials), key=lambda trial: trial.absent)
    reported: list[tuple[str, Trial]] = []
    chosen = []
    for held_out in folds:
        scores = {arm.name: validation[held_out, arm.name] for arm in candidates}
        picks = {
            "clip chosen": best_of(scores, clips, lower=False),
            **{
                f"momentum, {shape}": best_of(scores, arms, lower=False)
                for shape, arms in momentum.items()
            },
        }
        chosen.append({label: arm.name for label, (arm, _) in picks.items()})
        arms = {arm.name: arm for arm in (SHIPPED, INDEPENDENT, SCHEDULED, BANDED)}
        arms |= {label: arm for label, (arm, _) in picks.items()}
        reported += [
            (label, Trial("credit", arm, held_out, (), 0, again))
            for label, arm in arms.items()
            for again in (seed, seed + 1, seed + 2)
        ]
    table = table_of(reported, run([trial for _, trial in reported]), per="client")
    return {"metric": "auc", "chosen": chosen, "validation": _means(validation), "held_out": table}


def sinusoid(run: Run, seed: int) -> dict[str, Any]:
    """Choices on other data seeds; scores on the held-out clients of those from `seed` on."""
    held_out = tuple(name for name in clients_of("sinusoid") if name.startswith("held-out"))

    def trials(arms: Iterable[Arm], seeds: Iterable[int]) -> list[Trial]:
        return [Trial("sinusoid", arm, held_out, (), s, s) for arm in arms for s in seeds]

    clips = [_clip(value) for value in SINUSOID_CLIPS]
    tried = trials(clips, VALIDATION_SEEDS)
    validation = _collect(tried, run(tried), key=lambda trial: ())
    clip = best_of({arm.name: validation[(), arm.name] for arm in clips}, clips, lower=True)[0]
    rates = [clip, *(_rate(clip, lr) for lr in SINUSOID_RATES[1:])]
    tried = trials(rates[1:], VALIDATION_SEEDS)
    validation |= _collect(tried, run(tried), key=lambda trial: ())
    scores = {arm.name: validation[(), arm.name] for arm in rates}
    best, tail = best_of(scores, rates, lower=True)
    arms = {
        SHIPPED.name: (SHIPPED, 5),
        "clip chosen": (clip, 5),
        "clip and step chosen": (best, 5),
        **{arm.name: (arm, 3) for arm in (HEAD_ONLY, LOW_RANK, INDEPENDENT, SCHEDULED)},
        "FedAvg as shipped": (_fedavg(SHIPPED), 3),
        "FedAvg, clip and step chosen": (_fedavg(best), 3),
    }
    reported = [
        (label, Trial("sinusoid", arm, held_out, (), s, s))
        for label, (arm, count) in arms.items()
        for s in range(seed, seed + count)
    ]
    table = table_of(reported, run([trial for _, trial in reported]), per="seed")
    chosen = {"clip": clip.name, "clip and step": best.name, "handed out": tail}
    return {"metric": "mse", "chosen": chosen, "validation": _means(validation), "held_out": table}


PARTS: Mapping[str, Callable[[Run, int], dict[str, Any]]] = {
    "mechanism": mechanism,
    "credit": credit,
    "sinusoid": sinusoid,
}


def _clip(value: float) -> Arm:
    return Arm(f"clip {value:g}", {"privacy": {"clip": value}})


def _rate(arm: Arm, lr: float) -> Arm:
    return Arm(f"{arm.name}, lr {lr:g}", {**arm.settings, "server": {"lr": lr}})


def _momentum(lr: float, shape: Any) -> Arm:
    settings = {"server": {"optimiser": "momentum", "lr": lr}}
    return Arm(f"momentum {lr:g}, {shape}", settings, shape=shape)


def _fedavg(arm: Arm) -> Arm:
    """The averaging baseline of the sinusoid example, with an arm's clip and server."""
    own = example("sinusoid").evaluation
    return Arm(
        f"FedAvg, {arm.name}",
        {
            **arm.settings,
            "learner": {
                "algorithm": "fedavg",
                "inner_steps": own.fedavg_inner_steps,
                "inner_lr": own.fedavg_inner_lr,
            },
            "evaluation": {
                "adapt_steps": own.fedavg_adapt_steps,
                "adapt_lr": own.fedavg_adapt_lr,
            },
        },
    )


Found = dict[tuple[Any, str], dict[str, list[float]]]
"""(what was held out, arm) -> what was handed out -> scores."""


def _collect(
    trials: Sequence[Trial], outcomes: Sequence[Outcome], *, key: Callable[[Trial], Any]
) -> Found:
    found: Found = {}
    for trial, outcome in zip(trials, outcomes, strict=True):
        held = found.setdefault((key(trial), trial.arm.name), {})
        for tail, scores in outcome.items():
            held.setdefault(tail, []).extend(scores.values())
    return found


def best_of(
    scores: Mapping[str, Mapping[str, list[float]]], arms: Sequence[Arm], *, lower: bool
) -> tuple[Arm, str]:
    """The arm with the best mean score, and what of it to hand out: "configured" among equals."""
    sign = 1.0 if lower else -1.0
    pairs = [(arm, tail) for arm in arms for tail in ("configured", *TAILS)]
    return min(pairs, key=lambda pair: sign * fmean(scores[pair[0].name][pair[1]]))


def _means(found: Found) -> dict[str, dict[str, float]]:
    """Mean validation scores by arm, over all folds or seeds."""
    merged: dict[str, dict[str, list[float]]] = {}
    for (_, arm), by_tail in found.items():
        for tail, scores in by_tail.items():
            merged.setdefault(arm, {}).setdefault(tail, []).extend(scores)
    return {arm: {tail: fmean(s) for tail, s in tails.items()} for arm, tails in merged.items()}


def table_of(
    reported: Sequence[tuple[str, Trial]], outcomes: Sequence[Outcome], *, per: str
) -> dict[str, dict[str, dict[str, Any]]]:
    """Arm -> what was handed out -> mean, and its difference to the example as shipped.

    Intervals are over clients (each the mean of its trainings) or over data seeds (each the mean
    of its clients): what is independent.
    """
    observed: dict[tuple[str, str], dict[str, list[float]]] = {}
    for (label, trial), outcome in zip(reported, outcomes, strict=True):
        for tail, scores in outcome.items():
            held = observed.setdefault((label, tail), {})
            for client, score in scores.items():
                one = client if per == "client" else str(trial.data_seed)
                held.setdefault(one, []).append(score)
    means = {
        pair: {one: fmean(scores) for one, scores in held.items()}
        for pair, held in observed.items()
    }
    base = means[SHIPPED.name, "configured"]
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for (label, tail), held in means.items():
        apart = Interval.over({one: score - base[one] for one, score in held.items()})
        table.setdefault(label, {})[tail] = {
            "mean": fmean(held.values()),
            "each": held,
            "spread": float(np.std(list(held.values()), ddof=1)),
            "minus_shipped": apart.mean,
            "ci95": apart.ci95,
        }
    return table


def _lines(part: Mapping[str, Any]) -> list[str]:
    if "held_out" not in part:
        return [f"{name}: {values}" for name, values in part.items()]
    lines = [f"chosen: {part['chosen']}"]
    for label, tails in part["held_out"].items():
        for tail, row in tails.items():
            lines.append(
                f"{label:30} {tail:10} {part['metric']} {row['mean']:.4g}, to shipped "
                f"{row['minus_shipped']:+.4g} ± {row['ci95']:.2g}"
            )
    return lines


if __name__ == "__main__":
    main()
