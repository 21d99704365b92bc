"""Gaussian accountants against known values, an oracle, and the exact formula."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from functools import lru_cache

import mpmath
import pytest
from dp_accounting import (
    GaussianDpEvent,
    NeighboringRelation,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
)
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opacus.accountants import GaussianAccountant

from privacy import gaussian
from privacy.errors import EventRefused
from privacy.gaussian import (
    add_remove,
    claim,
    exact_gaussian_epsilon,
    figure,
    gaussian_epsilon,
    replace_one,
    together,
)

DELTA = 1e-5

# (q, z, T, delta) -> RDP, upper end of PRV, PLD, PLD of one replaced record
GOLDEN = [
    (0.01, 1.0, 1000, 1e-5, 2.101, 1.838, 1.828, 2.84),
    (0.1, 1.0, 100, 1e-5, 7.899, 7.057, 7.047, 10.52),
    (0.25, 2.0, 200, 1e-4, 9.228, 8.407, 8.397, 18.22),
    (1.0, 10.0, 100, 1e-5, 4.729, 4.387, 4.377, 9.997),
]
PRV_ERROR = 0.01
"""Opacus' default width: the upper end lies no further above the truth than twice this."""


@pytest.mark.parametrize(("rate", "z", "rounds", "delta", "rdp", "prv", "pld", "record"), GOLDEN)
def test_the_known_values(
    rate: float,
    z: float,
    rounds: int,
    delta: float,
    rdp: float,
    prv: float,
    pld: float,
    record: float,
) -> None:
    figures = gaussian_epsilon(rate, z, rounds, delta)
    assert figures["rdp"] == pytest.approx(rdp, abs=6e-4)
    assert figures["prv"] == pytest.approx(prv, abs=6e-4)
    assert figures["pld"] == pytest.approx(pld, abs=6e-4)
    assert figures["rdp"] >= figures["prv"] >= figures["pld"]
    assert replace_one(((z, rate, rounds),), delta) == pytest.approx(record, abs=6e-3)
    assert ("exact" in figures) == (rate == 1.0)


@pytest.mark.parametrize(("units", "expected"), [(1, 5.88), (2, 13.46), (4, 32.67)])
def test_a_person_in_several_tasks_is_never_charged_for_one(units: int, expected: float) -> None:
    found = together(((1.0, 0.04, 500),), DELTA, units)
    assert found == pytest.approx(expected, abs=6e-3)


def test_the_exact_figure_without_sampling() -> None:
    figures = gaussian_epsilon(1.0, 10.0, 100, DELTA)
    assert figures["exact"] == pytest.approx(4.3772, abs=5e-5)
    course = ((10.0, 1.0, 100),)
    assert claim(course, DELTA) == ("exact", figures["exact"])
    assert replace_one(course, DELTA) == exact_gaussian_epsilon(2.0, DELTA)
    assert together(course, DELTA, 3) == exact_gaussian_epsilon(3.0, DELTA)


@given(st.floats(0.01, 30.0), st.sampled_from([1e-9, 1e-5, 1e-2]))
@example(0.01, 1e-2)
def test_the_exact_figure_solves_its_equation(mu: float, delta: float) -> None:
    epsilon = exact_gaussian_epsilon(mu, delta)
    with mpmath.workdps(50):
        m, e = mpmath.mpf(mu), mpmath.mpf(epsilon)
        achieved = mpmath.ncdf(m / 2 - e / m) - mpmath.exp(e) * mpmath.ncdf(-m / 2 - e / m)
    if epsilon == 0.0:
        assert achieved <= delta
    else:
        assert float(achieved) == pytest.approx(delta, rel=1e-6)


def points(count: int) -> Iterator[tuple[float, float, int, float]]:
    """Random settings with an epsilon between 0.05 and 12, from a fixed seed."""
    source = random.Random(20)
    while count:
        rate = 10.0 ** source.uniform(-3, 0)
        z = 10.0 ** source.uniform(-0.2, 1.3)
        steps = round(10.0 ** source.uniform(0, 2.5))
        delta = 10.0 ** source.uniform(-7, -4)
        if 0.05 < gaussian.figure(((z, rate, steps),), delta, "rdp") < 12.0:  # type: ignore[operator]
            count -= 1
            yield rate, z, steps, delta


