"""Renyi divergence bounds of the mechanisms, and what they say in epsilon and delta.

Every bound is an array over integer orders from 2 on, of what one release shows of a shift.
`rdp_epsilon` reads it at ORDERS. The higher orders are there for the triangle inequality, which
asks for order 2 a to bound order a.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from privacy.errors import EventRefused

Divergences: TypeAlias = NDArray[np.float64]
"""A bound on the Renyi divergence at each order: float64 [511] or [1023], from order 2 on."""

MIN_ORDER, MAX_ORDER = 2, 512
ORDERS: NDArray[np.float64] = np.arange(MIN_ORDER, MAX_ORDER + 1, dtype=np.float64)
"""The orders at which epsilon is claimed."""
ALL_ORDERS: NDArray[np.float64] = np.arange(MIN_ORDER, 2 * MAX_ORDER + 1, dtype=np.float64)
"""The orders at which a single release is bounded."""
ORDERS.flags.writeable = ALL_ORDERS.flags.writeable = False
MIN_DISCRETE_SIGMA = 0.5
"""Least standard deviation of one share for which the sum of discrete Gaussians is bounded."""


def l1_bound(l2: int, dimension: int) -> int:
    """Largest L1 norm of an integer vector with L2 norm <= l2: floor(min(l2 * sqrt(d), l2^2)).

    Cauchy-Schwarz gives the first, |v| <= v^2 for integers the second.
    """
    return min(math.isqrt(l2 * l2 * dimension), l2 * l2)


def gaussian_rdp(noise_multiplier: float) -> Divergences:
    """Renyi divergence between Gaussians one sensitivity apart: a / (2 z^2), exactly.

    Mironov 2017 ("Renyi Differential Privacy"), Corollary 3.

    Args:
        noise_multiplier: z, standard deviation over the shift, > 0.

    Returns:
        float64 [1023].
    """
    _check_positive("noise multiplier", noise_multiplier)
    return ALL_ORDERS / (2.0 * noise_multiplier * noise_multiplier)


def skellam_rdp(l2: int, l1: int, variance: float) -> Divergences:
    """Bound on the Renyi divergence of integer order between shifted Skellam vectors.

    Agarwal, Kairouz, Liu 2021 ("The Skellam Mechanism for Differentially Private Federated
    Learning"), Corollary 3.6:

        a * D2^2 / (2 mu) + min(((2 a - 1) * D2^2 + 6 * D1) / (4 mu^2), 3 * D1 / (2 mu))

    Args:
        l2: D2, bound on the L2 norm of the shift, in integer steps.
        l1: D1, bound on its L1 norm.
        variance: mu, variance of the noise of each coordinate, > 0.

    Returns:
        float64 [1023].
    """
    _check_positive("variance", variance)
    square = float(l2) * float(l2)
    gaussian = ALL_ORDERS * square / (2.0 * variance)
    by_order = ((2.0 * ALL_ORDERS - 1.0) * square + 6.0 * l1) / (4.0 * variance * variance)
    return gaussian + np.minimum(by_order, 3.0 * l1 / (2.0 * variance))


def discrete_gaussian_rdp(
    l2: int, l1: int, dimension: int, share_variance: float, shares: int
) -> Divergences:
    """Bound on the Renyi divergence between shifted sums of discrete Gaussian vectors.

    Kairouz, Liu, Steinke 2021 ("The Distributed Discrete Gaussian Mechanism for Federated Learning
    with Secure Aggregation"), Proposition 14 and Equation 17: with D2 and D1 in standard deviations
    sqrt(n) s of the sum, the least of

        (a/2) D2^2 + tau d,   (a/2) (D2^2 + 2 D1 tau + tau^2 d),   (a/2) (D2 + sqrt(d) tau)^2

    where tau = 10 sum_{k=1}^{n-1} exp(-2 pi^2 s^2 k / (k + 1)). One share is a discrete Gaussian
    itself: tau is 0 and the bound is that of Canonne, Kamath, Steinke 2020, Proposition 5.

    Args:
        l2: D2, bound on the L2 norm of the shift, in integer steps.
        l1: D1, bound on its L1 norm.
        dimension: d, coordinates.
        share_variance: s^2, the parameter of one share, steps^2; s >= 1/2.
        shares: n, shares that the adversary does not know.

    Returns:
        float64 [1023].

    Raises:
        EventRefused: a share below the size that the proposition is proved for.
    """
    _check_positive("share variance", share_variance)
    if share_variance < MIN_DISCRETE_SIGMA**2:
        raise EventRefused(
            f"one share of variance {share_variance!r}: sums of discrete Gaussians are bounded "
            f"from {MIN_DISCRETE_SIGMA**2} on; take a larger scale, or mechanism 'skellam'"
        )
    spread = math.sqrt(shares * share_variance)
    two, one = l2 / spread, l1 / spread
    tau = _discrete_gaussian_tau(share_variance, shares)
    return np.minimum(
        ALL_ORDERS / 2.0 * two**2 + tau * dimension,
        ALL_ORDERS
        / 2.0
        * min(
            two**2 + 2.0 * one * tau + tau**2 * dimension, (two + math.sqrt(dimension) * tau) ** 2
        ),
    )


def _discrete_gaussian_tau(share_variance: float, shares: int) -> float:
    """10 sum_{k=1}^{n-1} exp(-2 pi^2 s^2 k/(k+1)); never below it.

    Beyond a thousand terms each is replaced by the one at k = 1000, which is larger.
    """
    k = np.arange(1, min(shares, 1001), dtype=np.float64)
    terms = np.exp(-2.0 * math.pi**2 * share_variance * (k / (k + 1.0)))
    rest = max(shares - 1001, 0) * float(terms[-1]) if len(terms) else 0.0
    return 10.0 * (float(terms.sum()) + rest)


def rdp_epsilon(rdp: Divergences, delta: float, *, order: int | None = None) -> float:
    """The epsilon that (a, rdp)-RDP implies at this delta, at least 0.

    Without an order it is the smallest over ORDERS: which one that is depends on everything that
    was composed, so it bounds what was fixed beforehand. At one order that was declared
    beforehand it also bounds what was chosen from earlier results, as long as a limit on this
    very number is kept before each step (Feldman and Zrnic 2021, "Individual Privacy Accounting
    via a Renyi Filter", Theorem 3.1: fully adaptive composition adds up at one order).

    eps = rdp + log((a - 1) / a) - (log delta + log a) / (a - 1): Canonne, Kamath, Steinke 2020
    ("The Discrete Gaussian for Differential Privacy"), Proposition 12.

    Raises:
        EventRefused: a delta outside (0, 1), or an order outside ORDERS.
    """
    if not 0.0 < delta < 1.0:
        raise EventRefused(f"delta {delta!r} is outside (0, 1)")
    epsilon = rdp[: len(ORDERS)] + np.log((ORDERS - 1.0) / ORDERS)
    epsilon -= (math.log(delta) + np.log(ORDERS)) / (ORDERS - 1.0)
    best = epsilon.min() if order is None else epsilon[order_index(order)]
    return max(0.0, float(best))


def order_index(order: int) -> int:
    """Where an order stands in ORDERS. Raises EventRefused for what is none of them."""
    if type(order) is not int or not MIN_ORDER <= order <= MAX_ORDER:
        raise EventRefused(f"order {order!r} is not an integer from {MIN_ORDER} to {MAX_ORDER}")
    return order - MIN_ORDER


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0.0):
        raise EventRefused(f"{name} {value!r} of the noise is not positive and finite")
