"""Whether feedback still looks like it did: a conformal martingale on the losses.

Each piece of feedback is scored by the loss of the prediction that the agent would have given. If
the feedback is exchangeable, the rank of its loss among those so far is uniform, whatever the model
and the distribution (Vovk, Nouretdinov and Gammerman 2003, "Testing exchangeability on-line",
ICML). Small p-values, losses that are larger than usual, are bet on: each bet multiplies a capital
by e p^(e - 1), for e of a grid (Vovk, Gammerman and Shafer 2005, "Algorithmic learning in a random
world", section 7.1), and the capital is spread over the times at which a change may begin, as in
Volkhonskiy and others (2017, "Inductive conformal martingales for change-point detection"). It is
a martingale that starts at 1, so that by Ville's inequality it ever reaches 1 / `FALSE_ALARM` with
probability `FALSE_ALARM` at most.

Where losses are equal the larger p-value is taken in place of a random one: bets only fall with p,
so that the capital is below that of the randomised test, and the rate holds with no coin.

A test lasts for `LONGEST` pieces of feedback; then the next one begins. The stated rate is that of
one test. A change for the better is not looked for, and one that comes with the first pieces of
feedback is not seen: there is nothing to compare them with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

FALSE_ALARM: Final = 0.01
"""Probability that a test of unchanged feedback ever raises an alarm, at most."""
LONGEST: Final = 500
_BETS: Final = np.array([0.1, 0.2, 0.3, 0.5, 0.7])


class Drift:
    """The test so far.

    Args:
        losses: of feedback since the test began, in order; the test follows from them.

    Attributes:
        losses: the same, as far as observed.
        capital: of the martingale; 1 at the start.
        began: how many pieces of feedback came before the most likely change.
    """

    def __init__(self, losses: Sequence[float] = ()) -> None:
        self.losses: list[float] = []
        self.capital = 1.0
        self.began = 0
        self._running = np.zeros_like(_BETS)  # the capital of bets that have begun
        self._likely = np.zeros_like(_BETS)  # log of the best product of bets of any start
        self._since = np.zeros(len(_BETS), dtype=np.intp)
        for loss in losses:
            self.observe(loss)

    @property
    def alarm(self) -> bool:
        """Whether the losses have grown, by the stated rate."""
        return self.capital >= 1 / FALSE_ALARM

    @property
    def full(self) -> bool:
        """Whether the test has lasted as long as it may."""
        return len(self.losses) >= LONGEST

    def observe(self, loss: float) -> None:
        """Take one more loss; NaN counts as the largest."""
        before = len(self.losses)
        self.losses.append(float("inf") if np.isnan(loss) else float(loss))
        p = float(np.mean(np.array(self.losses) >= self.losses[-1]))
        bets: NDArray[np.float64] = _BETS * p ** (_BETS - 1)
        # A part 1 / ((t + 1)(t + 2)) of the capital bets from time t on; the rest still waits.
        self._running = (self._running + 1 / ((before + 1) * (before + 2))) * bets
        self.capital = float(self._running.mean()) + 1 / (before + 2)
        # The most likely start of each bet, as in Page's cumulative sums (1954, Biometrika 41).
        self._since = np.where(self._likely > 0, self._since, before)
        self._likely = np.maximum(self._likely, 0) + np.log(bets)
        self.began = int(self._since[np.argmax(self._likely)])
