"""What a finished run leaves behind: the report, the curves, and how to read them again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audit.log import AuditLog
from privacy.accountant import Adversary
from privacy.distortion import distortion
from privacy.events import Event
from privacy.report import budget_report
from secure_fedmeta import __version__
from secure_fedmeta.budget import Budget
from secure_fedmeta.config import load_config
from secure_fedmeta.errors import RunDirectoryError
from secure_fedmeta.evaluation import Interval, Scores
from secure_fedmeta.pipeline import Parts
from secure_fedmeta.plots import plot_epsilon, plot_held_out
from secure_fedmeta.run_facts import surroundings, trained
from secure_fedmeta.spread import ALONE, harm, spread
from secure_fedmeta.tasks import SourceInfo
from secure_fedmeta.transport import Traffic
from secure_fedmeta.unprotected import UNPROTECTED
from secure_fedmeta.vector import ParameterVector

REPORT = "report.json"
METRICS = "metrics.jsonl"
MODEL = "model.safetensors"
CONFIG = "config.toml"
ASSESSMENT = "assess.json"
_NOT_PRIVATE = (
    "every secret followed from the config's seed: against whoever knows it no epsilon holds"
)
_SHOWN = (
    "the secure sum showed the aggregator every update, of aborted rounds too: no epsilon is "
    "claimed against it, alone or with colluders"
)


def report(
    parts: Parts,
    *,
    status: str,
    records: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
    arms: Mapping[str, Scores | None],
    not_run: Mapping[str, str],
    events: Sequence[Event],
    budget: Budget,
    affordable: int | None,
    traffic: Mapping[int, Traffic],
    upload: int,
    seconds: float,
    log: AuditLog,
    vkey: str,
    private: bool,
) -> dict[str, Any]:
    """The content of report.json: scores, epsilon per adversary, cost, data, and the log's head."""
    info, plan = parts.source.info, parts.plan
    aborted = [record for record in records if record["status"] == "aborted"]
    hidden = parts.protocol.capabilities().hides_updates
    privacy = budget_report(
        plan, events, grant=budget.epsilon, order=budget.order, unprotected=UNPROTECTED
    )
    return {
        "product_version": __version__,
        "name": parts.config.name,
        "status": status,
        "not_private": not private,
        "trained": trained(parts),
        "notes": [
            *notes,
            *_not_learned(parts),
            *(() if private else (_NOT_PRIVATE,)),
            *(() if hidden else (_SHOWN,)),
        ],
        "held_out": _held_out(parts, arms, not_run),
        "adversaries": _adversaries(privacy.pop("adversaries"), hidden=hidden),
        "privacy": privacy
        | {
            "unit": plan.unit,
            "delta": plan.delta,
            "population": budget.population,
            "person_units": plan.person_units,
        },
        "budget": budget.standing(events, dearest=plan.worst_event(), affordable=affordable),
        "rounds": {
            "planned": parts.config.training.rounds,
            "completed": len(records) - len(aborted),
            "aborted": len(aborted),
            "abort_reasons": [record["reason"] for record in aborted],
        },
        "bytes_per_client": mean_traffic(traffic) | {"upload": upload},
        "protected": _protected(records),
        "clip": _clip(parts, records),
        "distortion": distortion(plan).to_json(),
        "shared": _shared(parts),
        "secure_sum": {
            "protocol": parts.protocol.name,
            "capabilities": parts.protocol.capabilities().to_json(),
            "ring_bits": parts.ring.bits,
            "degree": parts.sharing.degree,
            "threshold": parts.sharing.threshold,
            "committee": parts.committee.members,
            "committee_threshold": parts.committee.threshold,
            "unchecked_rounds": sum(bool(record.get("unchecked")) for record in records),
        },
        "data": {
            "source": parts.source.name,
            "training_clients": list(parts.training),
            "public": info.public,
            **(_counts(info) if info.public else {}),
        },
        "seconds": {"training": round(seconds, 3)},
        "environment": surroundings(parts),
        "audit": {
            "origin": vkey.partition("+")[0],
            "vkey": vkey,
            "size": log.size,
            "root": log.root.hex(),
        },
    }


def _shared(parts: Parts) -> dict[str, int]:
    """What the vector that is clipped, summed and released holds, in coordinates."""
    vector, network = parts.learner.spec.size, parts.learner.network.size
    every = sum(parameter.numel() for parameter in parts.module.parameters())
    return {
        "coordinates": vector,
        "parameters": network,
        "learned_rates": vector - network,
        "frozen_parameters": every - network,
    }


def _not_learned(parts: Parts) -> tuple[str, ...]:
    """A note where the learner leaves some of the network's parameters as they were."""
    trainable = ParameterVector.of(parts.module).size
    left = trainable - parts.learner.network.size
    if left == 0:
        return ()
    note = (
        f"{parts.learner.name} learns and shares the last layer alone: {left} of {trainable} "
        "parameters stay at their public start"
    )
    return (note,)


