"""Training on public data under the same terms: the averaging baseline, candidates of a search.

Same tasks, clipping, integers, noise and server rule as the run; only the secure sum is left out,
because adding integers in clear gives the same sum. It is a further use of the training data. On
data that are declared public nothing is charged for it; on any other data it is not run.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from privacy.stages import Stage, stage
from secure_fedmeta.client import Work, contribution
from secure_fedmeta.server_opt import ServerOptimiser, ServerState


def train_in_clear(
    work: Work,
    names: tuple[str, ...],
    *,
    plan: PrivacyPlan,
    optimiser: ServerOptimiser,
    initial: torch.Tensor,
    noise: Callable[[str], SecureRandom],
    done: Callable[[int], None] = lambda _: None,
) -> torch.Tensor:
    """Train for the plan's rounds with every client of each cohort present.

    Args:
        work: the clients' outer vectors.
        names: the training clients, in roster order.
        plan: clip, integers and noise of each client, and the number of rounds.
        optimiser: the server's rule.
        initial: initial parameters `[d] float32`.
        noise: client name -> its source of noise.
        done: told each round that ended.

    Returns:
        The released model `[d] float32`.
    """
    state: ServerState = optimiser.init(initial)
    clip = plan.clip
    streams = {name: noise(name) for name in names}
    for round_index in range(1, plan.rounds + 1):
        model = state.params.to(torch.float32)
        total = np.zeros(plan.dimension, dtype=np.int64)
        for index in plan.cohort(round_index):
            name = names[index - 1]
            vector = contribution(
                work,
                name,
                model,
                plan=plan,
                round_index=round_index,
                noise=streams[name],
                clip=clip,
            )
            with stage(Stage.SUM):
                total += vector
        with stage(Stage.SERVER):
            average = plan.decode(total, round_index=round_index, clip=clip)
            clip = plan.beside(total, survivors=plan.cohort_size, clip=clip).next_clip
            state = optimiser.update(state, torch.from_numpy(average))
        done(round_index)
    return state.average.to(torch.float32)
