"""What every server optimiser in the registry guarantees."""

from __future__ import annotations

import pytest
import torch

from secure_fedmeta.errors import ConfigError
from secure_fedmeta.server_opt import SERVER_OPTIMISERS, ServerOptimiser, ServerState

NAMES = SERVER_OPTIMISERS.names()
START = torch.tensor([1.0, -2.0, 0.5])


def directions(count: int) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(3)
    return [torch.randn(3, generator=g) for _ in range(count)]


@pytest.mark.parametrize("name", NAMES)
def test_update_is_pure(name: str) -> None:
    optimiser = ServerOptimiser(name, lr=0.1, average_from=2)
    state = optimiser.init(START)
    for direction in directions(4):
        before, kept = state.tensors(), direction.clone()
        once, twice = optimiser.update(state, direction), optimiser.update(state, direction)
        assert all(torch.equal(value, twice.tensors()[k]) for k, value in once.tensors().items())
        assert all(torch.equal(value, before[k]) for k, value in state.tensors().items())
        assert torch.equal(direction, kept)
        state = once


@pytest.mark.parametrize("name", NAMES)
def test_init_copies_and_computes_in_float64(name: str) -> None:
    start = START.clone()
    state = ServerOptimiser(name, lr=0.1).init(start)
    start.zero_()
    assert state.params.dtype == torch.float64
    assert torch.equal(state.params, START.double())
    assert torch.equal(state.average, START.double())
    assert (state.rounds, state.averaged) == (0, 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_first_step_goes_against_the_direction(name: str) -> None:
    optimiser = ServerOptimiser(name, lr=0.1)
    (direction,) = directions(1)
    state = optimiser.update(optimiser.init(START), direction)
    assert bool(((state.params - START).sign() == -direction.sign()).all())


@pytest.mark.parametrize("name", NAMES)
def test_a_quadratic_is_minimised(name: str) -> None:
    optimiser = ServerOptimiser(name, lr=0.05)
    state = optimiser.init(START)
    for _ in range(400):
        state = optimiser.update(state, state.params)
    assert float(state.params.norm()) < 1e-2 * float(START.norm())


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_goes_on_bit_for_bit(name: str) -> None:
    optimiser = ServerOptimiser(name, lr=0.1, average_from=2)
    whole = resumed = optimiser.init(START)
    for direction in directions(5):
        whole = optimiser.update(whole, direction)
        resumed = optimiser.update(ServerState.from_tensors(resumed.tensors()), direction)
    assert all(torch.equal(v, resumed.tensors()[k]) for k, v in whole.tensors().items())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("start", [1, 3, 5])
def test_the_average_is_the_mean_of_the_tail(name: str, start: int) -> None:
    optimiser = ServerOptimiser(name, lr=0.1, average_from=start)
    plain = ServerOptimiser(name, lr=0.1)
    state, bare, iterates = optimiser.init(START), plain.init(START), []
    for number, direction in enumerate(directions(6), start=1):
        state, bare = optimiser.update(state, direction), plain.update(bare, direction)
        assert torch.equal(state.params, bare.params)  # averaging never moves the iterates
        iterates.append(state.params)
        tail = iterates[start - 1 :] or [state.params]
        torch.testing.assert_close(state.average, torch.stack(tail).mean(0))
        assert state.averaged == max(0, number - start + 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "bad",
    [
        torch.tensor([1.0, float("nan"), 0.0]),
        torch.tensor([1.0, float("inf"), 0.0]),
        torch.zeros(2),
        torch.zeros(1, 3),
        torch.zeros(3, dtype=torch.int64),
    ],
)
def test_a_bad_direction_is_refused(name: str, bad: torch.Tensor) -> None:
    optimiser = ServerOptimiser(name, lr=0.1)
    with pytest.raises(ConfigError, match="direction"):
        optimiser.update(optimiser.init(START), bad)