def _protected(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Private metrics of the training tasks: in the last round, and over all of them."""
    rounds = [record["protected"] for record in records if record["status"] == "released"]
    found: dict[str, Any] = {}
    for name in rounds[-1] if rounds else ():
        values = [one[name]["value"] for one in rounds]
        noise = [one[name]["noise_std"] for one in rounds]
        found[name] = {
            "last": values[-1],
            "last_noise_std": noise[-1],
            "mean": float(np.mean(values)),
            "mean_noise_std": float(np.linalg.norm(noise)) / len(noise),
        }
    return found


def _clip(parts: Parts, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The clip bound of the first and of the last released round."""
    used = [record["clip"] for record in records if record["status"] == "released"]
    return {
        "quantile": parts.config.privacy.clip_quantile,
        "first": used[0] if used else None,
        "last": used[-1] if used else None,
    }


def _adversaries(rows: Sequence[dict[str, Any]], *, hidden: bool) -> dict[str, Any]:
    """The figures by adversary; None, for no bound, against those who saw single updates."""
    bare = () if hidden else (Adversary.AGGREGATOR, Adversary.COLLUDERS)
    table: dict[str, Any] = {}
    for row in rows:
        figures = {key: value for key, value in row.items() if key != "name"}
        if row["name"] in bare:
            figures |= {"epsilon": dict.fromkeys(row["epsilon"]), "record": None, "person": None}
        table[row["name"]] = figures
    return table


def _counts(info: SourceInfo) -> dict[str, Any]:
    return {
        "rows": info.rows,
        "tasks": info.tasks,
        "excluded": dict(info.excluded),
        "clipped": dict(info.clipped),
        "missing": dict(info.missing),
    }


def _held_out(
    parts: Parts, arms: Mapping[str, Scores | None], not_run: Mapping[str, str]
) -> dict[str, Any]:
    """The closing table: mean over held-out clients with its interval, and every client's score."""
    info = parts.source.info
    table: dict[str, Any] = {
        "metric": info.metric,
        "support": info.k_support,
        "clients": list(parts.held_out),
        "not_run": {arm: "no held-out client has a score" for arm in arms if not arms[arm]}
        | dict(not_run),
    }
    for arm, scores in arms.items():
        if not scores:
            table[arm] = None
            continue
        interval = Interval.over(scores)
        table[arm] = {
            "mean": finite(interval.mean),
            "ci95": finite(interval.ci95),
            "per_client": {client: finite(value) for client, value in scores.items()},
            **spread(info.metric, scores),
        }
        if arm not in ALONE:
            table[arm]["harm"] = {
                alone: harm(info.metric, scores, arms[alone] or {}) for alone in ALONE
            }
        if info.public:  # how many draws a client has tells how many users it holds
            table[arm]["per_draw"] = {
                client: [finite(value) for value in draws]
                for client, draws in scores.per_draw.items()
            }
    return table


def mean_traffic(traffic: Mapping[int, Traffic]) -> dict[str, int]:
    """Bytes sent and received by the average client."""
    return {
        "sent": round(float(np.mean([t.sent for t in traffic.values()]))),
        "received": round(float(np.mean([t.received for t in traffic.values()]))),
    }


def draw_curves(directory: Path, records: Sequence[Mapping[str, Any]], report: Any) -> None:
    """Write the curves of held-out score and of epsilon as SVG files under `directory`."""
    scored = [
        (r["round"], r["unadapted"], r["adapted"])
        for r in records
        if r.get("adapted") is not None and r["unadapted"] is not None
    ]
    if scored:
        held_out = report["held_out"]
        plot_held_out(
            directory / "loss.svg",
            scored,
            metric=held_out["metric"],
            clients=len(held_out["clients"]),
        )
    released = [r for r in records if r["status"] == "released"]
    if released:
        curves = {
            name: [r["epsilon_by_adversary"][name] for r in released]
            for name in released[0]["epsilon_by_adversary"]
        }
        plot_epsilon(
            directory / "epsilon.svg",
            [r["round"] for r in released],
            curves,
            limit=released[0]["granted"],
        )


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON that holds neither NaN nor infinity."""
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_report(directory: Path) -> dict[str, Any]:
    """The report of a run directory.

    Raises:
        RunDirectoryError: there is none, or it is not a report.
    """
    path = directory / REPORT
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunDirectoryError(
            f"{path} cannot be read ({error.strerror}): name the directory of a finished run"
        ) from error
    except ValueError as error:
        raise RunDirectoryError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict) or "held_out" not in found:
        raise RunDirectoryError(f"{path} is not a report of this product")
    return found


def check_folder(folder: Path) -> None:
    """Refuse a folder that files cannot be left in, before work is done for them.

    Raises:
        RunDirectoryError: it does not exist.
    """
    if not folder.is_dir():
        raise RunDirectoryError(f"{folder} is no folder: name one that exists")


def write_assessment(folder: Path, found: Mapping[str, Any]) -> None:
    """Write assess.json into a folder.

    Raises:
        RunDirectoryError: it cannot be written.
    """
    path = folder / ASSESSMENT
    try:
        write_json(path, found)
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written ({error.strerror})") from error


def read_assessment(directory: Path) -> dict[str, Any] | None:
    """What `fedmeta assess` left in a run directory; None where it left nothing.

    Raises:
        RunDirectoryError: it is not an assessment, or one of another config than the run's.
    """
    path = directory / ASSESSMENT
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict) or "checks" not in found:
        raise RunDirectoryError(f"{path} is not an assessment of this product")
    if found.get("config_digest") != load_config(directory / CONFIG).digest().hex():
        raise RunDirectoryError(
            f"{path} assesses another config than this run's: run fedmeta assess on "
            f"{directory / CONFIG}, or move the file away"
        )
    return found


def finite(value: float) -> float | None:
    """The value, or None where JSON has no word for it: what diverged, or was never scored."""
    return value if math.isfinite(value) else None
