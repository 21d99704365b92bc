"""Does what comes out carry the noise that is claimed? Each test also rejects planted bugs.

Everything is measured on sums as they are opened and decoded; no test reads the plan's variance.
Keys are fixed. Under fresh keys each check would raise a false alarm with probability ALPHA.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from privacy.clip import bounded_sum
from privacy.noise import skellam
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from tests.privacy.plans import with_noise

ALPHA = 1e-6
Z = 6.0
CLIENTS, SURVIVORS, COLLUDERS = 10, 8, 1
SAMPLES = 40_000
"""A missing share of 8 changes the variance by 1/8; its standard error here is 0.7 %."""

PLAN = with_noise(
    Z,
    clients=CLIENTS,
    min_survivors=SURVIVORS,
    max_colluders=COLLUDERS,
    parameters=SAMPLES,
    clip=2.0,
    expected_units=64,
)
EMPTY = np.zeros((0, SAMPLES))
UNIT = np.zeros((1, SAMPLES))
UNIT[0, 0] = 1e12


def opened(plan: PrivacyPlan, shares: int, key: int, share: float = 1.0) -> NDArray[np.float64]:
    """The decoded sum of `shares` clients without units; `share` scales each one's variance."""
    total = np.zeros(SAMPLES, dtype=np.int64)
    for client in range(shares):
        rng = SecureRandom.from_key(bytes([key, client]) * 16)
        if share == 1.0:
            total += plan.encode(EMPTY, rng, round_index=1)
        else:
            total += skellam(plan.share_variance * share, SAMPLES, rng)
    return plan.decode(total, round_index=1)


def displacement(plan: PrivacyPlan, clip: float) -> float:
    """How far one hostile unit moves the decoded sum, noise aside."""
    total = bounded_sum(
        UNIT,
        clip=clip,
        forward=plan.basis(1).forward,
        scale=plan.scale,
        cap=plan.cap if clip == plan.clip else 2**31 - 1,
        delta=2**31 - 1 if clip != plan.clip else plan.l2,
        rng=SecureRandom.from_key(bytes(32)),
    )
    return float(np.linalg.norm(plan.decode(total, round_index=1)))


def conforms(sample: NDArray[np.float64], moved: float, multiplier: float) -> bool:
    """Is the noise multiplier Z against `multiplier`'s share of it? Two-sided, level ALPHA."""
    ratio = float(sample.var()) / (multiplier * moved) ** 2
    limit = norm.ppf(1 - ALPHA / 2) * math.sqrt(2 / len(sample))
    # 0.2 %: integer rounding puts Delta slightly above the displacement.
    return -limit <= ratio - 1 <= limit + 0.002


def expected(survivors: int) -> float:
    """Noise multiplier of a sum of `survivors` shares when SURVIVORS - COLLUDERS give Z."""
    return Z * math.sqrt(survivors / (SURVIVORS - COLLUDERS))


@pytest.mark.parametrize("survivors", [SURVIVORS, 9, CLIENTS])
def test_the_decoded_sum_has_the_claimed_noise(survivors: int) -> None:
    moved = displacement(PLAN, PLAN.clip)
    assert conforms(opened(PLAN, survivors, key=1), moved, expected(survivors))


def test_honest_survivors_alone_give_the_noise_of_the_claim() -> None:
    moved = displacement(PLAN, PLAN.clip)
    assert conforms(opened(PLAN, SURVIVORS - COLLUDERS, key=2), moved, Z)


@pytest.mark.parametrize("survivors", [SURVIVORS, CLIENTS])
def test_planted_bugs_are_rejected(survivors: int) -> None:
    moved = displacement(PLAN, PLAN.clip)
    target = expected(survivors)
    assert not conforms(opened(PLAN, survivors, key=3, share=0.25), moved, target)  # half the std
    assert not conforms(opened(PLAN, survivors, key=3, share=0.5), moved, target)
    assert not conforms(opened(PLAN, survivors - 1, key=3), moved, target)  # a missing share
    assert not conforms(opened(PLAN, survivors, key=3), 2 * moved, target)
    assert not conforms(opened(PLAN, survivors, key=3), displacement(PLAN, 4.0), target)
    assert not conforms(
        2 * opened(PLAN, survivors, key=3), moved, target
    )  # a divisor of the sample
    invited = with_noise(
        Z,
        clients=10,
        min_survivors=10,
        max_colluders=0,
        parameters=SAMPLES,
        clip=2.0,
        expected_units=64,
    )  # noise sized for all who were invited
    assert not conforms(opened(invited, survivors, key=3), moved, target)


def test_clients_with_one_key_are_rejected() -> None:
    """A reused seed makes shares equal: their sum has the square of the count as variance."""
    total = SURVIVORS * PLAN.encode(EMPTY, SecureRandom.from_key(bytes(32)), round_index=1)
    assert not conforms(
        PLAN.decode(total, round_index=1), displacement(PLAN, PLAN.clip), expected(SURVIVORS)
    )


def test_a_reused_generator_state_shows_between_rounds() -> None:
    """Difference of two rounds: variance twice that of one; zero where the seed is reused."""
    one, two = opened(PLAN, SURVIVORS, key=4), opened(PLAN, SURVIVORS, key=5)
    moved, target = displacement(PLAN, PLAN.clip), math.sqrt(2) * expected(SURVIVORS)
    assert conforms(one - two, moved, target)
    assert not conforms(one - opened(PLAN, SURVIVORS, key=4), moved, target)


def test_units_do_not_change_the_noise() -> None:
    """The noise around the mean is the same with units as without."""
    plan = with_noise(Z, parameters=SAMPLES, clip=2.0, expected_units=64)
    units = np.full((4, SAMPLES), 1e-3)
    rngs = [SecureRandom.from_key(bytes([6, c]) * 16) for c in range(SURVIVORS)]
    total = sum(plan.encode(units, rng, round_index=1) for rng in rngs)
    sample = plan.decode(np.asarray(total), round_index=1)
    moved = displacement(plan, plan.clip)
    assert conforms(sample - 32 * 1e-3 / 64, moved, expected(SURVIVORS))
    error = Z * moved * math.sqrt(8 / 7 / SAMPLES)
    assert abs(sample.mean() - 32 * 1e-3 / 64) < norm.ppf(1 - ALPHA / 2) * error
