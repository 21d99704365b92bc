"""Run every example with every algorithm and every kind of noise, and write docs/results.md.

Each run is a short form of the example: few rounds, short baselines, the example's own target
epsilon. It shows that the combination works and what it costs; learning takes the rounds that the
example asks for. Every run's log is verified. State lies in a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "results.md"
ALGORITHMS = (
    "maml",
    "fomaml",
    "reptile",
    "meta_sgd",
    "meta_sgd_layer",
    "anil",
    "anil_head",
    "fedavg",
)
NOISE = {
    "distributed": (),
    "local": ("privacy.noise=local", "privacy.mechanism=gaussian"),
}
TITLES = (
    "algorithm",
    "noise",
    "rounds",
    "coordinates",
    "epsilon",
    "unadapted",
    "adapted",
    "bytes",
    "verifies",
)
SHORT = (
    "evaluation.repeats=2",
    "evaluation.local_steps=20",
    "evaluation.adapt_steps=5",
    "evaluation.fedavg_adapt_steps=5",
)
# Noise at the client has no unit user; a task of these is all that there is of one person.
PERSON_TASKS = {"migraine": ("privacy.unit=task",)}
NEEDS = {"reptile": ("learner.inner_steps=2",)}  # with one step it is joint training


@dataclass(frozen=True)
class Row:
    """One run, or why there is none.

    Attributes:
        example, algorithm, noise: the combination.
        report: the content of report.json; None where the config was refused.
        verified: what the verification of the log said, or the refusal.
        seconds: of the whole run.
    """

    example: str
    algorithm: str
    noise: str
    report: dict[str, Any] | None
    verified: str
    seconds: float


def one(example: Path, algorithm: str, noise: str, rounds: int, out: Path) -> Row:
    """Run one combination and verify its log."""
    from secure_fedmeta.config import load_config
    from secure_fedmeta.errors import ConfigError
    from secure_fedmeta.tasks import Site
    from secure_fedmeta.training import run
    from secure_fedmeta.verification import verify_run

    short = (*SHORT, f"training.rounds={rounds}", f"training.evaluate_every={rounds}")
    unit = PERSON_TASKS.get(example.stem, ()) if noise == "local" else ()
    needed = (*NEEDS.get(algorithm, ()), *unit)
    chosen = (f"learner.algorithm={algorithm}", *needed, *NOISE[noise])
    began = time.monotonic()
    try:
        config = load_config(example, [*short, *chosen])
        result = run(config, out=out, site=Site(example.parent))
    except ConfigError as error:
        return Row(example.stem, algorithm, noise, None, str(error), 0.0)
    checked = verify_run(result.directory, key=None, pinned=None, unpinned=False)
    verdict = "yes" if checked.accepted else f"NO: {checked.failure}"
    return Row(example.stem, algorithm, noise, result.report, verdict, time.monotonic() - began)


def page(rows: Sequence[Row], rounds: int) -> str:
    """The page: one table for each example, and what was refused."""
    parts = [
        f"""# Results

Every example with every algorithm and every kind of noise, {rounds} rounds each, at the example's
own target epsilon; written by `make results`. So few rounds show that a combination works
and what it costs, not how well it learns: for that run the examples as they are, and see
[the README](../README.md#what-the-demo-shows). Noise is drawn afresh, so the scores differ from one
time to the next; coordinates, epsilon and bytes do not.

- *coordinates*: length of the vector that is clipped, summed and released
- *epsilon*: the claim against the worst adversary that the budget limits, after these rounds
- *unadapted*, *adapted*: mean score over held-out clients, before and after adaptation, with a 95 %
  interval over clients, which says next to nothing where two or three are held out
- *bytes*: one client's protected vector in one round
- *verifies*: whether `fedmeta verify` accepts the log

The unit is that of the example. Noise at the client knows no unit user, so that with `local` the
unit of migraine is the task, which is one person there too."""
    ]
    for example in dict.fromkeys(row.example for row in rows):
        own = [row for row in rows if row.example == example]
        done = [row for row in own if row.report is not None]
        metric = done[0].report["held_out"]["metric"] if done and done[0].report else "none"
        parts.append(f"## {example}\n\nScore: {metric}.\n\n" + table(done))
        refused = [row for row in own if row.report is None]
        if refused:
            lines = [f"- {row.algorithm}, {row.noise}: {row.verified}" for row in refused]
            parts.append("Refused:\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def table(rows: Iterable[Row]) -> str:
    """The rows that ran, as Markdown."""
    lines = ["| " + " | ".join(TITLES) + " |", "|---" * len(TITLES) + "|"]
    for row in rows:
        found = row.report or {}
        held = found["held_out"]
        lines.append(
            f"| `{row.algorithm}` | {row.noise} | {found['rounds']['completed']} | "
            f"{found['shared']['coordinates']:,} | {found['privacy']['spent_epsilon']:.2f} | "
            f"{score(held['no_adaptation'])} | {score(held['meta'])} | "
            f"{found['bytes_per_client']['upload']:,} | {row.verified} |"
        )
    return "\n".join(lines)


def score(arm: dict[str, Any] | None) -> str:
    """The mean of an arm, with its interval where there is one."""
    if arm is None or arm["mean"] is None:
        return "none"
    width = "" if arm["ci95"] is None else f" ± {arm['ci95']:.3f}"
    return f"{arm['mean']:.3f}{width}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the combinations; 1 if a log does not verify."""
    parser = argparse.ArgumentParser(description=__doc__)
    examples = {path.stem: path for path in sorted((ROOT / "examples").rglob("*.toml"))}
    parser.add_argument("--examples", nargs="+", default=list(examples), choices=list(examples))
    parser.add_argument("--algorithms", nargs="+", default=ALGORITHMS)
    parser.add_argument("--noise", nargs="+", default=tuple(NOISE), choices=tuple(NOISE))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(argv)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["FEDMETA_STATE_DIR"] = str(Path(scratch) / "state")
        for example in options.examples:
            for algorithm in options.algorithms:
                for noise in options.noise:
                    path = examples[example]
                    row = one(path, algorithm, noise, options.rounds, Path(scratch) / "runs")
                    print(f"{example} {algorithm} {noise}: {row.verified} ({row.seconds:.1f} s)")
                    rows.append(row)
    options.page.write_text(page(rows, options.rounds), encoding="utf-8")
    return int(any(row.report is not None and row.verified != "yes" for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
