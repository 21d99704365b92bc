from __future__ import annotations

import hashlib
import inspect
import json
import math
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.accountant import Adversary, spend
from privacy.compression import Compression, Kind
from privacy.errors import PlanRefused
from privacy.events import Mechanism
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from privacy.rotate import spread
from privacy.unit import Relation, Unit
from tests.privacy.plans import TERMS, calibrated, with_noise

KEY = bytes(range(32))
ROTATED = Compression(rotate=True)


@pytest.mark.parametrize("epsilon", [0.05, 0.5, 1.0, 3.0, 10.0, 100.0])
@pytest.mark.parametrize("changes", [{}, {"max_colluders": 0, "rounds": 1}, {"parameters": 5000}])
def test_the_claim_is_just_within_the_target(epsilon: float, changes: dict[str, Any]) -> None:
    plan = calibrated(epsilon, **changes)
    spent = spend([plan.worst_event()] * plan.rounds, delta=plan.delta)
    assert epsilon - 0.02 < spent.worst <= epsilon
    assert plan.worst_epsilon() == spent.worst
    assert spent.worst == spent.adversaries[Adversary.PARTICIPANTS].claimed
    assert plan.epsilon == epsilon


def test_noise_is_sized_for_a_participant_alone() -> None:
    """With nobody colluding there is still a client that looks: it subtracts its own share."""
    alone, with_one = calibrated(max_colluders=0), calibrated(max_colluders=1)
    assert alone.share_variance == with_one.share_variance
    assert alone.worst_epsilon() == with_one.worst_epsilon()
    spent = spend([alone.worst_event()] * alone.rounds, delta=alone.delta).adversaries
    assert spent[Adversary.COLLUDERS].claimed < spent[Adversary.PARTICIPANTS].claimed <= 3.0


@settings(max_examples=25)
@given(
    epsilon=st.floats(0.1, 20.0),
    clip=st.floats(1e-4, 1e3),
    dimension=st.integers(1, 100_000),
    rounds=st.integers(1, 500),
    clients=st.integers(2, 100),
    data=st.data(),
)
def test_sampler_clip_noise_and_event_agree(
    epsilon: float, clip: float, dimension: int, rounds: int, clients: int, data: st.DataObject
) -> None:
    survivors = data.draw(st.integers(2, clients))
    colluders = data.draw(st.integers(0, survivors - 1))
    honest = survivors - max(colluders, 1)
    plan = calibrated(
        epsilon,
        clip=clip,
        parameters=dimension,
        rounds=rounds,
        clients=clients,
        min_survivors=survivors,
        max_colluders=colluders,
    )
    event = plan.worst_event()
    assert plan.share_variance == (plan.noise_multiplier * plan.l2) ** 2 / honest
    assert (event.l2, event.l1, event.rate) == (plan.l2, plan.l1, plan.rate)
    assert event.share_variance == plan.share_variance
    assert (event.unit, event.relation) == (Unit.TASK, Relation.ADD_REMOVE)
    assert (event.clients, event.dimension) == (clients, dimension)
    assert epsilon - 0.02 < plan.worst_epsilon() <= epsilon
    assert plan.scale * plan.clip <= plan.l2 <= 1.002 * plan.scale * plan.clip
    assert plan.max_abs == plan.max_units_per_client * plan.cap
    assert math.ceil(plan.scale * plan.clip) < plan.cap <= plan.l2


