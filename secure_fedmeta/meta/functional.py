"""Cohort gradients of any module: `torch.func` over the forward pass, plain autograd backwards.

Each task owns a row of a `[B, P]` leaf, so tasks never mix and one backward pass gives every
task's gradient. Only the forward pass runs under `vmap`; differentiating the batched graph by
plain autograd is several times cheaper than `vmap(grad(...))` for small models, and its double
backward gives Hessian-vector products.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from secure_fedmeta.errors import ConfigError
from secure_fedmeta.losses import Loss
from secure_fedmeta.models import check_module
from secure_fedmeta.vector import ParameterVector, constants_of


class FunctionalEngine:
    """The general engine; the module itself is copied and never changed.

    Raises:
        ConfigError: `check_module` refuses the module; or, at the first call, the module changes
            one of its buffers or cannot run under `vmap`.
    """

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        check_module(module)
        self.spec = ParameterVector.of(module)
        self._loss = loss
        self._module = copy.deepcopy(module)
        self._constants: dict[torch.device, dict[str, Tensor]] = {}

    def outputs(self, params: Tensor, x: Tensor) -> Tensor:
        """Return the model's outputs `[B, n, o]`."""
        with torch.no_grad():
            if params.ndim == 1:
                return self._batched(self._forward, (None, 0), params, x)
            return self._batched(self._forward, (0, 0), params, x)

    def gradient(self, params: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return the gradient `[B, P]` of each task's mean loss."""
        leaf = _leaf(params, x.shape[0])
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self._losses(leaf, x, y), leaf)
        return gradient

    def linearise(
        self, params: Tensor, x: Tensor, y: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return the gradient, and v -> H v by differentiating it again."""
        leaf = _leaf(params, x.shape[0])
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self._losses(leaf, x, y), leaf, create_graph=True)

        def product(v: Tensor) -> Tensor:
            if not gradient.requires_grad:  # the loss is affine in the parameters
                return torch.zeros_like(v)
            (result,) = torch.autograd.grad(
                gradient, leaf, v, allow_unused=True, materialize_grads=True
            )
            return result

        return gradient.detach(), product

    def task_bytes(self, x: Tensor, y: Tensor) -> int:
        """Count what autograd keeps for one task, times 4 for the second backward pass."""
        seen: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        device = x.device
        leaf = torch.zeros(self.spec.size, device=device, requires_grad=True)
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            held = self._loss.value(self._forward(leaf, x[0]), y[0])
        del held
        return 4 * sum(seen.values())

    def _losses(self, leaf: Tensor, x: Tensor, y: Tensor) -> Tensor:
        def one(params: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return self._loss.value(self._forward(params, x), y)

        return self._batched(one, (0, 0, 0), leaf, x, y).sum()

    def _forward(self, params: Tensor, x: Tensor) -> Tensor:
        held = self._constants_on(params.device)
        outputs: Tensor = functional_call(self._module, (self.spec.unflatten(params), held), (x,))
        return outputs

    def _batched(
        self, function: Callable[..., Tensor], in_dims: tuple[int | None, ...], *args: Tensor
    ) -> Tensor:
        held = self._constants_on(args[0].device)
        before = {name: tensor._version for name, tensor in held.items()}
        try:
            result: Tensor = vmap(function, in_dims=in_dims)(*args)
        except RuntimeError as error:
            raise ConfigError(f"the model cannot run over a cohort: {error}") from error
        changed = [name for name, tensor in held.items() if tensor._version != before[name]]
        if changed:
            raise ConfigError(
                f"the model changes {', '.join(sorted(changed))} in its forward pass: state that "
                "tasks share is refused"
            )
        return result

    def _constants_on(self, device: torch.device) -> dict[str, Tensor]:
        if device not in self._constants:
            held = constants_of(self._module)
            self._constants[device] = {name: t.to(device, copy=True) for name, t in held.items()}
        return self._constants[device]


def _leaf(params: Tensor, tasks: int) -> Tensor:
    return params.detach().expand(tasks, params.shape[-1]).requires_grad_()
