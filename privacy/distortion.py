"""What compression and rounding cost in precision, by formula from the plan: no data are looked at.

Stochastic rounding has a variance of at most 1/4 step^2 per coordinate and unit. Units are rounded
by themselves, so the errors of n of them add up to at most sqrt(n m) / 2 steps in root mean square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from privacy.plan import PrivacyPlan

SMALL = 0.1
"""Part of the noise below which rounding is called small: it adds less than 0.5 % to the whole."""


@dataclass(frozen=True)
class Distortion:
    """Root mean squares over rotations, subsets, rounding and noise, of one decoded average.

    Attributes:
        relative: L2 error of the average without noise, over its norm, where `expected_units` units
            at the clip bound all agree. Averages with a smaller norm have a larger one.
        left_out: the part of it that comes from coordinates that were not summed.
        rounding: L2 error by rounding, in the units of the clip bound; at most.
        noise: L2 norm of the noise at min_survivors contributions, likewise.
    """

    relative: float
    left_out: float
    rounding: float
    noise: float

    @property
    def verdict(self) -> str:
        """In plain words what dominates."""
        share = self.rounding / self.noise
        if share > 1.0:
            words = (
                f"Rounding is {share:.1f} times the noise that the claim needs: more value bits "
                "would cost no privacy and make the model better."
            )
        elif share > SMALL:
            words = (
                f"Rounding is {share:.0%} of the noise that the claim needs; more value bits would "
                "still help a little."
            )
        else:
            words = (
                f"Rounding is {share:.1%} of the noise that the claim needs: finer steps would not "
                "show."
            )
        if self.left_out > 0.0:
            words += (
                f" Coordinates that were not summed cost {self.left_out:.0%} of an average's norm "
                "in every round."
            )
        return words

    def to_json(self) -> dict[str, float | str]:
        """The figures and the verdict as plain data."""
        return {
            "relative": self.relative,
            "left_out": self.left_out,
            "rounding": self.rounding,
            "noise": self.noise,
            "verdict": self.verdict,
        }


def distortion(plan: PrivacyPlan) -> Distortion:
    """The figures of a plan.

    Vectors that are cut off or shortened, which is rare by the plan's constants, are left out.
    """
    if plan.local_steps is not None and plan.local_lr is not None:
        return _of_messages(plan, plan.local_steps, plan.local_lr)
    image = plan.compression.image(plan.parameters)
    per_step = image.gain * math.sqrt(plan.width) / (plan.scale * plan.expected_units)
    rounding = per_step * math.sqrt(plan.expected_units) / 2.0
    return Distortion(
        relative=math.hypot(image.missed, rounding / plan.clip),
        left_out=image.missed,
        rounding=rounding,
        noise=per_step * plan.noise_std(plan.min_survivors),
    )


def _of_messages(plan: PrivacyPlan, local_steps: int, local_lr: float) -> Distortion:
    """Units are rounded in every step, and messages once, to the nearest step: 1/12 step^2."""
    root = math.sqrt(plan.dimension)
    of_steps = local_lr * math.sqrt(local_steps / plan.expected_units) / (2.0 * plan.scale)
    of_messages = math.sqrt(plan.clients / 12.0) / plan.divisor
    rounding = root * math.hypot(of_steps, of_messages)
    return Distortion(
        relative=rounding / (local_steps * local_lr * plan.clip),
        left_out=0.0,
        rounding=rounding,
        noise=root * plan.noise_std(plan.min_survivors) / plan.divisor,
    )
