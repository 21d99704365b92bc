"""Do sums with noise in shares of all clients hold what is charged for? Tests of what comes out.

Noise, norms and draws are taken from whole contributions and opened sums, in which units and noise
can be told apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np

from privacy.charged import sum_event_of
from privacy.events import DiscreteGaussianRound, SkellamRound
from privacy.unit import Unit
from secure_fedmeta.assessed import Ints, Subject
from secure_fedmeta.checks import Announce, Check
from secure_fedmeta.coin_checks import UNITS, coin_checks, rate_of_copy
from secure_fedmeta.conformance_parts import (
    check_of_opened,
    drawn_rows,
    fresh,
    moved_by_hostile_units,
    one_to_lose,
    run_rounds,
    variance,
)
from secure_fedmeta.rig import Opened

_SAMPLES: Final = 160  # times the clients squared: 110 are the least to see one share missing
_WIDEST: Final = 1 << 16


class NoiseInShares:
    """The tests of noise "distributed".

    Args:
        subject: what is assessed.
    """

    bounded: Final = "how far one unit moves the sum"

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._plan = subject.parts.plan
        self._charged: SkellamRound | DiscreteGaussianRound = sum_event_of(
            self._plan, self._plan.min_survivors
        )

    def norms(self) -> Check:
        """No unit, whatever it holds, moves the sum before noise by more than is charged for."""
        event = self._charged
        found = moved_by_hostile_units(self._subject.every_unit())
        worst = max(found, key=lambda moved: moved.length)
        return Check(
            "norm of one unit before noise",
            all(
                sum(int(x) ** 2 for x in moved.by) <= (moved.units * event.l2) ** 2
                and sum(abs(int(x)) for x in moved.by) <= moved.units * event.l1
                for moved in found
            ),
            f"moves the sum by {worst.length:.0f} steps at most ({worst.name}); "
            f"charged for {event.l2}",
            0.0,
            "double sensitivity, no clip",
            1.0,
        )

    def draws(self) -> Iterator[Check]:
        """Are units drawn by coins of their own? Counts over rounds, and over units, say so."""
        name, bug = "draws over rounds", "batches of fixed size sold as coins"
        plan = self._plan
        if plan.unit is Unit.CLIENT:
            found = "unit client has no coins: who takes part is seen"
            yield Check(name, None, found, 0.0, bug, None)
            return
        rate = rate_of_copy(plan.rate)
        copy = self._subject.sampled(UNITS, rate)
        coins = (drawn_rows(copy) > copy.clip * copy.scale / 4.0).astype(np.int64)
        yield from coin_checks(coins, steps=1, rate=rate, planned=plan.rate, bug=bug)

    def divisor(self) -> float:
        """Sum's integers for 1.0 of the model's step."""
        return self._plan.scale * self._subject.parts.config.privacy.expected_units

    def noise(self, announce: Announce) -> Iterator[Check]:
        """Variance of opened sums and of each share, and whether any noise comes twice."""
        subject, bug = self._subject, "half the noise, a missing share, one seed for all"
        needed = _SAMPLES * self._plan.clients**2
        width = max(10_000, min(needed // 2, _WIDEST), self._plan.parameters + 1)
        extra = width - self._plan.parameters
        rounds = max(2, math.ceil(needed / subject.wide(extra, 1).plan.dimension))
        wide = subject.wide(extra, rounds)
        complete = run_rounds(wide, rounds, lost=None, announce=announce)
        name = "noise of the opened sum"
        yield check_of_opened(name, bug, complete, partial(self._of_sums, name, bug))
        lost, name = one_to_lose(subject), "noise of the opened sum, one client lost"
        if lost is None:
            found = "the config opens complete sums only"
            yield Check(name, None, found, 0.0, "missing share", None)
        else:
            again = run_rounds(wide, rounds, lost=lost, announce=announce)
            yield check_of_opened(name, bug, again, partial(self._of_sums, name, bug))
        name, bug = "noise of each client alone", "one client without its share"
        yield check_of_opened(name, bug, complete, partial(self._of_shares, name, bug))
        restarted = run_rounds(wide, 1, lost=None, announce=announce)
        name = "fresh noise"
        bug = "a seed used twice: by two clients, in two rounds, after a restart"
        look = partial(fresh, name, bug, noise_of=Opened.share)
        yield check_of_opened(name, bug, [*complete[:2], *restarted], look)

    def _of_sums(self, name: str, bug: str, opened: list[Opened]) -> Check:
        shares = len(opened[0].contributors)
        return self._variance(
            name, bug, {"sum": [one.noise() for one in opened]}, shares, (shares - 1) / shares
        )

    def _of_shares(self, name: str, bug: str, opened: list[Opened]) -> Check:
        alone = {
            f"client {client}": [one.share(client) for one in opened]
            for client in opened[0].contributors
        }
        return self._variance(name, bug, alone, 1, 0.5)

    def _variance(
        self, name: str, bug: str, noise: dict[str, list[Ints]], shares: int, wrong: float
    ) -> Check:
        claimed = self._charged.share_variance * shares
        # Units are rounded when they are summed, and anew when subtracted: 1/4 step^2 each.
        rounding = self._plan.clients * self._plan.max_units_per_client / 2.0 / claimed
        samples = {who: np.concatenate(found) for who, found in noise.items()}
        return variance(name, bug, samples, claimed, wrong=wrong, rounding=rounding)
