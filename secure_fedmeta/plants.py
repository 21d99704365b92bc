"""Bugs on purpose, for `fedmeta assess --plant`: does the assessment notice them?

Each replaces one part of the assessed copy by a wrong one that claims to be right: the plan still
states the same noise, sensitivity and digest, and the same events. Nothing tells the checks; they
look at what comes out. No run can be given any of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from privacy.clip import MAX_DELTA, bounded_sum
from privacy.draw import zero_unless
from privacy.noise import SAMPLERS
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from secure_fedmeta.assessed import Genuine, Mechanism
from secure_fedmeta.client import Client, Holdings
from secure_fedmeta.errors import unknown_name
from secure_fedmeta.randomness import Randomness
from secure_fedmeta.setting import Setting

Rows = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]
_LARGEST: Final = 2.0**40  # steps: no ring has room for it, and int64 has


class _Forged(PrivacyPlan):
    """A plan that does something else than it says."""

    @classmethod
    def of(cls, plan: PrivacyPlan) -> Self:
        """A forgery with all the values of `plan`."""
        return cls(**{field.name: getattr(plan, field.name) for field in fields(plan)})

    def _padded(self, units: Ints) -> Ints:
        """With zeros in the coordinates behind the vector's."""
        return np.concatenate([units, np.zeros(self.extras.count, dtype=np.int64)])


def _drawn(vectors: Rows, drawn: NDArray[np.bool_] | None, users: Ints | None) -> Rows:
    if drawn is None:
        return vectors
    return zero_unless(drawn if users is None else drawn[users], vectors)


class _HalfNoise(_Forged):
    def noise_share(self, rng: SecureRandom) -> Ints:
        """Noise of half the standard deviation."""
        return SAMPLERS[self.mechanism](self.share_variance / 4.0, self.dimension, rng)


class _DoubleSensitivity(_Forged):
    def unit_sum(self, vectors: Rows, rng: SecureRandom, **rest: Any) -> Ints:
        """Every vector may be twice as long as the plan says."""
        units = bounded_sum(
            _drawn(vectors, rest.get("drawn"), rest.get("users")),
            clip=2.0 * self.clip,
            forward=self.basis(rest["round_index"]).forward,
            scale=self.scale,
            cap=2 * self.cap,
            delta=min(2 * self.l2, MAX_DELTA),
            rng=rng,
        )
        return self._padded(units)


class _NoClip(_Forged):
    def unit_sum(self, vectors: Rows, rng: SecureRandom, **rest: Any) -> Ints:
        """Vectors are added as long as they are."""
        rows = _drawn(vectors, rest.get("drawn"), rest.get("users")).astype(np.float64)
        rows = np.nan_to_num(rows, posinf=_LARGEST, neginf=-_LARGEST)
        rows = np.clip(rows, -_LARGEST, _LARGEST)
        steps = self.basis(rest["round_index"]).forward(rows) * self.scale
        units = np.rint(np.clip(steps, -_LARGEST, _LARGEST)).astype(np.int64).sum(axis=0)
        return self._padded(units)


class _NoNoise(_Forged):
    def noise_share(self, rng: SecureRandom) -> Ints:
        """Zeros."""
        return np.zeros(self.dimension, dtype=np.int64)


class _Shuffle(_Forged):
    def draw(self, units: int, rng: SecureRandom) -> NDArray[np.bool_]:
        """A batch of always the same size, from the head of a shuffled list."""
        coins = np.zeros(units, dtype=np.bool_)
        order = np.argsort(rng.fractions(units))
        coins[order[: round(units * self.rate)]] = True
        return coins


class HalfNoise(Genuine):
    """Half the noise at every client."""

    def plan(self, plan: PrivacyPlan) -> PrivacyPlan:
        """A plan that adds half the noise that it states."""
        return _HalfNoise.of(plan)


class DoubleSensitivity(Genuine):
    """Twice the clip bound, for the noise of one."""

    def plan(self, plan: PrivacyPlan) -> PrivacyPlan:
        """A plan that clips to twice the bound that it states."""
        return _DoubleSensitivity.of(plan)


class NoClip(Genuine):
    """No clipping at all."""

    def plan(self, plan: PrivacyPlan) -> PrivacyPlan:
        """A plan that adds vectors as they are."""
        return _NoClip.of(plan)


class ReusedSeed(Genuine):
    """Every generator of noise starts from one key."""

    def randomness(self, seed: int | None) -> Randomness:
        """A source whose generators are all the same."""
        return _OneKey(seed)


class MissingShare(Genuine):
    """The first client adds no noise."""

    def client(self, setting: Setting, holdings: Holdings) -> Client:
        """The client; the first one's own setting has a plan without noise."""
        if holdings.index == 1:
            setting = replace(setting, plan=_NoNoise.of(setting.plan))
        return super().client(setting, holdings)


class Shuffle(Genuine):
    """Batches of fixed size in place of coins."""

    def plan(self, plan: PrivacyPlan) -> PrivacyPlan:
        """A plan that shuffles where it says that it throws coins."""
        return _Shuffle.of(plan)


class _OneKey(Randomness):
    def generator(self, label: str) -> SecureRandom:
        """The generator that every other label gets too."""
        return SecureRandom.from_key(bytes(range(32)))


PLANTS: Final[Mapping[str, type[Genuine]]] = MappingProxyType(
    {
        "half-noise": HalfNoise,
        "double-sensitivity": DoubleSensitivity,
        "no-clip": NoClip,
        "reused-seed": ReusedSeed,
        "missing-share": MissingShare,
        "shuffle": Shuffle,
    }
)


def planted(name: str | None) -> Mechanism:
    """The mechanism with this bug; None: the real one.

    Raises:
        ConfigError: no such bug.
    """
    if name is None:
        return Genuine()
    if name not in PLANTS:
        raise unknown_name("planted bug", name, PLANTS, key="--plant")
    return PLANTS[name]()
