"""A client as a state machine: its data and unmasked updates never leave this object.

Everything that protects it comes from its own setting: plan, roster, thresholds, ring. From the
aggregator it takes the model and the order of the steps, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from crypto.errors import MessageRefused
from crypto.keys import Identity, Rand, never_pickled
from crypto.secure_sum import ClientSeat, SumClient, Terms, VectorSource
from privacy.draw import count_of
from privacy.local import LOCAL
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from privacy.unit import Unit
from secure_fedmeta.charge import Charge
from secure_fedmeta.party import Handout, Party
from secure_fedmeta.randomness import Generators
from secure_fedmeta.setting import Setting
from secure_fedmeta.vault import Vault


class Work(Protocol):
    """The local computation of a client: one outer vector per task."""

    def outer_vectors(
        self, client: str, model: torch.Tensor, *, round_index: int
    ) -> NDArray[np.float32]:
        """Outer vectors of all the client's tasks, drawn or not: `[tasks, d] float32`.

        `round_index` keys what is redrawn inside each task: the round, or, where clients take steps
        of their own, the step, counted over all rounds. `model` then is the client's own.
        """
        ...

    def measured(
        self, client: str, model: torch.Tensor, *, round_index: int, names: tuple[str, ...]
    ) -> NDArray[np.float64]:
        """Private metrics of all the client's tasks, by name: `[tasks, names] float64`."""
        ...

    def users(self, client: str) -> NDArray[np.int64]:
        """Whose each task is, users numbered from 0: `[tasks] int64`."""
        ...


def contribution(
    work: Work,
    client: str,
    model: torch.Tensor,
    *,
    plan: PrivacyPlan,
    round_index: int,
    noise: SecureRandom,
    clip: float | None = None,
) -> NDArray[np.int64]:
    """One client's protected integers for one attempt, with fresh coins and fresh noise.

    Every task is computed, drawn or not, so that neither the time it takes nor its length depends
    on the coins; those are thrown here and kept nowhere. For unit client the final vector is the
    mean over all its tasks, and so are its metrics, each cut to its range before. With noise
    "local" the client takes noisy steps of its own, and what is returned is how far it moved.

    Args:
        work: the client's tasks.
        client: its name.
        model: global parameters `[d] float32`.
        plan: unit, rate, clip, integers and noise.
        round_index: the round.
        noise: the client's own generator, for coins, rounding and noise.
        clip: the clip bound of the round; None: the plan's.

    Returns:
        int64 [dimension].
    """
    if plan.noise == LOCAL:
        from secure_fedmeta.local_noise import train_locally  # two seconds of Opacus

        return train_locally(
            lambda params, step: work.outer_vectors(client, params, round_index=step),
            model,
            plan=plan,
            round_index=round_index,
            noise=noise,
        )
    vectors = work.outer_vectors(client, model, round_index=round_index)
    measured: NDArray[np.float64] | None = None
    if plan.extras.asked:
        names = plan.extras.asked
        measured = work.measured(client, model, round_index=round_index, names=names)
    if plan.unit is Unit.CLIENT:
        vectors = vectors.mean(axis=0, keepdims=True)
        measured = None if measured is None else plan.extras.mean(measured)
    users = work.users(client) if plan.unit is Unit.USER else None
    drawn = plan.draw(len(vectors) if users is None else count_of(users), noise)
    return plan.encode(
        vectors,
        noise,
        round_index=round_index,
        drawn=drawn,
        users=users,
        measured=measured,
        clip=clip,
    )


@dataclass(frozen=True)
class Holdings:
    """What a client holds, beside the run's setting. Its repr shows the index alone.

    Attributes:
        index: its place in the roster, from 1.
        identity: its signing key.
        work: computes its outer vectors.
        noise: gives the generator of each round's coins, rounding and noise.
        rand: its source of keys and seeds.
        charge: where it charges its contributions over runs.
        contributions: how often it contributed to this run before it was made.
    """

    index: int
    identity: Identity = field(repr=False)
    work: Work = field(repr=False)
    noise: Generators = field(repr=False)
    rand: Rand = field(repr=False)
    charge: Charge = field(repr=False)
    contributions: int = field(default=0, repr=False)

    __reduce__ = never_pickled


class Client(Party):
    """One member of the roster.

    It contributes at most as often as its plan has rounds, or as `max_participations` says,
    whatever the aggregator asks for, since the plan's target is for that many. Over several runs it
    asks its own ledger, if it has one, before anything is computed from its data.

    Args:
        setting: the run's public facts, as this client read them.
        holdings: what is its own.
        vault: see Party.
    """

    def __init__(self, setting: Setting, holdings: Holdings, *, vault: Vault | None = None) -> None:
        super().__init__(setting, index=holdings.index, vault=vault)
        self._identity = holdings.identity
        self._work = holdings.work
        self._noise = holdings.noise
        self._rand = holdings.rand
        self._charge = holdings.charge
        self._contributions = max(self._contributions, holdings.contributions)

    @property
    def has_turn(self) -> bool:
        """Whether its plan lets it contribute once more."""
        return self._contributions < self._setting.plan.turns

    def _vector(self, terms: Terms, model: Handout) -> VectorSource:
        def protected_sum() -> NDArray[np.int64]:
            self._charge.reserve(round_index=terms.round, attempt=terms.attempt)
            self._contributions += 1
            name = self._setting.roster.members[self._index - 1].name
            return contribution(
                self._work,
                name,
                model.take(),
                plan=self._setting.plan,
                round_index=terms.round,
                noise=self._noise(terms.round),
                clip=model.clip,
            )

        return protected_sum

    def _machine_for(self, terms: Terms, model: Handout) -> SumClient:
        plan = self._setting.plan
        if not self.has_turn:
            raise MessageRefused(
                None,
                "round-open",
                f"contributed to all of the {plan.turns} planned rounds"
                if plan.max_participations is None
                else f"took part in {self._contributions} rounds: max_participations is reached",
            )
        return self._setting.protocol.client(terms, self._seat(terms, model))

    def _restored(self, terms: Terms, model: Handout, state: bytes) -> SumClient:
        return self._setting.protocol.restore_client(terms, self._seat(terms, model), state)

    def _seat(self, terms: Terms, model: Handout) -> ClientSeat:
        return ClientSeat(
            index=self._index,
            identity=self._identity,
            rand=self._rand,
            intent_check=self._watch.check(terms, model.clip),
            vector=self._vector(terms, model),
        )


MakeClient = Callable[[Setting, Holdings], Client]
