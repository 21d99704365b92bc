"""One frozen object gives clip, scale, noise and accounting event, so that they cannot disagree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from privacy.accountant import BUDGETED, claimed_epsilon, renyi_epsilon
from privacy.adaptive_clip import checked_clip
from privacy.calibrate import least_noise, least_noise_near
from privacy.charged import event_of
from privacy.clip import MAX_BOUND, bounded_sum
from privacy.compression import Basis, Compression
from privacy.derived import derive
from privacy.draw import check_units, rows_of, throw_coins, zero_unless
from privacy.errors import PlanRefused
from privacy.events import (
    MAX_PERSON_UNITS,
    DiscreteGaussianRound,
    Event,
    GaussianSteps,
    Mechanism,
    SkellamRound,
)
from privacy.extras import Beside, Extras
from privacy.local import LOCAL, message_of
from privacy.noise import SAMPLERS
from privacy.plan_fields import PlanFields
from privacy.rng import SecureRandom
from privacy.stages import Stage, stage
from privacy.terms import (
    Terms,
    check_int,
    check_real,
    check_supported,
    vectors_of,
)
from privacy.unit import Unit

_TERMS_OF_INTEGERS = tuple(signature(derive).parameters)
_LEFT_OUT: Mapping[str, Any] = {
    "unit": Unit.TASK,
    "mechanism": Mechanism.SKELLAM,
    "noise": "distributed",
    "rate": 1.0,
    "max_participations": None,
    "tasks_per_user": None,
    "compression": Compression(),
    "value_bits": None,
    "extras": Extras(),
    "local_steps": None,
    "local_lr": None,
}
"""What stands for terms that are left out."""


@dataclass(frozen=True, kw_only=True)
class PrivacyPlan(PlanFields):
    """Everything that decides how private a run is, checked as a whole.

    Made by `calibrated` or `from_noise_multiplier`; values that do not fit together are refused
    however it is made. The noise that none of the adversaries under a budget knows has a standard
    deviation of at least noise_multiplier * l2 per coordinate, where l2 bounds what one unit's
    vector adds to the sum. How far one unit moves the sum follows from it (see unit.py):

        task    its vector is there or not                                     l2
        record  a record of one task is replaced: the vector moves anywhere    2 l2
        user    the vectors of all its tasks are there or not, by one coin     l2
        client  its final vector is there, or zero                             l2

    With noise "local" all of this is about one step of one client, whose noise of standard
    deviation noise_multiplier * l2 stands against everyone; its message follows (see local.py).

    Its fields are described at `PlanFields` and `Terms`.
    """

    @classmethod
    def calibrated(cls, *, epsilon: float, **terms: Unpack[Terms]) -> PrivacyPlan:
        """The plan with the least noise whose claim stays within the target.

        The claim of `rounds` rounds with min_survivors contributors, against the worst adversary
        that a budget limits, is in (epsilon - 0.02, epsilon].

        Raises:
            PlanRefused: terms that no proved bound covers yet, or a target out of reach.
        """

        def claim(z: float) -> float:
            return cls._build(z, epsilon, terms).worst_epsilon()

        def renyi(z: float) -> float:
            plan = cls._build(z, epsilon, terms)
            return renyi_epsilon({plan.worst_event(): plan.rounds}, BUDGETED, delta=plan.delta)

        # A figure of sampled Gaussian steps takes up to seconds; the others are instant.
        if terms.get("noise") == LOCAL:
            return cls._build(least_noise_near(claim, renyi, epsilon), epsilon, terms)
        return cls._build(least_noise(claim, epsilon), epsilon, terms)

    @classmethod
    def from_noise_multiplier(
        cls, *, noise_multiplier: float, **terms: Unpack[Terms]
    ) -> PrivacyPlan:
        """The plan with this noise, whatever epsilon follows.

        Raises:
            PlanRefused: terms that no proved bound covers yet, or noise out of range.
        """
        return cls._build(noise_multiplier, None, terms)

    @classmethod
    def _build(cls, z: float, epsilon: float | None, terms: Terms) -> PrivacyPlan:
        given: dict[str, Any] = {**_LEFT_OUT, **terms, "noise_multiplier": z}
        integers = derive(**{name: given[name] for name in _TERMS_OF_INTEGERS})
        return cls(**given, epsilon=epsilon, **vars(integers))

    def __post_init__(self) -> None:
        check_real("delta", self.delta, 2.0**-1022, 1.0 - 2.0**-53)
        check_supported(
            unit=self.unit,
            mechanism=self.mechanism,
            noise=self.noise,
            rate=self.rate,
            max_participations=self.max_participations,
            tasks_per_user=self.tasks_per_user,
            max_units_per_client=self.max_units_per_client,
            share_variance=self.share_variance,
            extras=self.extras,
            compression=self.compression,
            value_bits=self.value_bits,
            local_steps=self.local_steps,
            local_lr=self.local_lr,
            delta=self.delta,
        )
        if self.epsilon is not None:
            check_real("epsilon", self.epsilon, 2.0**-1022, MAX_BOUND)
        for name in ("rounds", "expected_units", "max_units_per_client"):
            check_int(name, getattr(self, name), 1, 2**31)
        check_int("person_units", self.person_units, 1, MAX_PERSON_UNITS)
        derived = derive(**{name: getattr(self, name) for name in _TERMS_OF_INTEGERS})
        if any(getattr(self, name) != value for name, value in vars(derived).items()):
            raise PlanRefused(
                "dimension, scale, cap, l2, l1 and share_variance do not follow from the plan's "
                "terms"
            )
        if self.noise == LOCAL:
            message_of(self)

    @property
    def divisor(self) -> float:
        """What an opened sum is divided by: steps per 1.0 times a public constant."""
        if self.noise == LOCAL:
            return message_of(self).scale * self.clients
        return self.scale * self.expected_units

    @property
    def max_abs(self) -> int:
        """Bound on any coordinate of what one client adds to the sum.

        Its noise is not included, except where it is cut off with the rest: with noise "local".
        """
        if self.noise == LOCAL:
            return message_of(self).cap
        longest = max((0.0, *self.extras.weights)) * self.unit_steps
        cap = max(self.cap, math.ceil(longest) + 1 if longest else 0)
        return self.max_units_per_client * min(cap * vectors_of(self.tasks_per_user), self.l2)

    def basis(self, round_index: int) -> Basis:
        """The public linear map of a round. Its seed is the plan's digest, which everybody has."""
        return self.compression.basis(self.parameters, self.digest(), round_index)

    def draw(self, units: int, rng: SecureRandom) -> NDArray[np.bool_]:
        """This round's secret coins, one per unit of the client: bool [units]. See draw.py.

        Args:
            units: units that the client has, drawn or not.
            rng: the client's own generator.

        Raises:
            PlanRefused: fewer than 0 units, or more than max_units_per_client.
        """
        check_units(units, self.max_units_per_client)
        with stage(Stage.DRAW):
            return throw_coins(units, self.rate, rng)

    def encode(
        self, vectors: NDArray[np.floating[Any]], rng: SecureRandom, **rest: Any
    ) -> NDArray[np.int64]:
        """The sum of a client's clipped units plus its noise: `unit_sum` and `noise_share`.

        One client's contribution to a round; with noise "local", to one step of its own.

        Args, Returns, Raises: as for `unit_sum`.
        """
        total = self.unit_sum(vectors, rng, **rest)
        total += self.noise_share(rng)
        return total

    def noise_share(self, rng: SecureRandom) -> NDArray[np.int64]:
        """Fresh noise of one client: int64 [dimension], of variance share_variance."""
        with stage(Stage.NOISE):
            return SAMPLERS[self.mechanism](self.share_variance, self.dimension, rng)

    def unit_sum(
        self,
        vectors: NDArray[np.floating[Any]],
        rng: SecureRandom,
        *,
        round_index: int,
        drawn: NDArray[np.bool_] | None = None,
        users: NDArray[np.int64] | None = None,
        measured: NDArray[np.float64] | None = None,
        clip: float | None = None,
    ) -> NDArray[np.int64]:
        """The sum of a client's clipped units, before noise.

        One unit moves it by no more than the class says, whatever the unit holds and whoever chose
        the clip bound. A row with NaN or infinity counts as the zero vector, with zeros for its
        metrics, and so does the sum of a user's rows.

        Args:
            vectors: float16, float32 or float64 [k, parameters]. One row per unit, 0 <= k <=
                max_units_per_client; for unit user one row per task. Rows of units that were not
                drawn count as zero. k = 0 is noise alone.
            rng: the client's own generator, never shared and never reset between rounds.
            round_index: the round that the sum is for.
            drawn: what `draw` gave for this round; may be left out at rate 1.0 alone.
            users: unit user only: int64 [k], the user of each row, numbered from 0.
            measured: the metrics that `extras.asked` names: float64 [k, metrics]; NaN counts as the
                largest value.
            clip: the round's clip bound; None: the plan's.

        Returns:
            int64 [dimension].

        Raises:
            PlanRefused: another shape or dtype, more units than planned, coins, users or metrics
                that do not fit the rows, users for another unit, or a clip bound out of range.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.parameters:
            raise PlanRefused(f"units have shape {vectors.shape}; allowed: [k, {self.parameters}]")
        bound = self.checked_clip(self.clip if clip is None else clip)
        rows = rows_of(
            vectors,
            self.extras.cut(measured, len(vectors)),
            drawn,
            users,
            unit=self.unit,
            rate=self.rate,
            most_units=self.max_units_per_client,
            tasks_per_user=self.tasks_per_user,
        )
        return bounded_sum(
            # At rate 1 every coin is true, and there is nothing to copy.
            rows.vectors if self.rate == 1.0 else zero_unless(rows.counts, rows.vectors),
            clip=bound,
            forward=self.basis(round_index).forward,
            scale=self.scale * (self.clip / bound),
            cap=self.cap,
            delta=self.l2 // vectors_of(self.tasks_per_user),
            rng=rng,
            behind=self.extras.behind(rows, bound, self.unit_steps),
        )

    def decode(
        self, total: NDArray[np.int64], *, round_index: int, clip: float | None = None
    ) -> NDArray[np.float64]:
        """The average that an opened sum stands for: total / divisor, mapped back.

        The divisor is public and the same whatever was summed.

        Args:
            total: int64 [dimension].
            round_index: the round that the sum is of.
            clip: the round's clip bound; None: the plan's.

        Returns:
            float64 [parameters].

        Raises:
            PlanRefused: another shape or dtype, or a clip bound out of range.
        """
        self._check_total(total)
        stretched = self.checked_clip(self.clip if clip is None else clip) / self.clip
        image = total[: self.width] / self.divisor * stretched
        return self.basis(round_index).backward(image)

    def beside(self, total: NDArray[np.int64], *, survivors: int, clip: float) -> Beside:
        """What an opened sum says beside the average; it is released with it.

        Args:
            total: int64 [dimension].
            survivors: contributions in it.
            clip: the round's clip bound.

        Raises:
            PlanRefused: another shape or dtype.
        """
        self._check_total(total)
        return self.extras.read(
            total[self.width :],
            steps=self.unit_steps * self.expected_units,
            noise_std=self.noise_std(survivors),
            clip=clip,
            start=self.clip,
        )

    def checked_clip(self, clip: object) -> float:
        """The clip bound, if a round may have it. Raises PlanRefused for any other."""
        return checked_clip(clip, self.clip, self.extras.adaptive_clip)

    def _check_total(self, total: NDArray[np.int64]) -> None:
        if total.shape != (self.dimension,) or total.dtype != np.int64:
            raise PlanRefused(
                f"the sum has shape {total.shape} and dtype {total.dtype}; "
                f"allowed: [{self.dimension}] of int64"
            )

    def noise_std(self, survivors: int) -> float:
        """Standard deviation per coordinate of all noise in a sum of `survivors`, in its steps."""
        if self.noise == LOCAL:
            return math.sqrt(survivors) * message_of(self).spread
        return math.sqrt(survivors * self.share_variance)

    @property
    def charges_computing(self) -> bool:
        """Whether a round is charged before clients compute, and not before its sum is opened.

        So it is where what clients send is said to be private by itself.
        """
        return self.noise == LOCAL

    def event(self, survivors: int) -> SkellamRound | DiscreteGaussianRound | GaussianSteps:
        """What a round with this many contributions has to be charged as.

        Raises:
            PlanRefused: fewer contributions than min_survivors, or more than clients.
        """
        return event_of(self, survivors)

    def worst_event(self) -> SkellamRound | DiscreteGaussianRound | GaussianSteps:
        """The dearest event of this plan: min_survivors contributions."""
        return self.event(self.min_survivors)

    def worst_epsilon(self) -> float:
        """The claim for all rounds at worst_event, against the worst budgeted adversary."""
        counts: dict[Event, int] = {self.worst_event(): self.rounds}
        return claimed_epsilon(counts, BUDGETED, delta=self.delta)
