"""The least noise for a target, found with few questions."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from privacy.calibrate import GAUSSIAN_WIDTH, least_noise, least_noise_near
from privacy.errors import PlanRefused

Claim = Callable[[float], float]


def power(z: float) -> float:
    """Like the figures of accountants: a power, a little steeper for little noise."""
    return 40.0 / z**1.1 + 30.0 / z**2


def stepped(z: float) -> float:
    """A claim that is constant between jumps, infinite below one, and nothing far above."""
    if z < 5.0:
        return math.inf
    return 0.0 if z > 500.0 else math.floor(40.0 / z * 4.0) / 4.0


@pytest.mark.parametrize("part", [0.3, 0.92, 1.0, 1.2, 3.0], ids="claim {} of the guide".format)
@pytest.mark.parametrize("epsilon", [0.05, 3.0, 60.0])
def test_it_is_the_least_that_fits_with_few_questions(part: float, epsilon: float) -> None:
    asked: list[float] = []

    def claim(z: float) -> float:
        asked.append(z)
        return part * power(z)

    found = least_noise_near(claim, power, epsilon)
    assert claim(found) <= epsilon < claim(found * (1.0 - 1.01 * GAUSSIAN_WIDTH))
    exact = least_noise(lambda z: part * power(z), epsilon)
    assert exact <= found <= exact * (1.0 + 1.01 * GAUSSIAN_WIDTH)
    assert len(asked) - 2 <= (6 if 0.9 < part < 1.1 else 12)


@pytest.mark.parametrize("epsilon", [0.3, 1.1, 2.1, 7.9])
def test_a_claim_that_is_no_line_is_halved(epsilon: float) -> None:
    found = least_noise_near(stepped, power, epsilon)
    assert stepped(found) <= epsilon < stepped(found * (1.0 - 1.01 * GAUSSIAN_WIDTH))


def test_targets_out_of_reach_are_refused() -> None:
    never: Claim = lambda z: 5.0  # noqa: E731
    with pytest.raises(PlanRefused, match="out of reach"):
        least_noise_near(never, power, 3.0)
    with pytest.raises(PlanRefused, match="next to no noise"):
        least_noise_near(lambda z: 1.0, power, 3.0)
    for epsilon in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(PlanRefused, match="not positive and finite"):
            least_noise_near(power, power, epsilon)
