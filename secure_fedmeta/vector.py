"""The parameters of a module as one flat vector: order, shapes, digest and file format.

Everything that is clipped, summed, logged and stored is this vector. Its order is that of
`Module.named_parameters`; its file format is safetensors, so nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import torch
from safetensors import SafetensorError
from safetensors.torch import load as safetensors_load
from safetensors.torch import save as safetensors_save
from torch import Tensor, nn

from secure_fedmeta.errors import FedmetaError

_DOMAIN = b"fedmeta/model/v1\n"
Shapes = Mapping[str, tuple[int, ...]]


class VectorRefused(FedmetaError):
    """A vector or a stored model does not belong to the module that it is meant for."""


@dataclass(frozen=True)
class ParameterVector:
    """Names, shapes and offsets that turn a module's trainable parameters into one vector.

    Parameters that do not require gradients, and buffers, are constants of the module: they are
    not part of the vector, but `digest` covers them, so parties that hold different constants
    never agree on a model.

    Attributes:
        names: dotted parameter names, in the order of the vector.
        shapes: the shape of each parameter.
        offsets: where each parameter starts in the vector.
        size: P, the length of the vector.
        constants: SHA-256 of the module's buffers and frozen parameters.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    size: int
    constants: bytes

    @classmethod
    def of(cls, module: nn.Module) -> ParameterVector:
        """Describe `module`.

        Raises:
            VectorRefused: it has no trainable parameter, or one that is not float32.
        """
        names, shapes, offsets, size = [], [], [], 0
        for name, parameter in _trainable(module):
            if parameter.dtype != torch.float32:
                raise VectorRefused(f"parameter {name!r} is {parameter.dtype}; allowed: float32")
            names.append(name)
            shapes.append(tuple(parameter.shape))
            offsets.append(size)
            size += parameter.numel()
        if size == 0:
            raise VectorRefused(f"{type(module).__name__} has no trainable parameter")
        return cls(tuple(names), tuple(shapes), tuple(offsets), size, _digest_constants(module))

    def flatten(self, module: nn.Module) -> Tensor:
        """Return a copy of the parameters of `module` as one `[P] float32` vector.

        Raises:
            VectorRefused: the names or shapes of `module` are not those of this vector.
        """
        held = dict(_trainable(module))
        shapes = {name: tuple(tensor.shape) for name, tensor in held.items()}
        if shapes != dict(zip(self.names, self.shapes, strict=True)):
            raise VectorRefused("the module's parameters are not those of this vector")
        return torch.cat([held[name].detach().reshape(-1) for name in self.names])

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """Return views of `vector` (`[P]`, or `[B, P]` for B models) by parameter name.

        Raises:
            VectorRefused: the last dimension is not P.
        """
        self._check(vector)
        # One split, not one slice for each: differentiated backwards it is one concatenation.
        parts = vector.split_with_sizes([prod(shape) for shape in self.shapes], -1)
        return {
            name: part.view(*vector.shape[:-1], *shape)
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }

    def load_into(self, module: nn.Module, vector: Tensor) -> None:
        """Copy `vector` `[P]` into the parameters of `module`, in place."""
        held = dict(_trainable(module))
        with torch.no_grad():
            for name, value in self.unflatten(vector).items():
                held[name].copy_(value)

    def extended(self, extra: Shapes) -> ParameterVector:
        """Return this layout with further tensors behind, in the order given.

        Raises:
            VectorRefused: a name is taken.
        """
        if taken := set(extra) & set(self.names):
            raise VectorRefused(f"the module has a parameter called {min(taken)!r}; rename it")
        names, shapes, offsets, size = [*self.names], [*self.shapes], [*self.offsets], self.size
        for name, shape in extra.items():
            names.append(name)
            shapes.append(shape)
            offsets.append(size)
            size += prod(shape)
        return ParameterVector(tuple(names), tuple(shapes), tuple(offsets), size, self.constants)

    @property
    def layers(self) -> tuple[slice, ...]:
        """The parameterised layers: runs of parameters that share one owner, in order."""
        owners = [name.rpartition(".")[0] for name in self.names]
        firsts = [i for i, owner in enumerate(owners) if i == 0 or owner != owners[i - 1]]
        starts = [self.offsets[i] for i in firsts]
        return tuple(slice(a, b) for a, b in zip(starts, [*starts[1:], self.size], strict=True))

    @property
    def head(self) -> slice:
        """The last parameterised layer."""
        return self.layers[-1]

    @property
    def head_names(self) -> tuple[str, ...]:
        """Names of the parameters of the last parameterised layer."""
        pairs = zip(self.names, self.offsets, strict=True)
        return tuple(name for name, start in pairs if start >= self.head.start)

    def digest(self, vector: Tensor) -> bytes:
        """Return SHA-256 over names, shapes, constants and the float32 values, little-endian.

        Equal bytes mean bit-equal models; 0.0 and -0.0 differ.
        """
        self._check(vector)
        header = {"names": self.names, "shapes": self.shapes, "constants": self.constants.hex()}
        hashed = hashlib.sha256(_DOMAIN)
        hashed.update(json.dumps(header, sort_keys=True, separators=(",", ":")).encode())
        hashed.update(b"\n")
        hashed.update(_bytes(vector.to(torch.float32)))
        return hashed.digest()

    def save(self, vector: Tensor) -> bytes:
        """Return `vector` `[P]` as a safetensors file with one float32 tensor per parameter."""
        values = self.unflatten(vector.detach().to("cpu", torch.float32))
        return safetensors_save({name: value.contiguous() for name, value in values.items()})

    def load(self, data: bytes) -> Tensor:
        """Return the `[P] float32` vector in a file that `save` wrote.

        Raises:
            VectorRefused: not safetensors; other names, shapes or dtypes; a value not finite.
        """
        try:
            held = safetensors_load(data)
        except (SafetensorError, ValueError) as error:
            raise VectorRefused(f"not a safetensors model: {error}") from error
        found = {name: (tuple(value.shape), value.dtype) for name, value in held.items()}
        wanted = dict(zip(self.names, ((s, torch.float32) for s in self.shapes), strict=True))
        if found != wanted:
            wrong = sorted(k for k in found | wanted if found.get(k) != wanted.get(k))
            raise VectorRefused(f"stored model differs from the module at {', '.join(wrong)}")
        vector = torch.cat([held[name].reshape(-1) for name in self.names])
        if not bool(torch.isfinite(vector).all()):
            raise VectorRefused("stored model holds a value that is not finite")
        return vector

    def _check(self, vector: Tensor) -> None:
        if vector.ndim == 0 or vector.shape[-1] != self.size:
            raise VectorRefused(f"vector of shape {tuple(vector.shape)}; last must be {self.size}")


def _trainable(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return (item for item in module.named_parameters() if item[1].requires_grad)


def constants_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the buffers and frozen parameters of `module` by name, detached, not copied."""
    frozen = {n: p.detach() for n, p in module.named_parameters() if not p.requires_grad}
    return frozen | dict(module.named_buffers())


def _digest_constants(module: nn.Module) -> bytes:
    hashed = hashlib.sha256(b"fedmeta/constants/v1\n")
    for name, value in sorted(constants_of(module).items()):
        header = [name, str(value.dtype), list(value.shape)]
        hashed.update(json.dumps(header, separators=(",", ":")).encode() + b"\n")
        hashed.update(_bytes(value))
    return hashed.digest()


def _bytes(tensor: Tensor) -> bytes:
    array = tensor.detach().cpu().contiguous().numpy()
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
