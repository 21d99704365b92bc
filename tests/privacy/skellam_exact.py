"""Exact probabilities of one Skellam variable, and divergences computed from them.

P(k) = exp(-mu) I_|k|(mu). The ratios I_{k+1} / I_k come from the backward recurrence of the
Bessel functions (stable), the logarithms from their sum, the scale from sum P = 1.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def log_pmf(mu: float, reach: int) -> NDArray[np.float64]:
    """log P(k) for k = -reach..reach."""
    ratio = mu / (reach + 1 + math.hypot(reach + 1, mu))
    ratios = np.empty(reach)
    for k in range(reach, 0, -1):
        ratio = 1.0 / (2.0 * k / mu + ratio)
        ratios[k - 1] = ratio
    half = np.concatenate([[0.0], np.cumsum(np.log(ratios))])
    full = np.concatenate([half[:0:-1], half])
    return full - np.log(np.sum(np.exp(full)))


def shifted_pair(mu: float, shift: int, reach: int) -> tuple[NDArray[np.float64], ...]:
    """Log-probabilities of X and of X + shift on common support."""
    one = log_pmf(mu, reach + shift)
    return one[shift:], one[: len(one) - shift]


def renyi(p: NDArray[np.float64], q: NDArray[np.float64], order: float) -> float:
    """D_order(P || Q) of two vectors of log-probabilities."""
    terms = order * p - (order - 1.0) * q
    largest = float(terms.max())
    return (largest + math.log(np.exp(terms - largest).sum())) / (order - 1.0)


def hockey_stick(p: NDArray[np.float64], q: NDArray[np.float64], epsilon: float) -> float:
    """The smallest delta for which P is (epsilon, delta)-close to Q."""
    gap = np.exp(p) - np.exp(np.minimum(epsilon + q, 700.0))
    return float(gap[gap > 0.0].sum())
