"""The formulas against divergences computed from exact probabilities, in both directions."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import EventRefused
from privacy.rdp import ORDERS, l1_bound, rdp_epsilon, skellam_rdp
from tests.privacy.skellam_exact import hockey_stick, log_pmf, renyi, shifted_pair

CASES = [
    (mu, shift)
    for mu in (0.1, 0.5, 1.0, 3.0, 10.0, 100.0, 1e3, 1e4, 1e5)
    for shift in (1, 2, 3, 10, 30, 100, 300)
    if shift <= 30 * math.sqrt(mu) + 3
]
SOME_ORDERS = (2, 3, 4, 7, 16, 32, 64, 128, 256, 512)


def reach(mu: float, shift: int, order: int) -> int:
    """Far enough that what is cut off adds nothing at this order."""
    return int(40 * math.sqrt(mu) + 200 + order * (shift + 1))


def exact_both_ways(mu: float, shift: int, order: int) -> tuple[float, float]:
    p, q = shifted_pair(mu, shift, reach(mu, shift, order))
    return renyi(p, q, order), renyi(q, p, order)


def falls_short(mu: float, shift: int, claimed_mu: float) -> bool:
    bound = skellam_rdp(shift, shift, claimed_mu)
    return any(
        bound[order - 2] < max(exact_both_ways(mu, shift, order)) * (1 - 1e-9)
        for order in SOME_ORDERS
    )


@pytest.mark.parametrize("mu", [0.1, 3.0, 50.0])
def test_the_exact_probabilities_are_those_of_bessel_functions(mu: float) -> None:
    logs = log_pmf(mu, 400)
    for k in (0, 1, 5, 20, 80):
        with mpmath.workdps(40):
            expected = float(mpmath.log(mpmath.besseli(k, mu)) - mu)
        assert logs[400 + k] == pytest.approx(expected, rel=1e-10)
        assert logs[400 - k] == logs[400 + k]


@pytest.mark.parametrize(("mu", "shift"), CASES)
def test_the_claim_is_never_below_the_exact_divergence(mu: float, shift: int) -> None:
    assert not falls_short(mu, shift, claimed_mu=mu)


@pytest.mark.parametrize(("mu", "shift"), [(100.0, 3), (1e3, 30), (1e4, 100), (1e5, 300)])
def test_noise_or_sensitivity_claimed_two_percent_wrong_is_noticed(mu: float, shift: int) -> None:
    assert falls_short(mu, shift, claimed_mu=1.02 * mu)
    assert falls_short(mu, 2 * shift, claimed_mu=4.08 * mu)


@pytest.mark.parametrize(
    ("l2", "l1", "mu"), [(1, 1, 4.0), (3, 7, 0.5), (7, 20, 1e4), (4099, 22451, 1e9), (2, 4, 1.0)]
)
def test_the_formula_is_the_published_one_in_exact_arithmetic(l2: int, l1: int, mu: float) -> None:
    """The second-order term is above the exact divergence, so that only this notices its loss."""
    bound, m = skellam_rdp(l2, l1, mu), Fraction(mu)
    for order in range(2, 513):
        by_order = Fraction((2 * order - 1) * l2**2 + 6 * l1) / (4 * m**2)
        flat = Fraction(3 * l1) / (2 * m)
        expected = Fraction(order * l2**2) / (2 * m) + min(by_order, flat)
        assert bound[order - 2] == pytest.approx(float(expected), rel=1e-14)


@pytest.mark.parametrize(("mu", "shift"), [(1e3, 10), (1e4, 30), (1e5, 100)])
def test_the_claim_is_not_far_above_where_the_noise_is_large(mu: float, shift: int) -> None:
    bound = skellam_rdp(shift, shift, mu)
    for order in (2, 8, 32):
        exact = max(exact_both_ways(mu, shift, order))
        assert exact * (1 - 1e-9) <= bound[order - 2] <= 1.03 * exact


def test_the_sum_over_coordinates_is_covered() -> None:
    """A shift that differs per coordinate: divergences add, and l1 and l2 cover the vector."""
    vector, mu = [5, -3, 1, 0, 2], 60.0
    l2, l1 = math.isqrt(sum(v * v for v in vector) - 1) + 1, sum(abs(v) for v in vector)
    bound = skellam_rdp(l2, l1, mu)
    for order in (2, 5, 20):
        exact = sum(max(exact_both_ways(mu, abs(v), order)) for v in vector if v)
        assert bound[order - 2] >= exact


@pytest.mark.parametrize(("mu", "shift", "rounds"), [(400.0, 10, 1), (900.0, 5, 20), (4.0, 1, 3)])
@pytest.mark.parametrize("delta", [1e-2, 1e-5, 1e-9])
def test_epsilon_holds_exactly_at_its_delta(
    mu: float, shift: int, rounds: int, delta: float
) -> None:
    """Rounds composed by convolution of the exact loss: the claim's delta is never exceeded."""
    p, q = shifted_pair(mu, shift, int(14 * math.sqrt(mu)) + 30)
    epsilon = rdp_epsilon(rounds * skellam_rdp(shift, shift, mu), delta)
    if rounds == 1:
        achieved = max(hockey_stick(p, q, epsilon), hockey_stick(q, p, epsilon))
    else:
        achieved = composed_delta(p, q, rounds, epsilon)
    assert achieved <= delta


