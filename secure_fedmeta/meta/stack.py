"""Closed-form gradients and Hessian-vector products of plain stacks of linear layers.

For a = x, z_l = a_{l-1} W_l^T + b_l, a_l = phi(z_l), the gradient is ordinary backpropagation and
the Hessian-vector product is Pearlmutter's R-operator (1994, "Fast exact multiplication by the
Hessian", Neural Computation 6(1)): differentiate the forward and backward pass once more along
the direction (V_l, u_l). Written out for a cohort as batched matrix products it needs no graph,
which for small models is most of the cost of automatic differentiation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from secure_fedmeta.errors import ConfigError
from secure_fedmeta.losses import Loss
from secure_fedmeta.models import check_module
from secure_fedmeta.vector import ParameterVector

_ACTIVATIONS = {nn.ReLU: "relu", nn.Tanh: "tanh"}


@dataclass(frozen=True)
class Layer:
    """One affine layer: where its weight and bias start, its sizes, and what follows it."""

    weight: int
    bias: int | None
    inputs: int
    outputs: int
    activation: str | None

    def of(self, params: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return views of weight `[..., o, i]` and bias `[..., o]` in `[..., P]`."""
        lead = params.shape[:-1]
        area = self.outputs * self.inputs
        weight = params[..., self.weight : self.weight + area]
        bias = None if self.bias is None else params[..., self.bias : self.bias + self.outputs]
        return weight.view(*lead, self.outputs, self.inputs), bias


