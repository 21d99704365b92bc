"""Bounds under secret coins against divergences from exact probabilities, both ways round."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from opacus.accountants.analysis.rdp import compute_rdp

from privacy.errors import EventRefused
from privacy.rdp import (
    ALL_ORDERS,
    Divergences,
    discrete_gaussian_rdp,
    gaussian_rdp,
    rdp_epsilon,
    skellam_rdp,
)
from privacy.sampled import sampled_add_remove, sampled_replace
from tests.privacy import discrete_gaussian_exact
from tests.privacy.skellam_exact import hockey_stick, log_pmf, renyi

ORDERS = (2, 3, 4, 6, 8, 12, 16, 24, 32)
REACH = 900


class Noise:
    """One integer noise: its exact log-probabilities and its claimed bound.

    Attributes:
        logs: log P(k), k from -reach to reach.
        claimed: shift -> divergence at ALL_ORDERS.
    """

    def __init__(
        self, name: str, logs: NDArray[np.float64], claimed: Callable[[int], Divergences]
    ) -> None:
        self.name, self.logs, self.claimed = name, logs, claimed

    def shifted(self, shift: int, most: int) -> NDArray[np.float64]:
        """log P(k - shift), on the support that shifts up to +-most have in common."""
        width = len(self.logs) - 2 * most
        return self.logs[most - shift : most - shift + width]

    def __repr__(self) -> str:
        return self.name


def skellam_noise(mu: float) -> Noise:
    return Noise(f"skellam {mu}", log_pmf(mu, REACH), lambda s: skellam_rdp(s, s, mu))


def discrete_noise(sigma2: float, shares: int, reach: int) -> Noise:
    return Noise(
        f"{shares} discrete {sigma2}",
        discrete_gaussian_exact.log_pmf(sigma2, shares, reach),
        lambda s: discrete_gaussian_rdp(s, s, 1, sigma2, shares),
    )


NOISES = [
    skellam_noise(0.5),
    skellam_noise(4.0),
    skellam_noise(100.0),
    skellam_noise(2500.0),
    discrete_noise(0.25, 2, 20),
    discrete_noise(0.5, 3, 30),
    discrete_noise(2.0, 2, 60),
    discrete_noise(9.0, 4, 110),
]
RATES = (0.001, 0.02, 0.2, 0.6, 0.95)


def mixture(parts: Sequence[NDArray[np.float64]], weights: Sequence[float]) -> NDArray[np.float64]:
    return np.logaddexp.reduce([p + math.log(w) for p, w in zip(parts, weights, strict=True)])


def both_ways(p: NDArray[np.float64], q: NDArray[np.float64]) -> list[float]:
    """The larger of the two divergences at ORDERS; a lower bound where the support is cut off."""
    return [max(renyi(p, q, order), renyi(q, p, order)) for order in ORDERS]


def shifts_of(noise: Noise) -> list[int]:
    spread = math.exp(-float(noise.logs.max())) / math.sqrt(2 * math.pi)
    return sorted({1, 2, max(1, round(spread)), max(1, round(3 * spread))})


def holds(bound: Divergences, exact: Sequence[float]) -> bool:
    return all(
        bound[order - 2] >= found * (1 - 1e-9) - 1e-13
        for order, found in zip(ORDERS, exact, strict=True)
    )


def one_unit(noise: Noise, shift: int, rate: float) -> list[float]:
    here, there = noise.shifted(0, shift), noise.shifted(shift, shift)
    return both_ways(here, mixture([here, there], [1 - rate, rate]))


def one_replaced(noise: Noise, shift: int, rate: float) -> list[float]:
    """The worst of a few replacements: to the other side, away, and nearby."""
    worst = [0.0] * len(ORDERS)
    here = noise.shifted(0, shift)
    for one, two in ((shift, -shift), (shift, 0), (shift, shift // 2)):
        p = mixture([here, noise.shifted(one, shift)], [1 - rate, rate])
        q = mixture([here, noise.shifted(two, shift)], [1 - rate, rate])
        worst = [max(a, b) for a, b in zip(worst, both_ways(p, q), strict=True)]
    return worst


def several(noise: Noise, shift: int, rate: float, units: int) -> list[float]:
    """Units that all move the sum the same way by `shift`, and their coins."""
    weights = [math.comb(units, j) * rate**j * (1 - rate) ** (units - j) for j in range(units + 1)]
    parts = [noise.shifted(j * shift, units * shift) for j in range(units + 1)]
    return both_ways(parts[0], mixture(parts, weights))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_one_unit_added_or_removed(noise: Noise, rate: float) -> None:
    for shift in shifts_of(noise):
        bound = sampled_add_remove([noise.claimed(shift)], rate)
        assert holds(bound, one_unit(noise, shift, rate)), shift


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_one_replaced_record(noise: Noise, rate: float) -> None:
    for shift in shifts_of(noise):
        added = sampled_add_remove([noise.claimed(shift)], rate)
        bound = sampled_replace(added, [noise.claimed(2 * shift)], rate)
        assert holds(bound, one_replaced(noise, shift, rate)), shift


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("noise", NOISES, ids=repr)
@pytest.mark.parametrize("units", [2, 4])
def test_several_units_of_one_person(noise: Noise, rate: float, units: int) -> None:
    for shift in shifts_of(noise)[:3]:
        bounds = [noise.claimed(j * shift) for j in range(1, units + 1)]
        assert holds(sampled_add_remove(bounds, rate), several(noise, shift, rate, units)), shift


@pytest.mark.parametrize("rate", RATES[1:])
def test_planted_errors_are_noticed(rate: float) -> None:
    """The wrong rate, noise of 5 % more deviation, a record charged as a task, k units as one."""
    noise, shift = skellam_noise(2500.0), 50
    wider = skellam_rdp(shift, shift, 2500.0 * 1.05**2)
    right = noise.claimed(shift)
    unit = one_unit(noise, shift, rate)
    assert not holds(sampled_add_remove([right], 0.95 * rate), unit)
    assert not holds(sampled_add_remove([wider], rate), unit)
    task = sampled_add_remove([right], rate)
    assert not holds(task, one_replaced(noise, shift, rate))
    assert not holds(task, several(noise, shift, rate, 2))
    assert not holds(sampled_add_remove([right] * 2, rate), several(noise, shift, rate, 2))


@pytest.mark.parametrize(("rate", "z"), [(0.01, 1.0), (0.1, 1.0), (0.25, 2.0), (0.9, 30.0)])
def test_of_a_gaussian_it_is_the_sampled_gaussian_s_own(rate: float, z: float) -> None:
    orders = [2, 3, 5, 10, 50, 500, 1024]
    found = sampled_add_remove([gaussian_rdp(z)], rate)
    expected = compute_rdp(q=rate, noise_multiplier=z, steps=1, orders=orders)
    assert [found[order - 2] for order in orders] == pytest.approx(list(expected), rel=1e-9)


def test_the_expansion_in_exact_arithmetic() -> None:
    """Small divergences, where 1 + tiny would lose them: rationals instead of logarithms."""
    rate, gap = Fraction(1, 1024), Fraction(1, 4096)  # exp(eps) = 1 + gap at every order
    bounds = np.full(len(ALL_ORDERS), math.log1p(float(gap)))
    found = sampled_add_remove([bounds], float(rate))
    for order in (2, 3, 7, 20):
        total = sum(
            math.comb(order, m)
            * (1 - rate) ** (order - m)
            * rate**m
            * (Fraction(1) if m < 2 else (1 + gap) ** (m - 1))
            for m in range(order + 1)
        )
        expected = math.log1p(float(total - 1)) / (order - 1)
        assert found[order - 2] == pytest.approx(expected, rel=1e-9)


def test_rate_one_is_no_sampling_and_a_tiny_rate_costs_next_to_nothing() -> None:
    bounds = [gaussian_rdp(1.0 / j) for j in (1, 2, 3)]
    assert sampled_add_remove(bounds, 1.0) is bounds[-1]
    assert sampled_replace(bounds[0], bounds, 1.0) is bounds[-1]
    for units in (1, 3):
        small = sampled_add_remove(bounds[:units], 2.0**-20)
        assert 0.0 < small[0] < 1e-6 * bounds[units - 1][0]
        nearly = sampled_add_remove(bounds[:units], 1.0 - 2.0**-53)
        assert nearly[:50] == pytest.approx(bounds[units - 1][:50], rel=1e-6)


def test_several_units_are_bounded_the_other_way_round_too() -> None:
    """At order 2 of four units at q = .04 the noise alone against the mixture is the larger bound.

    Var t / t at its least, (1 - q)^4, from the second moments of the shifts.
    """
    rate, bounds = 0.04, [gaussian_rdp(1.0 / j) for j in range(1, 5)]
    none = (1 - rate) ** 4
    weights = [math.comb(4, j) * rate**j * (1 - rate) ** (4 - j) / (1 - none) for j in range(1, 5)]
    second = sum(w * math.exp(b[0] / 2) for w, b in zip(weights, bounds, strict=True)) ** 2
    expected = math.log1p((1 / none - 1 - (1 - none)) * (second - 1))
    assert sampled_add_remove(bounds, rate)[0] == pytest.approx(expected, rel=1e-5)


def test_a_person_is_dearer_than_the_tight_figure_and_not_by_far() -> None:
    """k = 2 at q = .04, z = 1, T = 500, delta = 1e-5: 13.46 by dominating pairs of Gaussians."""
    bounds = [gaussian_rdp(1.0 / j) for j in (1, 2)]
    assert 13.46 < rdp_epsilon(500 * sampled_add_remove(bounds, 0.04), 1e-5) < 18.0


@pytest.mark.parametrize("noise", [skellam_noise(400.0), discrete_noise(9.0, 4, 110)], ids=repr)
@pytest.mark.parametrize("rate", [0.05, 0.4])
def test_epsilon_holds_exactly_at_its_delta(noise: Noise, rate: float) -> None:
    """One round, in both directions, at one unit and at one replaced record."""
    shift = shifts_of(noise)[-2]
    here, there, back = (noise.shifted(s, shift) for s in (0, shift, -shift))
    unit = mixture([here, there], [1 - rate, rate])
    other = mixture([here, back], [1 - rate, rate])
    added = sampled_add_remove([noise.claimed(shift)], rate)
    replaced = sampled_replace(added, [noise.claimed(2 * shift)], rate)
    for delta in (1e-2, 1e-5, 1e-9):
        for (p, q), bound in (((here, unit), added), ((unit, other), replaced)):
            epsilon = rdp_epsilon(bound, delta)
            assert max(hockey_stick(p, q, epsilon), hockey_stick(q, p, epsilon)) <= delta


# --- sums of discrete Gaussians -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("sigma2", "shares", "reach"),
    [(0.25, 1, 20), (0.25, 2, 20), (0.25, 5, 25), (0.5, 3, 30), (1.0, 8, 50), (9.0, 4, 110)],
)
def test_sums_of_discrete_gaussians_stay_below_their_bound(
    sigma2: float, shares: int, reach: int
) -> None:
    noise = discrete_noise(sigma2, shares, reach)
    for shift in (1, 2, 3, 5):
        exact = both_ways(noise.shifted(0, shift), noise.shifted(shift, shift))
        assert holds(noise.claimed(shift), exact), shift


def test_several_coordinates_of_discrete_gaussians() -> None:
    """Divergences add over coordinates; the bound knows the vector by its norms alone."""
    vector = [3, -1, 1, 0, 2, 1]
    noise = discrete_noise(0.5, 3, 30)
    exact = np.sum(
        [both_ways(noise.shifted(0, abs(v)), noise.shifted(abs(v), abs(v))) for v in vector], axis=0
    )
    bound = discrete_gaussian_rdp(4, sum(map(abs, vector)), len(vector), 0.5, 3)
    assert sum(v * v for v in vector) == 4**2
    assert holds(bound, list(exact))


def test_the_correction_for_the_sum_is_needed_and_would_be_missed() -> None:
    """Without tau the sum of small shares exceeds what one discrete Gaussian would show."""
    noise = discrete_noise(0.25, 5, 25)
    exact = both_ways(noise.shifted(0, 1), noise.shifted(1, 1))
    assert not holds(ALL_ORDERS / (2 * 5 * 0.25), exact)


def test_the_bound_is_the_published_one() -> None:
    """Proposition 14 with tau of Theorem 1, written out for one case of each minimum."""
    for sigma2, n, d, l2, l1 in ((0.25, 4, 3, 2, 3), (0.5, 9, 100, 1, 1), (0.3, 2, 2, 40, 50)):
        tau = 10 * sum(math.exp(-2 * math.pi**2 * sigma2 * k / (k + 1)) for k in range(1, n))
        two, one = l2 / math.sqrt(n * sigma2), l1 / math.sqrt(n * sigma2)
        bound = discrete_gaussian_rdp(l2, l1, d, sigma2, n)
        for a in (2, 9, 1024):
            expected = min(
                a / 2 * two**2 + tau * d,
                a / 2 * (two**2 + 2 * one * tau + tau**2 * d),
                a / 2 * (two + math.sqrt(d) * tau) ** 2,
            )
            assert bound[a - 2] == pytest.approx(expected, rel=1e-12)


def test_many_shares_are_never_undercounted() -> None:
    few, many = (discrete_gaussian_rdp(1, 1, 10**6, 0.25, n) for n in (1000, 5000))
    n = 5000
    tau = 10 * sum(math.exp(-2 * math.pi**2 * 0.25 * k / (k + 1)) for k in range(1, n))
    assert many[0] >= 2 / (2 * n * 0.25) * (1 - 1e-12)
    assert many[510] >= min(512 / (2 * n * 0.25) + tau * 1e6, 256 * (1e3 * tau) ** 2)
    assert few[0] < many[0]


@pytest.mark.parametrize("variance", [0.2499, 0.0, -1.0, math.nan, math.inf])
def test_shares_that_nothing_is_proved_for_are_refused(variance: float) -> None:
    with pytest.raises(EventRefused, match="share"):
        discrete_gaussian_rdp(1, 1, 1, variance, 3)
