"""The clip bound follows the quantile from the private count, and privacy does not depend on it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.adaptive_clip import MAX_RATIO, AdaptiveClip
from privacy.errors import PlanRefused
from privacy.extras import Extras
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from tests.privacy.plans import with_noise

RULE = AdaptiveClip(quantile=0.5, speed=0.3, weight=0.5)
PARAMETERS = 16
KEY = bytes(range(32))


def moving(rule: AdaptiveClip = RULE, **changes: Any) -> PrivacyPlan:
    return with_noise(**{"parameters": PARAMETERS, "extras": Extras((), rule), **changes})


def units(norms: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    rows = np.zeros((len(norms), PARAMETERS))
    rows[:, 3] = norms
    return rows


def followed(plan: PrivacyPlan, norms: np.ndarray[Any, Any], rounds: int) -> list[float]:
    """The bounds of a run in which every unit has the same norm in all rounds."""
    rngs = [SecureRandom.from_key(bytes([k] * 32)) for k in range(plan.clients)]
    clip, found = plan.clip, []
    for index in range(1, rounds + 1):
        total = sum(
            plan.encode(units(part), rng, round_index=index, clip=clip)
            for part, rng in zip(np.array_split(norms, plan.clients), rngs, strict=True)
        )
        clip = plan.beside(np.asarray(total), survivors=plan.clients, clip=clip).next_clip
        found.append(clip)
    return found


NORMS = np.geomspace(0.01, 100.0, 200)
LITTLE = {"noise_multiplier": 0.05, "expected_units": 200, "max_units_per_client": 20}


@pytest.mark.parametrize("start", [0.02, 1.0, 50.0])
@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
def test_the_bound_settles_at_the_quantile(start: float, quantile: float) -> None:
    """From below and from above, with noise; to within the norms a tenth of the units apart."""
    plan = moving(AdaptiveClip(quantile, 1.0, 0.5), clip=start, **LITTLE)
    last = followed(plan, NORMS, 40)[-10:]
    low, high = np.quantile(NORMS, [quantile - 0.1, min(quantile + 0.1, 0.99)])
    assert low < float(np.exp(np.mean(np.log(last)))) < high


def test_the_bound_does_not_depend_on_how_many_units_there_are() -> None:
    """Half of the expected units: an indicator of b - 1/2 would drift off at quantile 0.9."""
    plan = moving(AdaptiveClip(0.9, 1.0, 0.5), **LITTLE)
    last = followed(plan, NORMS[::2], 80)[-20:]
    assert np.quantile(NORMS, 0.8) < float(np.exp(np.mean(np.log(last)))) < 99.0


def test_each_step_is_geometric_and_towards_the_quantile() -> None:
    assert RULE.next(1.0, 0.5, start=1.0) == pytest.approx(math.exp(-0.15))
    assert RULE.next(2.0, -0.5, start=1.0) == pytest.approx(2.0 * math.exp(0.15))
    assert RULE.next(2.0, 0.0, start=1.0) == 2.0


@given(
    clip=st.floats(2.0**-10, 2.0**10),
    error=st.floats(allow_nan=False, allow_infinity=False),
)
def test_the_bound_never_leaves_its_range(clip: float, error: float) -> None:
    moved = RULE.next(clip, error, start=1.0)
    assert 1.0 / MAX_RATIO <= moved <= MAX_RATIO
    assert moving().checked_clip(moved) == moved


def test_the_error_is_the_noised_count_less_the_quantile_and_nothing_else() -> None:
    """Whatever else the units hold: the bound moves by the indicator's coordinate alone."""
    plan = moving(noise_multiplier=2.0**-20, expected_units=4, clients=2, min_survivors=2,
                  max_colluders=0)  # fmt: skip
    norms = np.array([0.1, 0.9, 1.1, 5.0])
    totals = [
        plan.encode(units(values), SecureRandom.from_key(KEY), round_index=1)
        for values in (norms, norms * [1, 0.5, 2, 7])
    ]
    errors = [plan.beside(t, survivors=2, clip=1.0).clip_error for t in totals]
    assert errors == [pytest.approx(0.0, abs=1e-3)] * 2
    totals[0][: plan.width] = 12345
    assert plan.beside(totals[0], survivors=2, clip=1.0).clip_error == errors[0]


