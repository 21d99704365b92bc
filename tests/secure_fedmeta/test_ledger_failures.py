"""A ledger that fails in the middle of a run: nothing is opened uncharged, and the run tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from audit.entry import MAX_ENTRY_BYTES
from privacy.errors import LedgerError, LedgerUnavailable, OutcomeUnknown
from privacy.ledger import Ledger
from secure_fedmeta.budget import Budget
from secure_fedmeta.pipeline import assemble
from secure_fedmeta.training import RunResult, run
from secure_fedmeta.verification import verify_run
from tests.secure_fedmeta.federation import default_ledger, entries, tiny

POPULATION = {"ledger.population": "people"}


def train(folder: Path) -> RunResult:
    default_ledger().grant("people", unit="task", epsilon=3.0, delta=1e-5, approver="board")
    return run(tiny(POPULATION), out=folder)


def failing(
    monkeypatch: pytest.MonkeyPatch, method: str, call: int, error: Callable[[], Exception]
) -> None:
    """Every call of the ledger's method from this one on fails; the real one runs before."""
    real = getattr(Ledger, method)
    calls = 0

    def fails(self: Ledger, *args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= call:
            raise error()
        return real(self, *args, **named)

    monkeypatch.setattr(Ledger, method, fails)


def kinds(result: RunResult) -> list[str]:
    found = [entry["kind"] for entry in entries(result.directory / "audit")]
    assert found[:2] == ["genesis", "budget-granted"]
    assert found[-1] == "report-exported"
    return found[2:-1]


def accepted(result: RunResult) -> bool:
    return verify_run(result.directory, key=None, pinned=None, unpinned=False).accepted


def lost() -> Exception:
    return LedgerUnavailable("the connection was lost")


@pytest.mark.parametrize(
    ("method", "call", "left"),
    [
        ("affordable", 1, ["round-abort"]),
        ("affordable", 2, ["round-intent", "round-release", "round-abort"]),
        ("reserve", 1, ["round-abort"]),
        ("reserve", 3, ["round-intent", "round-release"] * 2 + ["round-abort"]),
        ("commit", 1, ["round-intent", "round-abort"]),
        ("commit", 2, ["round-intent", "round-release", "round-intent", "round-abort"]),
        ("counts", 1, ["round-intent", "round-abort"]),
    ],
)
def test_the_run_ends_like_an_abort_with_a_report_and_a_log_that_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, call: int, left: list[str]
) -> None:
    failing(monkeypatch, method, call, lost)
    result = train(tmp_path)
    monkeypatch.undo()
    monkeypatch.setenv("FEDMETA_STATE_DIR", str(tmp_path / "state"))
    assert result.status == "aborted"
    assert kinds(result) == left
    assert accepted(result)
    assert "the connection was lost" in " ".join(result.report["notes"])
    released = left.count("round-release")
    assert result.report["rounds"]["completed"] == released
    if released == 0:
        assert torch.equal(result.model, assemble(tiny()).initial())
    charged = len(default_ledger().events("people"))
    assert charged == left.count("round-intent")
    assert (result.directory / "model.safetensors").is_file()


def test_a_charge_of_which_nobody_knows_is_logged_as_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "reserve", 2, lambda: OutcomeUnknown("no answer"))
    result = train(tmp_path)
    assert kinds(result) == ["round-intent", "round-release", "round-abort"]
    abort = entries(result.directory / "audit")[-2]["body"]
    assert (abort["charged"], abort["intent"]) == (True, None)
    assert abort["event"]["kind"] == "skellam_round"
    assert accepted(result)


def test_a_ledger_that_is_gone_at_the_end_leaves_the_figures_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "events", 2, lost)
    result = train(tmp_path)
    assert result.status == "completed"
    assert result.report["privacy"]["events"] == 3
    assert result.report["budget"]["affordable_rounds"] is None
    assert "figures are those of the run's log" in result.report["notes"][0]
    assert accepted(result)


def test_a_population_with_a_long_history_still_fits_the_log(tmp_path: Path) -> None:
    """Hundreds of different plans: their events outgrow what one entry may hold."""
    ledger = default_ledger()
    ledger.grant("people", unit="task", epsilon=1e6, delta=1e-5, approver="board")
    base = assemble(tiny()).plan.worst_event()
    many = tuple(replace(base, share_variance=base.share_variance + k) for k in range(600))
    budget = Budget(ledger, "people", ledger.grants_of("people"), many)
    bodies = [body for kind, body in budget.entries() if kind == "budget-spent"]
    assert len(bodies) > 1
    assert sum(item["count"] for body in bodies for item in body["prior"]) == 600
    assert all(len(str(body)) < MAX_ENTRY_BYTES for body in bodies)


def test_a_failure_before_the_run_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "grants_of", 1, lost)
    with pytest.raises(LedgerError):
        train(tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
