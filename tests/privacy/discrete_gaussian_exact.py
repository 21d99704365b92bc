"""Exact probabilities of a sum of discrete Gaussian variables, by convolution in 60 digits."""

from __future__ import annotations

from functools import lru_cache

import mpmath
import numpy as np
from numpy.typing import NDArray


@lru_cache
def log_pmf(sigma2: float, shares: int, reach: int) -> NDArray[np.float64]:
    """log P(k) of the sum of `shares` draws, each P(k) ~ exp(-k^2 / (2 sigma2)); k = -reach..reach.

    Each share is cut off at `reach`; what that leaves out is below 10^-60 of what it adds where
    reach^2 > 280 sigma2.
    """
    with mpmath.workdps(60):
        weights = [
            mpmath.exp(-(mpmath.mpf(k) ** 2) / (2 * sigma2)) for k in range(-reach, reach + 1)
        ]
        total = sum(weights)
        one = [weight / total for weight in weights]
        found = one
        for _ in range(shares - 1):
            wide = [mpmath.mpf(0)] * (2 * reach + 1)
            for i, a in enumerate(found):
                for j, b in enumerate(one):
                    k = i + j - reach
                    if 0 <= k <= 2 * reach:
                        wide[k] += a * b
            found = wide
        return np.array([float(mpmath.log(p)) for p in found])