class StackEngine:
    """The closed form for linear layers with ReLU, tanh or nothing between them.

    Equal to automatic differentiation up to rounding, with ReLU's derivative 0 at 0 as in torch.
    Inputs are rows of features: `x` is `[B, n, f]`.
    """

    def __init__(self, spec: ParameterVector, layers: tuple[Layer, ...], loss: Loss) -> None:
        if loss.slope is None or loss.curvature is None:
            raise ConfigError(f"loss {loss.name!r} has no derivatives in closed form")
        self.spec = spec
        self._layers = layers
        self._slope = loss.slope
        self._curvature = loss.curvature

    @classmethod
    def of(cls, module: nn.Module, loss: Loss) -> StackEngine | None:
        """Return the engine, or None if the module or the loss has no closed form here."""
        check_module(module)
        if loss.slope is None or loss.curvature is None:
            return None
        spec = ParameterVector.of(module)
        layers = _layers(module, spec)
        return None if layers is None else cls(spec, layers, loss)

    def outputs(self, params: Tensor, x: Tensor) -> Tensor:
        """Return the model's outputs `[B, n, o]`."""
        return self._forward(params, x)[-1]

    def gradient(self, params: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return the gradient `[B, P]` of each task's mean loss."""
        return self._backward(params, self._forward(params, x), y)[0]

    def linearise(
        self, params: Tensor, x: Tensor, y: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return the gradient, and v -> H v from the activations that it left behind."""
        held = self._forward(params, x)
        gradient, deltas = self._backward(params, held, y)
        return gradient, lambda v: self._product(params, held, deltas, y, v)

    def task_bytes(self, x: Tensor, y: Tensor) -> int:
        """Return the bytes of activations, deltas and their tangents for one task."""
        widths = sum(layer.inputs + 4 * layer.outputs for layer in self._layers)
        return 4 * x.shape[1] * widths

    def _forward(self, params: Tensor, x: Tensor) -> list[Tensor]:
        """Return the input of every layer, and the outputs."""
        if x.ndim != 3 or x.shape[-1] != self._layers[0].inputs:
            raise ConfigError(
                f"x of shape {list(x.shape)}; allowed: [tasks, rows, {self._layers[0].inputs}]"
            )
        held = [x.to(params.dtype)]
        for layer in self._layers:
            weight, bias = layer.of(params)
            z = _affine(held[-1], weight, bias)
            if layer.activation == "relu":
                z.relu_()
            elif layer.activation == "tanh":
                z.tanh_()
            held.append(z)
        return held

    def _backward(
        self, params: Tensor, held: list[Tensor], y: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the gradient and, per layer, the derivative of the loss in z_l."""
        gradient = params.new_empty(held[0].shape[0], self.spec.size)
        delta = self._slope(held[-1], y)
        deltas = []
        for index in reversed(range(len(self._layers))):
            layer = self._layers[index]
            deltas.append(delta)
            weight, bias = layer.of(gradient)
            torch.bmm(delta.mT, held[index], out=weight)
            if bias is not None:
                torch.sum(delta, 1, out=bias)
            if index:
                delta = _matmul(delta, layer.of(params)[0])
                delta = _through(self._layers[index - 1].activation, delta, held[index])
        return gradient, deltas[::-1]

    def _product(
        self, params: Tensor, held: list[Tensor], deltas: list[Tensor], y: Tensor, v: Tensor
    ) -> Tensor:
        """Return H v: `R` marks derivatives along v of the quantity that follows."""
        weights = [layer.of(params)[0] for layer in self._layers]
        tangents: list[Tensor] = []  # Ra_1, Ra_2, ..., R of the outputs
        for index, layer in enumerate(self._layers):
            Rz = _affine(held[index], *layer.of(v))
            if index:
                Rz = _add_product(Rz, tangents[-1], weights[index].mT)
            tangents.append(_through(layer.activation, Rz, held[index + 1]))
        product = torch.empty_like(v)
        Rdelta = self._curvature(held[-1], y, tangents[-1])
        for index in reversed(range(len(self._layers))):
            layer, delta, a = self._layers[index], deltas[index], held[index]
            weight, bias = layer.of(product)
            torch.bmm(Rdelta.mT, a, out=weight)
            if bias is not None:
                torch.sum(Rdelta, 1, out=bias)
            if index == 0:
                break
            Ra = tangents[index - 1]
            weight.baddbmm_(delta.mT, Ra)
            below = self._layers[index - 1].activation
            Rdelta = _matmul(Rdelta, weights[index]).baddbmm_(delta, layer.of(v)[0])
            Rdelta = _through(below, Rdelta, a)
            if below == "tanh":  # phi'' Rz = -2 a phi' Rz = -2 a Ra
                Rdelta.addcmul_(_matmul(delta, weights[index]).mul_(a), Ra, value=-2)
        return product


def _affine(a: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if weight.ndim == 2:
        return nn.functional.linear(a, weight, bias)
    if bias is None:
        return torch.bmm(a, weight.mT)
    return torch.baddbmm(bias.unsqueeze(1), a, weight.mT)


def _matmul(a: Tensor, weight: Tensor) -> Tensor:
    return torch.bmm(a, weight) if weight.ndim == 3 else torch.matmul(a, weight)


def _add_product(total: Tensor, a: Tensor, weight: Tensor) -> Tensor:
    if weight.ndim == 3:
        return total.baddbmm_(a, weight)
    return total.view(-1, total.shape[-1]).addmm_(a.reshape(-1, a.shape[-1]), weight).view_as(total)


def _through(activation: str | None, upstream: Tensor, a: Tensor) -> Tensor:
    """Return upstream times phi'(z), with phi' from the activation a = phi(z)."""
    result = upstream
    if activation == "relu":
        result = torch.ops.aten.threshold_backward(upstream, a, 0)
    elif activation == "tanh":
        result = torch.ops.aten.tanh_backward(upstream, a)
    return result


def _layers(module: nn.Module, spec: ParameterVector) -> tuple[Layer, ...] | None:
    """Read a stack of linear layers, or return None for anything else."""
    starts = dict(zip(spec.names, spec.offsets, strict=True))
    layers: list[Layer] = []
    for name, part in _leaves("", module):
        if _hooked(part):
            return None
        if type(part) is nn.Linear:
            prefix = f"{name}." if name else ""
            weight, bias = f"{prefix}weight", f"{prefix}bias"
            if weight not in starts or (part.bias is not None and bias not in starts):
                return None
            layers.append(
                Layer(starts[weight], starts.get(bias), part.in_features, part.out_features, None)
            )
        elif type(part) in _ACTIVATIONS and layers and layers[-1].activation is None:
            layers[-1] = replace(layers[-1], activation=_ACTIVATIONS[type(part)])
        else:
            return None
    covered = sum(one.outputs * (one.inputs + (one.bias is not None)) for one in layers)
    if not layers or layers[-1].activation is not None or covered != spec.size:
        return None
    return tuple(layers)


def _leaves(name: str, part: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the leaves of nested `Sequential` modules in the order in which they run."""
    if type(part) is nn.Sequential and not _hooked(part):
        for key, child in part.named_children():
            yield from _leaves(f"{name}.{key}" if name else key, child)
    else:
        yield name, part


def _hooked(part: nn.Module) -> bool:
    return bool(part._forward_hooks or part._forward_pre_hooks or part._backward_hooks)
