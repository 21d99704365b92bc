"""Integer noise."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from privacy.errors import PlanRefused
from privacy.rng import SecureRandom

MAX_VARIANCE = 2.0**50


def skellam(variance: float, size: int, rng: SecureRandom) -> NDArray[np.int64]:
    """Independent draws of the symmetric Skellam distribution with this variance.

    Each is the difference of two Poisson(variance / 2) variables, so that
    P(k) = exp(-variance) * I_k(variance), and the sum of n such draws is Skellam with n times the
    variance: shares of several clients add up to exactly the noise that is accounted for.

    The Poisson variables come from NumPy's transformed rejection (Hoermann 1993), which decides
    in double precision: log-probabilities are off by about 1e-16 * variance * log(variance),
    1e-6 at a variance of 1e9, and the larger part of all draws is accepted before they matter.

    Args:
        variance: variance of one draw, > 0 and at most 2^50; mean is zero.
        size: number of draws.
        rng: the generator to draw from.

    Returns:
        int64 [size].

    Raises:
        PlanRefused: a variance outside (0, 2^50]; there is no value that means "no noise".
    """
    if not (math.isfinite(variance) and 0.0 < variance <= MAX_VARIANCE):
        raise PlanRefused(f"variance {variance!r} of the noise is outside (0, 2^50]")
    if size < 0:
        raise PlanRefused(f"size {size} of the noise is negative")
    half = variance / 2.0
    noise = rng.generator.poisson(half, size)
    noise -= rng.generator.poisson(half, size)
    return noise.astype(np.int64, copy=False)
