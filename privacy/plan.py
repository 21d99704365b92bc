"""One frozen object gives clip, scale, noise and accounting event, so that they cannot disagree."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from inspect import signature
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from privacy.accountant import BUDGETED, claimed_epsilon
from privacy.calibrate import GAUSSIAN_WIDTH, WIDTH, least_noise
from privacy.charged import event_of
from privacy.clip import MAX_BOUND, bounded_sum
from privacy.compression import Basis, Compression
from privacy.derived import derive
from privacy.draw import (
    checked_coins,
    checked_users,
    count_of,
    sum_per_user,
    throw_coins,
    zero_unless,
)
from privacy.errors import PlanRefused
from privacy.events import (
    MAX_PERSON_UNITS,
    DiscreteGaussianRound,
    Event,
    GaussianSteps,
    Mechanism,
    SkellamRound,
)
from privacy.local import LOCAL, message_of
from privacy.noise import SAMPLERS
from privacy.rng import SecureRandom
from privacy.terms import (
    Terms,
    check_int,
    check_real,
    check_supported,
    vectors_of,
)
from privacy.turns import cohort, cohort_size
from privacy.unit import RELATION_OF, Relation, Unit

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
    "local_steps": None,
    "local_lr": None,
}
"""What stands for terms that are left out."""


@dataclass(frozen=True, kw_only=True)
class PrivacyPlan:
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

    Attributes:
        epsilon: the target of the calibration; None when the noise was given.
        noise_multiplier: z, as seen by max(max_colluders, 1) participants when only min_survivors
            contribute.
        dimension: m, coordinates of the vector that is summed.
        scale: integer steps per 1.0.
        cap: largest magnitude, in steps, of one coordinate of one unit's integer vector.
        share_variance: variance per coordinate of one client's noise, steps^2:
            (z * l2)^2 / (min_survivors - max(max_colluders, 1)); of one step: (z * l2)^2.
        l2: Delta, exact L2 bound of one unit's integer vector; for unit user with tasks_per_user k,
            of the sum of k vectors that are clipped apart.
        l1: what l2 implies for the L1 norm.
    The others are described at `Terms`.
    """

    unit: Unit
    mechanism: Mechanism
    noise: str
    rate: float
    max_participations: int | None
    tasks_per_user: int | None
    epsilon: float | None
    delta: float
    rounds: int
    clip: float
    parameters: int
    compression: Compression
    value_bits: int | None
    local_steps: int | None
    local_lr: float | None
    dimension: int
    scale: float
    cap: int
    expected_units: int
    max_units_per_client: int
    clients: int
    min_survivors: int
    max_colluders: int
    person_units: int
    noise_multiplier: float
    share_variance: float
    l2: int
    l1: int

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

        # A figure of sampled Gaussian steps takes a fraction of a second; the others are instant.
        width = GAUSSIAN_WIDTH if terms.get("noise") == LOCAL else WIDTH
        return cls._build(least_noise(claim, epsilon, width=width), epsilon, terms)

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
    def relation(self) -> Relation:
        """How neighbouring inputs differ."""
        return RELATION_OF[self.unit]

    @property
    def cohort_size(self) -> int:
        """Clients of each round: all, or as many as `max_participations` leaves room for."""
        return cohort_size(self.clients, self.rounds, self.max_participations)

    def cohort(self, round_index: int) -> tuple[int, ...]:
        """Indices of a round's clients, from 1, increasing. See turns.py."""
        return cohort(round_index, self.clients, self.cohort_size)

    @property
    def turns(self) -> int:
        """Most rounds of the run that one client may contribute to. Each counts for itself."""
        most = self.max_participations
        return self.rounds if most is None else min(self.rounds, most)

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
        return self.max_units_per_client * min(self.cap * vectors_of(self.tasks_per_user), self.l2)

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
        self._check_units(units)
        return throw_coins(units, self.rate, rng)

    def encode(
        self,
        vectors: NDArray[np.floating[Any]],
        rng: SecureRandom,
        *,
        round_index: int,
        drawn: NDArray[np.bool_] | None = None,
        users: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int64]:
        """The sum of a client's clipped units plus its noise: `unit_sum` and `noise_share`.

        One client's contribution to a round; with noise "local", to one step of its own.

        Args, Returns, Raises: as for `unit_sum`.
        """
        total = self.unit_sum(vectors, rng, round_index=round_index, drawn=drawn, users=users)
        total += self.noise_share(rng)
        return total

    def noise_share(self, rng: SecureRandom) -> NDArray[np.int64]:
        """Fresh noise of one client: int64 [dimension], of variance share_variance."""
        return SAMPLERS[self.mechanism](self.share_variance, self.dimension, rng)

    def unit_sum(
        self,
        vectors: NDArray[np.floating[Any]],
        rng: SecureRandom,
        *,
        round_index: int,
        drawn: NDArray[np.bool_] | None = None,
        users: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int64]:
        """The sum of a client's clipped units, before noise.

        One unit moves it by no more than the class says, whatever the unit holds. A row with NaN or
        infinity counts as the zero vector, and so does the sum of a user's rows.

        Args:
            vectors: float16, float32 or float64 [k, parameters]. One row per unit, 0 <= k <=
                max_units_per_client; for unit user one row per task. Rows of units that were not
                drawn count as zero. k = 0 is noise alone.
            rng: the client's own generator, never shared and never reset between rounds.
            round_index: the round that the sum is for.
            drawn: what `draw` gave for this round; may be left out at rate 1.0 alone.
            users: unit user only: int64 [k], the user of each row, numbered from 0.

        Returns:
            int64 [dimension].

        Raises:
            PlanRefused: another shape or dtype, more units than planned, coins or users that do not
                fit the rows, or users for another unit.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.parameters:
            raise PlanRefused(f"units have shape {vectors.shape}; allowed: [k, {self.parameters}]")
        if self.unit is Unit.USER:
            users = checked_users(users, len(vectors), self.tasks_per_user)
        elif users is not None:
            raise PlanRefused(f"users were given for unit {self.unit}, whose rows are units")
        least = len(vectors) if users is None else count_of(users)
        self._check_units(least if drawn is None else len(drawn))
        keep = checked_coins(drawn, least, self.unit, self.rate)
        if users is not None and self.tasks_per_user is None:
            vectors = sum_per_user(vectors, users, len(keep))
        elif users is not None:
            keep = keep[users]
        return bounded_sum(
            # At rate 1 every coin is true, and there is nothing to copy.
            vectors if self.rate == 1.0 else zero_unless(keep, vectors),
            clip=self.clip,
            forward=self.basis(round_index).forward,
            scale=self.scale,
            cap=self.cap,
            delta=self.l2 // vectors_of(self.tasks_per_user),
            rng=rng,
        )

    def _check_units(self, units: int) -> None:
        if units > self.max_units_per_client:
            raise PlanRefused(
                f"{units} units; allowed: at most {self.max_units_per_client} per client"
            )

    def decode(self, total: NDArray[np.int64], *, round_index: int) -> NDArray[np.float64]:
        """The average that an opened sum stands for: total / divisor, mapped back.

        The divisor is public and the same whatever was summed.

        Args:
            total: int64 [dimension].
            round_index: the round that the sum is of.

        Returns:
            float64 [parameters].

        Raises:
            PlanRefused: another shape or dtype.
        """
        if total.shape != (self.dimension,) or total.dtype != np.int64:
            raise PlanRefused(
                f"the sum has shape {total.shape} and dtype {total.dtype}; "
                f"allowed: [{self.dimension}] of int64"
            )
        return self.basis(round_index).backward(total / self.divisor)

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

    def to_json(self) -> dict[str, Any]:
        """Every field and the relation; real numbers as shortest decimal strings."""
        body: dict[str, Any] = {"relation": self.relation.value}
        for field in fields(self):
            value = getattr(self, field.name)
            body[field.name] = repr(value) if isinstance(value, float) else value
        body |= {"unit": self.unit.value, "compression": self.compression.to_json()}
        return body

    def digest(self) -> bytes:
        """SHA-256 of `to_json` with sorted keys and no spaces: 32 bytes that name the plan."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).digest()
