"""`fedmeta assess` of noise at the client: right pipelines pass, bugs fail by name.

Over all tests of this file right pipelines fail by chance with probability below 1e-3.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from privacy.accountant import Adversary
from privacy.noise import SAMPLERS
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from secure_fedmeta.assess import assess
from secure_fedmeta.assessed import Genuine, Subject
from secure_fedmeta.attacks import canaries
from secure_fedmeta.checks import FALSE_ALARM, TESTS, Check
from secure_fedmeta.config import parse_config
from secure_fedmeta.conformance import conformance
from secure_fedmeta.conformance_local import charged
from secure_fedmeta.pipeline import Parts, assemble
from secure_fedmeta.plants import PLANTS, planted
from tests.contracts.test_local_noise import LOCAL
from tests.secure_fedmeta.federation import settings, tiny

NORM = "norm of one unit before noise"
SUM, ALONE, FRESH = "noise of the opened sum", "noise of each client alone", "fresh noise"
DRAWS = "draws over rounds"
ONE_STEP = {"training.local_steps": 1, "privacy.rate": 1.0, "privacy.noise_multiplier": 20.0}


@lru_cache(maxsize=32)
def _assembled(tree: str) -> Parts:
    return assemble(parse_config(json.loads(tree)))


def checks(
    changes: Mapping[str, object] | None = None, plant: str | None = None
) -> dict[str, Check]:
    parts = _assembled(json.dumps(settings({**LOCAL, **(changes or {})}), sort_keys=True))
    found = conformance(Subject(parts, planted(plant)), lambda text: None)
    return {check.name: check for check in found}


def failed(found: Mapping[str, Check]) -> set[str]:
    return {name for name, check in found.items() if check.passed is False}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        ONE_STEP,
        {"privacy.unit": "record"},
        {"training.local_steps": 20, "privacy.rate": 0.02},
        {"privacy.min_survivors": 4},
        {"secure_sum.protocol": "he", "privacy.max_colluders": 0},
    ],
    ids=str,
)
def test_right_pipelines_pass(changes: dict[str, object]) -> None:
    found = checks(changes)
    assert failed(found) == set()
    assert all(check.passed for check in found.values())
    assert len(found) == 9
    total = sum(check.false_alarm for check in found.values())
    assert 0.0 < total <= FALSE_ALARM * len(found) / TESTS
    power = {name: check.power or 0.0 for name, check in found.items()}
    # A rate of 0.12 in place of 0.1 is the smallest bug that is looked for.
    assert power.pop("rate of the draws") > 0.8
    assert min(power.values()) > 0.99


EXPECTED = {
    "half-noise": {SUM, ALONE},
    "double-sensitivity": {NORM},
    "no-clip": {NORM},
    "reused-seed": {SUM, FRESH},
    "missing-share": {SUM, ALONE},
    "shuffle": {DRAWS},
}


@pytest.mark.parametrize("changes", [{}, ONE_STEP], ids=["two steps", "one step"])
@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_bug_fails_the_checks_that_look_for_it(
    plant: str, changes: dict[str, object]
) -> None:
    assert failed(checks(changes, plant)) == EXPECTED[plant]


def test_a_weaker_sampler_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    weak = {
        name: lambda variance, size, rng, draw=draw: draw(0.8 * variance, size, rng)
        for name, draw in SAMPLERS.items()
    }
    monkeypatch.setattr("privacy.plan.SAMPLERS", weak)
    assert failed(checks()) == {SUM, ALONE}


def test_noise_in_the_first_step_alone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = PrivacyPlan.noise_share, [0]

    def every_other(plan: PrivacyPlan, rng: SecureRandom) -> Any:
        calls[0] += 1
        return real(plan, rng) * (calls[0] % 2)

    monkeypatch.setattr(PrivacyPlan, "noise_share", every_other)
    assert {SUM, ALONE} <= failed(checks())


def test_one_draw_for_all_steps_of_a_round_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real, kept = PrivacyPlan.draw, {}

    def once(plan: PrivacyPlan, units: int, rng: SecureRandom) -> Any:
        fresh = real(plan, units, rng)  # the same words are drawn, or the streams fall out of step
        count, coins = kept.get(id(rng), (0, fresh))
        kept[id(rng)] = (count + 1, fresh if count % 2 == 0 else coins)
        return kept[id(rng)][1]

    monkeypatch.setattr(PrivacyPlan, "draw", once)
    assert DRAWS in failed(checks())


def test_a_clip_in_the_first_step_alone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from privacy.clip import bounded_sum

    calls = [0]

    def loose(units: Any, **terms: Any) -> Any:
        calls[0] += 1
        if calls[0] % 2 == 0:
            terms |= {"clip": 1.1 * terms["clip"], "delta": 2 * terms["delta"], "cap": 2**30}
        return bounded_sum(units, **terms)

    monkeypatch.setattr("privacy.plan.bounded_sum", loose)
    assert failed(checks()) == {NORM}


def test_a_batch_by_count_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean over the tasks that were drawn, in place of the constant: one task moves by more."""
    from secure_fedmeta.local_noise import IntegerDPOptimizer

    real = IntegerDPOptimizer.take

    def counted(self: IntegerDPOptimizer, rows: Any) -> None:
        self.expected_batch_size = max(1, len(rows) // 2)
        real(self, rows)

    monkeypatch.setattr(IntegerDPOptimizer, "take", counted)
    assert failed(checks())


def test_what_is_charged_is_asked_of_plans_with_steps_alone() -> None:
    assert charged(assemble(tiny(LOCAL)).plan).steps == 2
    with pytest.raises(TypeError, match="not charged for steps"):
        charged(assemble(tiny()).plan)


@pytest.mark.parametrize("part", [1.0, 0.04])
def test_canaries_read_messages_and_stay_below_the_claim(
    monkeypatch: pytest.MonkeyPatch, part: float
) -> None:
    """A fifth of the deviation is refuted at this claim, as the check says that it could be."""
    weak = {
        name: lambda variance, size, rng, draw=draw: draw(part * variance, size, rng)
        for name, draw in SAMPLERS.items()
    }
    monkeypatch.setattr("privacy.plan.SAMPLERS", weak)
    changes = {**LOCAL, "privacy.noise_multiplier": None, "privacy.epsilon": 1.5}
    parts = assemble(tiny(changes))
    found = canaries(Subject(parts, planted(None)), SecureRandom.from_os())
    assert found.check.passed is (part == 1.0)
    assert 1.48 < found.figures["claim"] <= 1.5
    assert found.figures["catches_noise_below"] >= 0.2


def test_a_whole_assessment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secure_fedmeta.attacks.TRIALS", 400)
    config = tiny({**LOCAL, "privacy.noise_multiplier": 6.0})
    found = assess(config, Genuine(), SecureRandom.from_os(), lambda text: None)
    assert found["passed"], found["failed"]
    views = {row["view"]: row for row in found["membership"]}
    assert {row["claim"] for row in views.values()} == {views["broken_sum"]["claim"]}
    assert Adversary.BROKEN_SUM.value in views
    assert np.isfinite(found["canaries"]["claim"])
    rows = {row["view"]: row["right"] for row in found["matching"]}
    assert rows["unprotected"] == 1.0
