"""What is assessed: a config's pipeline, with the mechanism under suspicion, in copies to measure.

A copy may be wider than the model: extra coordinates that no task fills. They carry noise like all
others, which makes as many samples of one round as a small model gives in a hundred. Where a config
has a coin for every unit, the noise is looked at with every unit drawn: it does not depend on the
coins.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crypto.secure_sum import SecureSum
from privacy.compression import Compression
from privacy.extras import Extras
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from privacy.terms import Terms as PlanTerms
from secure_fedmeta.client import Client, Holdings, MakeClient, Work, contribution
from secure_fedmeta.meta import Learner, TaskBatch
from secure_fedmeta.pipeline import Parties, Parts, found_parties
from secure_fedmeta.randomness import Randomness
from secure_fedmeta.setting import Setting, ring_for

Ints = NDArray[np.int64]


class Mechanism(Protocol):
    """What stands in a pipeline where a bug could be; the real parts, unless one is planted."""

    def plan(self, plan: PrivacyPlan) -> PrivacyPlan:
        """The plan that the parties hold, which draws, clips, encodes and decodes."""
        ...

    def randomness(self, seed: int | None) -> Randomness:
        """Where the parties' secrets come from."""
        ...

    def client(self, setting: Setting, holdings: Holdings) -> Client:
        """A client of the roster."""
        ...


class Genuine:
    """The pipeline as it is."""

    def plan(self, plan: PrivacyPlan) -> PrivacyPlan:
        """The plan itself."""
        return plan

    def randomness(self, seed: int | None) -> Randomness:
        """The operating system's, or the seed of a config that is marked as not private."""
        return Randomness(seed)

    def client(self, setting: Setting, holdings: Holdings) -> Client:
        """The client of a run."""
        return Client(setting, holdings)


class Signal:
    """Work that gives the same rows in every round.

    Args:
        rows: float [tasks, d].
        users: whose each row is; None: all of one user.
        measured: float64 [tasks, metrics]; None: more than any metric may be.
    """

    def __init__(
        self,
        rows: NDArray[np.floating[Any]],
        users: Ints | None = None,
        measured: NDArray[np.float64] | None = None,
    ) -> None:
        self._rows = rows
        self._users = np.zeros(len(rows), dtype=np.int64) if users is None else users
        self._measured = measured

    def outer_vectors(self, client: str, model: Tensor, *, round_index: int) -> NDArray[np.float32]:
        """The rows: float [tasks, d]."""
        return cast(NDArray[np.float32], self._rows)

    def measured(
        self, client: str, model: Tensor, *, round_index: int, names: tuple[str, ...]
    ) -> NDArray[np.float64]:
        """The metrics: float64 [tasks, names]."""
        if self._measured is None:
            return np.full((len(self._rows), len(names)), np.inf)
        return self._measured

    def users(self, client: str) -> Ints:
        """Whose each row is: int64 [tasks]."""
        return self._users


class WideLearner:
    """A learner whose vectors have extra coordinates, which no task fills.

    Args:
        inner: the configured learner.
        extra: how many; they come behind the inner learner's.
    """

    def __init__(self, inner: Learner, extra: int) -> None:
        self._inner = inner
        self.spec = inner.spec.extended({"assessment.extra": (extra,)})
        self.name = inner.name

    def initial(self, module: nn.Module) -> Tensor:
        """The inner learner's start, and zeros behind: `[d] float32`."""
        inner = self._inner.initial(module)
        return nn.functional.pad(inner, (0, self.spec.size - len(inner)))

    def outer_vectors(self, params: Tensor, batch: TaskBatch) -> Tensor:
        """The inner vectors, and zeros behind: `[B, d] float32`."""
        rows = self._inner.outer_vectors(params[: self._inner.spec.size], batch)
        return nn.functional.pad(rows, (0, self.spec.size - rows.shape[1]))

    def adapt_many(self, params: Tensor, x: Tensor, y: Tensor, steps: int | None = None) -> Tensor:
        """The inner model adapted to each task: `[B, inner P]`."""
        return self._inner.adapt_many(params[: self._inner.spec.size], x, y, steps)

    def predict_many(self, params: Tensor, x: Tensor) -> Tensor:
        """The inner model's outputs `[B, n, o]`."""
        return self._inner.predict_many(params[..., : self._inner.spec.size], x)


def widened(parts: Parts, extra: int) -> Parts:
    """The same run with `extra` coordinates behind those of the model, and the old plan."""
    return replace(parts, learner=cast(Any, WideLearner(parts.learner, extra)))


def terms_of(plan: PrivacyPlan) -> PlanTerms:
    """The terms that a plan was made from, without its noise.

    Where clients take turns, those of one cohort are all there are, and take part in every round.
    """
    return {
        "unit": plan.unit,
        "mechanism": plan.mechanism,
        "noise": plan.noise,
        "rate": plan.rate,
        "max_participations": None,
        "tasks_per_user": plan.tasks_per_user,
        "delta": plan.delta,
        "rounds": plan.rounds,
        "clip": plan.clip,
        "parameters": plan.parameters,
        "expected_units": plan.expected_units,
        "max_units_per_client": plan.max_units_per_client,
        "clients": plan.cohort_size,
        "min_survivors": plan.min_survivors,
        "max_colluders": plan.max_colluders,
        "person_units": plan.person_units,
        "compression": plan.compression,
        "value_bits": plan.value_bits,
        "extras": plan.extras,
        "local_steps": plan.local_steps,
        "local_lr": plan.local_lr,
    }


