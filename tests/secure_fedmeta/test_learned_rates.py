"""Meta-SGD: rates that stay positive, start where the config says, and share one clip."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from secure_fedmeta.assessed import Signal, displacement
from secure_fedmeta.meta import Learner, TaskBatch, build_learner
from secure_fedmeta.meta.meta_sgd import RATES
from secure_fedmeta.models import build_model
from secure_fedmeta.pipeline import assemble
from secure_fedmeta.randomness import Randomness
from secure_fedmeta.scoring import train_in_clear_as_planned
from tests.secure_fedmeta.federation import tiny

RATED = pytest.mark.parametrize("algorithm", ["meta_sgd", "meta_sgd_layer"])
NET = build_model("mlp_tanh", 3, 1, (5,), seed=1)
P = sum(parameter.numel() for parameter in NET.parameters())


def learner_of(algorithm: str, *, steps: int = 2, lr: float = 0.1, scale: float = 1.0) -> Learner:
    return build_learner(
        algorithm, NET, "mse", inner_steps=steps, inner_lr=lr, rate_scale=scale, device="cpu"
    )


def batch(tasks: int = 4) -> TaskBatch:
    g = torch.Generator().manual_seed(2)
    return TaskBatch(*(torch.randn(tasks, 6, n, generator=g) for n in (3, 1, 3, 1)))


def rates(learner: Learner, params: Tensor) -> Tensor:
    """Rates read off from what one step does to the parameters, where the gradient is not 0."""
    data = batch(1)
    start = params[:P]
    module = build_model("mlp_tanh", 3, 1, (5,), seed=1)
    learner.load_into(module, params)
    loss = nn.functional.mse_loss(module(data.support_x[0]), data.support_y[0])
    gradient = torch.cat([g.ravel() for g in torch.autograd.grad(loss, list(module.parameters()))])
    moved = start - learner.adapt(params, data.support_x[0], data.support_y[0], steps=1)[:P]
    return moved / gradient


@RATED
def test_rates_start_as_configured(algorithm: str) -> None:
    learner = learner_of(algorithm, lr=0.03)
    torch.testing.assert_close(
        rates(learner, learner.initial(NET)), torch.full((P,), 0.03), rtol=1e-3, atol=0
    )


@RATED
@given(value=st.floats(-60, 1e6), scale=st.floats(0.01, 100))
def test_no_noise_makes_a_rate_negative(algorithm: str, value: float, scale: float) -> None:
    """Any w: the step still goes down the gradient, or nowhere where float32 has no such rate."""
    learner = learner_of(algorithm, scale=scale)
    params = learner.initial(NET)
    params[P:] = value / scale
    z = math.log(math.e - 1) + scale * float(params[-1])
    expected = 0.1 * (max(z, 0.0) + math.log1p(math.exp(-abs(z))))
    found = rates(learner, params)
    assert bool((found >= 0).all())
    if 1e-3 < expected < 1e3:  # below, the step is rounded away beside the parameter
        assert bool((found > 0).all())
        torch.testing.assert_close(found, torch.full((P,), expected), rtol=2e-2, atol=2e-5)


def test_layers_have_rates_of_their_own_in_every_step() -> None:
    learner = learner_of("meta_sgd_layer", steps=3)
    named = dict(zip(learner.spec.names, learner.spec.shapes, strict=True))
    assert named[RATES] == (3, 2)
    params = learner.initial(NET)
    learner.spec.unflatten(params)[RATES][0] = torch.tensor([2.0, -3.0])
    found = rates(learner, params)
    body = 3 * 5 + 5
    for part, w in ((found[:body], 2.0), (found[body:], -3.0)):
        expected = 0.1 * math.log1p(math.exp(math.log(math.e - 1) + w))
        torch.testing.assert_close(part, torch.full_like(part, expected), rtol=5e-3, atol=0)


def test_a_step_beyond_the_trained_ones_repeats_the_last_rates() -> None:
    learner, data = learner_of("meta_sgd_layer", steps=2), batch(1)
    params = learner.initial(NET)
    learner.spec.unflatten(params)[RATES].copy_(torch.tensor([[1.0, 1.0], [-2.0, 3.0]]))
    x, y = data.support_x[0], data.support_y[0]
    two = learner.adapt(params, x, y, steps=2)
    last = params.clone()
    learner.spec.unflatten(last)[RATES].copy_(torch.tensor([[-2.0, 3.0], [0.0, 0.0]]))
    last[:P] = two[:P]
    expected = learner.adapt(last, x, y, steps=1)[:P]
    torch.testing.assert_close(learner.adapt(params, x, y, steps=3)[:P], expected)


@RATED
def test_the_scale_multiplies_the_rates_share_of_a_vector_and_nothing_else(algorithm: str) -> None:
    plain, scaled, data = learner_of(algorithm), learner_of(algorithm, scale=8.0), batch()
    before, after = (each.outer_vectors(each.initial(NET), data) for each in (plain, scaled))
    torch.testing.assert_close(after[:, :P], before[:, :P])
    torch.testing.assert_close(after[:, P:], 8.0 * before[:, P:])
    assert bool((before[:, P:].norm(dim=1) > 0).all())


@RATED
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_start_and_rates_are_clipped_together(algorithm: str, scale: float) -> None:
    """However the scale divides the norm: with rates and without, one unit moves the sum by l2."""
    parts = assemble(
        tiny({"learner.algorithm": algorithm, "learner.rate_scale": scale, "privacy.clip": 0.01})
    )
    size = parts.plan.parameters
    model = sum(p.numel() for p in parts.module.parameters())
    assert size > model
    data = TaskBatch.stack(
        [
            parts.source.draw(block, 3, 3, key=bytes(32))
            for block in parts.source.client(parts.training[0]).blocks
        ]
    )
    rows = parts.learner.outer_vectors(parts.initial(), data).numpy()
    assert (np.linalg.norm(rows, axis=1) > parts.plan.clip).all()
    for row in rows:
        moved = displacement(parts.plan, Signal(row[None]), bytes(32), round_index=1)
        length = np.linalg.norm(moved.astype(np.float64))
        assert length <= parts.plan.l2
        assert length > 0.9 * parts.plan.clip * parts.plan.scale
        if scale == 1e4:  # nearly all of the clip is the rates'
            assert np.linalg.norm(moved[:model]) < 0.01 * length


def test_a_baseline_with_fewer_coordinates_has_a_plan_of_its_own() -> None:
    parts = assemble(tiny({"learner.algorithm": "meta_sgd"}))
    averager = parts.learner_like("fedavg", inner_steps=1, inner_lr=0.1)
    assert parts.plan.parameters == 2 * averager.spec.size
    plan = parts.plan_for(averager)
    assert plan.parameters == averager.spec.size
    assert (plan.epsilon, plan.rounds, plan.clip) == (3.0, parts.plan.rounds, parts.plan.clip)
    assert parts.plan_for(parts.learner) is parts.plan
    found = train_in_clear_as_planned(parts, averager, Randomness(1))
    assert found.shape == (averager.spec.size,)


def test_rates_learn_the_curvature() -> None:
    """Two inputs of different scale: from one rate for both, each goes towards its own.

    With endless support the best rate of an input of variance s^2 is 1 / (2 s^2): 2 and 1/8.
    """
    net = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(net.weight)
    learner = build_learner("meta_sgd", net, "mse", inner_steps=1, inner_lr=0.02, device="cpu")
    params, g = learner.initial(net), torch.Generator().manual_seed(5)
    scale = torch.tensor([0.5, 2.0])
    for _ in range(300):
        x = torch.randn(64, 20, 2, generator=g) * scale
        y = x @ (torch.randn(64, 2, 1, generator=g) / scale.unsqueeze(1))
        data = TaskBatch(x[:, :10], y[:, :10], x[:, 10:], y[:, 10:])
        step = learner.outer_vectors(params, data).mean(0)
        params = params - 0.5 * step / step.norm()
    low, high = 0.02 * torch.log1p(torch.exp(math.log(math.e - 1) + params[2:]))
    assert 0.05 < high < 1 / 8
    assert 2 * high < low < 2