@lru_cache
def oracle(rate: float, z: float, steps: int, delta: float) -> float:
    """Google's accountant of privacy losses, asked as its users ask it."""
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE)
    sampled = PoissonSampledDpEvent(rate, GaussianDpEvent(z))
    accountant.compose(SelfComposedDpEvent(sampled, steps))
    return float(accountant.get_epsilon(delta))


def agrees(found: float, point: tuple[float, float, int, float]) -> bool:
    """Not below the oracle by more than its own upward rounding, nor above it by PRV's width."""
    expected = oracle(*point)
    return -1e-3 <= found - expected <= 2.0 * PRV_ERROR


def test_fifty_random_points_agree_with_the_oracle() -> None:
    for point in points(50):
        rate, z, steps, delta = point
        name, claimed = claim(((z, rate, steps),), delta)
        assert name == "prv"
        assert agrees(claimed, point), point


def test_the_agreement_would_notice_an_error() -> None:
    """Planted: the rate, the noise or the steps off by a twentieth, delta by a factor of two."""
    noticed = [0, 0, 0, 0]
    chosen = [point for point in points(50) if point[2] >= 20 and oracle(*point) > 1.0][:6]
    for point in chosen:
        rate, z, steps, delta = point
        wrong = (
            (rate * 0.95, z, steps, delta),
            (rate, z * 1.05, steps, delta),
            (rate, z, max(1, round(steps * 0.9)), delta),
            (rate, z, steps, 2.0 * delta),
        )
        for index, planted in enumerate(wrong):
            q, sigma, often, at = planted
            noticed[index] += not agrees(claim(((sigma, q, often),), at)[1], point)
    assert len(chosen) >= 3
    assert noticed == [len(chosen)] * 4


@settings(max_examples=8, deadline=None)
@given(
    st.floats(1e-3, 1.0),
    st.floats(0.7, 10.0),
    st.integers(1, 100),
    st.sampled_from(["rate", "noise", "steps"]),
)
def test_more_sampling_less_noise_and_more_steps_never_cost_less(
    rate: float, z: float, steps: int, what: str
) -> None:
    course = ((z, rate, steps),)
    more = {
        "rate": ((z, min(1.0, rate * 1.3), steps),),
        "noise": ((z / 1.2, rate, steps),),
        "steps": ((z, rate, 2 * steps),),
    }[what]
    for name, width in (("rdp", 0.0), ("prv", 2 * PRV_ERROR)):
        one, two = figure(course, DELTA, name), figure(more, DELTA, name)
        if one is not None and two is not None:
            assert two >= one - width


@pytest.mark.parametrize("steps", [1000, 100_000])
@pytest.mark.parametrize("delta", [1e-5, 2e-10])
def test_many_steps_are_never_below_the_exact_figure(steps: int, delta: float) -> None:
    """Planted: without the FFT's part of delta, 10^5 steps at 2e-10 come out below the truth."""
    found = figure(((math.sqrt(steps), 1.0, steps),), delta, "pld")
    exact = exact_gaussian_epsilon(1.0, delta)
    assert found is not None
    assert exact <= found <= exact + 0.1 * (delta < 1e-9) + 1e-3


def test_where_rounding_is_as_large_as_delta_renyi_is_left() -> None:
    figures = gaussian_epsilon(0.01, 14.0, 100_000, 5e-11)
    assert list(figures) == ["rdp"]


def test_where_opacus_refuses_so_small_a_delta_prv_is_left_out() -> None:
    course, delta = ((0.6, 0.3, 10),), 1e-14
    figures = add_remove(course, delta)
    assert list(figures) == ["pld", "rdp"]
    assert figures["pld"] < figures["rdp"]
    assert claim(course, delta) == ("pld", figures["pld"])


def test_above_so_many_steps_prv_is_left_out_and_pld_says_the_same() -> None:
    steps = gaussian.MAX_PRV_STEPS
    course, longer = ((5.0, 0.01, steps),), ((5.0, 0.01, steps + 1),)
    prv, pld = (figure(course, DELTA, name) for name in ("prv", "pld"))
    assert claim(course, DELTA) == ("prv", prv)
    name, found = claim(longer, DELTA)
    assert name == "pld"
    assert prv is not None
    assert pld is not None
    assert pld < found < pld + 1e-3
    assert found < prv < found + 2 * PRV_ERROR