class Subject:
    """What is assessed: a config's parts, with the mechanism under suspicion.

    Args:
        parts: the checked run.
        mechanism: the real one, or one with a bug.
    """

    def __init__(self, parts: Parts, mechanism: Mechanism) -> None:
        self.parts = parts
        self._mechanism = mechanism
        self.plan = mechanism.plan(parts.plan)

    def every_unit(self) -> PrivacyPlan:
        """The plan with every unit drawn in every round."""
        plan = self.parts.plan
        if plan.rate == 1.0:
            return self.plan
        terms = terms_of(plan)
        terms["rate"] = 1.0
        z = plan.noise_multiplier
        return self._mechanism.plan(PrivacyPlan.from_noise_multiplier(noise_multiplier=z, **terms))

    def sampled(self, units: int, rate: float) -> PrivacyPlan:
        """The plan for vectors of `units` coordinates without compression, drawn at this rate."""
        terms = terms_of(self.parts.plan)
        terms |= {
            "parameters": units,
            "rate": rate,
            "compression": Compression(),
            "value_bits": None,
            "extras": Extras(),
            "max_units_per_client": max(units, self.parts.plan.max_units_per_client),
        }
        z = self.parts.plan.noise_multiplier
        return self._mechanism.plan(PrivacyPlan.from_noise_multiplier(noise_multiplier=z, **terms))

    def little_noise(self, noise_multiplier: float, **changes: Any) -> PrivacyPlan:
        """The plan of noise "local" with steps of size 1, every unit drawn, and other noise."""
        terms = {**terms_of(self.parts.plan), "local_lr": 1.0, "rate": 1.0, **changes}
        return self._mechanism.plan(
            PrivacyPlan.from_noise_multiplier(
                noise_multiplier=noise_multiplier, **cast(PlanTerms, terms)
            )
        )

    def wide(self, extra: int, rounds: int) -> Subject:
        """The subject with extra coordinates, every unit drawn, and room for so many rounds."""
        plan = self.parts.plan
        terms = terms_of(plan)
        terms |= {"parameters": plan.parameters + extra, "rounds": rounds, "rate": 1.0}
        z = plan.noise_multiplier
        return self.with_plan(
            PrivacyPlan.from_noise_multiplier(noise_multiplier=z, **terms), extra=extra
        )

    def with_plan(self, plan: PrivacyPlan, *, extra: int) -> Subject:
        """The subject under another plan, for `extra` coordinates more."""
        parts = widened(self.parts, extra) if extra else self.parts
        parts = replace(
            parts, plan=plan, ring=ring_for(plan), training=parts.training[: plan.clients]
        )
        return Subject(parts, self._mechanism)

    def clean(
        self, work: Work, client: str, model: Tensor, *, round_index: int, clip: float
    ) -> Ints:
        """A client's contribution without its noise: int64 [dimension].

        The difference of two contributions from one generator key: the rows, and NaN in their
        place. Those give zero in all coordinates, those of metrics included, and both draw the same
        coins and the same noise, which cancels.
        """
        key = secrets.token_bytes(32)
        rows = work.outer_vectors(client, model, round_index=round_index)
        names = self.plan.extras.asked
        measured = None
        if names:
            measured = work.measured(client, model, round_index=round_index, names=names)
        signal = Signal(rows, self._users(work, client), measured)
        return displacement(self.plan, signal, key, round_index=round_index, clip=clip)

    def _users(self, work: Work, client: str) -> Ints | None:
        return work.users(client) if self.plan.unit == "user" else None

    def found(self, log_key: str, make_client: MakeClient, protocol: SecureSum) -> Parties:
        """The parties of a new run, with new secrets."""
        seed = self.parts.config.not_private
        return found_parties(
            replace(self.parts, plan=self.plan, protocol=protocol),
            secrets.token_bytes(32),
            self._mechanism.randomness(None if seed is None else seed.seed),
            log_key=log_key,
            make_client=make_client,
        )

    @property
    def make_client(self) -> MakeClient:
        """What makes a client of this subject."""
        return self._mechanism.client


def displacement(
    plan: PrivacyPlan, work: Signal, key: bytes, *, round_index: int, clip: float | None = None
) -> Ints:
    """What the rows of `work` add to one client's contribution: int64 [dimension]."""
    model = torch.zeros(plan.parameters)

    def of(rows: Work) -> Ints:
        noise = SecureRandom.from_key(key)
        return contribution(
            rows, "client", model, plan=plan, round_index=round_index, noise=noise, clip=clip
        )

    rows = work.outer_vectors("client", model, round_index=round_index)
    return of(work) - of(Signal(nothing_like(rows), work.users("client")))


def nothing_like(rows: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Rows that count as units that are not there: NaN throughout."""
    return np.full_like(rows, np.nan)
