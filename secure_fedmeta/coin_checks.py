"""Are units drawn by coins of their own? What counts of draws must look like if they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from scipy import stats

from privacy.empirical import count_limits, variance_power
from secure_fedmeta.assessed import Ints
from secure_fedmeta.checks import ALPHA, Check

UNITS, DRAWS = 24, 300
"""Units of a copy, and rounds in which they are drawn."""
_RATES: Final = (0.1, 0.5)  # where counts over rounds vary enough to be tested
_AT_RATE_ONE: Final = 0.25


def rate_of_copy(rate: float) -> float:
    """The rate at which draws are looked at, for a plan of this rate."""
    low, high = _RATES
    return _AT_RATE_ONE if rate == 1.0 else min(max(rate, low), high)


def coin_checks(
    counts: Ints, *, steps: int, rate: float, planned: float, bug: str
) -> Iterator[Check]:
    """Compare counts of draws with those of independent coins.

    Args:
        counts: how often each unit was drawn in each round: int64 [rounds, units].
        steps: coins of a unit in a round.
        rate: of the coins.
        planned: the rate of the plan; another one is named.
        bug: what makes counts over rounds vary too little or too much.
    """
    trials, total = counts.size * steps, int(counts.sum())
    law = stats.binom(trials, rate)
    p = 2.0 * min(float(law.cdf(total)), float(law.sf(total - 1)))
    note = f"at rate {rate:g}" if rate == planned else f"copy at rate {rate:g}"
    yield Check(
        "rate of the draws",
        p > ALPHA,
        f"{total / trials:.4f} drawn, {note}; p = {min(p, 1.0):.2g}",
        ALPHA,
        "a rate higher by a fifth",
        float(stats.binom(trials, 1.2 * rate).sf(law.isf(ALPHA / 2))),
    )
    for axis, what, noticed in (
        (1, "draws over rounds", bug),
        (0, "draws of one unit", "every unit once per pass"),
    ):
        seen = counts.sum(axis=axis)
        of = counts.shape[axis] * steps
        ratio = float(np.square(seen - of * rate).mean()) / (of * rate * (1 - rate))
        limits = count_limits(of, rate, len(seen), ALPHA)
        yield Check(
            what,
            limits.hold(ratio),
            f"variance of counts is {ratio:.3f} of that of coins ({note}); "
            f"allowed {limits.low:.3f} to {limits.high:.3f}",
            ALPHA,
            noticed,
            _power(limits.low, len(seen), steps if axis == 1 else 1),
        )


def _power(low: float, groups: int, steps: int) -> float:
    """Probability of noticing counts that never vary, or, of several steps, the same draw in all.

    The latter makes the variance `steps` times as large.
    """
    fixed = 1.0 if low > 0.0 else 0.0
    return fixed if steps == 1 else min(fixed, variance_power(groups, ALPHA, float(steps)))
