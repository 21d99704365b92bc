"""How a round ends, and what the next one starts from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import torch

from privacy.accountant import Spend
from privacy.events import Event
from privacy.extras import Measured
from privacy.plan import PrivacyPlan
from secure_fedmeta.server_opt import ServerOptimiser, ServerState

ENDED_AT_STEP: Final = "ended at step "
"""How the log tells of an attempt that its secure sum ended: it has a checkpoint of its own."""


@dataclass(frozen=True)
class Release:
    """What one completed round made public.

    Attributes:
        round: index of the round, from 1.
        survivors: how many clients' updates and noise shares are in the sum.
        selected: how many clients were asked.
        rejected: refused messages by reason.
        spend: all that the population has spent after this round, in other runs too.
        unchecked: officers that could have changed the sum without being noticed; see Done.
        clip: the clip bound of the round.
        protected: private metrics of the training tasks, each with the deviation of its noise.
    """

    round: int
    survivors: int
    selected: int
    rejected: Mapping[str, int]
    spend: Spend
    unchecked: tuple[int, ...]
    clip: float
    protected: Mapping[str, Measured]


@dataclass(frozen=True)
class Abort:
    """A round that ended without a release.

    Attributes:
        round: index of the round, from 1.
        reason: why, in words that tell what to change.
        charged: whether the budget was already reserved, in which case it stays charged.
        ends_run: whether the ledger failed, so that no further round could be charged.
    """

    round: int
    reason: str
    charged: bool
    ends_run: bool


@dataclass(frozen=True)
class Standing:
    """What the next round starts from.

    Attributes:
        state: of the server's optimiser, the model in it.
        clip: the clip bound.
        charged: what the log states as charged to the population, before the run and by it.
    """

    state: ServerState
    clip: float
    charged: Counter[Event]

    @classmethod
    def fresh(
        cls,
        optimiser: ServerOptimiser,
        model: torch.Tensor,
        plan: PrivacyPlan,
        prior: Iterable[Event] = (),
    ) -> Standing:
        """Before the first round.

        Args:
            optimiser: the server's rule.
            model: initial parameters `[d]`.
            plan: says the first clip bound.
            prior: what was charged before the log began.
        """
        return cls(optimiser.init(model), plan.clip, Counter(prior))


@dataclass(frozen=True)
class Ending:
    """An attempt that is over once the log says so.

    Attributes:
        attempt: of the outcome's round, from 1.
        outcome: how it ends.
        intent: digest of its logged intent, 32 bytes; None without one.
        state: of the server's optimiser afterwards.
        clip: the clip bound afterwards.
        model: digest of the model afterwards, 32 bytes.
    """

    attempt: int
    outcome: Release | Abort
    intent: bytes | None
    state: ServerState
    clip: float
    model: bytes
