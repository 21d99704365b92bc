"""The noise of sums as they are opened and decoded: every protocol, with and without drops.

Keys are fixed. Under fresh keys each check would raise a false alarm with probability ALPHA; each
also rejects what a planted bug would give.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from crypto.ring import Ring
from crypto.secure_sum import SECURE_SUMS
from privacy.events import Mechanism
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from tests.crypto.harness import Run, input_step, terms_for

ALPHA = 1e-6
CLIENTS, SURVIVORS, UNITS = 6, 4, 3
SAMPLES = 20_000
"""A missing share of 6 changes the variance by 1/6; its standard error here is 1 %."""

PLANS = {
    mechanism: PrivacyPlan.from_noise_multiplier(
        noise_multiplier=6.0,
        delta=1e-5,
        rounds=10,
        clip=1.0,
        parameters=SAMPLES,
        expected_units=CLIENTS * UNITS,
        max_units_per_client=UNITS,
        clients=CLIENTS,
        min_survivors=SURVIVORS,
        max_colluders=0,
        person_units=1,
        mechanism=mechanism,
    )
    for mechanism in (Mechanism.SKELLAM, Mechanism.DISCRETE_GAUSSIAN)
}
PLAN = PLANS[Mechanism.SKELLAM]
HOSTILE = np.stack(
    [
        np.full(SAMPLES, np.finfo(np.float32).max, dtype=np.float32),
        np.full(SAMPLES, np.nan, dtype=np.float32),
        np.zeros(SAMPLES, dtype=np.float32),
    ]
)


def units_of(client: int) -> NDArray[np.float32]:
    """Three units; client 1 sends a huge one, NaN and zeros, client 2 has none."""
    if client == 1:
        return HOSTILE
    count = 0 if client == 2 else UNITS
    rng = np.random.default_rng(client)
    return (rng.standard_normal((count, SAMPLES)) / 1e3).astype(np.float32)


def clipped_sum(clients: list[int]) -> NDArray[np.float64]:
    total = np.zeros(SAMPLES)
    for client in clients:
        for unit in units_of(client).astype(np.float64):
            if np.isfinite(unit).all():
                total += unit / max(1.0, float(np.linalg.norm(unit)))
    return total


def opened(
    protocol: str,
    silent: Mapping[int, int],
    *,
    plan: PrivacyPlan = PLAN,
    shares: Mapping[int, int] | None = None,
) -> tuple[NDArray[np.float64], list[int]]:
    """The decoded sum of one attempt and whose vectors are in it.

    Args:
        protocol: a name of SECURE_SUMS.
        silent: the step from which on a client no longer answers.
        plan: whose noise is added.
        shares: the key of each client's noise, where not its own.
    """
    ring = Ring.for_sum(
        max_abs=PLAN.max_abs,
        clients=CLIENTS,
        noise_std=PLAN.noise_std(CLIENTS),
        dimension=SAMPLES,
    )
    vectors = {
        k: plan.encode(
            units_of(k),
            SecureRandom.from_key(bytes([9, (shares or {}).get(k, k)]) * 16),
            round_index=0,
        )
        for k in range(1, CLIENTS + 1)
    }
    terms = terms_for(
        protocol, CLIENTS, length=SAMPLES, bits=ring.bits, threshold=4, min_survivors=SURVIVORS
    )
    done = Run(protocol, terms, vectors).drive(silent)
    return plan.decode(done.total, round_index=0), list(done.contributors)


def conforms(left: NDArray[np.float64], shares: float) -> bool:
    """Has what is left beside the units the variance of so many shares? Two-sided, level ALPHA."""
    steps = left * PLAN.scale * PLAN.expected_units
    ratio = float(np.square(steps).mean()) / (shares * (6.0 * PLAN.l2) ** 2 / (SURVIVORS - 1))
    # Rounding of 12 units adds at most 12 / 4 steps^2 to millions.
    return abs(ratio - 1) <= norm.isf(ALPHA / 2) * math.sqrt(2 / SAMPLES)


@pytest.mark.parametrize("mechanism", PLANS)
@pytest.mark.parametrize("protocol", SECURE_SUMS)
@pytest.mark.parametrize("lost", [0, 2])
def test_opened_sums_carry_the_noise_of_their_contributors(
    protocol: str, lost: int, mechanism: Mechanism
) -> None:
    silent = {k: input_step(protocol) for k in range(3, 3 + lost)}
    decoded, contributors = opened(protocol, silent, plan=PLANS[mechanism])
    assert len(contributors) == CLIENTS - lost
    left = decoded - clipped_sum(contributors) / PLAN.expected_units
    assert conforms(left, len(contributors))
    # A missing share, half of the noise, one share too many, a client too few in the divisor.
    assert not conforms(left, len(contributors) - 1)
    assert not conforms(left, len(contributors) + 1)
    assert not conforms(left / math.sqrt(2), len(contributors))
    assert not conforms(left * CLIENTS / (CLIENTS - 1), len(contributors))


def test_clients_that_share_a_key_are_noticed() -> None:
    decoded, contributors = opened("plain", {}, shares={4: 3})
    left = decoded - clipped_sum(contributors) / PLAN.expected_units
    assert not conforms(left, len(contributors))
