"""Killed runs and full disks, in a process of their own: a fork takes along no other threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.campaign import CHAIN, draw
from tests.chaos.judge import FAULTS
from tests.chaos.plants import PLANTS
from tests.chaos.scenarios import SCENARIOS

REQUIRED = "FEDMETA_REQUIRE_TOOLS"
ROOT = Path(__file__).parents[2]


def chaos(*words: str) -> tuple[int, dict[str, Any]]:
    """Exit code and last line of the program."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--json", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """One campaign for all tests: half of its time is imports and runs that are never killed."""
    _, found = chaos("--kills", "50", "--plants", "--full", "10", "--seed", "2026")
    return found


def faults(part: dict[str, Any]) -> dict[str, int]:
    return {name: part[name] for name in FAULTS if part[name]}


def test_fifty_kills_lose_no_entry_no_charge_and_no_model(found: dict[str, Any]) -> None:
    assert faults(found) == {}, found["faults"]
    assert found["kills"] == 50
    assert min(found["how"]["AtTime"], found["how"]["AtCall"]) >= 12
    assert found["resumed"] >= 20
    assert len(found["where"]) >= 7
    assert max(found["where"].values()) <= 20


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_noticed(found: dict[str, Any], name: str) -> None:
    planted = found["plants"][name]
    assert planted["without"] == {}
    assert planted["with"].get(PLANTS[name].fault, 0) > 0


def test_a_disk_that_is_full_at_any_call_loses_nothing_and_says_what_to_do(
    found: dict[str, Any],
) -> None:
    assert faults(found["full"]) == {}, found["full"]["faults"]
    assert found["full"]["filled"] == 10


def test_disks_that_are_really_too_small() -> None:
    _, found = chaos("--kills", "0", "--tmpfs", "4")
    if "skipped" in found["tmpfs"]:
        assert not os.environ.get(REQUIRED), found["tmpfs"]["skipped"]
        pytest.skip(f"no tmpfs can be mounted here: {found['tmpfs']['skipped']}")
    assert faults(found["tmpfs"]) == {}, found["tmpfs"]["faults"]
    assert found["tmpfs"]["filled"] == 4


def test_a_run_is_drawn_again_by_its_number() -> None:
    scenarios = tuple(SCENARIOS.values())
    drawn = [draw(scenarios, 7, number) for number in range(1, 400)]
    assert [draw(scenarios, 7, number) for number in range(1, 400)] == drawn
    assert drawn[1:] != drawn[:-1]
    assert {scenario.name for scenario, _ in drawn} == set(SCENARIOS)
    assert {len(moments) for _, moments in drawn} == set(CHAIN)
    parts = [part for _, moments in drawn for _, part in moments]
    assert min(parts) < 0.02
    assert max(parts) > 0.98


@pytest.mark.slow
def test_five_hundred_kills() -> None:
    code, found = chaos("--kills", "500", "--full", "300", "--tmpfs", "40")
    assert code == 0, found
