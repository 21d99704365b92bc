"""Figures that a log should state, computed in fifty digits, and logs to state them in."""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

from audit.canonical import decimal
from audit.log import AuditLog
from audit.spend import ADVERSARIES, SpendChecker
from audit.verify import Verified, verify_log
from tests.audit import scenario
from tests.audit.scenario import intent, release

DELTA = 1e-5
SHARES = {
    "aggregator": 7,
    "aggregator_and_colluders": 5,
    "participants": 5,
    "recipients": 7,
    "broken_sum": 1,
}


@lru_cache
def oracle(rounds: int, shares: int, order: int | None = None) -> float:
    """The two formulas for `event()` in 50-digit decimals, at one order or the best of all."""
    with localcontext(prec=50):
        l2, l1, mu = Decimal(400), Decimal(8000), Decimal(160_000) * shares
        best = Decimal("inf")
        for tried in range(2, 513) if order is None else (order,):
            a = Decimal(tried)
            tail = min(((2 * a - 1) * l2**2 + 6 * l1) / (4 * mu**2), 3 * l1 / (2 * mu))
            rdp = rounds * (a * l2**2 / (2 * mu) + tail)
            logs = Decimal(DELTA).ln() + a.ln()
            best = min(best, rdp + ((a - 1) / a).ln() - logs / (a - 1))
        return float(max(best, Decimal(0)))


def figures(rounds: int, **changes: str) -> dict[str, dict[str, str]]:
    spend = {
        name: {"rdp": decimal(oracle(rounds, SHARES[name])), "gaussian_reference_rdp": "0.1"}
        for name in ADVERSARIES
    }
    for name, value in changes.items():
        spend[name]["rdp"] = value
    return spend


def verify(directory: Path) -> Verified:
    vkey = scenario.signer().vkey
    return verify_log(directory, vkey=vkey, pinned=None, spend=SpendChecker())


def granted(directory: Path) -> AuditLog:
    """A log that holds a genesis and a grant."""
    log = scenario.start(directory)
    log.append("budget-granted", scenario.grant())
    return log


def released(log: AuditLog, round_: int, spend: Any, **intent_changes: Any) -> int:
    """Log one round with its intent, released with these figures; the index of the release."""
    opened = log.append("round-intent", intent(round_, **intent_changes)).digest.hex()
    return log.append("round-release", release(round_, opened, spend=spend)).index
