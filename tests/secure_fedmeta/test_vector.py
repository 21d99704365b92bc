"""The flat vector: order, views, digest and file format."""

from __future__ import annotations

import hashlib
import pickle
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save as safetensors_save
from torch import nn

from secure_fedmeta.models import build_model
from secure_fedmeta.vector import ParameterVector, VectorRefused


def module() -> nn.Module:
    return build_model("mlp", 3, 2, (4,), seed=1)


def test_order_is_that_of_named_parameters() -> None:
    net = module()
    spec = ParameterVector.of(net)
    assert spec.names == tuple(name for name, _ in net.named_parameters())
    assert spec.size == sum(parameter.numel() for parameter in net.parameters())
    assert spec.offsets == (0, 12, 16, 24)
    expected = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
    assert torch.equal(spec.flatten(net), expected)


def test_views_share_memory_and_keep_leading_dimensions() -> None:
    spec = ParameterVector.of(module())
    vectors = torch.arange(5.0 * spec.size).view(5, spec.size)
    views = spec.unflatten(vectors)
    assert {name: tuple(v.shape) for name, v in views.items()} == {
        name: (5, *shape) for name, shape in zip(spec.names, spec.shapes, strict=True)
    }
    views[spec.names[0]].zero_()
    assert not vectors[:, :12].any()
    alone = spec.unflatten(vectors[3])
    assert all(torch.equal(alone[name], views[name][3]) for name in spec.names)


def test_flatten_copies_and_load_into_writes() -> None:
    net = module()
    spec = ParameterVector.of(net)
    kept = spec.flatten(net)
    spec.load_into(net, torch.zeros(spec.size))
    assert kept.any()
    assert not spec.flatten(net).any()


def test_another_module_is_refused() -> None:
    spec = ParameterVector.of(module())
    with pytest.raises(VectorRefused, match="not those"):
        spec.flatten(build_model("mlp", 3, 2, (5,), seed=1))


@pytest.mark.parametrize("vector", [torch.zeros(3), torch.zeros(()), torch.zeros(2, 25)])
def test_a_vector_of_another_length_is_refused(vector: torch.Tensor) -> None:
    spec = ParameterVector.of(module())
    with pytest.raises(VectorRefused, match="last must be 26"):
        spec.unflatten(vector)
    with pytest.raises(VectorRefused, match="last must be 26"):
        spec.digest(vector)


@given(index=st.integers(0, 25), bit=st.integers(0, 31))
def test_the_digest_covers_every_bit(index: int, bit: int) -> None:
    spec = ParameterVector.of(module())
    vector = torch.linspace(-1, 1, 26)
    changed = vector.clone()
    changed.view(torch.int32)[index] ^= -(2**31) if bit == 31 else 2**bit
    assert spec.digest(changed) != spec.digest(vector)


def test_the_digest_is_the_documented_bytes() -> None:
    net = nn.Linear(1, 1)
    spec = ParameterVector.of(net)
    constants = hashlib.sha256(b"fedmeta/constants/v1\n").hexdigest()
    header = (
        f'{{"constants":"{constants}","names":["weight","bias"],"shapes":[[1,1],[1]]}}'
    ).encode()
    body = b"fedmeta/model/v1\n" + header + b"\n" + struct.pack("<ff", 0.5, -2.0)
    assert spec.digest(torch.tensor([0.5, -2.0])) == hashlib.sha256(body).digest()


def test_the_digest_covers_names_and_constants() -> None:
    class Scaled(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))
            self.register_buffer("scale", torch.tensor(scale))

    class Renamed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2))

    vector = torch.zeros(2)
    digests = {ParameterVector.of(m).digest(vector) for m in (Scaled(1), Scaled(2), Renamed())}
    assert len(digests) == 3


def test_frozen_parameters_are_constants() -> None:
    net = module()
    first = next(net.parameters())
    first.requires_grad_(False)
    spec = ParameterVector.of(net)
    assert spec.names[0] == "0.bias"
    before = spec.digest(torch.zeros(spec.size))
    first.data.add_(1)
    assert ParameterVector.of(net).digest(torch.zeros(spec.size)) != before


def test_the_head_is_the_last_parameterised_layer() -> None:
    spec = ParameterVector.of(module())
    assert spec.head == slice(16, 26)
    assert ParameterVector.of(nn.Linear(2, 1)).head == slice(0, 3)
    tail = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1, bias=False), nn.ReLU())
    assert ParameterVector.of(tail).head == slice(9, 12)


def test_layers_are_the_parameters_of_one_owner_each() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 1, bias=False)))
    spec = ParameterVector.of(net)
    assert spec.layers == (slice(0, 9), slice(9, 12))
    assert spec.head_names == ("2.0.weight",)
    assert ParameterVector.of(nn.Linear(2, 1)).layers == (slice(0, 3),)


def test_a_layout_is_extended_behind_the_parameters() -> None:
    net = module()
    spec = ParameterVector.of(net)
    wide = spec.extended({"rates": (2, 3), "more": (1,)})
    assert (wide.size, wide.names[-2:], wide.offsets[-2:]) == (
        spec.size + 7,
        ("rates", "more"),
        (spec.size, spec.size + 6),
    )
    vector = torch.arange(float(wide.size))
    views = wide.unflatten(vector)
    assert torch.equal(views["rates"], vector[spec.size : spec.size + 6].view(2, 3))
    assert torch.equal(wide.load(wide.save(vector)), vector)
    assert wide.digest(vector) != spec.extended({"other": (7,)}).digest(vector)
    assert spec.extended({}) == spec
    with pytest.raises(VectorRefused, match="rename"):
        spec.extended({spec.names[0]: (1,)})


def test_modules_without_float32_parameters_are_refused() -> None:
    with pytest.raises(VectorRefused, match="no trainable"):
        ParameterVector.of(nn.ReLU())
    with pytest.raises(VectorRefused, match="float64"):
        ParameterVector.of(nn.Linear(1, 1, dtype=torch.float64))


def test_a_file_holds_named_tensors_and_gives_the_vector_back() -> None:
    net = module()
    spec = ParameterVector.of(net)
    vector = spec.flatten(net)
    data = spec.save(vector)
    assert data == spec.save(vector.double())
    assert torch.equal(spec.load(data), vector)


def _file(**changes: torch.Tensor) -> bytes:
    spec = ParameterVector.of(module())
    held = {n: t.contiguous() for n, t in spec.unflatten(torch.ones(spec.size)).items()}
    return safetensors_save(held | {name.replace("_", "."): t for name, t in changes.items()})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a safetensors"),
        (pickle.dumps({"0.weight": 1}), "not a safetensors"),
        (_file()[:-4], "not a safetensors"),
        (_file() + b"\0", "not a safetensors"),
        (_file(**{"0_weight": torch.ones(4, 4)}), "0.weight"),
        (_file(**{"0_bias": torch.ones(4, dtype=torch.float64)}), "0.bias"),
        (_file(extra=torch.ones(1)), "extra"),
        (_file(**{"0_bias": torch.tensor([0, float("nan"), 0, 0])}), "not finite"),
    ],
    ids=["empty", "pickle", "torn", "trailing", "shape", "dtype", "extra", "nan"],
)
def test_damaged_files_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(VectorRefused, match=reason):
        ParameterVector.of(module()).load(data)
