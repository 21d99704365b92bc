"""What the command line shows of compared runs. Prints nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from secure_fedmeta.comparison import shown
from secure_fedmeta.console import epsilon_of

_ARMS: Final = {
    "meta": "adapted",
    "no_adaptation": "unadapted",
    "local_k": "local, k examples",
    "local_all": "local, all own examples",
    "fedavg_ft": "FedAvg + fine-tuning",
}


def render_comparison(found: Mapping[str, Any]) -> RenderableType:
    """One column per run: settings that differ, scores, epsilon, noise and cost."""
    runs = found["runs"]
    names = [Path(run["directory"]).name for run in runs]
    columns = [Column(name, overflow="fold") for name in names]
    settings = Table("setting", *columns, title="Settings that differ", title_justify="left")
    for key, values in found["differences"].items():
        settings.add_row(key, *map(shown, values))
    columns = [Column(name, overflow="fold") for name in names]
    figures = Table("", *columns, title="Figures", title_justify="left")
    for label, of in _rows(runs).items():
        figures.add_row(label, *map(of, runs))
    lines: list[RenderableType] = [settings] if found["differences"] else []
    if not lines:
        lines.append(Text("No setting differs."))
    lines += [
        figures,
        Text(
            "Scores: mean over held-out clients ± 95 % interval (lowest to highest client). "
            "Epsilon: the claim against each adversary."
        ),
    ]
    lines += [Text(f"Warning: {warning}") for warning in found["warnings"]]
    return Group(*lines)


def _rows(runs: list[dict[str, Any]]) -> dict[str, Callable[[dict[str, Any]], str]]:
    """Label -> what stands there for a run."""
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "status": lambda run: run["status"] + (", NOT PRIVATE" if run["not_private"] else ""),
        "metric": lambda run: str(run["metric"]),
    }
    for arm, label in _ARMS.items():
        rows[label] = lambda run, arm=arm: _score(run["scores"][arm])  # type: ignore[misc]
    rows["adapted, beyond the first"] = lambda run: _difference(run["adapted_beyond_first"])
    rows["unit, delta"] = lambda run: f"{run['unit']}, {run['delta']:g}"
    for name in dict.fromkeys(name for run in runs for name in run["epsilon"]):
        label = f"epsilon, {name.replace('_', ' ')}"
        rows[label] = lambda run, name=name: (  # type: ignore[misc]
            epsilon_of(run["epsilon"][name]) if name in run["epsilon"] else "-"
        )
    return rows | {
        "noise multiplier": lambda run: f"{run['noise_multiplier']:.4g}",
        "noise of an average (L2)": lambda run: f"{run['noise_norm']:.4g}",
        "upload per round (bytes)": lambda run: f"{run['bytes_per_client']['upload']:,}",
        "sent, received per client (bytes)": lambda run: (
            f"{run['bytes_per_client']['sent']:,}, {run['bytes_per_client']['received']:,}"
        ),
        "rounds": lambda run: str(run["rounds"]),
        "seconds of training": lambda run: f"{run['seconds']:.1f}",
    }


def _score(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    if found["mean"] is None:
        return "diverged"
    width = "" if found["ci95"] is None else f" ± {found['ci95']:.3f}"
    return f"{found['mean']:.3f}{width} ({found['lowest']:.3f} to {found['highest']:.3f})"


def _difference(found: dict[str, Any] | None) -> str:
    if found is None or found["mean"] is None:
        return "-"
    width = "" if found["ci95"] is None else f" ± {found['ci95']:.3f}"
    return f"{found['mean']:+.3f}{width}"
