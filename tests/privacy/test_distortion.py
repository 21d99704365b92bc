"""The stated distortion is what synthetic units show."""

from __future__ import annotations

import math

import numpy as np
import pytest

from privacy.clip import bounded_sum
from privacy.compression import Compression, Kind
from privacy.distortion import Distortion, distortion
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from privacy.rotate import spread
from tests.privacy.plans import with_noise

TERMS = {
    "none": Compression(),
    "rotated": Compression(rotate=True),
    "subset": Compression(kind=Kind.SUBSET, keep=0.5),
    "rotated subset": Compression(kind=Kind.SUBSET, rotate=True, keep=0.5),
    "low-rank": Compression(kind=Kind.LOW_RANK, rotate=True, keep=0.5),
}
UNITS, PARAMETERS = 8, 600


def planned(terms: Compression, bits: int | None, z: float = 8.0) -> PrivacyPlan:
    return with_noise(
        z, parameters=PARAMETERS, compression=terms, value_bits=bits, expected_units=UNITS, clip=2.0
    )


@pytest.mark.parametrize("bits", [None, 8, 10])
@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS.keys())
def test_synthetic_units_show_the_stated_error(terms: Compression, bits: int | None) -> None:
    """Over 300 rounds of eight equal units just below the clip bound, so that nothing is clipped.

    Rounding has a variance between 0 and 1/4, for fractions spread evenly 1/6: the root is 0.82 of
    what is stated. What is left out dominates where there is any, and is met within 3 %.
    """
    plan = planned(terms, bits)
    stated = distortion(plan)
    directions = np.random.default_rng(1).standard_normal((300, PARAMETERS))
    vectors = 0.95 * plan.clip * directions / np.linalg.norm(directions, axis=1)[:, None]
    rng = SecureRandom.from_key(bytes(32))
    errors = []
    for index, unit in enumerate(vectors):
        total = bounded_sum(
            np.repeat(unit[None], UNITS, axis=0),
            clip=plan.clip,
            forward=plan.basis(index).forward,
            scale=plan.scale,
            cap=plan.cap,
            delta=plan.l2,
            rng=rng,
        )
        errors.append(plan.decode(total, round_index=index) - unit)
    seen = math.sqrt(np.square(errors).sum() / len(errors))
    part = stated.left_out * 0.95 * plan.clip
    low, high = math.hypot(part, 0.75 * stated.rounding), math.hypot(part, stated.rounding)
    assert 0.97 * low <= seen <= 1.03 * high
    assert stated.relative == pytest.approx(
        math.hypot(stated.left_out, stated.rounding / plan.clip)
    )


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS.keys())
def test_empty_sums_show_the_stated_noise(terms: Compression) -> None:
    """Within five standard errors of a chi-squared variable: a false alarm in 2e6."""
    plan, rounds = planned(terms, 8), 100
    rngs = [SecureRandom.from_key(bytes([k]) * 32) for k in range(plan.min_survivors)]
    empty, power = np.zeros((0, PARAMETERS)), 0.0
    for index in range(rounds):
        total = sum(plan.encode(empty, rng, round_index=index) for rng in rngs)
        power += float(np.square(plan.decode(np.asarray(total), round_index=index)).sum())
    ratio = power / rounds / distortion(plan).noise ** 2
    limit = 5 * math.sqrt(2 / (rounds * plan.dimension))
    assert abs(ratio - 1) <= limit
    assert abs(ratio * 7 / 8 - 1) > limit


@pytest.mark.parametrize(
    ("rounding", "left_out", "said"),
    [
        (3.0, 0.0, "Rounding is 3.0 times the noise"),
        (0.5, 0.0, "Rounding is 50% of the noise"),
        (0.01, 0.0, "Rounding is 1.0% of the noise"),
        (0.01, 1.0, "cost 100% of an average's norm"),
    ],
)
def test_the_verdict_says_what_dominates(rounding: float, left_out: float, said: str) -> None:
    found = Distortion(relative=1.0, left_out=left_out, rounding=rounding, noise=1.0)
    assert said in found.verdict
    assert ("not summed" in found.verdict) is (left_out > 0)


def test_few_bits_without_rotation_are_called_what_they_are() -> None:
    """The same bits, many coordinates, little noise: rounding dominates until they are flat."""
    terms = {"parameters": 60_000, "value_bits": 8, "expected_units": 10_000}
    coarse = distortion(with_noise(0.2, **terms))
    flat = distortion(with_noise(0.2, compression=Compression(rotate=True), **terms))
    assert coarse.rounding > coarse.noise
    assert "times the noise" in coarse.verdict
    assert flat.rounding == pytest.approx(coarse.rounding * spread(60_000), rel=1e-9)
    assert flat.rounding < 0.1 * flat.noise
