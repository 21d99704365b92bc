"""Curves as SVG files, or PNG by suffix: deterministic, self-contained, no fonts fetched."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

_STYLE = {"svg.hashsalt": "secure-fedmeta", "svg.fonttype": "path", "font.size": 10}


def plot_held_out(
    path: Path, scores: Sequence[tuple[int, float, float]], *, metric: str, clients: int
) -> None:
    """Held-out score over rounds.

    Args:
        path: the SVG file to write.
        scores: (rounds trained, score without adaptation, score after adaptation).
        metric: name of the score.
        clients: how many held-out clients the mean is over.
    """
    rounds = [row[0] for row in scores]
    figure, axes = _figure("Held-out clients", "rounds", f"mean {metric} of {clients} clients")
    axes.plot(rounds, [row[2] for row in scores], marker="o", label="meta-model, adapted")
    axes.plot(
        rounds, [row[1] for row in scores], marker="s", linestyle="--", label="meta-model, as it is"
    )
    if metric == "mse":  # an untrained model can adapt away by orders of magnitude
        axes.set_yscale("log")
    axes.legend()
    _save(figure, path)


def plot_epsilon(
    path: Path,
    rounds: Sequence[int],
    curves: Mapping[str, Sequence[float]],
    *,
    limit: float | None,
    limit_name: str = "granted",
) -> None:
    """Cumulative epsilon per adversary over rounds, with a line where it has to stay below.

    Args:
        path: the SVG file to write.
        rounds: round indices, one per point.
        curves: adversary -> cumulative epsilon after each of `rounds`.
        limit: the epsilon of the line; None: no line.
        limit_name: what stands at the line.
    """
    figure, axes = _figure("Privacy spend", "rounds", "epsilon")
    styles = ("-", "--", ":", "-.")
    for style, (name, values) in zip(styles, curves.items(), strict=False):
        axes.plot(rounds, values, linestyle=style, label=name.replace("_", " "))
    if limit is not None:
        axes.axhline(limit, color="black", linewidth=1)
        axes.annotate(limit_name, (rounds[0] if rounds else 0, limit), va="bottom")
    axes.set_ylim(bottom=0)
    axes.legend()
    _save(figure, path)


def plot_cohort(
    path: Path,
    units: Sequence[float],
    *,
    noise: Sequence[float],
    of_signal: Sequence[float],
    rounds: int,
    here: float,
) -> None:
    """Noise against the size of the cohort, at the same noise multiplier.

    Args:
        path: the SVG file to write.
        units: units that a round expects; one per point.
        noise: standard deviation of one coordinate of the average.
        of_signal: norm of a round's noise over the largest norm of its average.
        rounds: rounds of the run, over which the ratio falls by the square root of their number.
        here: the planned number of units.
    """
    figure, axes = _figure("Noise and the size of the cohort", "expected units per round", "")
    in_all = [ratio / math.sqrt(rounds) for ratio in of_signal]
    axes.plot(units, noise, linestyle=":", label="noise per coordinate")
    axes.plot(units, of_signal, label="noise over signal, one round")
    axes.plot(units, in_all, linestyle="--", label=f"noise over signal, {rounds} rounds")
    axes.axhline(1.0, color="black", linewidth=1)
    axes.axvline(here, color="grey", linewidth=1)
    axes.annotate("planned", (here, min(noise)), rotation=90, va="bottom", ha="right")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.legend()
    _save(figure, path)


def plot_comparison(
    path: Path,
    runs: Sequence[tuple[str, Mapping[str, tuple[float | None, float | None]]]],
    *,
    metric: str,
) -> None:
    """Held-out scores of several runs, each with its 95 % interval over clients.

    Args:
        path: the SVG or PNG file to write.
        runs: label, and arm -> mean and half the width of its interval; a mean of None is left out.
        metric: name of the score.
    """
    figure, axes = _figure("Held-out clients", f"mean {metric}, 95 % interval", "")
    arms = dict.fromkeys(arm for _, scores in runs for arm in scores)
    for number, (arm, marker) in enumerate(zip(arms, "osv^D", strict=False)):
        points = [
            (scores[arm][0], scores[arm][1] or 0.0, row + 0.12 * (number - (len(arms) - 1) / 2))
            for row, (_, scores) in enumerate(runs)
            if arm in scores and scores[arm][0] is not None
        ]
        if points:
            x, width, y = zip(*points, strict=True)
            axes.errorbar(x, y, xerr=width, fmt=marker, capsize=3, label=arm.replace("_", " "))
    axes.set_yticks(range(len(runs)), [label for label, _ in runs])
    axes.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=3)
    _save(figure, path)


def _figure(title: str, xlabel: str, ylabel: str) -> tuple[Figure, mpl.axes.Axes]:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(visible=True, alpha=0.3)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    form = path.suffix.removeprefix(".")
    metadata = {"Date": None} if form == "svg" else {}
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]  # its stubs list literal keys
        figure.savefig(path, format=form, metadata=metadata)