def test_steps_of_little_loss_have_a_finer_grid() -> None:
    """Next to nothing in each of many steps: nearly a Gaussian, of which a wide grid adds a lot."""
    rate, z, steps = 0.001, 30.0, 400_000
    found = figure(((z, rate, steps),), DELTA, "pld")
    limit = exact_gaussian_epsilon(rate * math.sqrt(steps * math.expm1(z**-2)), DELTA)
    assert found == pytest.approx(limit, rel=0.05)


def test_the_order_of_the_steps_does_not_matter() -> None:
    course = ((3.0, 0.3, 5), (4.0, 1.0, 2))
    assert add_remove(course, DELTA) == add_remove(course[::-1], DELTA)
    assert add_remove(course, DELTA)["pld"] > add_remove(course[:1], DELTA)["pld"]
    assert replace_one(course, DELTA) == replace_one(course[::-1], DELTA)
    assert together(course, DELTA, 2) == together(course[::-1], DELTA, 2)


def test_a_replaced_record_and_a_person_cost_more_than_a_task() -> None:
    course = ((2.0, 0.25, 20),)
    one, figures = together(course, DELTA, 1), add_remove(course, DELTA)
    assert one == pytest.approx(figures["pld"], rel=2e-3)
    assert replace_one(course, DELTA) > one < together(course, DELTA, 2)  # type: ignore[operator]


def test_gaussian_differential_privacy_is_refused_because_it_reports_less() -> None:
    """Opacus' GDP accountant: below what is left when every loss is rounded downwards."""
    rate, z, steps = 0.01, 0.8, 1000
    low = from_gaussian_mechanism(
        z, sampling_prob=rate, pessimistic_estimate=False, use_connect_dots=False
    )
    truth = low.self_compose(steps).get_epsilon_for_delta(DELTA)
    with pytest.warns(UserWarning, match="underestimate"):
        gdp = GaussianAccountant()
    gdp.history = [(z, rate, steps)]
    assert gdp.get_epsilon(DELTA) < truth - 0.1
    with pytest.raises(EventRefused, match="reports less than the truth"):
        figure(((z, rate, steps),), DELTA, "gdp")


@pytest.mark.parametrize("z", [1e-3, 0.1, 0.6, 1e6])
def test_very_weak_and_very_strong_noise(z: float) -> None:
    figures = gaussian_epsilon(1.0, z, 30, DELTA)
    assert figures["rdp"] >= figures["exact"] >= 0.0
    assert ("prv" in figures) == ("pld" in figures) == (z == 0.6)
    if z != 0.6:
        sampled = gaussian_epsilon(0.5, z, 30, DELTA)
        assert list(sampled) == ["rdp"]
        assert claim(((z, 0.5, 30),), DELTA) == ("rdp", sampled["rdp"])
        assert replace_one(((z, 0.5, 30),), DELTA) is None
        assert together(((z, 0.5, 30),), DELTA, 2) is None
    assert together(((1.0, 0.5, 30),), DELTA, 17) is None


def test_asking_changes_nothing() -> None:
    """Another's bug: a history that get_epsilon changes."""
    course = ((1.0, 0.1, 50), (1.0, 0.1, 50))
    first = add_remove(course, DELTA)
    first["rdp"] = 0.0
    assert add_remove(course, DELTA)["rdp"] > 7
    assert add_remove(course, DELTA)["rdp"] == gaussian_epsilon(0.1, 1.0, 100, DELTA)["rdp"]


@pytest.mark.parametrize(
    ("rate", "z", "rounds", "delta"),
    [
        (0.0, 1.0, 1, 1e-5),
        (1.1, 1.0, 1, 1e-5),
        (0.5, 0.0, 1, 1e-5),
        (0.5, math.inf, 1, 1e-5),
        (math.nan, 1.0, 1, 1e-5),
        (0.5, math.nan, 1, 1e-5),
        (0.5, 1.0, 0, 1e-5),
        (0.5, 1.0, 2.0, 1e-5),
        (0.5, 1.0, 1, 0.0),
        (0.5, 1.0, 1, 1.0),
        (0.5, 1.0, 1, math.nan),
    ],
)
def test_arguments_out_of_range_are_refused(
    rate: float, z: float, rounds: int, delta: float
) -> None:
    course = ((z, rate, rounds),)
    for ask in (
        lambda: gaussian_epsilon(rate, z, rounds, delta),
        lambda: replace_one(course, delta),
        lambda: together(course, delta, 2),
    ):
        with pytest.raises(EventRefused, match="allowed"):
            ask()
    with pytest.raises(EventRefused, match="without steps"):
        claim((), DELTA)
