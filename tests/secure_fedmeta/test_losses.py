"""Losses and their derivatives in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secure_fedmeta.errors import ConfigError
from secure_fedmeta.losses import LOSSES

SHAPES = {"mse": [(1, None), (3, None)], "cross_entropy": [(1, 2), (2, 2), (5, 5)]}
CASES = [(name, *shape) for name in LOSSES.names() for shape in SHAPES[name]]


def draw(outputs: int, classes: int | None) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(4)
    z = torch.randn(3, 6, outputs, generator=g, dtype=torch.float64)
    v = torch.randn(3, 6, outputs, generator=g, dtype=torch.float64)
    if classes is None:
        return z, torch.randn(3, 6, outputs, generator=g, dtype=torch.float64), v
    return z, torch.randint(0, classes, (3, 6), generator=g), v


@pytest.mark.parametrize(("name", "outputs", "classes"), CASES)
def test_slope_and_curvature_are_the_derivatives(
    name: str, outputs: int, classes: int | None
) -> None:
    loss = LOSSES.get(name)
    z, y, v = draw(outputs, classes)
    assert loss.slope is not None
    assert loss.curvature is not None
    slope, curvature = loss.slope(z, y), loss.curvature(z, y, v)
    for task in range(3):

        def value(outputs: Tensor, y: Tensor = y[task]) -> Tensor:
            return loss.value(outputs, y)

        expected = torch.autograd.functional.jacobian(value, z[task])
        torch.testing.assert_close(slope[task], expected, atol=1e-12, rtol=1e-9)
        _, expected = torch.autograd.functional.hvp(value, z[task], v[task])
        torch.testing.assert_close(curvature[task], expected, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize(("name", "outputs", "classes"), CASES)
def test_derivatives_leave_their_inputs_alone(name: str, outputs: int, classes: int | None) -> None:
    loss = LOSSES.get(name)
    inputs = draw(outputs, classes)
    kept = [tensor.clone() for tensor in inputs]
    loss.slope(*inputs[:2])
    loss.curvature(*inputs)
    assert all(torch.equal(now, then) for now, then in zip(inputs, kept, strict=True))


def test_values_are_those_of_the_textbook() -> None:
    mse = LOSSES.get("mse").value
    assert float(mse(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 1.0]))) == 2.5
    cross_entropy = LOSSES.get("cross_entropy").value
    logits = torch.tensor([[0.0], [0.0]])
    half = torch.tensor(2.0).log()
    torch.testing.assert_close(cross_entropy(logits, torch.tensor([0, 1])), half)
    torch.testing.assert_close(cross_entropy(torch.zeros(2, 2), torch.tensor([0, 1])), half)


def test_two_classes_agree_with_one_logit() -> None:
    loss = LOSSES.get("cross_entropy").value
    z, y, _ = draw(1, 2)
    two = torch.cat([torch.zeros_like(z[0]), z[0]], dim=-1)
    torch.testing.assert_close(loss(z[0], y[0]), loss(two, y[0]))


def test_large_logits_do_not_overflow() -> None:
    loss = LOSSES.get("cross_entropy")
    for z in (torch.tensor([[[1e4]]]), torch.tensor([[[1e4, -1e4]]])):
        y = torch.tensor([[1]])
        assert bool(torch.isfinite(loss.value(z[0], y[0])))
        assert bool(torch.isfinite(loss.slope(z, y)).all())
        assert bool(torch.isfinite(loss.curvature(z, y, torch.ones_like(z))).all())


def test_targets_are_never_broadcast() -> None:
    with pytest.raises(ConfigError, match="targets of shape"):
        LOSSES.get("mse").value(torch.zeros(4, 2), torch.zeros(4))