def test_the_bound_is_never_read_off_raw_norms() -> None:
    """Another's bug: a clip from percentiles of the norms themselves, outside of the noise.

    All norms move, and none of them over the bound: the same key gives the same indicator to the
    last bit, and so the same next bound.
    """
    plan = moving(expected_units=4)
    rng = np.random.default_rng(3)
    seen = set()
    for _ in range(5):
        norms = np.concatenate([rng.uniform(0.0, 0.99, 3), rng.uniform(1.01, 1e6, 3)])
        total = plan.encode(units(norms), SecureRandom.from_key(KEY), round_index=1)
        seen.add(plan.beside(total, survivors=8, clip=1.0).next_clip)
    assert len(seen) == 1


def test_all_that_privacy_rests_on_stays_while_the_bound_moves() -> None:
    """One event, one Delta, one digest, one noise; the decoded average is that of the new bound."""
    plan = moving(noise_multiplier=2.0**-20, expected_units=1, clients=2, min_survivors=2,
                  max_colluders=0)  # fmt: skip
    event, digest = plan.event(2), plan.digest()
    for clip in (1.0 / 64, 1.0, 17.3):
        total = plan.encode(
            units(np.array([100.0 * clip])), SecureRandom.from_key(KEY), round_index=1, clip=clip
        )
        length = math.sqrt(sum(int(x) ** 2 for x in total[: plan.width]))
        assert length == pytest.approx(plan.scale * plan.clip, rel=1e-3)
        decoded = plan.decode(total, round_index=1, clip=clip)
        assert decoded[3] == pytest.approx(clip, rel=1e-3)
        assert (plan.event(2), plan.digest()) == (event, digest)


BAD: list[Any] = [
    0.0, -0.0, -1.0, math.nan, math.inf, -math.inf, 1e300, 1e-300, 5e-324,
    MAX_RATIO * 1.0001, 0.9999 / MAX_RATIO, 1, "1.0", None,
]  # fmt: skip


@pytest.mark.parametrize("clip", BAD, ids=repr)
def test_a_hostile_bound_is_refused(clip: Any) -> None:
    plan = moving()
    with pytest.raises(PlanRefused, match="clip"):
        plan.checked_clip(clip)
    if clip is None:  # where it is left out, the plan's own holds
        return
    for use in (
        lambda: plan.encode(units(np.ones(1)), SecureRandom.from_os(), round_index=1, clip=clip),
        lambda: plan.decode(np.zeros(plan.dimension, dtype=np.int64), round_index=1, clip=clip),
    ):
        with pytest.raises(PlanRefused, match="clip"):
            use()


@pytest.mark.parametrize("clip", [*BAD, 0.5, math.nextafter(1.0, 2.0)], ids=repr)
def test_without_a_rule_no_bound_but_the_plan_s_is_taken(clip: Any) -> None:
    plan = moving(extras=Extras())
    assert plan.checked_clip(1.0) == 1.0
    with pytest.raises(PlanRefused, match="does not move"):
        plan.checked_clip(clip)


@given(
    clip=st.floats(1.0 / MAX_RATIO, MAX_RATIO),
    row=st.lists(st.floats(width=64, allow_nan=True, allow_infinity=True), min_size=4, max_size=4),
)
def test_no_bound_that_is_taken_moves_a_unit_beyond_delta(clip: float, row: list[float]) -> None:
    plan = with_noise(parameters=4, extras=Extras((), RULE))
    named: dict[str, Any] = {"round_index": 1, "clip": clip}
    rows = np.array([row])
    full = plan.encode(rows, SecureRandom.from_key(KEY), **named)
    none = plan.encode(np.full_like(rows, math.nan), SecureRandom.from_key(KEY), **named)
    assert sum(int(x) ** 2 for x in full - none) <= plan.l2**2
