"""What has to be known first: warnings, and the few figures that a decision starts from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from privacy.accountant import BUDGETED
from secure_fedmeta.reporting.blocks import (
    Banner,
    Block,
    Key,
    Keys,
    Prose,
    Section,
)
from secure_fedmeta.reporting.text import (
    METRICS,
    count,
    epsilon,
    interval,
    plain,
    score,
    sentence,
)

_STATUS = {
    "budget": (
        "Ended by the budget",
        "The grant did not afford a further round. The model is that of the rounds released.",
    ),
    "aborted": (
        "Aborted",
        "The run ended because rounds could not complete. Do not take its model for trained.",
    ),
}


def banners(report: Mapping[str, Any]) -> Iterator[Banner]:
    """What must be known before any figure is read."""
    if report["not_private"]:
        yield Banner(
            "Not private",
            "All secrets of this run follow from one seed in its config. Whoever knows the seed "
            "can take the noise off: no privacy figure below holds.",
        )
    if not report["secure_sum"]["capabilities"]["hides_updates"]:
        yield Banner(
            "Insecure protocol",
            f"The sum {plain(report['secure_sum']['protocol'])} showed the aggregator every single "
            "update. No epsilon is claimed against it, alone or with colluding clients.",
        )
    if report["status"] in _STATUS:
        yield Banner(*_STATUS[report["status"]])
    if report["privacy"]["within_grant"] is False:
        yield Banner(
            "Budget exceeded",
            "What the population was charged is more than it was granted.",
        )
    planted = (report.get("assessment") or {}).get("planted")
    if planted is not None:
        yield Banner(
            "Planted bug in the assessment",
            f"The assessed copy had a bug put in on purpose: {plain(planted)}.",
        )
    elif (report.get("assessment") or {}).get("passed") is False:
        yield Banner("Assessment failed", "The pipeline did not do what its plan says: see there.")


def holds(report: Mapping[str, Any]) -> bool:
    """Whether the claim against the worst budgeted adversary is a bound at all."""
    hidden = report["secure_sum"]["capabilities"]["hides_updates"]
    return bool(hidden and not report["not_private"])


def glance(report: Mapping[str, Any]) -> Section:
    """The four figures that a decision starts from."""
    held_out, rounds = report["held_out"], report["rounds"]
    metric = held_out["metric"]
    keys = [
        spent(report),
        Key(
            "Rounds released",
            f"{rounds['completed']:,} of {rounds['planned']:,}",
            f"{rounds['aborted']:,} aborted; status: {plain(report['status'])}",
        ),
    ]
    meta, alone = held_out["meta"], held_out["local_k"]
    if meta:
        beside = f"; {score(alone['mean'])} alone on the same k" if alone else ""
        keys.append(
            Key(
                f"Held-out {METRICS.get(metric, metric)}",
                score(meta["mean"]),
                f"{interval(meta)}, adapted on k = {held_out['support']}{beside}",
            )
        )
        found = meta["harm"]["local_k"]
        keys.append(
            Key(
                "Clients harmed by joining",
                f"{found['harmed']:,} of {found['compared']:,}",
                "against being alone on the same k examples; "
                f"{_harmed(meta['harm']['local_all'])} against being alone on all its own examples",
            )
        )
    return Section("glance", "At a glance", [Keys(keys), *_notes(report)])


def spent(report: Mapping[str, Any]) -> Key:
    """The epsilon that was spent, and all without which it means nothing."""
    privacy = report["privacy"]
    granted = privacy["granted_epsilon"]
    limit = "no grant" if granted is None else f"of {granted:g} granted"
    about = (
        f"{limit}; for one {plain(privacy['unit'])}, delta {privacy['delta']:g}, against the worst "
        "adversary that the budget limits"
    )
    if not holds(report):
        return Key("Epsilon spent", "no bound", about)
    record, person = _worst(report, "record"), _worst(report, "person")
    units = count(privacy["person_units"], "such unit")
    return Key(
        "Epsilon spent",
        epsilon(privacy["spent_epsilon"]),
        f"{about}. For one record replaced: {record}; for a person of {units}: {person}",
    )


def _worst(report: Mapping[str, Any], whose: str) -> str:
    """The largest figure of this kind against the adversaries that the budget limits."""
    found = [report["adversaries"][name][whose] for name in BUDGETED]
    return epsilon(None if None in found else max(found))


def _harmed(found: Mapping[str, Any]) -> str:
    return f"{found['harmed']:,} of {found['compared']:,}"


def _notes(report: Mapping[str, Any]) -> Iterator[Block]:
    for note in report["notes"][:20]:
        yield Prose(f"Note: {sentence(note)}")
    if len(report["notes"]) > 20:
        yield Prose(f"And {len(report['notes']) - 20:,} more notes; report.json has them all.")
