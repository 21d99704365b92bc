"""A small log with every kind of entry, for the tests of this package."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from audit.canonical import dumps, sha256
from audit.log import AuditLog
from audit.note import LogSigner

ORIGIN = "fedmeta.example/run"
SHARE_VARIANCE = "160000.0"
PLAN = {
    "delta": "1e-05",
    "epsilon": "12.0",
    "min_survivors": 6,
    "l2": 400,
    "share_variance": SHARE_VARIANCE,
}
PLAN_DIGEST = sha256(dumps(PLAN)).hex()


def signer(seed: int = 1, origin: str = ORIGIN) -> LogSigner:
    return LogSigner.generate(origin, bytes([seed]) * 32)


def clock() -> datetime:
    return datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def event(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "kind": "skellam_round",
        "unit": "task",
        "relation": "add_remove",
        "rate": "1.0",
        "l2": 400,
        "l1": 8000,
        "share_variance": SHARE_VARIANCE,
        "survivors": 7,
        "max_colluders": 2,
        "clients": 8,
        "dimension": 400,
        "person_units": 4,
        "max_participations": None,
    }
    return base | changes


def genesis(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "run": digest("run"),
        "origin": ORIGIN,
        "config_digest": digest("config"),
        "plan_digest": PLAN_DIGEST,
        "plan": PLAN,
        "roster_digest": digest("roster"),
        "code_digest": digest("code"),
        "lock_digest": digest("lock"),
        "not_private": False,
        "product_version": "0.1.0",
        "unprotected": ["who takes part"],
    }
    return base | changes


def grant(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "population": "applicants",
        "unit": "task",
        "adversary": "worst",
        "epsilon": "40.0",
        "delta": "1e-05",
        "order": None,
        "approver": "privacy officer",
        "expires": None,
    }
    return base | changes


def spent(prior: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    return {"population": "applicants", "prior": prior} | changes


def intent(round_: int, attempt: int = 0, **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "round": round_,
        "attempt": attempt,
        "config_digest": digest("config"),
        "plan_digest": PLAN_DIGEST,
        "cohort_root": digest("cohort"),
        "survivor_root": digest("survivors"),
        "contribution_root": digest("contributions"),
        "counts": {"selected": 8, "reported": 7, "dropped": 1, "rejected": {"bad signature": 2}},
        "secure_sum": {
            "protocol": "masking",
            "parameters": {"bits": 20},
            "capabilities": {"hides_updates": True},
            "threshold": 5,
        },
        "clip": "1.0",
        "event": event(),
        "reservation": f"reservation-{round_}-{attempt}",
    }
    return base | changes


def release(round_: int, intent_digest: str, attempt: int = 0, **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "round": round_,
        "attempt": attempt,
        "intent": intent_digest,
        "model_before": digest(f"model {round_ - 1}"),
        "model_after": digest(f"model {round_}"),
        "aggregate": digest(f"aggregate {round_}"),
        "spend": {"aggregator": {"rdp": "1.5"}},
        "evaluation": None,
    }
    return base | changes


def abort(round_: int, attempt: int = 0, **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "round": round_,
        "attempt": attempt,
        "intent": None,
        "reason": "too few survivors",
        "charged": False,
    }
    return base | changes


def resumed(round_: int, attempt: int = 0, **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "round": round_,
        "attempt": attempt,
        "entries": 1,
        "code_digest": digest("code"),
        "lock_digest": digest("lock"),
        "product_version": "0.1.0",
    }
    return base | changes


def start(directory: Path, **changes: Any) -> AuditLog:
    log = AuditLog.create(directory, signer(), clock=clock)
    log.append("genesis", genesis(**changes))
    return log


def write_log(directory: Path, rounds: int = 3) -> AuditLog:
    """genesis, grant, an abort, `rounds` rounds of which the second is resumed, a report."""
    log = start(directory)
    log.append("budget-granted", grant())
    log.append("round-abort", abort(0))
    for round_ in range(1, rounds + 1):
        opened = log.append("round-intent", intent(round_))
        attempt = 0
        if round_ == 2:
            closing = abort(2, intent=opened.digest.hex(), charged=True)
            log.append("round-abort", closing)
            log.append("resumed", resumed(2, 1, entries=log.size))
            attempt = 1
            opened = log.append("round-intent", intent(2, 1))
        log.append("round-release", release(round_, opened.digest.hex(), attempt))
    log.append("report-exported", {"files": {"report.json": digest("report")}})
    return log
