"""The run's curves as SVG files: deterministic, self-contained, no fonts fetched."""

from __future__ import annotations

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
    path: Path, rounds: Sequence[int], curves: Mapping[str, Sequence[float]], *, grant: float
) -> None:
    """Cumulative epsilon per adversary over rounds, with the budget line.

    Args:
        path: the SVG file to write.
        rounds: round indices, one per point.
        curves: adversary -> cumulative epsilon after each of `rounds`.
        grant: the granted epsilon.
    """
    figure, axes = _figure("Privacy spend", "rounds", "epsilon")
    styles = ("-", "--", ":", "-.")
    for style, (name, values) in zip(styles, curves.items(), strict=False):
        axes.plot(rounds, values, linestyle=style, label=name.replace("_", " "))
    axes.axhline(grant, color="black", linewidth=1)
    axes.annotate("granted", (rounds[0] if rounds else 0, grant), va="bottom")
    axes.set_ylim(bottom=0)
    axes.legend()
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
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]  # its stubs list literal keys
        figure.savefig(path, format="svg", metadata={"Date": None})
