"""Cohort gradients of any module: `torch.func` over the forward pass, plain autograd backwards.

Each task owns a row of a `[B, P]` leaf, so tasks never mix and one backward pass gives every
task's gradient. Only the forward pass runs under `vmap`; differentiating the batched graph by
plain autograd is several times cheaper than `vmap(grad(...))` for small models, and its double
backward gives Hessian-vector products.

torch has no batched form of recurrent layers over their parameters. For modules that hold one,
`one_by_one` takes the place of `vmap`: the same forward passes, one task after the other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from secure_fedmeta.errors import ConfigError
from secure_fedmeta.losses import Loss
from secure_fedmeta.meta.apart import Attributes, LookUpsApart
from secure_fedmeta.models import check_module, is_recurrent
from secure_fedmeta.vector import ParameterVector, constants_of

Dims = tuple[int | None, ...]
Forward = Callable[..., Tensor]
Each = Callable[[Forward, Dims], Forward]
"""`(function, in_dims) -> function over the rows of its arguments`, as `torch.func.vmap`."""


PASS_BYTES = 192 * 2**20
"""Beyond this a pass over a convolutional net takes up to 1.4 times as long for each task: its
intermediate results are too large for the allocator to keep, and come back as fresh pages."""


def one_by_one(function: Forward, in_dims: Dims) -> Forward:
    """Return what `vmap` returns, computed row by row.

    cuDNN's recurrent kernels have no second derivative and are switched off. As under `vmap`,
    drawing from the process-wide random generator is an error.
    """

    def over_rows(*args: Tensor) -> Tensor:
        rows = next(len(arg) for arg, dim in zip(args, in_dims, strict=True) if dim == 0)
        device = args[0].device
        before = _generators(device)
        with torch.backends.cudnn.flags(enabled=False):
            results = [
                function(
                    *(arg if d is None else arg[row] for arg, d in zip(args, in_dims, strict=True))
                )
                for row in range(rows)
            ]
        if any(not torch.equal(*pair) for pair in zip(before, _generators(device), strict=True)):
            raise RuntimeError("it draws from the process-wide random generator")
        return torch.stack(results)

    return over_rows


def _generators(device: torch.device) -> list[Tensor]:
    """The states of the process-wide random generators that a pass on `device` can draw from."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def vectorised(function: Forward, in_dims: Dims) -> Forward:
    """Return `function` over all rows at once."""
    return vmap(function, in_dims=in_dims)


class FunctionalEngine:
    """The general engine; the module is copied, so that later changes to it have no effect.

    See `Engine` for what the methods guarantee.

    Args:
        module: the network.
        loss: its loss.
        each: how a pass runs over tasks; None takes `one_by_one` for modules with recurrent
            layers and `vectorised` for all others.

    Raises:
        ConfigError: `check_module` refuses the module; or, at the first call, the module changes
            one of its buffers or attributes, draws random numbers or cannot run under `vmap`.
    """

    def __init__(self, module: nn.Module, loss: Loss, *, each: Each | None = None) -> None:
        check_module(module)
        self._each = each or (one_by_one if is_recurrent(module) else vectorised)
        self.spec = ParameterVector.of(module)
        self.pass_bytes: int | None = PASS_BYTES
        self._loss = loss
        self._module = copy.deepcopy(module)
        self._attributes = Attributes(self._module)
        self._constants: dict[torch.device, dict[str, Tensor]] = {}
        self._task_bytes: dict[tuple[torch.Size, torch.Size], int] = {}

    def reuse(self) -> AbstractContextManager[None]:
        """Return a block without effect: autograd owns its memory."""
        return nullcontext()

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
    ) -> tuple[Tensor, Callable[[Tensor, Tensor, float], None]]:
        """Return the gradient, and the pull-back by differentiating it again."""
        leaf = _leaf(params, x.shape[0])
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self._losses(leaf, x, y), leaf, create_graph=True)

        def pull_back(outer: Tensor, v: Tensor, lr: float) -> None:
            if gradient.requires_grad:  # else the loss is affine in the parameters: H = 0
                (product,) = torch.autograd.grad(
                    gradient, leaf, v, allow_unused=True, materialize_grads=True
                )
                outer.sub_(product, alpha=lr)

        return gradient.detach().clone(), pull_back

    def task_bytes(self, x: Tensor, y: Tensor) -> int:
        """Count what autograd keeps for one task, times 4 for the second backward pass.

        The task is one of zeros: how a cohort is split never depends on what a task holds.
        """
        shapes = (x.shape[1:], y.shape[1:])
        if shapes not in self._task_bytes:
            nothing = torch.zeros_like(x[0]), torch.zeros_like(y[0])
            self._task_bytes[shapes] = 4 * self._kept_by_autograd(*nothing)
        return self._task_bytes[shapes]

    def _kept_by_autograd(self, x: Tensor, y: Tensor) -> int:
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        leaf = torch.zeros(self.spec.size, device=x.device, requires_grad=True)
        with _refusals(), torch.enable_grad():
            with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                graph = self._loss.value(self._forward(leaf, x), y)
            del graph  # alive until here, so that no two storages share an address
        return sum(kept.values())

    def _losses(self, leaf: Tensor, x: Tensor, y: Tensor) -> Tensor:
        def one(params: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return self._loss.value(self._forward(params, x), y)

        return self._batched(one, (0, 0, 0), leaf, x, y).sum()

    def _forward(self, params: Tensor, x: Tensor) -> Tensor:
        held = self._constants_on(params.device)
        with LookUpsApart():
            outputs: Tensor = functional_call(
                self._module, (self.spec.unflatten(params), held), (x,)
            )
        # After each task, where tasks run one by one: what comes back to its start is state too.
        _refuse_state(self._attributes.changed())
        return outputs

    def _batched(self, function: Forward, in_dims: Dims, *args: Tensor) -> Tensor:
        held = self._constants_on(args[0].device)
        before = {name: tensor._version for name, tensor in held.items()}
        with _refusals():
            result = self._each(function, in_dims)(*args)
        _refuse_state([name for name, one in held.items() if one._version != before[name]])
        return result

    def _constants_on(self, device: torch.device) -> dict[str, Tensor]:
        if device not in self._constants:
            held = constants_of(self._module)
            self._constants[device] = {name: t.to(device, copy=True) for name, t in held.items()}
        return self._constants[device]


def _refuse_state(changed: list[str]) -> None:
    if changed:
        raise ConfigError(
            f"the model changes {', '.join(sorted(changed))} in its forward pass: state that "
            "tasks share is refused"
        )


def _leaf(params: Tensor, tasks: int) -> Tensor:
    return params.detach().expand(tasks, params.shape[-1]).requires_grad_()


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn torch's complaints about the model or the shapes into this package's error."""
    try:
        yield
    except (RuntimeError, IndexError) as error:
        raise ConfigError(f"the model cannot run over a cohort: {error}") from error
