"""Server optimisers against torch.optim, their constants and their checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from secure_fedmeta.errors import ConfigError
from secure_fedmeta.server_opt import ServerOptimiser, ServerState

Peer = Callable[[list[torch.Tensor]], torch.optim.Optimizer]


@pytest.mark.parametrize(
    ("optimiser", "peer"),
    [
        (ServerOptimiser("sgd", lr=0.3), lambda p: torch.optim.SGD(p, lr=0.3)),
        (
            ServerOptimiser("momentum", lr=0.3, momentum=0.8),
            lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.8),
        ),
        (
            ServerOptimiser("adam", lr=0.3, momentum=0.85, second_decay=0.95, floor=1e-6),
            lambda p: torch.optim.Adam(p, lr=0.3, betas=(0.85, 0.95), eps=1e-6),
        ),
    ],
    ids=["sgd", "momentum", "adam"],
)
def test_iterates_are_those_of_torch(optimiser: ServerOptimiser, peer: Peer) -> None:
    g = torch.Generator().manual_seed(2)
    start = torch.randn(6, generator=g, dtype=torch.float64)
    params = start.clone().requires_grad_()
    torch_optimiser = peer([params])
    state = optimiser.init(start)
    for _ in range(12):
        direction = torch.randn(6, generator=g, dtype=torch.float64)
        params.grad = direction.clone()
        torch_optimiser.step()
        state = optimiser.update(state, direction)
        torch.testing.assert_close(state.params, params.detach(), atol=1e-12, rtol=1e-12)


def test_yogi_is_the_published_rule() -> None:
    """FedYogi as Reddi et al. (2021) write it, coordinate by coordinate.

    Algorithm 2: Delta_t is the average displacement, here minus the direction; m from 0 and v from
    tau^2, the least that the paper allows.
    """
    g = torch.Generator().manual_seed(2)
    beta1, beta2, tau, eta = 0.85, 0.95, 1e-3, 0.3
    optimiser = ServerOptimiser("yogi", lr=eta, momentum=beta1, second_decay=beta2, floor=tau)
    start = torch.randn(6, generator=g, dtype=torch.float64)
    state = optimiser.init(start)
    x, m, v = start.tolist(), [0.0] * 6, [tau * tau] * 6
    for number in range(12):
        direction = torch.randn(6, generator=g, dtype=torch.float64) / (1 + number)
        state = optimiser.update(state, direction)
        for i, moved in enumerate((-direction).tolist()):
            m[i] = beta1 * m[i] + (1 - beta1) * moved
            sign = math.copysign(1.0, v[i] - moved**2)
            v[i] = v[i] - (1 - beta2) * moved**2 * sign
            x[i] = x[i] + eta * m[i] / (math.sqrt(v[i]) + tau)
        expected = torch.tensor(x, dtype=torch.float64)
        torch.testing.assert_close(state.params, expected, atol=1e-12, rtol=1e-12)


def test_after_large_directions_yogi_keeps_its_step_small_for_longer_than_adam() -> None:
    """What Yogi is for: v comes down by (1 - beta2) g^2 a round, not by a fraction of itself."""
    steps = {}
    for name in ("adam", "yogi"):
        optimiser = ServerOptimiser(name, lr=1.0, momentum=0.0, second_decay=0.9)
        state = optimiser.init(torch.zeros(1))
        for size in [10.0] * 20 + [0.1] * 200:
            before, state = state, optimiser.update(state, torch.full((1,), size))
        steps[name] = float((before.params - state.params).abs())
    assert steps["adam"] == pytest.approx(1.0, rel=0.01)
    assert steps["yogi"] < 0.02


def test_averaging_beats_the_last_iterate_under_noise() -> None:
    """On a noisy quadratic the tail mean is closer to the optimum than the last iterate."""
    g = torch.Generator().manual_seed(5)
    optimiser = ServerOptimiser("sgd", lr=0.2, average_from=30)
    state = optimiser.init(torch.full((200,), 3.0))
    for _ in range(150):
        noise = torch.randn(200, generator=g, dtype=torch.float64)
        state = optimiser.update(state, state.params + noise)
    assert float(state.average.norm()) < 0.5 * float(state.params.norm())


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"name": "adm"}, "server.optimiser"),
        ({"lr": 0.0}, "server.lr"),
        ({"lr": float("nan")}, "server.lr"),
        ({"floor": 0.0}, "server.floor"),
        ({"momentum": 1.0}, "server.momentum"),
        ({"second_decay": -0.1}, "server.second_decay"),
        ({"average_from": 0}, "server.average_from"),
    ],
)
def test_constants_out_of_range_are_refused(change: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ServerOptimiser(**({"name": "adam", "lr": 0.1} | change))
    assert caught.value.key == key


@pytest.mark.parametrize(
    "params", [torch.zeros(0), torch.zeros(2, 2), torch.tensor([float("inf")])]
)
def test_bad_starting_points_are_refused(params: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="params"):
        ServerOptimiser("sgd", lr=0.1).init(params)


@pytest.mark.parametrize(
    "change",
    [
        {"extra": torch.zeros(1)},
        {"first": torch.zeros(3)},
        {"rounds": torch.tensor(-1)},
        {"rounds": torch.tensor(1.0)},
        {"averaged": torch.tensor([1])},
        {"average": torch.tensor([float("nan"), 0.0])},
    ],
)
def test_damaged_checkpoints_are_refused(change: dict[str, torch.Tensor]) -> None:
    held = ServerOptimiser("sgd", lr=0.1).init(torch.zeros(2)).tensors()
    with pytest.raises(ConfigError):
        ServerState.from_tensors(held | change)


def test_a_checkpoint_without_a_field_is_refused() -> None:
    held = ServerOptimiser("sgd", lr=0.1).init(torch.zeros(2)).tensors()
    del held["second"]
    with pytest.raises(ConfigError, match="allowed"):
        ServerState.from_tensors(held)
