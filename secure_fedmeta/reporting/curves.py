"""Scores and losses over rounds: which, whose, and whether they are protected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from secure_fedmeta.reporting import figures
from secure_fedmeta.reporting.blocks import (
    Block,
    Prose,
    Section,
)
from secure_fedmeta.reporting.text import (
    METRICS,
    PROTECTED,
    score,
)


def curves(report: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Section:
    """Score and losses over rounds: which, whose, and whether they are protected."""
    found = report["held_out"]
    blocks: list[Block] = []
    curve = figures.held_out_curve(records, found["metric"], len(found["clients"]))
    if curve is not None:
        public = report["data"]["public"]
        blocks += [
            Prose(
                f"The score of a round is the mean {METRICS.get(found['metric'], 'score')} of the "
                "held-out clients, who never train. It is not protected: it carries no noise and "
                "is not charged"
                + (", which is harmless here because the data are declared public." if public
                   else ". The held-out clients must have agreed to that.")
            ),
            curve,
        ]  # fmt: skip
    blocks += _protected(report, records)
    if curve is None:
        blocks.insert(0, Prose("No round was scored on held-out clients."))
    return Section("curves", "Scores and losses over rounds", blocks)


def _protected(report: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    """Private metrics of the training tasks, or that there are none."""
    drawn = [(n, figures.protected_curve(records, n, label)) for n, label in PROTECTED.items()]
    found = [(name, figure) for name, figure in drawn if figure is not None]
    if not found:
        yield Prose(
            "No loss of the training clients was released; privacy.metrics would release protected "
            "ones."
        )
        return
    yield Prose(
        "What follows is of the training clients' own tasks. It is protected: summed inside the "
        "secure sum under the noise of the vectors, and part of the claim."
    )
    for name, figure in found:
        yield figure
        over = report["protected"][name]
        yield Prose(
            f"Over all released rounds: {score(over['mean'])} in the mean; its noise has a "
            f"standard deviation of {score(over['mean_noise_std'])}."
        )
