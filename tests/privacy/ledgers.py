"""What the tests of the ledger ask of it, with everything that does not matter filled in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from privacy.ledger import Ledger
from privacy.unit import Unit
from tests.privacy.plans import calibrated

PLAN = calibrated(rounds=5)
EVENT = PLAN.worst_event()
DIGEST = PLAN.digest()
NOW = datetime(2030, 1, 1, tzinfo=UTC)

Open = Callable[..., Ledger]


def grant(ledger: Ledger, **changes: Any) -> Ledger:
    """Grant population "p" epsilon 3 for unit task."""
    asked = {
        "population": "p",
        "unit": Unit.TASK,
        "epsilon": 3.0,
        "delta": 1e-5,
        "approver": "the board",
        **changes,
    }
    ledger.grant(**asked)
    return ledger


def reserve(ledger: Ledger, index: int, **changes: Any) -> str:
    """Reserve the worst event for round `index` of run "r" of population "p"."""
    asked = {
        "population": "p",
        "run": "r",
        "round": index,
        "attempt": 0,
        "event": EVENT,
        "plan_digest": DIGEST,
        **changes,
    }
    return ledger.reserve(**asked)
