"""Noise at the client: Opacus' DPOptimizer over integers, fed with one meta-gradient per task.

Opacus clips in float32, lets NaN through and draws its noise with torch.normal, a Mersenne Twister
by default; its `secure_mode` needs a package that no longer installs. Here its steps are kept
(clip and accumulate, add noise, scale by the expected batch, hook, inner optimiser), and the first
two are done by the plan: vectors are clipped and summed in integers, where their sensitivity is
exact, and the noise is a Gaussian rounded to the same integers, from AES key streams. An integer
plus a rounded Gaussian is the rounding of what Opacus accounts for, so its figures hold as they
are; no bit of a floating-point noise is ever released (Mironov 2012).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.optimizers import DPOptimizer
from opacus.optimizers.optimizer import _check_processed_flag, _mark_as_processed
from torch import nn

from crypto.progress import Ticker
from privacy.errors import PlanRefused
from privacy.local import batch_of, message_of
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom

TaskVectors = Callable[[torch.Tensor, int], NDArray[np.floating[Any]]]
"""(parameters `[d] float32`, index of the step in the run from 1) -> one row per task, drawn or
not: `[tasks, d]`."""


class IntegerDPOptimizer(DPOptimizer):  # type: ignore[misc]  # Opacus has no types
    """DPOptimizer for one flat parameter, whose clipping and noise are those of a plan.

    `grad_sample` holds a row per task. Each is drawn by a secret coin, and rows that are not count
    as zero, so that a step takes as long whoever is in it. An empty draw is noise alone, and a step
    like any other. `expected_batch_size` is the plan's constant, never a count.

    Args:
        params: the client's own copy of the model, `[d] float64`.
        plan: with noise "local".
        noise: the client's generator of coins, rounding and noise.
    """

    def __init__(self, params: nn.Parameter, *, plan: PrivacyPlan, noise: SecureRandom) -> None:
        if plan.local_lr is None:
            raise PlanRefused(f"noise {plan.noise!r}: clients take no steps of their own")
        super().__init__(
            torch.optim.SGD([params], lr=plan.local_lr),
            noise_multiplier=plan.noise_multiplier,
            max_grad_norm=plan.l2 / plan.scale,
            expected_batch_size=batch_of(plan),
        )
        self._plan = plan
        self._noise = noise

    def take(self, rows: NDArray[np.floating[Any]]) -> None:
        """One step on these rows, one per task: `[tasks, d]`."""
        (params,) = self.params
        params.grad_sample = torch.from_numpy(rows)
        self.step()
        self.zero_grad()

    def clip_and_accumulate(self) -> None:
        """Draw, clip and sum the rows: `summed_grad` is int64, in the plan's steps."""
        (params,) = self.params
        _check_processed_flag(params.grad_sample)
        rows = self._get_flat_grad_sample(params).numpy()
        # A map of the sum is the same in every round: compression goes with sums alone.
        params.summed_grad = torch.from_numpy(
            self._plan.unit_sum(
                rows, self._noise, round_index=1, drawn=self._plan.draw(len(rows), self._noise)
            )
        )
        _mark_as_processed(params.grad_sample)

    def add_noise(self) -> None:
        """Add the plan's noise in integers; only then does anything become a float again."""
        (params,) = self.params
        _check_processed_flag(params.summed_grad)
        noisy = params.summed_grad + torch.from_numpy(self._plan.noise_share(self._noise))
        params.grad = (noisy.to(params.dtype) / self._plan.scale).view_as(params)
        _mark_as_processed(params.summed_grad)


def train_locally(
    vectors: TaskVectors,
    model: torch.Tensor,
    *,
    plan: PrivacyPlan,
    round_index: int,
    noise: SecureRandom,
    hooks: Sequence[Callable[[DPOptimizer], None]] = (),
) -> NDArray[np.int64]:
    """One client's noisy steps of a round, and how far they took it.

    Args:
        vectors: its tasks' outer vectors at parameters of its own.
        model: the global model `[d] float32`.
        plan: with noise "local".
        round_index: the round, from 1.
        noise: the client's own generator, never shared and never reset.
        hooks: called in every step between noise and step, with the optimiser.

    Returns:
        int64 [d]: the model minus where the client ended, in the plan's message steps.
    """
    start = model.detach().to("cpu", torch.float64)
    params = nn.Parameter(start.clone())
    optimiser = IntegerDPOptimizer(params, plan=plan, noise=noise)
    optimiser.attach_step_hook(lambda done: [hook(done) for hook in hooks])
    steps = plan.local_steps or 0
    ticker = Ticker("noisy steps of one client: step", steps)
    for step in range((round_index - 1) * steps + 1, round_index * steps + 1):
        rows = vectors(params.detach().to(torch.float32), step)
        optimiser.take(rows)
        ticker.add(1)
    return message_of(plan).encode((start - params.detach()).numpy())
