"""The figures of decision 0032, from the planner: noise beyond what the actual survivors need."""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path

import pytest

from privacy.accountant import BUDGETED, claimed_epsilon
from privacy.events import known_shares
from privacy.plan import PrivacyPlan

TARGET, ROUNDS, DELTA = 3.0, 30, 1e-5
RECORD = Path(__file__).parents[2] / "docs/decisions/0032-noise-is-not-removed-again.md"
ROWS = re.findall(
    r"^\| (\d+), (\d+), (\d+) \| (\d+) % \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| (\d+) \|$",
    RECORD.read_text(encoding="utf-8"),
    re.MULTILINE,
)


@cache
def plan_of(clients: int, least: int, colluders: int) -> PrivacyPlan:
    return PrivacyPlan.calibrated(
        epsilon=TARGET,
        delta=DELTA,
        rounds=ROUNDS,
        clip=1.0,
        parameters=1000,
        expected_units=clients,
        max_units_per_client=1,
        clients=clients,
        min_survivors=least,
        max_colluders=colluders,
        person_units=1,
    )


def test_the_record_has_rows_with_and_without_drops() -> None:
    assert {row[3] for row in ROWS} == {"0", "10", "30"}
    assert len(ROWS) == 9


@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_the_figures_are_those_of_the_planner(row: tuple[str, ...]) -> None:
    clients, least, colluders, dropped = map(int, row[:4])
    plan = plan_of(clients, least, colluders)
    survivors = clients - clients * dropped // 100
    honest = survivors - known_shares(colluders)
    needed = math.sqrt(survivors / honest) * plan.noise_multiplier
    event = plan.event(survivors)
    assert float(row[4]) == pytest.approx(plan.noise_std(survivors) / plan.l2, abs=0.006)
    assert float(row[5]) == pytest.approx(needed, abs=0.006)
    assert plan.noise_std(survivors) / plan.l2 >= needed * (1.0 - 1e-12)
    spent = claimed_epsilon({event: ROUNDS}, BUDGETED, delta=DELTA)
    assert float(row[6]) == pytest.approx(spent, abs=0.006)
    fits = int(row[7])
    first, beyond = (
        claimed_epsilon({event: count}, BUDGETED, delta=DELTA) for count in (fits, fits + 1)
    )
    assert first <= TARGET < beyond
