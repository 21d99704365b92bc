"""Closed-form gradients and Hessian-vector products of plain stacks of linear layers.

For a = x, z_l = a_{l-1} W_l^T + b_l, a_l = phi(z_l), the gradient is ordinary backpropagation and
the Hessian-vector product is Pearlmutter's R-operator (1994, "Fast exact multiplication by the
Hessian", Neural Computation 6(1)): differentiate the forward and backward pass once more along
the direction (V_l, u_l). Written out for a cohort as batched matrix products it needs no graph,
which for small models is most of the cost of automatic differentiation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from secure_fedmeta.errors import ConfigError
from secure_fedmeta.losses import Loss
from secure_fedmeta.meta.buffers import Buffers
from secure_fedmeta.models import check_module
from secure_fedmeta.vector import ParameterVector

_ACTIVATIONS = {nn.ReLU: "relu", nn.Tanh: "tanh"}


@dataclass(frozen=True)
class Layer:
    """One affine layer: its sizes, and the activation that follows it."""

    inputs: int
    outputs: int
    bias: bool
    activation: str | None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Lengths of its parts in the vector: weight, then bias."""
        area = self.outputs * self.inputs
        return (area, self.outputs) if self.bias else (area,)


Weights = list[tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class _Tape:
    """What a forward and backward pass leave behind for the Hessian-vector product.

    Attributes:
        weights: weight and bias per layer.
        inputs: x, a_1, ..., a_L: the input of every layer, then the outputs.
        deltas: the derivative of the loss in z_1, ..., z_L.
        targets: y.
    """

    weights: Weights
    inputs: list[Tensor]
    deltas: list[Tensor]
    targets: Tensor


class StackEngine:
    """The closed form for linear layers with ReLU, tanh or nothing between them.

    Equal to automatic differentiation up to rounding, with ReLU's derivative 0 at 0 as in torch.
    Inputs are rows of features: `x` is `[B, n, f]`. See `Engine` for what the methods guarantee.
    """

    def __init__(self, spec: ParameterVector, layers: tuple[Layer, ...], loss: Loss) -> None:
        if loss.slope is None or loss.curvature is None:
            raise ConfigError(f"loss {loss.name!r} has no derivatives in closed form")
        self.spec = spec
        self.pass_bytes: int | None = None  # its memory is kept from pass to pass
        self._layers = layers
        self._sizes = [size for layer in layers for size in layer.sizes]
        self._slope = loss.slope
        self._curvature = loss.curvature
        self._buffers = Buffers()
        self._slopes = Buffers()  # the same shapes in the same order in every pass

    @classmethod
    def of(cls, module: nn.Module, loss: Loss) -> StackEngine | None:
        """Return the engine, or None if the module or the loss has no closed form here."""
        check_module(module)
        if loss.slope is None or loss.curvature is None:
            return None
        spec = ParameterVector.of(module)
        layers = _layers(module, spec)
        return None if layers is None else cls(spec, layers, loss)

    def reuse(self) -> AbstractContextManager[None]:
        """Return a block in which results live in kept memory, and only until it ends."""
        return self._buffers

    def outputs(self, params: Tensor, x: Tensor) -> Tensor:
        """Return the model's outputs `[B, n, o]`."""
        return self._forward(self._weights(params), self._rows(params, x))[-1]

    def gradient(self, params: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return the gradient `[B, P]` of each task's mean loss."""
        result = self._buffers.empty(params, x.shape[0], self.spec.size)
        with self._buffers:
            self._backward(result, params, x, y)
        return result

    def linearise(
        self, params: Tensor, x: Tensor, y: Tensor
    ) -> tuple[Tensor, Callable[[Tensor, Tensor, float], None]]:
        """Return the gradient, and the pull-back from the activations that it left behind."""
        gradient = self._buffers.empty(params, x.shape[0], self.spec.size)
        tape = self._backward(gradient, params, x, y)
        return gradient, lambda outer, v, lr: self._pull_back(tape, outer, v, lr)

    def task_bytes(self, x: Tensor, y: Tensor) -> int:
        """Return the bytes of activations, deltas and their tangents for one task."""
        del y
        widths = sum(layer.inputs + 4 * layer.outputs for layer in self._layers)
        return 8 * x.shape[1] * widths

    def _weights(self, params: Tensor) -> Weights:
        """Return views of weight `[..., o, i]` and bias `[..., 1, o]` per layer."""
        parts = iter(params.split_with_sizes(self._sizes, -1))
        lead = params.shape[:-1]
        weights: Weights = []
        for layer in self._layers:
            weight = next(parts).view(*lead, layer.outputs, layer.inputs)
            weights.append((weight, next(parts).unsqueeze(-2) if layer.bias else None))
        return weights

    def _rows(self, params: Tensor, x: Tensor) -> Tensor:
        if x.ndim != 3 or x.shape[-1] != self._layers[0].inputs:
            raise ConfigError(
                f"x of shape {list(x.shape)}; allowed: [tasks, rows, {self._layers[0].inputs}]"
            )
        return x.to(params.dtype).contiguous()

    def _forward(self, weights: Weights, x: Tensor) -> list[Tensor]:
        """Return x, a_1, ..., a_L."""
        held = [x]
        for layer, (weight, bias) in zip(self._layers, weights, strict=True):
            a = self._affine(held[-1], weight, bias)
            if layer.activation == "relu":
                a.relu_()
            elif layer.activation == "tanh":
                a.tanh_()
            held.append(a)
        return held

    def _backward(self, gradient: Tensor, params: Tensor, x: Tensor, y: Tensor) -> _Tape:
        """Write the gradient, and return what `_pull_back` needs."""
        weights = self._weights(params)
        held = self._forward(weights, self._rows(params, x))
        parts = self._weights(gradient)
        delta = self._slope(held[-1], y)
        deltas = [delta]
        with self._slopes:
            for index in reversed(range(len(self._layers))):
                a, (weight, bias) = held[index], parts[index]
                weight.copy_(self._outer_product(delta, a))
                if bias is not None:
                    torch.sum(delta, 1, keepdim=True, out=bias)
                if index:
                    delta = self._matmul(delta, weights[index][0])
                    _times_slope(delta, self._layers[index - 1].activation, a)
                    deltas.append(delta)
        return _Tape(weights, held, deltas[::-1], y)

    def _pull_back(self, tape: _Tape, outer: Tensor, v: Tensor, lr: float) -> None:
        """Subtract lr H v from `outer`; `R` marks the derivative along v of what follows.

        A layer's part of v is not read again once its part of `outer` is written, so the two may
        be one tensor.
        """
        with self._buffers, self._slopes:
            directions, parts = self._weights(v), self._weights(outer)
            tangents = self._tangents(tape, directions)
            Rdelta = self._curvature(tape.inputs[-1], tape.targets, tangents[-1])
            for index in reversed(range(len(self._layers))):
                delta, a, (weight, bias) = tape.deltas[index], tape.inputs[index], parts[index]
                slope = self._outer_product(Rdelta, a)
                bias_slope = Rdelta.sum(1, keepdim=True)
                if index:
                    W, Ra = tape.weights[index][0], tangents[index - 1]
                    slope.baddbmm_(delta.mT, Ra)
                    below = self._layers[index - 1].activation
                    Rdelta = self._matmul(Rdelta, W).baddbmm_(delta, directions[index][0])
                    _times_slope(Rdelta, below, a)
                    if below == "tanh":  # phi'' Rz = -2 a phi' Rz = -2 a Ra
                        Rdelta.addcmul_(self._matmul(delta, W).mul_(a), Ra, value=-2)
                weight.sub_(slope, alpha=lr)
                if bias is not None:
                    bias.sub_(bias_slope, alpha=lr)

    def _tangents(self, tape: _Tape, directions: Weights) -> list[Tensor]:
        """Return Ra_1, ..., Ra_L; x does not depend on the parameters, so Rx = 0."""
        tangents: list[Tensor] = []
        for index, layer in enumerate(self._layers):
            Rz = self._affine(tape.inputs[index], *directions[index])
            if index:
                _add_matmul(Rz, tangents[-1], tape.weights[index][0].mT)
            _times_slope(Rz, layer.activation, tape.inputs[index + 1])
            tangents.append(Rz)
        return tangents

    def _affine(self, a: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return a W^T + b."""
        result = self._buffers.empty(a, *a.shape[:-1], weight.shape[-2])
        if bias is None:
            return _matmul_into(result, a, weight.mT)
        if weight.ndim == 3:
            return torch.baddbmm(bias, a, weight.mT, out=result)
        torch.addmm(bias, a.flatten(0, 1), weight.mT, out=result.view(-1, result.shape[-1]))
        return result

    def _matmul(self, a: Tensor, weight: Tensor) -> Tensor:
        result = self._buffers.empty(a, *a.shape[:-1], weight.shape[-1])
        return _matmul_into(result, a, weight)

    def _outer_product(self, delta: Tensor, a: Tensor) -> Tensor:
        """Return delta^T a `[B, o, i]`; not into a view: torch has no batched kernel for that."""
        result = self._slopes.empty(a, a.shape[0], delta.shape[-1], a.shape[-1])
        return torch.bmm(delta.mT, a, out=result)


def _matmul_into(result: Tensor, a: Tensor, weight: Tensor) -> Tensor:
    """Write a W, with one W for all tasks (2-d) or one for each (3-d)."""
    if weight.ndim == 3:
        return torch.bmm(a, weight, out=result)
    torch.mm(a.flatten(0, 1), weight, out=result.view(-1, result.shape[-1]))
    return result


def _add_matmul(total: Tensor, a: Tensor, weight: Tensor) -> None:
    if weight.ndim == 3:
        total.baddbmm_(a, weight)
    else:
        total.view(-1, total.shape[-1]).addmm_(a.flatten(0, 1), weight)


def _times_slope(upstream: Tensor, activation: str | None, a: Tensor) -> None:
    """Multiply in place by phi'(z), known from the activation a = phi(z)."""
    if activation == "relu":
        torch.ops.aten.threshold_backward(upstream, a, 0, grad_input=upstream)
    elif activation == "tanh":
        torch.ops.aten.tanh_backward(upstream, a, grad_input=upstream)


def _layers(module: nn.Module, spec: ParameterVector) -> tuple[Layer, ...] | None:
    """Read a stack of linear layers, or return None for anything else."""
    layers: list[Layer] = []
    names: list[str] = []
    for name, part in _leaves("", module):
        if _hooked(part):
            return None
        if type(part) is nn.Linear:
            prefix = f"{name}." if name else ""
            names += [f"{prefix}{key}" for key, _ in part.named_parameters()]
            has_bias = part.bias is not None
            layers.append(Layer(part.in_features, part.out_features, has_bias, None))
        elif type(part) in _ACTIVATIONS and layers and layers[-1].activation is None:
            layers[-1] = replace(layers[-1], activation=_ACTIVATIONS[type(part)])
        else:
            return None
    # Shared and frozen layers are not in the vector once per use: they are left to autograd.
    if not layers or layers[-1].activation is not None or tuple(names) != spec.names:
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
