"""What the best of a secret number of trials shows to those who get that one alone.

Papernot and Steinke 2022 ("Hyperparameter Tuning with Renyi Differential Privacy"), Definition 1
and Theorem 2. A trial is one run of a randomised algorithm Q with a totally ordered output: here
drawing a candidate at random, training it, and scoring it on public data or by figures that it
released under its own noise; either is post-processing of what it is charged for. Equal scores may
go to the first: trials are drawn alike, so that this is as good as a random one.

The bound holds against recipients of the best trial's output, and only if they learn neither the
number of trials nor anything of the others. It says nothing of an aggregator or a participant, who
see every trial and against whom trials compose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy.optimize import brentq

from privacy.accountant import Adversary, shares_against
from privacy.compose import Question, total_divergence
from privacy.errors import EventRefused
from privacy.events import Event
from privacy.rdp import ORDERS, Divergences, rdp_epsilon

MAX_MEAN = 1000.0


class Family(StrEnum):
    """Distributions of the number of trials: the negative binomial, truncated at 1, of shape eta.

    LOGARITHMIC: eta = 0, the cheaper one. One trial is by far the likeliest number.
    GEOMETRIC: eta = 1, at more cost; very few trials are drawn less often.
    """

    LOGARITHMIC = "logarithmic"
    GEOMETRIC = "geometric"

    @property
    def shape(self) -> int:
        """Eta in the paper."""
        return 0 if self is Family.LOGARITHMIC else 1


@dataclass(frozen=True)
class RandomStopping:
    """How many trials there are: K >= 1 with P(K = k) proportional to (1 - gamma)^k k^(eta - 1).

    Attributes:
        family: which eta.
        gamma: in (0, 1), the chance of stopping after a trial where eta is 1.
    """

    family: Family
    gamma: float

    def __post_init__(self) -> None:
        if not 0.0 < self.gamma < 1.0:
            raise EventRefused(f"gamma {self.gamma!r} is outside (0, 1)")

    @classmethod
    def with_mean(cls, family: Family, mean: float) -> RandomStopping:
        """The distribution of this mean.

        Raises:
            EventRefused: a mean outside (1, 1000].
        """
        if not 1.0 < mean <= MAX_MEAN:
            raise EventRefused(f"a mean of {mean!r} trials; allowed: above 1, up to {MAX_MEAN:g}")
        if family is Family.GEOMETRIC:
            return cls(family, 1.0 / mean)
        low = 1e-3 / (mean * mean)
        gamma = brentq(lambda g: (1.0 / g - 1.0) / -math.log(g) - mean, low, 1.0 - 2.0**-40)
        return cls(family, float(gamma))

    @property
    def mean(self) -> float:
        """E[K]."""
        if self.family is Family.GEOMETRIC:
            return 1.0 / self.gamma
        return (1.0 / self.gamma - 1.0) / -math.log(self.gamma)

    def draw(self, rand: Callable[[int], bytes]) -> int:
        """K, exactly: gamma is a dyadic fraction, and no real number is rounded.

        Args:
            rand: a count -> so many secret random bytes.
        """
        while True:
            trials = 1
            while not _coin(self.gamma, rand):
                trials += 1
            # A geometric number that is kept with chance 1/k has weight (1 - gamma)^k / k.
            if self.family is Family.GEOMETRIC or uniform_below(trials, rand) == 0:
                return trials


def selected_rdp(trial: Divergences, stopping: RandomStopping) -> Divergences:
    """Divergence of the best of K trials, from a bound on that of one.

    Theorem 2: eps'(a) = eps(a) + log E[K] / (a - 1)
    + (1 + eta) min over b of [(1 - 1/b) eps(b) + log(1/gamma) / b]; b is taken from ORDERS.

    Args:
        trial: float64 [511], a bound at each of ORDERS for one trial.
        stopping: the distribution of K.

    Returns:
        float64 [511].
    """
    factor = 1.0 + stopping.family.shape
    others = (1.0 - 1.0 / ORDERS) * trial + math.log(1.0 / stopping.gamma) / ORDERS
    bound: Divergences = (
        trial + math.log(stopping.mean) / (ORDERS - 1.0) + factor * float(others.min())
    )
    return bound


def selected_epsilon(
    candidates: Sequence[Mapping[Event, int]], stopping: RandomStopping, *, delta: float
) -> float:
    """Epsilon for the recipients of the best of K trials, each of a candidate drawn at random.

    The drawn candidate is part of a trial's output. Given it, a trial diverges by no more than the
    dearest candidate at each order, whatever the weights of the draw.

    Args:
        candidates: for each candidate that may be drawn, the events of one trial at their worst.
        stopping: the distribution of K.
        delta: of the figure.

    Returns:
        Epsilon for one configured unit; infinity with a NonPrivate event.

    Raises:
        EventRefused: no candidates, or a delta outside (0, 1).
    """
    if not candidates:
        raise EventRefused("no candidate that a trial may draw")
    against = shares_against(Adversary.RECIPIENTS)
    totals = [total_divergence(events, against, Question.UNIT) for events in candidates]
    known = [total for total in totals if total is not None]
    if len(known) < len(totals):
        return math.inf
    return rdp_epsilon(selected_rdp(np.maximum.reduce(known), stopping), delta)


def uniform_below(count: int, rand: Callable[[int], bytes]) -> int:
    """A number from 0 to count - 1, each exactly as likely."""
    size = (count.bit_length() + 7) // 8
    limit = (256**size // count) * count
    while True:
        value = int.from_bytes(rand(size), "little")
        if value < limit:
            return value % count


def _coin(chance: float, rand: Callable[[int], bytes]) -> bool:
    """True with exactly this chance."""
    numerator, denominator = chance.as_integer_ratio()
    return uniform_below(denominator, rand) < numerator
