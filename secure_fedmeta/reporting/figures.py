"""The figures of a report, each with the same numbers as a table."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from typing import Any, Final, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from secure_fedmeta.reporting.blocks import Figure, Grid
from secure_fedmeta.reporting.svg import ACCENT, INK, MUTED, PAPER, content, style
from secure_fedmeta.reporting.text import (
    ARMS,
    LOWER_IS_BETTER,
    METRICS,
    epsilon,
    plain,
    score,
    words,
)

POINTS: Final = 300
"""Rounds that a curve shows, at most, evenly over all."""
ROWS: Final = 40
"""Rounds that the table of a curve shows, at most."""
_LABEL: Final = 26
_WIDTH: Final = 7.2
_ROUND: Final = "round"
_DOTS: Final[Mapping[str, dict[str, Any]]] = {
    "meta": {"color": ACCENT, "marker": "o", "markerfacecolor": ACCENT},
    "no_adaptation": {"color": MUTED, "marker": "D", "markerfacecolor": PAPER},
    "local_k": {"color": INK, "marker": "s", "markerfacecolor": PAPER},
    "local_all": {"color": INK, "marker": "^", "markerfacecolor": PAPER},
}
"""The arms of the dot plot: shapes that can be told apart without colour."""
_DASHES: Final = ("-", "--", ":", "-.")


def held_out_curve(
    records: Sequence[Mapping[str, Any]], metric: str, clients: int
) -> Figure | None:
    """Mean held-out score over rounds; None where no round was scored twice."""
    rows = [r for r in records if r.get("adapted") is not None and r["unadapted"] is not None]
    if not rows:
        return None
    rounds = [r["round"] for r in _thinned(rows, POINTS)]
    with style():
        drawing, axes = _axes(f"mean {METRICS.get(metric, metric)} over {clients} held-out clients")
        for arm, name, dash in (("adapted", "meta", "-"), ("unadapted", "no_adaptation", "--")):
            values = [r[arm] for r in _thinned(rows, POINTS)]
            axes.plot(
                rounds,
                values,
                linestyle=dash,
                color=_DOTS[name]["color"],
                label=ARMS[name],
                marker="o" if len(values) <= 60 else "",
                markersize=4,
            )
        if metric == "mse" and all(r[arm] > 0 for r in rows for arm in ("adapted", "unadapted")):
            _logarithmic(axes, "y")  # an untrained model can adapt away by orders of magnitude
        _finish(drawing, axes, _ROUND)
        svg, box = content(drawing, "score")
    first, last = rows[0], rows[-1]
    return Figure(
        name="score",
        title="Held-out score over rounds",
        description=(
            f"After round {first['round']} the meta-model adapted on k examples scored "
            f"{score(first['adapted'])} in the mean and without adaptation "
            f"{score(first['unadapted'])}; after round {last['round']} it was "
            f"{score(last['adapted'])} and {score(last['unadapted'])}."
        ),
        svg=svg,
        view_box=box,
        data=Grid(
            caption="Held-out score by round",
            head=("round", ARMS["meta"], ARMS["no_adaptation"]),
            rows=[
                (str(r["round"]), score(r["adapted"]), score(r["unadapted"]))
                for r in _thinned(rows, ROWS)
            ],
            note=_thinned_note(rows),
        ),
    )


def protected_curve(records: Sequence[Mapping[str, Any]], name: str, label: str) -> Figure | None:
    """A private metric over rounds with one standard deviation of its noise; None without one."""
    rows = [r for r in records if r["status"] == "released" and name in r.get("protected", {})]
    if not rows:
        return None
    shown = _thinned(rows, POINTS)
    with style():
        drawing, axes = _axes(f"{label}, ± one standard deviation of its noise", legend=0)
        axes.errorbar(
            [r["round"] for r in shown],
            [r["protected"][name]["value"] for r in shown],
            yerr=[r["protected"][name]["noise_std"] for r in shown],
            fmt="o",
            color=ACCENT,
            ecolor=MUTED,
            elinewidth=1,
            markersize=4,
        )
        _finish(drawing, axes, _ROUND, legend=False)
        svg, box = content(drawing, f"protected-{name.replace('_', '-')}")
    first, last = rows[0]["protected"][name], rows[-1]["protected"][name]
    return Figure(
        name=f"protected-{name.replace('_', '-')}",
        title=f"Protected {label} over rounds",
        description=(
            f"From {score(first['value'])} in the first to {score(last['value'])} in the last "
            f"released round; its noise has a standard deviation of {score(last['noise_std'])}."
        ),
        svg=svg,
        view_box=box,
        data=Grid(
            caption=f"Protected {label} by round",
            head=("round", "value", "noise, one standard deviation"),
            rows=[
                (
                    str(r["round"]),
                    score(r["protected"][name]["value"]),
                    score(r["protected"][name]["noise_std"]),
                )
                for r in _thinned(rows, ROWS)
            ],
            note=_thinned_note(rows),
        ),
    )


def epsilon_curve(
    records: Sequence[Mapping[str, Any]], unbounded: Collection[str], title: str
) -> Figure | None:
    """Epsilon over rounds by adversary with the grant; None where no round was released.

    Args:
        records: the lines of metrics.jsonl.
        unbounded: adversaries who saw more than noisy sums: no figure of theirs is a bound.
        title: what the figure shows.
    """
    rows = [r for r in records if r["status"] == "released"]
    if not rows:
        return None
    shown = _thinned(rows, POINTS)
    names = [name for name in rows[0]["epsilon_by_adversary"] if name not in unbounded]
    granted = rows[0]["granted"]
    with style():
        drawing, axes = _axes("epsilon, over everything that the population was charged", legend=2)
        for name, dash in zip(names, cycle(_DASHES), strict=False):
            axes.plot(
                [r["round"] for r in shown],
                [_or_nan(r["epsilon_by_adversary"][name]) for r in shown],
                linestyle=dash,
                color=ACCENT if name == "participants" else INK,
                linewidth=2.4 if name == "participants" else 1.4,
                label=words(name),
            )
        if granted is not None:
            axes.axhline(granted, color=MUTED, linewidth=1.2)
            axes.annotate(
                f"granted: {granted:g}",
                (shown[0]["round"], granted),
                xytext=(0, -4),
                textcoords="offset points",
                va="top",
                color=INK,
            )
        axes.set_ylim(bottom=0)
        _finish(drawing, axes, _ROUND)
        svg, box = content(drawing, "epsilon")
    last = rows[-1]
    ends = "; ".join(f"{words(n)} {epsilon(last['epsilon_by_adversary'][n])}" for n in names)
    limit = "no grant" if granted is None else f"a grant of {granted:g}"
    return Figure(
        name="epsilon",
        title=title,
        description=f"After round {last['round']}, against {limit}: {ends}.",
        svg=svg,
        view_box=box,
        data=Grid(
            caption="Epsilon by round and adversary",
            head=("round", *(words(name) for name in names)),
            rows=[
                (str(r["round"]), *(epsilon(r["epsilon_by_adversary"][n]) for n in names))
                for r in _thinned(rows, ROWS)
            ],
            note=_thinned_note(rows),
        ),
    )


def dots(clients: Sequence[str], held_out: Mapping[str, Any], data: Grid) -> Figure | None:
    """One row per client, one mark per arm; None where nothing can be drawn."""
    arms = [arm for arm in _DOTS if held_out[arm]]
    metric = held_out["metric"]
    values = {
        arm: [_or_nan(held_out[arm]["per_client"].get(client)) for client in clients]
        for arm in arms
    }
    finite = [v for row in values.values() for v in row if math.isfinite(v)]
    if not finite:
        return None
    labels = [drawable(client) for client in clients]
    with style():
        lower = " (less is better)" if metric in LOWER_IS_BETTER else ""
        drawing, axes = _axes(
            "", plot=0.2 + 0.26 * len(clients), left=0.2 + max(map(_inches, labels)), legend=2
        )
        for arm in reversed(arms):
            axes.plot(
                values[arm], range(len(clients)), linestyle="none", markeredgewidth=1.5,
                markersize=9 if arm == "no_adaptation" else 6.5, label=ARMS[arm], **_DOTS[arm],
            )  # fmt: skip
        axes.set_yticks(range(len(clients)), labels)
        axes.set_ylim(len(clients) - 0.5, -0.5)
        if metric == "mse" and min(finite) > 0:
            _logarithmic(axes, "x")
        _finish(drawing, axes, f"{METRICS.get(metric, metric)}{lower}")
        svg, box = content(drawing, "clients")
    return Figure(
        name="clients",
        title="Held-out clients, one by one",
        description=(
            "One row per client, one mark per way to get a model. Where the filled circle lies on "
            "the worse side of the square or the triangle, joining was a loss for that client."
        ),
        svg=svg,
        view_box=box,
        data=data,
    )


@lru_cache(maxsize=1)
def _font() -> FT2Font:
    return FT2Font(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"))


def drawable(text: str) -> str:
    """A label that the figures' font can draw: other characters become a question mark."""
    return "".join(one if _font().get_char_index(ord(one)) else "?" for one in plain(text, _LABEL))


