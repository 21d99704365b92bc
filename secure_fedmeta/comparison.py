"""Runs side by side: how their settings differ, and what each reached, spent and cost.

Only runs whose logs verify are compared, by the very files that their logs vouch for. What makes
two figures no match for each other, such as other held-out clients, is said in words.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from secure_fedmeta.errors import FedmetaError, RunDirectoryError
from secure_fedmeta.evaluation import Interval
from secure_fedmeta.plots import plot_comparison
from secure_fedmeta.results import CONFIG, REPORT, finite, read_report
from secure_fedmeta.verification import exported, verify_run

ARMS: Final = ("meta", "no_adaptation", "local_k", "local_all", "fedavg_ft")
FORMATS: Final = (".svg", ".png")


class NotVerified(FedmetaError):
    """A run is not compared, because its log does not verify or does not vouch for its report."""


@dataclass(frozen=True)
class Run:
    """A run whose log verified.

    Attributes:
        label: its directory as it was named.
        trust: what its log's key rests on.
        settings: dotted key -> value, as its config states it.
        report: the content of its report.json.
    """

    label: str
    trust: str
    settings: Mapping[str, Any]
    report: Mapping[str, Any]

    def arm(self, name: str) -> Mapping[str, Any] | None:
        """Mean, interval and scores of one arm; None where it was not run."""
        found: Mapping[str, Any] | None = self.report["held_out"][name]
        return found


def open_run(directory: Path, *, unpinned: bool) -> Run:
    """A run, once its log verified.

    Args:
        directory: the run directory.
        unpinned: accept a log that no pin vouches for, as `fedmeta verify --unpinned` does.

    Raises:
        NotVerified: a check failed, or the log does not hold the digests of config and report.
        RunDirectoryError: not the directory of a finished run.
    """
    outcome = verify_run(directory, key=None, pinned=None, unpinned=unpinned)
    if not outcome.accepted or outcome.verified is None:
        raise NotVerified(
            f"{directory} is not compared: its log does not verify: {outcome.failure}"
        )
    report = read_report(directory)
    if missing := {CONFIG, REPORT} - exported(directory):
        raise NotVerified(
            f"{directory} is not compared: its log does not vouch for {', '.join(sorted(missing))}"
        )
    tree = tomllib.loads((directory / CONFIG).read_text(encoding="utf-8"))
    return Run(str(directory), outcome.verified.trust, dict(_settings(tree)), report)


def compare(directories: Sequence[Path], *, unpinned: bool = False) -> dict[str, Any]:
    """What `fedmeta compare --json` prints.

    Raises:
        NotVerified: as for `open_run`.
        RunDirectoryError: fewer than two runs, one named twice, or no directory of a finished run.
    """
    if len({directory.resolve() for directory in directories}) < max(2, len(directories)):
        raise RunDirectoryError("name two different runs or more: fedmeta compare RUN RUN")
    runs = [open_run(directory, unpinned=unpinned) for directory in directories]
    return {
        "runs": [_facts(run, runs[0]) for run in runs],
        "differences": _differences(runs),
        "warnings": _warnings(runs),
    }


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Draw the scores of compared runs as SVG or PNG.

    Raises:
        RunDirectoryError: another format, runs with different metrics or without scores, or a file
            that cannot be written.
    """
    if path.suffix not in FORMATS:
        raise RunDirectoryError(f"{path}: a plot is a file that ends in {' or '.join(FORMATS)}")
    metrics = {run["metric"] for run in found["runs"]}
    if len(metrics) > 1:
        raise RunDirectoryError(
            f"no plot: the runs are scored by {' and '.join(sorted(metrics))}; compare like with "
            "like"
        )
    rows = [
        (
            f"{Path(run['directory']).name}\nepsilon {_or_infinite(run['epsilon_worst'])}",
            {arm: (one["mean"], one["ci95"]) for arm, one in run["scores"].items() if one},
        )
        for run in found["runs"]
    ]
    if not any(means for _, means in rows):
        raise RunDirectoryError("no plot: no run has held-out clients")
    try:
        plot_comparison(path, rows, metric=metrics.pop())
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written ({error.strerror})") from error


def _or_infinite(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.3g}"


