"""Meta-SGD: learn the rates of the inner steps together with the start.

Li, Zhou, Chen and Li (2017), arXiv 1707.09835, section 3.2: theta' = theta - alpha * grad L(theta),
with one rate per parameter, and both theta and alpha are meta-learned. With one rate per layer and
step it is LSLR of Antoniou, Edwards and Storkey (2019), arXiv 1810.09502, section 4: MAML whose
steps have learned sizes.

A rate is never shared itself. What is shared and moves is w, one number for each rate, with

    alpha = lr softplus(c + s w),    c = log(e - 1), so that softplus(c) = 1:

no noise on w makes a rate negative, w = 0 is the rate `inner_lr`, and large w makes it grow
linearly. s is the public constant `learner.rate_scale`: the derivative in w is s times the one in
c + s w, so that it sets how much of the joint clip the rates may take before anything is clipped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Protocol

import torch
from torch import Tensor
from torch.nn.functional import softplus

from secure_fedmeta.meta.algorithm import Algorithm
from secure_fedmeta.meta.batch import TaskBatch
from secure_fedmeta.meta.engine import Engine
from secure_fedmeta.meta.inner import InnerLoop
from secure_fedmeta.vector import ParameterVector, Shapes

_ONE: Final = math.log(math.e - 1.0)
RATES: Final = "meta_sgd.rates"
"""Name of w in the layout of the shared vector and in released models."""


class Form(Protocol):
    """Which rates there are. `w` is `[R]`, the part of the shared vector that holds them."""

    def shape(self, model: ParameterVector, loop: InnerLoop) -> tuple[int, ...]:
        """Return the shape of w."""

    def spread(self, model: ParameterVector, w: Tensor, step: int) -> Tensor:
        """Return w of every parameter, `[P]`, in a step (from 0)."""

    def gather(self, model: ParameterVector, total: Tensor, slopes: Tensor, step: int) -> None:
        """Add derivatives `[B, P]` in what `spread` returned to those in w, `total` `[B, R]`."""


class PerParameter:
    """One rate for each parameter, the same in all steps (Meta-SGD)."""

    def shape(self, model: ParameterVector, loop: InnerLoop) -> tuple[int, ...]:
        """Return `(P,)`."""
        del loop
        return (model.size,)

    def spread(self, model: ParameterVector, w: Tensor, step: int) -> Tensor:
        """Return w itself."""
        del model, step
        return w

    def gather(self, model: ParameterVector, total: Tensor, slopes: Tensor, step: int) -> None:
        """Add the derivatives."""
        del model, step
        total.add_(slopes)


class PerLayer:
    """One rate for each layer and step (LSLR); steps beyond the trained ones repeat the last."""

    def shape(self, model: ParameterVector, loop: InnerLoop) -> tuple[int, ...]:
        """Return `(steps, layers)`."""
        return (loop.steps, len(model.layers))

    def spread(self, model: ParameterVector, w: Tensor, step: int) -> Tensor:
        """Return the row of the step, each entry as often as its layer has parameters."""
        layers = model.layers
        rows = w.view(-1, len(layers))
        sizes = torch.tensor([part.stop - part.start for part in layers], device=w.device)
        return rows[min(step, len(rows) - 1)].repeat_interleave(sizes, output_size=model.size)

    def gather(self, model: ParameterVector, total: Tensor, slopes: Tensor, step: int) -> None:
        """Add the sum over each layer to the row of the step."""
        layers = model.layers
        rows = total.view(len(total), -1, len(layers))
        row = rows[:, min(step, rows.shape[1] - 1)]
        for index, part in enumerate(layers):
            row[:, index] += slopes[:, part].sum(1)


@dataclass(frozen=True)
class MetaSgd(Algorithm):
    """The exact meta-gradient in the start and in the rates."""

    name: str = "meta_sgd"
    form: Form = field(default_factory=PerParameter)

    def beside(self, model: ParameterVector, loop: InnerLoop) -> Shapes:
        """Return the shape of w."""
        return {RATES: self.form.shape(model, loop)}

    def outer(self, engine: Engine, loop: InnerLoop, params: Tensor, batch: TaskBatch) -> Tensor:
        """Return `[B, d]`: each task's gradient in the start, and behind it the one in w.

        With g the gradient in theta' = theta - alpha * grad L(theta), it is -grad L * g in alpha
        and g - H (alpha * g) in theta, from the last step to the first.
        """
        model = engine.spec
        here, w = params[: model.size], params[model.size :]
        steps = []
        for step in range(loop.steps):
            gradient, pull_back = engine.linearise(here, batch.support_x, batch.support_y)
            rate, slope = self._rate(model, loop, w, step)
            steps.append((gradient, pull_back, rate, slope))
            here = torch.addcmul(here, gradient, rate, value=-1)
        outer = engine.gradient(here, batch.query_x, batch.query_y)
        result = params.new_zeros(batch.tasks, params.numel())
        for step in reversed(range(loop.steps)):
            gradient, pull_back, rate, slope = steps.pop()
            slopes = gradient.mul_(outer).mul_(slope).neg_()
            self.form.gather(model, result[:, model.size :], slopes, step)
            pull_back(outer, rate * outer, 1.0)
        result[:, : model.size] = outer
        return result

    def adapt(
        self, engine: Engine, loop: InnerLoop, params: Tensor, x: Tensor, y: Tensor
    ) -> Tensor:
        """Return `[B, d]`: `params` with the network moved by steps of the learned rates."""
        model = engine.spec
        at, w = params[: model.size], params[model.size :]
        result = params.expand(x.shape[0], -1).clone()
        here = result[:, : model.size]
        for step in range(loop.steps):
            rate, _ = self._rate(model, loop, w, step)
            with engine.reuse():
                here.addcmul_(engine.gradient(at, x, y), rate, value=-1)
            at = here
        return result

    def _rate(
        self, model: ParameterVector, loop: InnerLoop, w: Tensor, step: int
    ) -> tuple[Tensor, Tensor]:
        """Return the rate of every parameter in a step, and its derivative in w: both `[P]`."""
        inner = _ONE + loop.rate_scale * self.form.spread(model, w, step)
        return loop.lr * softplus(inner), loop.lr * loop.rate_scale * inner.sigmoid()