def test_noise_is_sized_for_the_honest_survivors() -> None:
    """Another's bug: noise sized for the invited clients instead of those who stay."""
    plan = with_noise(8.0, clients=10, min_survivors=8, max_colluders=1)
    needed = 8.0 * plan.l2
    assert math.sqrt(7 * plan.share_variance) == pytest.approx(needed, rel=1e-12)
    assert plan.noise_std(7) == pytest.approx(needed, rel=1e-12)
    assert plan.noise_std(10) > plan.noise_std(8) > needed
    for survivors in (7, 11, 0, -1):
        with pytest.raises(PlanRefused, match="survivors"):
            plan.event(survivors)
    assert plan.event(9).survivors == 9


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"unit": "task"}, "not one of record, task, user, client"),
        ({"unit": Unit.CLIENT}, "only 1 is allowed"),
        (
            {"unit": Unit.CLIENT, "max_units_per_client": 1, "rate": 0.5},
            "sees which clients take part",
        ),
        ({"max_participations": 3}, "only a client counts"),
        ({"unit": Unit.RECORD, "rate": 0.5, "max_participations": 3}, "cannot be capped"),
        ({"unit": Unit.CLIENT, "max_units_per_client": 1, "max_participations": 0}, "participat"),
        ({"tasks_per_user": 3}, "unit user alone"),
        ({"unit": Unit.USER, "tasks_per_user": 0}, "tasks_per_user"),
        ({"unit": Unit.USER, "tasks_per_user": 2**20, "value_bits": 20}, "l2"),
        ({"mechanism": Mechanism.GAUSSIAN}, "shares of Gaussian noise do not add up"),
        ({"mechanism": "laplace"}, "allowed: skellam, discrete-gaussian"),
        ({"rate": 0.0}, "rate"),
        ({"rate": 1.5}, "rate"),
        ({"rate": 1}, "rate"),
        ({"rate": 2.0**-21}, "rate"),
        ({"rate": math.nan}, "rate"),
        ({"person_units": 1001}, "person_units"),
        ({"noise": "nowhere"}, "allowed are 'distributed' and 'local'"),
        ({"local_steps": 1}, "take no steps of their own"),
        ({"local_lr": 1.0}, "take no steps of their own"),
        ({"delta": 0.0}, "delta"),
        ({"delta": 1.0}, "delta"),
        ({"delta": 5e-324}, "delta"),
        ({"delta": math.nan}, "delta"),
        ({"delta": 1}, "delta"),
        ({"clip": 0.0}, "clip"),
        ({"clip": -1.0}, "clip"),
        ({"clip": math.inf}, "clip"),
        ({"clip": math.nan}, "clip"),
        ({"clip": 1}, "clip"),
        ({"clip": 1e-14}, "steps per 1.0"),
        ({"clip": 1e12}, "l2"),
        ({"clip": 2.0**501}, "clip"),
        ({"rounds": 0}, "rounds"),
        ({"rounds": 2.0}, "rounds"),
        ({"rounds": True}, "rounds"),
        ({"parameters": 0}, "parameters"),
        ({"parameters": 2**31}, "parameters"),
        ({"expected_units": 0}, "expected_units"),
        ({"expected_units": 10.0}, "expected_units"),
        ({"max_units_per_client": 0}, "max_units_per_client"),
        (
            {
                "max_units_per_client": 2**31,
                "parameters": 2**28,
                "value_bits": 20,
                "compression": ROTATED,
            },
            "do not fit",
        ),
        ({"person_units": 0}, "person_units"),
        ({"clients": 0}, "clients"),
        ({"clients": 7}, "min_survivors"),
        ({"min_survivors": 0}, "min_survivors"),
        ({"min_survivors": 11}, "min_survivors"),
        ({"max_colluders": -1}, "max_colluders"),
        ({"max_colluders": 8}, "max_colluders"),
        ({"min_survivors": 1, "max_colluders": 0}, "min_survivors"),
        ({"value_bits": 7}, "value_bits"),
        ({"value_bits": 21}, "value_bits"),
        ({"value_bits": 8.0}, "value_bits"),
        ({"value_bits": True}, "value_bits"),
        ({"value_bits": 8, "clip": 2.0**-300}, "steps per 1.0"),
        ({"value_bits": 8, "parameters": 100_000}, "set value_bits to 9 or more"),
        ({"compression": ROTATED}, "makes nothing flatter"),
        ({"compression": Compression(kind=Kind.SUBSET, keep=0.99)}, "keeps them all"),
    ],
)
def test_what_is_not_covered_is_refused_with_what_is_allowed(
    changes: dict[str, Any], named: str
) -> None:
    for make in (calibrated, with_noise):
        with pytest.raises(PlanRefused, match=named):
            make(**changes)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf])
def test_a_target_that_is_no_epsilon_is_refused(epsilon: float) -> None:
    with pytest.raises(PlanRefused, match="epsilon"):
        calibrated(epsilon)


def test_targets_out_of_reach_are_refused() -> None:
    with pytest.raises(PlanRefused, match="fewer value_bits"):
        calibrated(0.001)
    with pytest.raises(PlanRefused, match="next to no noise"):
        calibrated(1e18)
    for z in (0.0, -1.0, math.nan, math.inf, 1e-9):
        with pytest.raises(PlanRefused, match="noise_multiplier"):
            with_noise(z)


def test_more_units_than_planned_are_refused_and_none_are_fine() -> None:
    plan, rng = with_noise(max_units_per_client=2), SecureRandom.from_os()
    assert plan.encode(np.zeros((0, 30)), rng, round_index=1).shape == (30,)
    assert plan.encode(np.zeros((2, 30), dtype=np.float32), rng, round_index=1).dtype == np.int64
    with pytest.raises(PlanRefused, match="at most 2"):
        plan.encode(np.zeros((3, 30)), rng, round_index=1)
    for units in (np.zeros((1, 29)), np.zeros(30), np.zeros((1, 30, 1))):
        with pytest.raises(PlanRefused, match=r"\[k, 30\]"):
            plan.encode(units, rng, round_index=1)
    with pytest.raises(PlanRefused, match="float"):
        plan.encode(np.zeros((1, 30), dtype=np.int64), rng, round_index=1)


def test_the_divisor_is_public_and_the_same_for_any_number_of_units() -> None:
    """Another's bug: an average over the units that happened to be there."""
    plan = with_noise(2.0**-21, max_colluders=0, min_survivors=10, expected_units=50)
    unit = np.zeros((1, 30))
    unit[0, 3] = 0.5
    for count in (1, 2, 7, 10):
        total = plan.encode(
            np.repeat(unit, count, axis=0), SecureRandom.from_key(KEY), round_index=1
        )
        assert plan.decode(total, round_index=1)[3] == pytest.approx(count * 0.5 / 50, abs=1e-4)
    parameters = inspect.signature(plan.decode).parameters
    assert list(parameters) == ["total", "round_index", "clip"]


