"""Do messages with noise of the client's own hold what is charged for? Tests of what comes out.

What the ledger is charged for is one event of Gaussian steps per round; a client's message of all
these steps is compared with it. Norms and draws are looked at where a message is fine enough to
tell single tasks: on copies with little noise. Noise is looked at where no task is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import numpy as np

from privacy.events import GaussianSteps
from privacy.local import batch_of, message_of
from privacy.plan import PrivacyPlan
from secure_fedmeta.assessed import Ints, Subject
from secure_fedmeta.checks import Announce, Check
from secure_fedmeta.coin_checks import UNITS, coin_checks, rate_of_copy
from secure_fedmeta.conformance_parts import (
    check_of_opened,
    drawn_rows,
    fresh,
    moved_by_hostile_units,
    run_rounds,
    variance,
)
from secure_fedmeta.rig import Opened

_LITTLE: Final = 1.0 / 64.0
"""Noise multiplier of copies in which single tasks are looked at."""
_WIDTH: Final = 20_000
_MOST_STEPS: Final = 4
"""Steps of such a copy, at most: more show nothing else and take longer."""


class NoiseAtClients:
    """The tests of noise "local".

    Args:
        subject: what is assessed.
    """

    bounded: Final = "how far one task moves a message"

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._plan = subject.parts.plan
        self._steps = min(charged(self._plan).steps, _MOST_STEPS)

    def norms(self) -> Check:
        """No task, whatever it holds, moves a message by more than its steps are charged for."""
        steps = self._steps
        plan = self._subject.little_noise(_LITTLE, local_steps=steps)
        one = plan.l2 / plan.scale / batch_of(plan) * message_of(plan).scale
        # Two messages are rounded, each coordinate of each by half a step at most.
        allowed = steps * one + math.sqrt(plan.dimension)
        worst = max(moved_by_hostile_units(plan), key=lambda moved: moved.length)
        return Check(
            "norm of one unit before noise",
            worst.length <= allowed,
            f"moves a message by {worst.length / (steps * one):.4f} of what {steps} steps are "
            f"charged for ({worst.name}); allowed {allowed / (steps * one):.4f}",
            0.0,
            "double sensitivity, no clip",
            1.0,
        )

    def draws(self) -> Iterator[Check]:
        """Is each task drawn for each step by a coin of its own?"""
        plan, rate = self._plan, rate_of_copy(self._plan.rate)
        copy = self._subject.little_noise(
            _LITTLE,
            local_steps=self._steps,
            parameters=UNITS,
            rate=rate,
            max_units_per_client=max(UNITS, plan.max_units_per_client),
        )
        one = copy.clip / 2.0 / batch_of(copy) * message_of(copy).scale
        counts = np.rint(drawn_rows(copy) / one).astype(np.int64)
        bug = "batches of fixed size, or one draw for all steps of a round"
        yield from coin_checks(counts, steps=self._steps, rate=rate, planned=plan.rate, bug=bug)

    def divisor(self) -> float:
        """Sum's integers for 1.0 of the model's step."""
        return message_of(self._plan).scale * len(self._subject.parts.training)

    def noise(self, announce: Announce) -> Iterator[Check]:
        """Variance of sums and of each message where no task is; whether any noise comes twice."""
        first = self._plan.parameters
        copy = self._subject.wide(max(_WIDTH - first, 1), 2)
        claimed = _claimed(copy.parts.plan)
        complete = run_rounds(copy, 2, lost=None, announce=announce)
        restarted = run_rounds(copy, 1, lost=None, announce=announce)
        rounds = [*complete, *restarted]

        def message(one: Opened, client: int) -> Ints:
            return one.vectors[client][first:]

        def of_sums(name: str, bug: str, opened: list[Opened]) -> Check:
            total = np.concatenate([one.total[first:] for one in opened[:2]])
            variance_of_sum = len(opened[0].contributors) * claimed
            return variance(name, bug, {"sum": total}, variance_of_sum, wrong=0.25)

        def of_messages(name: str, bug: str, opened: list[Opened]) -> Check:
            alone = {
                f"client {k}": np.concatenate([message(one, k) for one in opened[:2]])
                for k in opened[0].contributors
            }
            return variance(name, bug, alone, claimed, wrong=0.25)

        looks: list[tuple[str, str, Callable[[str, str, list[Opened]], Check]]] = [
            ("noise of the opened sum", "half the noise, one seed for all", of_sums),
            (
                "noise of each client alone",
                "half the noise, a client or a step without it, one noise for all steps",
                of_messages,
            ),
            (
                "fresh noise",
                "a seed used twice: by two clients, in two rounds, after a restart",
                partial(fresh, noise_of=message),
            ),
        ]
        for name, bug, look in looks:
            yield check_of_opened(name, bug, rounds, partial(look, name, bug))


def charged(plan: PrivacyPlan) -> GaussianSteps:
    """What a round is charged as.

    Raises:
        TypeError: a plan whose noise is in shares of a sum.
    """
    event = plan.worst_event()
    if not isinstance(event, GaussianSteps):
        raise TypeError(f"a {event.kind} is not charged for steps of clients")
    return event


def _claimed(plan: PrivacyPlan) -> float:
    """Variance of a message's coordinate that the round is charged for, in its own steps^2."""
    event, message = charged(plan), message_of(plan)
    unit = (plan.local_lr or 0.0) / (plan.scale * batch_of(plan)) * message.scale
    return event.steps * (unit * event.noise_multiplier * plan.l2) ** 2
