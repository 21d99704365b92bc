"""Which entries may follow which; the writer and the verifier run the same rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.canonical import dumps, sha256
from audit.errors import EntryRefused
from audit.log import AuditLog
from tests.audit import scenario
from tests.audit.scenario import abort, digest, event, intent, release, resumed


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return scenario.start(tmp_path)


def test_a_release_needs_its_intent_and_comes_once(log: AuditLog) -> None:
    with pytest.raises(EntryRefused, match="no intent is open"):
        log.append("round-release", release(1, digest("nothing")))
    opened = log.append("round-intent", intent(1)).digest.hex()
    with pytest.raises(EntryRefused, match="another intent"):
        log.append("round-release", release(1, digest("nothing")))
    for round_, attempt in ((2, 0), (1, 1)):
        with pytest.raises(EntryRefused, match="is not its intent's"):
            log.append("round-release", release(round_, opened, attempt))
    log.append("round-release", release(1, opened))
    with pytest.raises(EntryRefused, match="closed already"):
        log.append("round-release", release(1, opened))
    with pytest.raises(EntryRefused, match="closed already"):
        log.append("round-abort", abort(1, intent=opened, charged=True))


def test_one_round_is_open_at_a_time(log: AuditLog) -> None:
    log.append("round-intent", intent(1))
    with pytest.raises(EntryRefused, match="round 1 is open"):
        log.append("round-intent", intent(2))
    with pytest.raises(EntryRefused, match="round 1 is open"):
        log.append("round-abort", abort(2))


def test_rounds_and_attempts_only_grow(log: AuditLog) -> None:
    log.append("round-abort", abort(3))
    for round_, attempt in ((3, 0), (2, 9)):
        with pytest.raises(EntryRefused, match="is not after"):
            log.append("round-intent", intent(round_, attempt))
    opened = log.append("round-intent", intent(3, 1)).digest.hex()
    log.append("round-release", release(3, opened, 1))
    with pytest.raises(EntryRefused, match="round 3 was released already"):
        log.append("round-intent", intent(3, 2))


def test_the_charge_of_an_opened_round_stays(log: AuditLog) -> None:
    opened = log.append("round-intent", intent(1)).digest.hex()
    for refused in (
        abort(1, intent=opened, charged=False),
        abort(1, intent=opened, charged=True, event=event()),
    ):
        with pytest.raises(EntryRefused, match="the charge stays"):
            log.append("round-abort", refused)
    log.append("round-abort", abort(1, intent=opened, charged=True))


def test_a_charge_without_intent_states_its_event(log: AuditLog) -> None:
    for refused in (abort(1, charged=True), abort(1, event=event())):
        with pytest.raises(EntryRefused, match="states its event"):
            log.append("round-abort", refused)
    log.append("round-abort", abort(1, charged=True, event=event()))


def test_a_reservation_pays_once(log: AuditLog) -> None:
    opened = log.append("round-intent", intent(1)).digest.hex()
    log.append("round-abort", abort(1, intent=opened, charged=True))
    with pytest.raises(EntryRefused, match="was used by an earlier intent"):
        log.append("round-intent", intent(1, 1, reservation="reservation-1-0"))


def test_config_and_plan_are_those_of_the_genesis(log: AuditLog) -> None:
    for field in ("config_digest", "plan_digest"):
        with pytest.raises(EntryRefused, match="not the one of the genesis"):
            log.append("round-intent", {**intent(1), field: digest("other")})


def test_the_clip_is_the_plans(tmp_path: Path) -> None:
    plan = {**scenario.PLAN, "clip": "1.0"}
    plan_digest = sha256(dumps(plan)).hex()
    with scenario.start(tmp_path, plan=plan, plan_digest=plan_digest) as log:
        with pytest.raises(EntryRefused, match=r"clip 100\.0; the plan's is 1\.0"):
            log.append("round-intent", intent(1, clip="100.0", plan_digest=plan_digest))
        log.append("round-intent", intent(1, plan_digest=plan_digest))


def test_the_genesis_holds_the_plan_that_it_names(tmp_path: Path) -> None:
    log = AuditLog.create(tmp_path / "new", scenario.signer(), clock=scenario.clock)
    with pytest.raises(EntryRefused, match="plan_digest"):
        log.append("genesis", scenario.genesis(plan={**scenario.PLAN, "l2": 401}))


def test_each_model_follows_from_the_last(log: AuditLog) -> None:
    opened = log.append("round-intent", intent(1)).digest.hex()
    log.append("round-release", release(1, opened))
    opened = log.append("round-intent", intent(2)).digest.hex()
    with pytest.raises(EntryRefused, match="model_before"):
        log.append("round-release", release(2, opened, model_before=digest("another model")))
    log.append("round-release", release(2, opened))


@pytest.mark.parametrize(
    ("counts", "survivors", "why"),
    [
        ({"selected": 8, "reported": 9, "dropped": 0}, 7, "more clients reported"),
        ({"selected": 8, "reported": 7, "dropped": 9}, 7, "more clients reported"),
        ({"selected": 8, "reported": 6, "dropped": 2}, 7, "7 survivors of 6"),
        ({"selected": 8, "reported": 5, "dropped": 3}, 5, "the plan's minimum is 6"),
    ],
)
def test_the_noise_is_that_of_clients_who_were_there(
    log: AuditLog, counts: dict[str, int], survivors: int, why: str
) -> None:
    body = intent(1, counts={**counts, "rejected": {}}, event=event(survivors=survivors))
    with pytest.raises(EntryRefused, match=why):
        log.append("round-intent", body)


def test_an_event_without_survivors_is_left_to_the_spend(log: AuditLog) -> None:
    log.append("round-intent", intent(1, event={"kind": "non_private", "reason": "a test"}))


def test_one_run_and_one_genesis(log: AuditLog) -> None:
    with pytest.raises(EntryRefused, match="one genesis"):
        log.append("genesis", scenario.genesis())


def test_a_run_is_resumed_where_no_round_is_open_and_nothing_was_begun(log: AuditLog) -> None:
    opened = log.append("round-intent", intent(1)).digest.hex()
    with pytest.raises(EntryRefused, match="round 1 is open"):
        log.append("resumed", resumed(1, 1))
    log.append("round-abort", abort(1, intent=opened, charged=True))
    with pytest.raises(EntryRefused, match="is not after"):
        log.append("resumed", resumed(1, 0))
    with pytest.raises(EntryRefused, match="resumed from 4 entries, after only 3"):
        log.append("resumed", resumed(1, 1, entries=4))
    log.append("resumed", resumed(1, 2))
    with pytest.raises(EntryRefused, match=r"\(1, 1\); the run was resumed from \(1, 2\)"):
        log.append("round-intent", intent(1, 1))
    log.append("resumed", resumed(1, 2))  # nothing was begun in between
    opened = log.append("round-intent", intent(1, 2)).digest.hex()
    log.append("round-release", release(1, opened, 2))
    with pytest.raises(EntryRefused, match="round 1 was released already"):
        log.append("resumed", resumed(1, 3))
    log.append("report-exported", {"files": {}})
    with pytest.raises(EntryRefused, match="the run had ended"):
        log.append("resumed", resumed(2))