def test_decoding_scales_back_and_refuses_other_shapes() -> None:
    plan = with_noise()
    total = np.arange(30, dtype=np.int64) * int(plan.scale) * plan.expected_units
    assert plan.decode(total, round_index=1).tolist() == list(range(30))
    for bad in (total[:29], total.astype(np.float64), total.astype(np.int32), total[None]):
        with pytest.raises(PlanRefused, match="allowed"):
            plan.decode(bad, round_index=1)


def test_each_contribution_has_fresh_noise() -> None:
    plan, rng = with_noise(), SecureRandom.from_os()
    one, two = (plan.encode(np.zeros((0, 30)), rng, round_index=1) for _ in range(2))
    assert not np.array_equal(one, two)


def test_only_a_given_key_repeats() -> None:
    plan, units = with_noise(), np.full((2, 30), 0.1)
    one, two = (plan.encode(units, SecureRandom.from_key(KEY), round_index=1) for _ in range(2))
    assert np.array_equal(one, two)


def test_scale_costs_little_and_the_ring_stays_small() -> None:
    for dimension in (1, 30, 1000, 100_000, 10_000_000):
        plan = with_noise(parameters=dimension, clip=0.37)
        steps = plan.scale * plan.clip
        assert math.log2(plan.scale).is_integer()
        assert plan.l2 / steps < 1.001
        assert steps < max(8192, 64 * math.sqrt(dimension))
        reach = plan.clients * plan.max_abs + 20 * plan.noise_std(plan.clients)
        assert math.log2(reach) < 30


@pytest.mark.parametrize("bits", range(8, 21))
@pytest.mark.parametrize("compression", [Compression(), ROTATED], ids=["plain", "rotated"])
def test_value_bits_decide_the_scale(bits: int, compression: Compression) -> None:
    plan = with_noise(value_bits=bits, parameters=1000, clip=0.3, compression=compression)
    assert plan.cap == 2 ** (bits - 1) - 1
    assert plan.max_abs <= 10 * plan.cap
    flat = 1.0 if compression is not ROTATED else spread(1000)
    assert plan.scale * plan.clip * flat == pytest.approx(plan.cap - 1, rel=1e-12)
    assert plan.l2 > plan.scale * plan.clip


def test_the_digest_is_of_the_canonical_json_and_of_every_field() -> None:
    plan = calibrated()
    body = plan.to_json()
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    assert plan.digest() == hashlib.sha256(text.encode()).digest()
    assert body["relation"] == "add_remove"
    assert body["clip"] == "1.0"
    assert body["share_variance"] == repr(plan.share_variance)
    assert not any(isinstance(value, float) for value in body.values())
    others = [
        calibrated(2.0),
        with_noise(plan.noise_multiplier),
        calibrated(delta=2e-5),
        calibrated(rounds=31),
        calibrated(clip=1.5),
        calibrated(parameters=31),
        calibrated(expected_units=101),
        calibrated(max_units_per_client=11),
        calibrated(clients=11),
        calibrated(min_survivors=9),
        calibrated(max_colluders=2),
        calibrated(person_units=5),
        calibrated(value_bits=16),
        calibrated(compression=Compression(kind=Kind.SUBSET, keep=0.5)),
        calibrated(compression=Compression(kind=Kind.SUBSET, keep=0.55)),
        calibrated(parameters=40, compression=ROTATED),
    ]
    assert len({plan.digest(), *(other.digest() for other in others)}) == len(others) + 1
    assert calibrated().digest() == plan.digest()
    assert calibrated(unit=Unit.TASK, noise="distributed", rate=1.0, value_bits=None) == plan


@pytest.mark.parametrize(
    "changes",
    [
        {"share_variance": 1.0},
        {"l2": 4098},
        {"l1": 1},
        {"noise_multiplier": 9.0},
        {"scale": 8192.0},
        {"cap": 4096},
        {"value_bits": 13},
        {"compression": Compression(kind=Kind.SUBSET, keep=0.5)},
        {"clip": 2.0},
        {"min_survivors": 9},
        {"dimension": 31},
        {"parameters": 31},
        {"mechanism": Mechanism.GAUSSIAN},
        {"tasks_per_user": 2},
        {"rate": 0.5, "unit": Unit.CLIENT},
        {"epsilon": -1.0},
        {"share_variance": 0.0},
        {"l2": 0},
    ],
)
def test_a_plan_whose_parts_disagree_cannot_be_made(changes: dict[str, Any]) -> None:
    with pytest.raises(PlanRefused):
        replace(calibrated(), **changes)


def test_a_plan_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        calibrated().delta = 0.1  # type: ignore[misc]


def test_every_term_is_a_field_of_the_plan() -> None:
    assert set(TERMS) <= set(PrivacyPlan.__dataclass_fields__)
