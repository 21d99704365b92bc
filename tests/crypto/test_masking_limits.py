"""Edges of double masking that no run of the protocol comes to by itself."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import struct
from dataclasses import is_dataclass

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

import crypto
from crypto.channel import SEAL_OVERHEAD
from crypto.errors import KeyRefused
from crypto.hybrid import CIPHERTEXT_BYTES, HybridKey
from crypto.masking_graph import Graph
from crypto.masking_keys import open_channel

MODULES = [
    importlib.import_module(f"crypto.{found.name}")
    for found in pkgutil.iter_modules(crypto.__path__)
]


def dataclasses() -> list[type]:
    """Every dataclass that the package defines."""
    return [
        kind
        for module in MODULES
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if is_dataclass(kind) and kind.__module__ == module.__name__
    ]


def test_what_parties_hold_and_send_never_changes() -> None:
    """A message that was checked, or terms that were agreed on, must be what is used."""
    found = dataclasses()
    assert len(found) > 15
    assert [kind.__qualname__ for kind in found if not kind.__dataclass_params__.frozen] == []


def test_a_seal_of_nothing_opens_and_a_shorter_one_does_not() -> None:
    keys = {k: HybridKey(bytes([k]) * 32, "test") for k in (1, 2)}
    one, two = (open_channel(b"c" * 32, keys[k], k) for k in (1, 2))
    sealed = one.seal(keys[2].public, 2, b"")
    assert len(sealed) == SEAL_OVERHEAD == CIPHERTEXT_BYTES + 16
    assert two.open(keys[1].public, 1, sealed) == b""
    with pytest.raises(KeyRefused, match="do not open"):
        two.open(keys[1].public, 1, sealed[:-1])


def test_the_ring_has_the_order_that_others_compute() -> None:
    """Sorted by the two halves of a block, as little-endian numbers: by an independent reading."""
    members, seed = tuple(range(3, 103)), bytes(range(32))
    encryptor = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    blocks = encryptor.update(bytes(16 * len(members)))
    keys = {k: struct.unpack_from("<QQ", blocks, 16 * at) for at, k in enumerate(members)}
    assert Graph(members, 10, seed).ring == tuple(sorted(members, key=keys.__getitem__))


@pytest.mark.parametrize("clients", [3, 4, 5, 8])
def test_one_neighbour_less_than_members_is_everybody(clients: int) -> None:
    members = tuple(range(1, clients + 1))
    graph = Graph(members, clients - 1, bytes(32))
    assert graph.committee == members
    assert all(graph.closed(k) == members for k in members)
