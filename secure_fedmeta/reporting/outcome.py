"""What was trained for whom, and what it was worth to clients that never trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from secure_fedmeta.reporting import figures
from secure_fedmeta.reporting.blocks import (
    Block,
    Facts,
    Grid,
    Prose,
    Section,
)
from secure_fedmeta.reporting.text import (
    ARMS,
    LOWER_IS_BETTER,
    METRICS,
    count,
    interval,
    listed,
    percent,
    plain,
    score,
    sentence,
    signed,
    words,
)
from secure_fedmeta.spread import ALONE

MOST_CLIENTS: Final = 24
"""Held-out clients that are shown one by one; of more, the worst and the best half of as many."""


def trained(report: Mapping[str, Any]) -> Section:
    """What was trained, by whom and for whom, in plain words."""
    found, data, privacy = report["trained"], report["data"], report["privacy"]
    shared, held_out, plan = report["shared"], report["held_out"], privacy["plan"]
    trainers = data["training_clients"]
    lead = (
        f"{count(len(trainers), 'client')} trained one model together: a starting point that a new "
        f"client adapts to itself with {found['support']} examples. {_sent(report)}"
    )
    rows = [
        ("Clients that trained", f"{len(trainers):,}: {listed(trainers)}"),
        (
            "Clients held out",
            (
                f"{len(held_out['clients']):,}: {listed(held_out['clients'])}. They never trained; "
                "the scores below are theirs."
                if held_out["clients"]
                else "none"
            ),
        ),
        ("Data", _data(data, found)),
        ("Task", f"{found['support']} examples to adapt on, {found['query']} to be judged on"),
        (
            "Learner",
            (
                f"{plain(found['learner'])}: {count(found['inner_steps'], 'inner step')} of size "
                f"{found['inner_lr']:g}; server: {plain(found['server'])}; "
                f"loss: {words(found['loss'])}"
            ),
        ),
        (
            "What is shared",
            (
                f"{count(shared['coordinates'], 'number')} per round: {shared['parameters']:,} of "
                f"the network, {shared['learned_rates']:,} learned rates; "
                f"{shared['frozen_parameters']:,} parameters stay at their public start"
            ),
        ),
        ("Network", listed([f"{n} {'×'.join(map(str, s))}" for n, s in found["network"].items()])),
        ("Unit of privacy", sentence(privacy["unit_in_words"])),
        (
            "Rounds",
            (
                f"{plan['rounds']:,} planned; at least {plan['min_survivors']:,} of "
                f"{plan['clients']:,} clients in each sum"
            ),
        ),
    ]
    return Section(
        "trained", "What was trained, and for whom", [Prose(lead, lead=True), Facts(rows)]
    )


def _sent(report: Mapping[str, Any]) -> str:
    if not report["secure_sum"]["capabilities"]["hides_updates"]:
        return "The aggregator saw the vector of every single client."
    if report["not_private"]:
        return "The noise in a client's vector, and what hides it, follow from the seed."
    return (
        "In a round a client sends one vector with noise in it; the secure sum hides it, and only "
        "the sum is opened."
    )


def _data(data: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    if not data["public"]:
        return (
            f"Source {plain(data['source'])}. Not public: no counts of training clients' data "
            "leave them."
        )
    origin = f"{sentence(found['provenance'])} Licence: {plain(found['licence'])}."
    return (
        f"Source {plain(data['source'])}, declared public: {count(data['rows'], 'record')} in "
        f"{count(data['tasks'], 'task')}. {origin if found['provenance'] else ''}"
    )


def held_out(report: Mapping[str, Any]) -> Section:
    """The closing table, who was harmed, and the clients one by one."""
    found = report["held_out"]
    metric = found["metric"]
    better = "less is better" if metric in LOWER_IS_BETTER else "more is better"
    title = "What it is worth to clients that never trained"
    if not any(found[arm] for arm in ARMS):
        why = dict.fromkeys(sentence(text) for text in found["not_run"].values())
        told = "No client was scored: nothing is known of what the model is worth to others."
        return Section("held-out", title, [Prose(" ".join([told, *why]), lead=True)])
    lead = (
        f"Scores are {METRICS.get(metric, plain(metric))} ({better}) of clients that never "
        f"trained; k = {found['support']}. Every way to get a model sees the same examples. These "
        "scores carry no noise: they say something about the held-out clients."
    )
    blocks: list[Block] = [Prose(lead, lead=True), _arms(found)]
    if found["meta"]:
        blocks += [*_harm(found), *_clients(found)]
    return Section("held-out", title, blocks)


def _arms(found: Mapping[str, Any]) -> Grid:
    rows, why = [], []
    for arm, label in ARMS.items():
        one = found[arm]
        if one is None:
            rows.append((label, "not run", *[""] * 4))
            why.append(f"{label}: {sentence(found['not_run'].get(arm, 'not run'))}")
            continue
        low, high = one["quantiles"]["lowest"], one["quantiles"]["highest"]
        rows.append(
            (
                label,
                score(one["mean"]),
                interval(one),
                score(one["worst_decile"]["mean"]),
                score(one["quantiles"]["median"]),
                f"{score(low)} to {score(high)}",
            )
        )
    tail = next((found[arm]["worst_decile"]["clients"] for arm in ARMS if found[arm]), 0)
    return Grid(
        caption=f"Held-out clients ({len(found['clients']):,})",
        head=("model", "mean", "95 % interval", "worst tenth", "median", "range"),
        rows=rows,
        note=(
            "The interval treats clients as a sample; it says nothing about other noise or other "
            f"initial weights. Worst tenth: the mean of the worst {count(tail, 'client')}. "
            f"Alone on all own examples is cross-validated. {' '.join(why)}"
        ).strip(),
    )


def _harm(found: Mapping[str, Any]) -> Iterator[Block]:
    rows = []
    for arm in ("meta", "no_adaptation", "fedavg_ft"):
        if not found[arm]:
            continue
        for alone in ALONE:
            one = found[arm]["harm"][alone]
            width = "" if one["gain_ci95"] is None else f" ± {one['gain_ci95']:.3f}"
            rows.append(
                (
                    ARMS[arm],
                    ARMS[alone],
                    f"{one['harmed']:,} of {one['compared']:,}",
                    percent(one["share"]),
                    signed(one["gain"]) + width,
                    score(one["largest_shortfall"]),
                )
            )
    yield Grid(
        caption="Clients harmed by joining",
        head=("with the model of the federation", "against", "harmed", "share", "mean gain",
              "largest shortfall"),
        rows=rows,
        words=frozenset({0, 1}),
        note=(
            "A client is harmed where its score is worse than what it reaches without anybody "
            "else, by however little. Gains are client by client, positive where joining is "
            "better, with the 95 % interval of their mean. The largest shortfall is that of the "
            "client that loses most."
        ),
    )  # fmt: skip


def _clients(found: Mapping[str, Any]) -> Iterator[Block]:
    meta, alone, every = (_scores(found, arm) for arm in ("meta", "local_k", "local_all"))
    sign = -1.0 if found["metric"] in LOWER_IS_BETTER else 1.0

    def gain(client: str, other: Mapping[str, float | None]) -> float | None:
        own, theirs = meta.get(client), other.get(client)
        return None if own is None or theirs is None else sign * (own - theirs)

    def order(client: str) -> tuple[int, float, str]:
        own = gain(client, alone)
        return (1, own, client) if own is not None else (0, 0.0, client)

    ranked = sorted(meta, key=order)
    half = MOST_CLIENTS // 2
    shown = ranked if len(ranked) <= MOST_CLIENTS else [*ranked[:half], *ranked[-half:]]
    plainly = _scores(found, "no_adaptation")
    data = Grid(
        caption="Scores of held-out clients",
        head=("client", "adapted", "as it is", "alone, k", "alone, all", "gain over k",
              "gain over all"),
        rows=[
            (
                plain(client),
                *(score(one.get(client)) for one in (meta, plainly, alone, every)),
                signed(gain(client, alone)),
                signed(gain(client, every)),
            )
            for client in shown
        ],
        note=_which(len(ranked), half),
    )  # fmt: skip
    figure = figures.dots(shown, found, data)
    yield data if figure is None else figure


def _which(clients: int, half: int) -> str:
    order = "Ordered by the gain of joining over being alone on the same k examples, worst first."
    if clients <= MOST_CLIENTS:
        return order
    return (
        f"{order} The {half} that gain least and the {half} that gain most of {clients:,}; "
        "report.json has all."
    )


def _scores(found: Mapping[str, Any], arm: str) -> Mapping[str, float | None]:
    return found[arm]["per_client"] if found[arm] else {}
