"""Small modules by name, a user's own by entry point, and what a module may not do.

An installed distribution adds a model by an entry point of the group `secure_fedmeta.models` that
names a builder `(input_dim, output_dim, hidden) -> nn.Module`; the import string of a config is
never followed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from secure_fedmeta.errors import ConfigError
from secure_fedmeta.registry import Registry

Builder = Callable[[int, int, tuple[int, ...]], nn.Module]


def linear(input_dim: int, output_dim: int, hidden: tuple[int, ...]) -> nn.Module:
    """Return one affine layer; `hidden` must be empty."""
    if hidden:
        raise ConfigError("a linear model has none", key="model.hidden", value=list(hidden))
    return nn.Sequential(nn.Linear(input_dim, output_dim))


def mlp(input_dim: int, output_dim: int, hidden: tuple[int, ...]) -> nn.Module:
    """Return affine layers of the given hidden sizes with ReLU between them."""
    return _stack(input_dim, output_dim, hidden, nn.ReLU)


def mlp_tanh(input_dim: int, output_dim: int, hidden: tuple[int, ...]) -> nn.Module:
    """Return affine layers of the given hidden sizes with tanh between them."""
    return _stack(input_dim, output_dim, hidden, nn.Tanh)


def conv(input_dim: int, output_dim: int, hidden: tuple[int, ...]) -> nn.Module:
    """Return a convolutional net for square images, in rows of `channels * side * side`.

    Rows of three squares are images of three channels; a number is never one square and three.

    One block per entry of `hidden`: as many 3x3 filters with stride 2, group normalisation and
    ReLU; then the mean over the positions and one affine layer. With four blocks of 64 on 28x28 it
    is the Omniglot net of Finn et al. (2017, arXiv 1703.03400, section 5.2), less its batch
    normalisation, which would mix tasks.
    """
    channels = next((c for c in (1, 3) if math.isqrt(input_dim // c) ** 2 * c == input_dim), None)
    if channels is None:
        raise ConfigError(
            f"a conv model needs square images of 1 or 3 channels, not {input_dim} features",
            key="model.name",
            value="conv",
        )
    if not hidden:
        raise ConfigError("a conv model needs a block", key="model.hidden", value=[])
    side = math.isqrt(input_dim // channels)
    layers: list[nn.Module] = [nn.Unflatten(-1, (channels, side, side))]
    for filters in hidden:
        layers += [
            nn.Conv2d(channels, filters, 3, stride=2, padding=1),
            nn.GroupNorm(1, filters),
            nn.ReLU(),
        ]
        channels = filters
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(-3)]
    return nn.Sequential(*layers, *pooled, nn.Linear(channels, output_dim))


class NextCharacter(nn.Module):
    """The character that follows: embedding, recurrent layers, an affine layer on the last state.

    Rows are `[length]` character numbers from 0, of any dtype; outputs are logits `[n, classes]`
    over the same characters. The form of the Shakespeare model of LEAF (Caldas et al. 2018, arXiv
    1812.01097), with its embedding of 8 dimensions.
    """

    EMBEDDING = 8

    def __init__(
        self, layer: type[nn.LSTM] | type[nn.GRU], characters: int, widths: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, self.EMBEDDING)
        inputs = (self.EMBEDDING, *widths)
        self.layers = nn.ModuleList(
            layer(before, width, batch_first=True) for before, width in pairwise(inputs)
        )
        self.head = nn.Linear(inputs[-1], characters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits `[n, classes]` for rows `[n, length]`."""
        states: torch.Tensor = self.embedding(x.to(torch.int64))
        for layer in self.layers:
            states, _ = layer(states)
        logits: torch.Tensor = self.head(states[:, -1])
        return logits


def char_lstm(input_dim: int, output_dim: int, hidden: tuple[int, ...]) -> nn.Module:
    """Return LSTM layers of the given widths over rows of characters; `output_dim` characters."""
    del input_dim  # any length
    return NextCharacter(nn.LSTM, output_dim, hidden)


def char_gru(input_dim: int, output_dim: int, hidden: tuple[int, ...]) -> nn.Module:
    """Return GRU layers of the given widths over rows of characters; `output_dim` characters."""
    del input_dim  # any length
    return NextCharacter(nn.GRU, output_dim, hidden)


