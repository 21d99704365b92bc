"""A log's clip bounds are the plan's, or follow from what earlier releases of the log say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from audit.canonical import dumps, sha256
from audit.errors import EntryRefused
from audit.log import AuditLog
from privacy.adaptive_clip import MAX_RATIO, AdaptiveClip
from tests.audit import scenario
from tests.audit.scenario import clock, genesis, grant, intent, release, signer

RULE = {"quantile": "0.5", "speed": "0.4", "weight": "0.2"}
PLAN = {
    **scenario.PLAN,
    "clip": "2.0",
    "extras": {"metrics": [], "adaptive_clip": RULE},
}
DIGEST = sha256(dumps(PLAN)).hex()


def started(folder: Path, plan: dict[str, Any] = PLAN) -> AuditLog:
    log = AuditLog.create(folder / "log", signer(), clock=clock)
    log.append("genesis", genesis(plan=plan, plan_digest=sha256(dumps(plan)).hex()))
    log.append("budget-granted", grant())
    return log


def opened(log: AuditLog, round_: int, clip: str) -> str:
    return log.append("round-intent", intent(round_, clip=clip, plan_digest=DIGEST)).digest.hex()


def test_the_bound_follows_from_the_releases(tmp_path: Path) -> None:
    """The verifier's own arithmetic agrees with the mechanism's over many rounds."""
    log = started(tmp_path)
    rule, clip = AdaptiveClip(0.5, 0.4, 0.2), 2.0
    for round_, error in enumerate((0.5, -0.25, 3.0, -40.0, 1e9, -1e9, -0.125), start=1):
        entry = opened(log, round_, repr(clip))
        log.append("round-release", release(round_, entry, clip_error=repr(error)))
        clip = rule.next(clip, error, start=2.0)
    opened(log, 8, repr(clip * (1 + 1e-12)))
    assert clip == pytest.approx(2.0 * MAX_RATIO * math.exp(0.05) / math.exp(0.05), rel=0.2)


@pytest.mark.parametrize("clip", ["2.0", "1.6374615061559640", "1.6374615", "1e300", "0.0"])
def test_another_bound_is_refused(tmp_path: Path, clip: str) -> None:
    """After an error of 0.5 at speed 0.4 the bound is 2 exp(-0.2) = 1.63746150615596..."""
    log = started(tmp_path)
    entry = opened(log, 1, "2.0")
    log.append("round-release", release(1, entry, clip_error="0.5"))
    if clip.startswith("1.637461506"):
        opened(log, 2, repr(float(clip)))
        return
    with pytest.raises(EntryRefused, match=r"the releases before give 1\.63746150615596"):
        opened(log, 2, clip)


def test_the_first_bound_is_the_plan_s(tmp_path: Path) -> None:
    with pytest.raises(EntryRefused, match=r"give 2\.0"):
        opened(started(tmp_path), 1, "2.1")


def test_an_aborted_round_moves_nothing(tmp_path: Path) -> None:
    log = started(tmp_path)
    entry = opened(log, 1, "2.0")
    log.append("round-abort", scenario.abort(1, intent=entry, charged=True))
    opened(log, 2, "2.0")


def test_a_release_says_how_the_bound_moves_where_it_does_and_only_there(tmp_path: Path) -> None:
    log = started(tmp_path)
    entry = opened(log, 1, "2.0")
    with pytest.raises(EntryRefused, match="clip error"):
        log.append("round-release", release(1, entry))
    still = scenario.start(tmp_path / "still")
    entry = still.append("round-intent", intent(1)).digest.hex()
    with pytest.raises(EntryRefused, match="clip error"):
        still.append("round-release", release(1, entry, clip_error="0.5"))


@pytest.mark.parametrize(
    "changes",
    [
        {"extras": {"adaptive_clip": {"quantile": "0.5"}}},
        {"extras": {"adaptive_clip": {"speed": 0.4}}},
        {"extras": {"adaptive_clip": {"speed": "fast"}}},
        {"extras": {"adaptive_clip": "yes"}},
        {"clip": 2.0},
    ],
    ids=str,
)
def test_a_plan_that_says_it_badly_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(EntryRefused):
        started(tmp_path, PLAN | changes)


@pytest.mark.parametrize(
    "body", [{"protected": {"loss": 0.5}}, {"protected": {"loss": "inf"}}, {"clip_error": "nan"}]
)
def test_figures_of_a_release_are_finite_decimals(tmp_path: Path, body: dict[str, Any]) -> None:
    log = started(tmp_path)
    entry = opened(log, 1, "2.0")
    with pytest.raises(EntryRefused):
        log.append("round-release", release(1, entry, **{"clip_error": "0.5", **body}))