def composed_delta(p: np.ndarray, q: np.ndarray, rounds: int, epsilon: float) -> float:
    """Delta of the k-fold composition with losses rounded down to a grid: a lower bound."""
    grid = 1e-3
    loss = np.floor((p - q) / grid).astype(int)
    low = int(loss.min())
    masses = np.bincount(loss - low, weights=np.exp(p))
    total = np.array([1.0])
    for _ in range(rounds):
        total = np.maximum(np.convolve(total, masses) if len(total) < 2 else fft(total, masses), 0)
    losses = (np.arange(len(total)) + rounds * low) * grid
    over = losses > epsilon
    return float((total[over] * -np.expm1(epsilon - losses[over])).sum()) - 1e-13


def fft(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    size = len(one) + len(two) - 1
    return np.fft.irfft(np.fft.rfft(one, size) * np.fft.rfft(two, size), size)


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=40))
def test_no_integer_vector_exceeds_the_l1_bound(vector: list[int]) -> None:
    l2 = math.isqrt(sum(v * v for v in vector))
    l2 += l2 * l2 < sum(v * v for v in vector)
    assert sum(abs(v) for v in vector) <= l1_bound(l2, len(vector))


def test_the_l1_bound_is_reached_and_exact_for_large_numbers() -> None:
    assert l1_bound(3, 1) == 3
    assert l1_bound(6, 4) == 12
    assert l1_bound(2, 1000) == 4
    assert l1_bound(2**31 - 1, 4) == 2 * (2**31 - 1)


def test_orders_are_2_to_512_and_cannot_be_changed() -> None:
    assert ORDERS.tolist() == list(range(2, 513))
    with pytest.raises(ValueError, match="read-only"):
        ORDERS[0] = 1.0


def test_epsilon_is_never_negative_and_grows_with_divergence() -> None:
    assert rdp_epsilon(np.zeros(511), 0.99) == 0.0
    assert 0.0 < rdp_epsilon(np.zeros(511), 1e-5) < 0.01
    assert rdp_epsilon(ORDERS, 1e-5) < rdp_epsilon(2 * ORDERS, 1e-5)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_a_delta_outside_the_open_interval_is_refused(delta: float) -> None:
    with pytest.raises(EventRefused, match="delta"):
        rdp_epsilon(ORDERS, delta)


@pytest.mark.parametrize("variance", [0.0, -1.0, math.nan, math.inf])
def test_a_variance_that_is_no_variance_is_refused(variance: float) -> None:
    with pytest.raises(EventRefused, match="variance"):
        skellam_rdp(1, 1, variance)
