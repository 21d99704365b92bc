"""Models by name and by entry point, and what a module may not do."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest
import torch
from torch import nn

from secure_fedmeta import registry
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.models import MODELS, build_model, check_module


class FakeEntryPoint:
    """An installed distribution's declaration."""

    def __init__(self, builder: Callable[..., Any]) -> None:
        self.name = "theirs"
        self._builder = builder

    def load(self) -> Callable[..., Any]:
        return self._builder


def declare(monkeypatch: pytest.MonkeyPatch, builder: Callable[..., Any]) -> None:
    points = {"secure_fedmeta.models": [FakeEntryPoint(builder)]}
    monkeypatch.setattr(registry, "entry_points", lambda group: points.get(group, []))


@pytest.mark.parametrize("name", MODELS.names())
def test_every_model_maps_rows_to_outputs(name: str) -> None:
    hidden = () if name == "linear" else (6, 5)
    net = build_model(name, 9, 2, hidden, seed=0)
    assert net(torch.zeros(7, 9)).shape == (7, 2)


def test_hidden_layers_have_the_named_activation() -> None:
    kinds = [type(part) for part in build_model("mlp", 3, 2, (6, 5), seed=0)]
    assert kinds == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert type(build_model("mlp_tanh", 3, 2, (6,), seed=0)[1]) is nn.Tanh


def test_the_conv_net_is_that_of_omniglot_without_batch_statistics() -> None:
    net = build_model("conv", 28 * 28, 5, (64,) * 4, seed=0)
    kinds = [type(part) for part in net]
    block = [nn.Conv2d, nn.GroupNorm, nn.ReLU]
    assert kinds == [nn.Unflatten, *4 * block, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear]
    sizes = [tuple(net[: 3 * blocks + 1](torch.zeros(1, 784)).shape[1:]) for blocks in range(5)]
    assert sizes == [(1, 28, 28), (64, 14, 14), (64, 7, 7), (64, 4, 4), (64, 2, 2)]
    image = torch.arange(784.0).reshape(1, 784)
    assert torch.equal(net[0](image)[0, 0], image.reshape(28, 28))


@pytest.mark.parametrize(("name", "cell"), [("char_lstm", nn.LSTMCell), ("char_gru", nn.GRUCell)])
def test_character_models_read_a_row_from_left_to_right(name: str, cell: type[nn.Module]) -> None:
    """Against torch's own cells, one character after the other."""
    net = build_model(name, 12, 7, (6, 5), seed=3)
    rows = torch.randint(0, 7, (4, 12), generator=torch.Generator().manual_seed(1))
    states = net.embedding(rows).unbind(1)
    for layer, width in zip(net.layers, (6, 5), strict=True):
        step = cell(states[0].shape[1], width)
        held = {key.removesuffix("_l0"): value for key, value in layer.state_dict().items()}
        step.load_state_dict(held)
        outputs, state = [], None
        for one in states:
            state = step(one, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        states = outputs
    expected = net.head(states[-1])
    torch.testing.assert_close(net(rows), expected)
    torch.testing.assert_close(net(rows.float()), expected)
    assert tuple(name for name, _ in net.named_parameters())[-1] == "head.bias"


def test_the_conv_net_takes_three_channels_where_there_are_three_squares() -> None:
    net = build_model("conv", 3 * 8 * 8, 5, (4, 4), seed=0)
    assert isinstance(net, nn.Sequential)
    assert next(net.parameters()).shape == (4, 3, 3, 3)
    x = torch.zeros(1, 3, 8, 8)
    x[:, 1] = 1.0  # rows hold channel after channel
    torch.testing.assert_close(net(x.reshape(1, -1)), net[1:](x))


@pytest.mark.parametrize(
    ("inputs", "hidden", "reason"), [(10, (4,), "square images"), (9, (), "needs a block")]
)
def test_a_conv_net_needs_images_and_blocks(
    inputs: int, hidden: tuple[int, ...], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        build_model("conv", inputs, 2, hidden, seed=0)


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first, again = (build_model("mlp", 3, 2, (6,), seed=7) for _ in range(2))
    other = build_model("mlp", 3, 2, (6,), seed=8)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first[0].weight, again[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)


@pytest.mark.parametrize(
    "arguments",
    [
        ("linear", 3, 1, (4,), 0),
        ("mlp", 0, 1, (4,), 0),
        ("mlp", 3, 0, (4,), 0),
        ("mlp", 3, 1, (0,), 0),
        ("mlp", 3, 1, (4,), -1),
        ("mlp", 3, 1, (4,), 2**63),
        ("mpl", 3, 1, (4,), 0),
        ("os.path:join", 3, 1, (4,), 0),
    ],
)
def test_values_out_of_range_are_refused(arguments: tuple[str, int, int, Any, int]) -> None:
    name, inputs, outputs, hidden, seed = arguments
    with pytest.raises(ConfigError):
        build_model(name, inputs, outputs, hidden, seed=seed)


def test_an_entry_point_adds_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def builder(inputs: int, outputs: int, hidden: tuple[int, ...]) -> nn.Module:
        return nn.Bilinear(inputs, hidden[0], outputs)

    declare(monkeypatch, builder)
    first, again = (build_model("theirs", 2, 3, [4], seed=1) for _ in range(2))
    assert isinstance(first, nn.Bilinear)
    assert torch.equal(first.weight, again.weight)


def test_what_an_entry_point_builds_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, lambda *_: nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    with pytest.raises(ConfigError, match="BatchNorm1d at '1'"):
        build_model("theirs", 2, 2, seed=1)
    declare(monkeypatch, lambda *_: "a module")
    with pytest.raises(ConfigError, match="built a str"):
        build_model("theirs", 2, 2, seed=1)


def test_entry_points_are_read_from_the_documented_group() -> None:
    assert EntryPoints([EntryPoint("x", "a:b", "secure_fedmeta.models")]).select(
        group=MODELS._group
    )


def _scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module: nn.Module = torch.jit.script(nn.Linear(2, 2))  # type: ignore[no-untyped-call]
    return module


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (nn.BatchNorm1d(2), "batch statistics"),
        (nn.BatchNorm2d(2, track_running_stats=False), "batch statistics"),
        (nn.SyncBatchNorm(2), "batch statistics"),
        (nn.InstanceNorm1d(2, track_running_stats=True), "batch statistics"),
        (nn.Dropout(0.1), "random generator"),
        (nn.AlphaDropout(0.1), "random generator"),
        (nn.LSTM(2, 2, num_layers=2, dropout=0.1), "random generator"),
        (nn.LazyLinear(2), "no shape yet"),
        (_scripted(), "cannot be watched"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_modules_that_break_the_unit_of_privacy_are_refused(part: nn.Module, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_module(nn.Sequential(nn.Linear(2, 2), part))


@pytest.mark.parametrize(
    "part", [nn.LayerNorm(2), nn.GroupNorm(1, 2), nn.InstanceNorm1d(2), nn.Dropout(0.0)]
)
def test_modules_without_shared_state_pass(part: nn.Module) -> None:
    check_module(nn.Sequential(nn.Linear(2, 2), part))


def test_parameters_must_be_float32_and_trainable() -> None:
    with pytest.raises(ConfigError, match="float64"):
        check_module(nn.Linear(1, 1, dtype=torch.float64))
    with pytest.raises(ConfigError, match="no trainable"):
        check_module(nn.Linear(1, 1).requires_grad_(False))
