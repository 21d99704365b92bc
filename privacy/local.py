"""Noise at the client: which plans it goes with, and the integers of a client's message.

A client takes noisy steps on its own copy of the model and sends how far it moved. All of that
follows from the noisy sums of its steps, so that nothing about privacy depends on this module: the
message is scaled, rounded and cut off for the secure sum alone, by public constants alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from privacy.compression import Compression
from privacy.errors import PlanRefused
from privacy.events import Mechanism
from privacy.noise import MIN_ROUNDED_VARIANCE
from privacy.unit import Unit

if TYPE_CHECKING:
    from privacy.plan import PrivacyPlan

LOCAL = "local"
DISTRIBUTED = "distributed"
STEPS_PER_SPREAD = 256
"""Integer steps per standard deviation of a message's noise, at least: rounding hardly shows."""
TAIL = 12.0
"""Standard deviations of noise that a message has room for: beyond lie less than 10^-32."""
MAX_LOCAL_STEPS = 10**6
MIN_SAMPLED_DELTA = 1e-12
"""Least delta for which accountants of sampled Gaussian steps, which use an FFT, say anything."""


@dataclass(frozen=True)
class Message:
    """How far a client moved, in integers.

    Attributes:
        scale: integer steps per 1.0, a power of two.
        cap: largest magnitude of one coordinate; what is beyond is cut off.
        spread: standard deviation of the noise of one coordinate, in steps.
    """

    scale: float
    cap: int
    spread: float

    def encode(self, moved: NDArray[np.float64]) -> NDArray[np.int64]:
        """The nearest integers, cut off at the cap: int64 of the same shape."""
        steps = np.rint(np.nan_to_num(moved * self.scale, nan=0.0))
        return np.clip(steps, -self.cap, self.cap).astype(np.int64)


def batch_of(plan: PrivacyPlan) -> float:
    """The public constant by which a client divides the sum of a step.

    The average over clients of what they then move by is divided by expected_units, as if their
    sums had been added up first.
    """
    return plan.expected_units / plan.clients


def message_of(plan: PrivacyPlan) -> Message:
    """The integers in which a client says how far it moved.

    Raises:
        PlanRefused: noise of another place, or constants that no integers hold.
    """
    if plan.local_steps is None or plan.local_lr is None:
        raise PlanRefused(f"noise {plan.noise!r}: clients take no steps of their own")
    unit = plan.local_lr / (plan.scale * batch_of(plan))
    spread = unit * math.sqrt(plan.local_steps * plan.share_variance)
    largest = plan.max_units_per_client * min(plan.cap, plan.l2)
    reach = unit * plan.local_steps * largest + TAIL * spread
    if not 2.0**-400 < spread < 2.0**400 or reach / spread > 2.0**40:
        raise PlanRefused(
            f"a message moves by up to {reach:.3g} under noise of {spread:.3g}, which no integers "
            "hold both: take more noise, a lower max_units_per_client, or another local_lr"
        )
    fine = 2.0 ** math.ceil(math.log2(STEPS_PER_SPREAD / spread))
    return Message(scale=fine, cap=math.ceil(reach * fine) + 1, spread=spread * fine)


def check_local(
    *,
    unit: Unit,
    mechanism: Mechanism,
    local_steps: int | None,
    local_lr: float | None,
    compression: Compression,
    value_bits: int | None,
    variance: float,
    rate: float,
    delta: float,
) -> None:
    """Refuse what does not go with noise at the client, with the reason.

    Raises:
        PlanRefused: names the value and what is allowed.
    """
    if mechanism is not Mechanism.GAUSSIAN:
        raise PlanRefused(
            f"mechanism {mechanism!s} with noise 'local': its shares are for a sum of many, and "
            "here each client's own noise must be enough; set mechanism 'gaussian'"
        )
    if unit not in (Unit.TASK, Unit.RECORD):
        raise PlanRefused(
            f"unit {unit!s} with noise 'local': each step of a client's optimiser clips single "
            "tasks, so that allowed are task and record; set noise 'distributed'"
        )
    if type(local_steps) is not int or not 1 <= local_steps <= MAX_LOCAL_STEPS:
        raise PlanRefused(
            f"local_steps {local_steps!r} is not an integer from 1 to {MAX_LOCAL_STEPS}"
        )
    if type(local_lr) is not float or not 2.0**-100 <= local_lr <= 2.0**100:
        raise PlanRefused(f"local_lr {local_lr!r} is not a float from 2^-100 to 2^100")
    if compression != Compression() or value_bits is not None:
        raise PlanRefused(
            "compression with noise 'local': what is sent is private already, and its integers "
            "follow from the noise; leave it out"
        )
    if rate < 1.0 and delta < MIN_SAMPLED_DELTA:
        raise PlanRefused(
            f"delta {delta!r} with rate {rate!r} and noise 'local': the accountants' rounding is "
            f"of that size; allowed is {MIN_SAMPLED_DELTA!r} or more"
        )
    if not variance >= MIN_ROUNDED_VARIANCE:
        raise PlanRefused(
            f"one step's noise has a standard deviation of {math.sqrt(variance):.3g} integer "
            "steps, allowed is 1 or more: ask for more noise"
        )


def check_distributed(*, local_steps: int | None, local_lr: float | None) -> None:
    """Refuse settings of local steps where there are none.

    Raises:
        PlanRefused: names the value.
    """
    for name, value in (("local_steps", local_steps), ("local_lr", local_lr)):
        if value is not None:
            raise PlanRefused(
                f"{name} {value!r} with noise 'distributed': clients send one sum per round and "
                "take no steps of their own; leave it out, or set noise 'local'"
            )
