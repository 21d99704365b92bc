"""What is left of a divergence when secret coins decide who takes part.

Each unit takes part by an independent coin of rate q that nobody else sees, and empty draws are
released with noise like any other. Then one side of the comparison is the noise mu_0, around
whatever the other units gave, and the other side is a mixture of shifts of it. Mixing over the
other units' coins and roundings only lowers the divergence, which is quasi-convex. The noise must
be symmetric.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from privacy.rdp import ALL_ORDERS, ORDERS, Divergences


def sampled_add_remove(bounds: Sequence[Divergences], rate: float) -> Divergences:
    """Bound for k units that come or go together, each drawn by a coin of its own.

    j of the k units are drawn with probability w_j = C(k, j) q^j (1 - q)^(k - j).

    k = 1: Mironov, Talwar, Zhang 2019 ("Renyi Differential Privacy of the Sampled Gaussian
    Mechanism"), Theorem 5 (reflecting at half the shift swaps the two distributions, so that the
    divergence with the mixture first is the larger one) and Section 3.3 (its binomial expansion):

        R(a) = 1/(a-1) log sum_{m=0..a} C(a, m) (1-q)^(a-m) q^m exp((m-1) eps(m))

    k > 1, mixture first: the same expansion with the drawn part as one variable, whose m-th moment
    is at most (sum_j w_j exp((m-1)/m eps_j(m)))^m by Minkowski's inequality. Mixture second: the
    least of two bounds. Convexity: 1/(a-1) log sum_j w_j exp((a-1) eps_j(a)). And the
    second-order bound of t^(1-a) at t = mixture / mu_0 >= w_0, which has mean 1.

    Args:
        bounds: k arrays float64 [1023]; the j-th bounds a shift by j units, unsampled.
        rate: q, in (0, 1].

    Returns:
        float64 [1023].
    """
    if rate == 1.0:
        return bounds[-1]
    forward = _mixture_first(bounds, rate)
    if len(bounds) == 1:
        return forward
    backward = np.minimum(_convex(bounds, rate), _mixture_second(bounds, rate))
    return np.maximum(forward, backward)


def sampled_replace(
    added: Divergences, replaced: Sequence[Divergences], rate: float
) -> Divergences:
    """Bound for k units of which each keeps its coin while its vector moves anywhere.

    The lesser of joint convexity over the same coins, and of going through the world without the
    units: Mironov 2017, Proposition 11 (weak triangle inequality) with p = q = 2,

        D_a(P, Q) <= (a - 1/2) / (a - 1) D_{2a}(P, R) + D_{2a-1}(R, Q).

    Args:
        added: float64 [1023], `sampled_add_remove` of the same units.
        replaced: k arrays float64 [1023]; the j-th bounds an unsampled replacement of j units.
        rate: q, in (0, 1].

    Returns:
        float64 [1023]; above ORDERS by convexity alone.
    """
    if rate == 1.0:
        return replaced[-1]
    bound = _convex(replaced, rate)
    low = ORDERS
    twice = 2 * low.astype(np.int64) - 2
    through = (low - 0.5) / (low - 1.0) * added[twice] + added[twice - 1]
    bound[: len(low)] = np.minimum(bound[: len(low)], through)
    return bound


def _mixture_first(bounds: Sequence[Divergences], rate: float) -> Divergences:
    """D_a(mixture, mu_0), from the terms m >= 2 of the expansion.

    Those of m = 0 and 1 are binomial weights, and all weights add up to one: so the sum is
    1 + sum_m weight(a, m) (Y_m - 1) with Y_m >= 1, in which nothing cancels.
    """
    none = len(bounds) * math.log1p(-rate)
    some = math.log(-math.expm1(none))
    drawn = _log_weights(len(bounds), rate)[1:, None] - some
    root = (ALL_ORDERS - 1.0) / ALL_ORDERS * np.stack(bounds)
    moments = ALL_ORDERS * np.logaddexp.reduce(drawn + root, axis=0)
    terms = ALL_ORDERS * (some - none) + _log_expm1(moments)
    weights = _log_binomials()
    largest = (weights + terms).max(axis=1)
    total = np.exp(weights + (terms - largest[:, None])).sum(axis=1)
    gain = np.log(total) + largest + ALL_ORDERS * none
    found: Divergences = np.logaddexp(0.0, gain) / (ALL_ORDERS - 1.0)
    return found


def _mixture_second(bounds: Sequence[Divergences], rate: float) -> Divergences:
    """D_a(mu_0, mixture) by the second-order bound.

    With t = mixture / mu_0 >= w_0 and mean 1, E t^(1-a) <= 1 + c Var t, where c is the remainder
    (w_0^(1-a) - 1 - (a-1)(1-w_0)) / (1-w_0)^2 at the smallest t, since the second derivative of
    t^(1-a) falls; Var t <= (1-w_0)^2 (Y_2 - 1). One millionth is added for float64's cancellation.
    """
    none = len(bounds) * math.log1p(-rate)
    some = math.log(-math.expm1(none))
    drawn = _log_weights(len(bounds), rate)[1:] - some
    second = 2.0 * np.logaddexp.reduce(drawn + np.array([bound[0] for bound in bounds]) / 2.0)
    steps = ALL_ORDERS - 1.0
    x, slope = -steps * none, steps * math.exp(some)
    small, large = np.minimum(x, 1.0), np.maximum(x, 1.0)
    near = np.log(np.expm1(small) - np.minimum(slope, small))
    far = large + np.log1p(-np.exp(-large) * (1.0 + slope))
    log_c = np.where(x < 1.0, near, far) + 1e-6
    found: Divergences = np.logaddexp(0.0, log_c + _log_expm1(np.asarray(second))) / steps
    return found


def _convex(bounds: Sequence[Divergences], rate: float) -> Divergences:
    """1/(a-1) log sum_j w_j exp((a-1) eps_j(a)): joint convexity of exp((a-1) D_a)."""
    steps = ALL_ORDERS - 1.0
    logs = _log_weights(len(bounds), rate)[1:, None]
    gain = np.logaddexp.reduce(logs + _log_expm1(steps * np.stack(bounds)), axis=0)
    found: Divergences = np.logaddexp(0.0, gain) / steps
    return found


def _log_weights(units: int, rate: float) -> NDArray[np.float64]:
    """Log w_j, j = 0..k: probabilities that j of k units are drawn."""
    j = np.arange(units + 1, dtype=np.float64)
    coins = j * math.log(rate) + (units - j) * math.log1p(-rate)
    weights: NDArray[np.float64] = _log_binomial(float(units), j) + coins
    return weights


def _log_expm1(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log(e^x - 1) for x >= 0, without overflow; -inf at 0."""
    with np.errstate(divide="ignore"):
        found: NDArray[np.float64] = x + np.log(-np.expm1(-x))
    return found


def _log_binomial(n: Any, k: Any) -> Any:
    return gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)


@lru_cache(maxsize=1)
def _log_binomials() -> NDArray[np.float64]:
    """Log C(a, m) for a and m in ALL_ORDERS, -inf where m > a: float64 [1023, 1023]."""
    a, m = ALL_ORDERS[:, None], ALL_ORDERS[None, :]
    return np.where(m <= a, _log_binomial(a, np.minimum(m, a)), -np.inf)
