"""Renyi divergence bounds of the mechanisms, and what they say in epsilon and delta."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from privacy.errors import EventRefused

ORDERS: NDArray[np.float64] = np.arange(2, 513, dtype=np.float64)
ORDERS.flags.writeable = False


def l1_bound(l2: int, dimension: int) -> int:
    """Largest L1 norm of an integer vector with L2 norm <= l2: floor(min(l2 * sqrt(d), l2^2)).

    Cauchy-Schwarz gives the first, |v| <= v^2 for integers the second.
    """
    return min(math.isqrt(l2 * l2 * dimension), l2 * l2)


def skellam_rdp(l2: int, l1: int, variance: float) -> NDArray[np.float64]:
    """Bound on the Renyi divergence of integer-order alpha between shifted Skellam vectors.

    Agarwal, Kairouz, Liu 2021 ("The Skellam Mechanism for Differentially Private Federated
    Learning"), Corollary 3.6, for every order of ORDERS:

        alpha * D2^2 / (2 mu) + min(((2 alpha - 1) * D2^2 + 6 * D1) / (4 mu^2), 3 * D1 / (2 mu))

    Args:
        l2: D2, bound on the L2 norm of the shift, in integer steps.
        l1: D1, bound on its L1 norm.
        variance: mu, variance of the noise of each coordinate, > 0.

    Returns:
        float64 [511], one bound per order.
    """
    if not (math.isfinite(variance) and variance > 0.0):
        raise EventRefused(f"variance {variance!r} of the noise is not positive and finite")
    square = float(l2) * float(l2)
    gaussian = ORDERS * square / (2.0 * variance)
    by_order = ((2.0 * ORDERS - 1.0) * square + 6.0 * l1) / (4.0 * variance * variance)
    return gaussian + np.minimum(by_order, 3.0 * l1 / (2.0 * variance))


def rdp_epsilon(rdp: NDArray[np.float64], delta: float) -> float:
    """The smallest epsilon over ORDERS that (alpha, rdp)-RDP implies at this delta, at least 0.

    eps = rdp + log((alpha - 1) / alpha) - (log delta + log alpha) / (alpha - 1): Canonne, Kamath,
    Steinke 2020 ("The Discrete Gaussian for Differential Privacy"), Proposition 12.

    Raises:
        EventRefused: a delta outside (0, 1).
    """
    if not 0.0 < delta < 1.0:
        raise EventRefused(f"delta {delta!r} is outside (0, 1)")
    epsilon = rdp + np.log((ORDERS - 1.0) / ORDERS)
    epsilon -= (math.log(delta) + np.log(ORDERS)) / (ORDERS - 1.0)
    return max(0.0, float(epsilon.min()))
