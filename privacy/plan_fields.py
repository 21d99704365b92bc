"""The fields of a plan, and what they say without any arithmetic of noise."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from privacy.compression import Compression
from privacy.events import Mechanism
from privacy.extras import Extras
from privacy.turns import cohort, cohort_size
from privacy.unit import RELATION_OF, Relation, Unit


@dataclass(frozen=True, kw_only=True)
class PlanFields:
    """Public constants of a run; `PrivacyPlan` checks them and is made of them.

    Attributes:
        epsilon: the target of the calibration; None when the noise was given.
        noise_multiplier: z, as seen by max(max_colluders, 1) participants when only min_survivors
            contribute.
        dimension: coordinates of the vector that is summed: m of the image, and those of extras.
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
    extras: Extras
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
    def width(self) -> int:
        """Coordinates of the image of a vector; behind them stand those of `extras`."""
        return self.dimension - self.extras.count

    @property
    def unit_steps(self) -> float:
        """Integer steps of a coordinate behind the vector, at weight 1 and its largest value."""
        return self.scale * self.clip * self.compression.image(self.parameters).norm

    def to_json(self) -> dict[str, Any]:
        """Every field and the relation; real numbers as shortest decimal strings."""
        body: dict[str, Any] = {"relation": self.relation.value}
        for field in fields(self):
            value = getattr(self, field.name)
            body[field.name] = repr(value) if isinstance(value, float) else value
        body |= {"unit": self.unit.value, "compression": self.compression.to_json()}
        body["extras"] = self.extras.to_json()
        return body

    def digest(self) -> bytes:
        """SHA-256 of `to_json` with sorted keys and no spaces: 32 bytes that name the plan."""
        return self._digest

    @cached_property
    def _digest(self) -> bytes:
        # Every client of a simulated round asks for it, and a plan never changes.
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).digest()