def _inches(label: str) -> float:
    """How wide a label of an axis is drawn, before the axes are placed."""
    font = _font()
    font.set_size(float(mpl.rcParams["font.size"]), 72)
    font.set_text(label)
    return float(font.get_width_height()[0]) / 64 / 72


def _axes(
    title: str, *, plot: float = 2.4, left: float = 0.62, legend: int = 1
) -> tuple[Drawing, Axes]:
    """Axes of a fixed place: to lay a figure out by its text costs more than to draw it.

    Args:
        title: what the values are; stands above the axes.
        plot: height of the axes in inches.
        left: room for the labels on their left.
        legend: lines of the legend above them.
    """
    top = 0.1 + 0.24 * legend + (0.3 if title else 0.08)
    height = top + plot + 0.55
    drawing = Drawing(figsize=(_WIDTH, height))
    axes = drawing.add_axes(
        (left / _WIDTH, 0.55 / height, (_WIDTH - left - 0.15) / _WIDTH, plot / height)
    )
    axes.set_title(title, pad=8)
    axes.grid(visible=True)
    axes.set_axisbelow(True)
    return drawing, axes


def _logarithmic(axes: Axes, name: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with few ticks and plain numbers: no formula is set in figures."""
    if name == "x":
        axes.set_xscale("log")
    else:
        axes.set_yscale("log")
    axis = axes.xaxis if name == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    if high < 10 * low:
        axis.set_major_locator(MaxNLocator(4))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _finish(drawing: Drawing, axes: Axes, xlabel: str, *, legend: bool = True) -> None:
    axes.set_xlabel(xlabel)
    if xlabel == _ROUND:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if legend:
        drawing.legend(
            loc="upper left", bbox_to_anchor=(0, 1), ncols=2, handlelength=2.6, borderaxespad=0.2
        )


def _thinned(rows: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """At most so many rows, evenly spaced, first and last included."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


def _thinned_note(rows: Sequence[object]) -> str:
    if len(rows) <= ROWS:
        return ""
    return f"{ROWS} of {len(rows):,} rounds, evenly spaced; metrics.jsonl has all."


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