MODELS: Registry[Builder] = Registry(
    "model",
    "model.name",
    "secure_fedmeta.models",
    {
        "char_gru": char_gru,
        "char_lstm": char_lstm,
        "conv": conv,
        "linear": linear,
        "mlp": mlp,
        "mlp_tanh": mlp_tanh,
    },
)


def build_model(
    name: str, input_dim: int, output_dim: int, hidden: Sequence[int] = (), *, seed: int
) -> nn.Module:
    """Build the model called `name`, with the same initial weights for the same seed.

    The initial weights are public, and so is `seed`. torch's process-wide CPU generator is left
    as it was found.

    Args:
        name: a name of `MODELS`, or an entry point of the group `secure_fedmeta.models`.
        input_dim: features of one row, at least 1.
        output_dim: outputs of one row, at least 1.
        hidden: sizes of the hidden layers, each at least 1.
        seed: 0 to 2^63 - 1.

    Raises:
        ConfigError: an unknown name, a value out of range, or a module that `check_module` refuses.
    """
    if input_dim < 1 or output_dim < 1:
        raise ConfigError(f"{input_dim} inputs and {output_dim} outputs; allowed: 1 or more")
    if any(size < 1 for size in hidden):
        raise ConfigError("sizes must be 1 or more", key="model.hidden", value=list(hidden))
    if not 0 <= seed < 2**63:
        raise ConfigError("allowed: 0 to 2^63 - 1", key="model.init_seed", value=seed)
    builder = MODELS.get(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = builder(input_dim, output_dim, tuple(hidden))
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"it built a {type(module).__name__}; allowed: nn.Module", key="model.name", value=name
        )
    check_module(module)
    return module


def check_module(module: nn.Module) -> None:
    """Refuse modules whose loss is not a function of one task's rows and the parameters alone.

    The guarantee of one outer vector per unit of privacy rests on this: a module that carries
    state from one task to the next would let a unit's rows reach the vectors of others. Buffers
    that never change are fine; one that a forward pass changes is refused when that happens.

    Raises:
        ConfigError: names the submodule and the reason.
    """
    for name, part in module.named_modules():
        reason = _objection(part)
        if reason is not None:
            where = f" at {name!r}" if name else ""
            raise ConfigError(f"{type(part).__name__}{where} is refused: {reason}")
    for name, parameter in module.named_parameters():
        if is_lazy(parameter):
            raise ConfigError(f"parameter {name!r} has no shape yet; build the module with shapes")
        if parameter.requires_grad and parameter.dtype != torch.float32:
            raise ConfigError(f"parameter {name!r} is {parameter.dtype}; allowed: float32")
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ConfigError(f"{type(module).__name__} has no trainable parameter")


def _objection(part: nn.Module) -> str | None:
    if isinstance(part, _NormBase) and (part.track_running_stats or not _is_instance_norm(part)):
        return (
            "it mixes rows by batch statistics, which carry one unit's rows into the outputs of "
            "others; use LayerNorm, GroupNorm or InstanceNorm without running statistics"
        )
    if isinstance(part, _DropoutNd) and part.p > 0:
        return "it draws from the process-wide random generator; set p = 0 or remove it"
    if isinstance(part, torch.jit.ScriptModule):
        return "compiled code cannot be watched; pass the module that it was scripted from"
    if isinstance(part, nn.RNNBase) and part.dropout > 0:
        return "it draws from the process-wide random generator; set dropout = 0"
    return None


def is_recurrent(module: nn.Module) -> bool:
    """Whether the module holds a recurrent layer of torch (RNN, LSTM, GRU or a cell)."""
    return any(isinstance(part, (nn.RNNBase, nn.RNNCellBase)) for part in module.modules())


def _is_instance_norm(part: nn.Module) -> bool:
    return isinstance(part, (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d))


def _stack(
    input_dim: int, output_dim: int, hidden: tuple[int, ...], activation: type[nn.Module]
) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = input_dim
    for size in hidden:
        layers += [nn.Linear(width, size), activation()]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, output_dim))