def _settings(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found += _settings(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found


def _differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Setting -> its value in each run, null where it is left out; equal ones are not listed."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    rows = {key: [run.settings.get(key) for run in runs] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


def _facts(run: Run, first: Run) -> dict[str, Any]:
    report = run.report
    privacy, plan = report["privacy"], report["privacy"]["plan"]
    return {
        "directory": run.label,
        "name": report["name"],
        "status": report["status"],
        "not_private": report["not_private"],
        "trust": run.trust,
        "metric": report["held_out"]["metric"],
        "scores": {arm: _score(run.arm(arm)) for arm in ARMS},
        "adapted_beyond_first": None if run is first else _beyond(run, first),
        "unit": privacy["unit"],
        "delta": privacy["delta"],
        "epsilon": {
            name: row["epsilon"][row["claim"]] for name, row in report["adversaries"].items()
        },
        "epsilon_worst": _worst(report),
        "noise_multiplier": float(plan["noise_multiplier"]),
        "noise_norm": report["distortion"]["noise"],
        "bytes_per_client": report["bytes_per_client"],
        "rounds": report["rounds"]["completed"],
        "seconds": report["seconds"]["training"],
    }


def _worst(report: Mapping[str, Any]) -> float | None:
    """What a budget limits; None where a seed or a secure sum in clear leaves no bound."""
    shown = report["secure_sum"]["capabilities"]["hides_updates"] and not report["not_private"]
    return report["privacy"]["spent_epsilon"] if shown else None


def _score(arm: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Mean over clients, its 95 % interval, and how the clients spread."""
    if arm is None:
        return None
    values = [math.nan if value is None else value for value in arm["per_client"].values()]
    scores = np.array(values)
    return {
        "mean": arm["mean"],
        "ci95": arm["ci95"],
        "std": finite(float(scores.std(ddof=1))) if len(scores) > 1 else None,
        "lowest": finite(float(scores.min())),
        "highest": finite(float(scores.max())),
        "clients": len(scores),
    }


def _beyond(run: Run, first: Run) -> dict[str, Any] | None:
    """Adapted score minus the first run's, client by client; None where they do not match."""
    own, other = run.arm("meta"), first.arm("meta")
    if own is None or other is None or _unlike(run, first, _SCORING):
        return None
    pairs = [(own["per_client"][k], other["per_client"][k]) for k in own["per_client"]]
    if any(value is None for pair in pairs for value in pair):
        return None
    interval = Interval.over({str(k): a - b for k, (a, b) in enumerate(pairs)})
    return {
        "mean": finite(interval.mean),
        "ci95": finite(interval.ci95),
        "clients": len(pairs),
    }


Trait = Callable[[Run], Any]


def _chosen(*prefixes: str) -> Trait:
    return lambda run: {k: v for k, v in run.settings.items() if k.startswith(prefixes)}


_SCORING: Final[Mapping[str, Trait]] = {
    "the held-out clients are not the same": lambda run: run.report["held_out"]["clients"],
    "the data are not the same": lambda run: [
        _chosen("data.source", "data.options")(run),
        {k: v for k, v in run.report["data"].items() if k in ("rows", "tasks", "public")},
    ],
    "scores are by different metrics": lambda run: run.report["held_out"]["metric"],
    "users adapt on different numbers of examples": lambda run: run.report["held_out"]["support"],
    "held-out clients are scored by different rules (section evaluation)": _chosen("evaluation."),
}
_PRIVACY: Final[Mapping[str, Trait]] = {
    "epsilon is about different units of privacy": lambda run: run.report["privacy"]["unit"],
    "epsilon is at different deltas": lambda run: run.report["privacy"]["delta"],
    "the runs are of different versions of the product": lambda run: run.report["product_version"],
}


def _unlike(run: Run, first: Run, traits: Mapping[str, Trait]) -> list[str]:
    return [warning for warning, trait in traits.items() if trait(run) != trait(first)]


def _warnings(runs: Sequence[Run]) -> list[str]:
    """What keeps figures from being compared, in sentences."""
    traits = {**_SCORING, **_PRIVACY}
    found = list(dict.fromkeys(w for run in runs[1:] for w in _unlike(run, runs[0], traits)))
    for run in runs:
        report = run.report
        if report["status"] != "completed":
            found.append(f"{run.label} ended early: status {report['status']}")
        if report["not_private"]:
            found.append(f"{run.label} is NOT PRIVATE: its secrets follow from one seed")
        if run.trust == "none":
            found.append(f"{run.label}: nobody vouches for the key of its log")
        own = report["rounds"]["completed"] + report["rounds"]["aborted"]
        if report["budget"]["charged"] > own:
            found.append(
                f"the epsilon of {run.label} includes other runs of population "
                f"{report['privacy']['population']}"
            )
    return found


def shown(value: object) -> str:
    """A setting in one cell."""
    return "-" if value is None else json.dumps(value) if isinstance(value, list) else str(value)
