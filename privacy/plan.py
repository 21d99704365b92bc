"""One frozen object gives clip, scale, noise and accounting event, so that they cannot disagree."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, fields
from typing import Any, NotRequired, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from privacy.accountant import spend_counted
from privacy.clip import MAX_BOUND, MAX_DELTA, MIN_BOUND, bounded_sum
from privacy.compression import Basis, Compression
from privacy.errors import PlanRefused
from privacy.events import MAX_INT, SkellamRound, known_shares
from privacy.noise import MAX_VARIANCE, skellam
from privacy.rdp import l1_bound
from privacy.rng import SecureRandom
from privacy.scale import Steps, steps
from privacy.unit import RELATION_OF, Relation, Unit

CALIBRATION_SLACK = 1e-9
"""Relative distance kept below the target, so that no order of summation exceeds it."""
MIN_MULTIPLIER = 2.0**-20


class Terms(TypedDict):
    """What every plan states, apart from its noise. All of it is public.

    Attributes:
        delta: delta of the whole run, in (0, 1).
        rounds: rounds of the whole run, failed attempts included.
        clip: C, L2 bound of one unit's vector.
        parameters: d, coordinates of one unit's vector: the parameters of the model.
        expected_units: the constant that a sum is divided by; never a count taken from the data.
        max_units_per_client: most units that one client may encode in one round.
        clients: clients of the federation.
        min_survivors: fewer contributions than this are never opened; at least 2, and more than
            max_colluders.
        max_colluders: contributing clients that may work with the aggregator. With 0, every
            client still knows the noise that it added itself.
        person_units: units that one person may hold, for the figure beside the claim.
        unit: the unit of privacy; only "task" so far.
        noise: where noise is added; only "distributed" so far.
        rate: probability with which each unit takes part; only 1.0 so far.
        compression: the public linear map before the sum; left out: none.
        value_bits: bits of one coordinate of one unit's integer vector, its sign included, from 8
            to 20; None: as many as make rounding cost little.
    """

    delta: float
    rounds: int
    clip: float
    parameters: int
    expected_units: int
    max_units_per_client: int
    clients: int
    min_survivors: int
    max_colluders: int
    person_units: int
    unit: NotRequired[Unit]
    noise: NotRequired[str]
    rate: NotRequired[float]
    compression: NotRequired[Compression]
    value_bits: NotRequired[int | None]


@dataclass(frozen=True, kw_only=True)
class PrivacyPlan:
    """Everything that decides how private a run is, checked as a whole.

    Made by `calibrated` or `from_noise_multiplier`; values that do not fit together are refused
    however it is made. One unit is one task under add/remove: adding or removing a task moves the
    sum by at most l2 steps, and the noise that none of the adversaries under a budget knows has a
    standard deviation of at least noise_multiplier * l2 per coordinate.

    Attributes:
        epsilon: the target of the calibration; None when the noise was given.
        noise_multiplier: z, as seen by max(max_colluders, 1) participants when only min_survivors
            contribute.
        dimension: m, coordinates of the vector that is summed.
        scale: integer steps per 1.0.
        cap: largest magnitude, in steps, of one coordinate of one unit's integer vector.
        share_variance: variance per coordinate of one client's noise, steps^2:
            (z * l2)^2 / (min_survivors - max(max_colluders, 1)).
        l2: Delta, exact L2 bound of one unit's integer vector.
        l1: what l2 implies for the L1 norm.
        mechanism: "skellam".
    The others are described at `Terms`.
    """

    unit: Unit
    mechanism: str
    noise: str
    rate: float
    epsilon: float | None
    delta: float
    rounds: int
    clip: float
    parameters: int
    compression: Compression
    value_bits: int | None
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
        if not 0.0 < epsilon < math.inf:
            raise PlanRefused(f"epsilon {epsilon!r} is not positive and finite")

        def fits(z: float) -> bool:
            return cls._build(z, epsilon, terms).worst_epsilon() <= aim

        aim = epsilon * (1.0 - CALIBRATION_SLACK)
        low = high = 1.0
        while not fits(high):
            low, high = high, 2.0 * high
        while fits(low):
            low, high = low / 2.0, low
            if low < MIN_MULTIPLIER:
                raise PlanRefused(f"epsilon {epsilon!r} asks for next to no noise")
        while high - low > 1e-12 * high:
            middle = (low + high) / 2.0
            low, high = (low, middle) if fits(middle) else (middle, high)
        return cls._build(high, epsilon, terms)

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
        clip, parameters = terms["clip"], terms["parameters"]
        _check_real("clip", clip, MIN_BOUND, MAX_BOUND)
        _check_int("parameters", parameters, 1, MAX_DELTA)
        compression, value_bits = terms.get("compression", Compression()), terms.get("value_bits")
        image = compression.image(parameters)
        chosen = steps(clip, image, value_bits)
        honest = _honest(terms["clients"], terms["min_survivors"], terms["max_colluders"])
        return cls(
            unit=terms.get("unit", Unit.TASK),
            mechanism="skellam",
            noise=terms.get("noise", "distributed"),
            rate=terms.get("rate", 1.0),
            epsilon=epsilon,
            delta=terms["delta"],
            rounds=terms["rounds"],
            clip=clip,
            parameters=parameters,
            compression=compression,
            value_bits=value_bits,
            dimension=image.length,
            scale=chosen.scale,
            cap=chosen.cap,
            expected_units=terms["expected_units"],
            max_units_per_client=terms["max_units_per_client"],
            clients=terms["clients"],
            min_survivors=terms["min_survivors"],
            max_colluders=terms["max_colluders"],
            person_units=terms["person_units"],
            noise_multiplier=z,
            share_variance=_share_variance(z, chosen.l2, honest),
            l2=chosen.l2,
            l1=l1_bound(chosen.l2, image.length),
        )

    def __post_init__(self) -> None:
        _check_supported(self)
        _check_real("delta", self.delta, 2.0**-1022, 1.0 - 2.0**-53)
        _check_real("clip", self.clip, MIN_BOUND, MAX_BOUND)
        _check_real("noise_multiplier", self.noise_multiplier, MIN_MULTIPLIER / 2.0, MAX_VARIANCE)
        if self.epsilon is not None:
            _check_real("epsilon", self.epsilon, 2.0**-1022, MAX_BOUND)
        _check_int("parameters", self.parameters, 1, MAX_DELTA)
        for name in ("rounds", "expected_units", "max_units_per_client", "person_units"):
            _check_int(name, getattr(self, name), 1, 2**31)
        honest = _honest(self.clients, self.min_survivors, self.max_colluders)
        _check_int("l2 (steps that the clipped norm spans)", self.l2, 1, MAX_DELTA)
        if self.max_units_per_client * self.l2 > MAX_INT or self.l1 > MAX_INT:
            raise PlanRefused(
                f"sums of vectors with norm {self.l2} do not fit: take fewer value_bits"
            )
        if not 0.0 < self.share_variance <= MAX_VARIANCE:
            raise PlanRefused(
                f"one client's noise would need variance {self.share_variance!r}, allowed is up "
                f"to 2^50: take fewer value_bits, or ask for less noise"
            )
        image = self.compression.image(self.parameters)
        derived = (
            image.length,
            steps(self.clip, image, self.value_bits),
            l1_bound(self.l2, image.length),
            _share_variance(self.noise_multiplier, self.l2, honest),
        )
        found = (self.dimension, Steps(self.scale, self.cap, self.l2), self.l1, self.share_variance)
        if found != derived:
            raise PlanRefused(
                "dimension, scale, cap, l2, l1 and share_variance do not follow from the plan's "
                "terms"
            )

    @property
    def relation(self) -> Relation:
        """How neighbouring inputs differ."""
        return RELATION_OF[self.unit]

    @property
    def max_abs(self) -> int:
        """Bound on any coordinate of one client's integer sum, its noise not included."""
        return self.max_units_per_client * min(self.cap, self.l2)

    def basis(self, round_index: int) -> Basis:
        """The public linear map of a round. Its seed is the plan's digest, which everybody has."""
        return self.compression.basis(self.parameters, self.digest(), round_index)

    def encode(
        self, units: NDArray[np.floating[Any]], rng: SecureRandom, *, round_index: int
    ) -> NDArray[np.int64]:
        """One client's contribution to a round: the sum of its clipped units plus its noise share.

        Adding or removing one unit moves it by at most l2 before noise, whatever the unit holds; a
        unit with NaN or infinity counts as the zero vector.

        Args:
            units: float16, float32 or float64 [k, parameters], 0 <= k <= max_units_per_client; one
                row per unit. k = 0 is noise alone.
            rng: the client's own generator, never shared and never reset between rounds.
            round_index: the round that the sum is for.

        Returns:
            int64 [dimension].

        Raises:
            PlanRefused: another shape or dtype, or more units than planned.
        """
        if units.ndim != 2 or units.shape[1] != self.parameters:
            raise PlanRefused(f"units have shape {units.shape}; allowed: [k, {self.parameters}]")
        if units.shape[0] > self.max_units_per_client:
            raise PlanRefused(
                f"{units.shape[0]} units; allowed: at most {self.max_units_per_client} per client"
            )
        total = bounded_sum(
            units,
            clip=self.clip,
            forward=self.basis(round_index).forward,
            scale=self.scale,
            cap=self.cap,
            delta=self.l2,
            rng=rng,
        )
        total += skellam(self.share_variance, self.dimension, rng)
        return total

    def decode(self, total: NDArray[np.int64], *, round_index: int) -> NDArray[np.float64]:
        """The average that an opened sum stands for: total / (scale * expected_units), mapped back.

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
        return self.basis(round_index).backward(total / (self.scale * self.expected_units))

    def noise_std(self, survivors: int) -> float:
        """Standard deviation per coordinate of all noise in a sum of `survivors`, in steps."""
        return math.sqrt(survivors * self.share_variance)

    def event(self, survivors: int) -> SkellamRound:
        """What opening a sum of this many contributions has to be charged as.

        Raises:
            PlanRefused: fewer contributions than min_survivors, or more than clients.
        """
        _check_int("survivors", survivors, self.min_survivors, self.clients)
        return SkellamRound(
            unit=self.unit,
            relation=self.relation,
            rate=self.rate,
            l2=self.l2,
            l1=self.l1,
            share_variance=self.share_variance,
            survivors=survivors,
            max_colluders=self.max_colluders,
            clients=self.clients,
            dimension=self.dimension,
            person_units=self.person_units,
        )

    def worst_event(self) -> SkellamRound:
        """The dearest event of this plan: min_survivors contributions."""
        return self.event(self.min_survivors)

    def worst_epsilon(self) -> float:
        """The claim for all rounds at worst_event, against the worst budgeted adversary."""
        return spend_counted({self.worst_event(): self.rounds}, delta=self.delta).worst

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


def _check_supported(plan: PrivacyPlan) -> None:
    if plan.unit is not Unit.TASK:
        raise PlanRefused(
            f"unit {plan.unit!s}: only unit 'task' is accounted for so far (sampling, "
            "zero-out and per-user clipping have bounds of their own, which are not here yet)"
        )
    if plan.noise != "distributed":
        raise PlanRefused(
            f"noise {plan.noise!r}: only 'distributed' is accounted for so far (noise at the "
            "client needs the sampler of the local optimiser, which is not here yet)"
        )
    if plan.mechanism != "skellam":
        raise PlanRefused(f"mechanism {plan.mechanism!r}: only 'skellam' is accounted for so far")
    if plan.rate != 1.0 or not isinstance(plan.rate, float):
        raise PlanRefused(
            f"rate {plan.rate!r}: only 1.0 is accounted for so far (sampled rounds with integer "
            "noise need secret coins and an amplification bound that are not here yet)"
        )


def _honest(clients: int, min_survivors: int, max_colluders: int) -> int:
    """Contributors whose noise stays secret from the aggregator and from every coalition."""
    _check_int("clients", clients, 2, 2**31)
    _check_int("min_survivors", min_survivors, 2, clients)
    _check_int("max_colluders", max_colluders, 0, min_survivors - 1)
    return min_survivors - known_shares(max_colluders)


def _share_variance(z: float, l2: int, honest: int) -> float:
    return (z * l2) ** 2 / honest


def _check_int(name: str, value: object, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise PlanRefused(f"{name} {value!r} is not an integer from {least} to {most}")


def _check_real(name: str, value: object, least: float, most: float) -> None:
    if type(value) is not float or not least <= value <= most:
        raise PlanRefused(f"{name} {value!r} is not a float from {least!r} to {most!r}")
