"""Envelopes around secure-sum messages: which round, which attempt, and at its start the model.

Layout, all integers little-endian: 4 bytes magic `FMR1`, 1 byte kind, u64 round, u32 attempt,
u32 model length (0 for a step), the model, then the secure-sum message to the end. The secure sum
signs its own messages and binds the model by digest, so the envelope carries no signature.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import torch

from crypto.errors import MessageRefused

_MAGIC = b"FMR1"
_HEADER = struct.Struct("<4sBQII")
_OPEN, _STEP = 1, 2


@dataclass(frozen=True)
class RoundOpen:
    """Starts an attempt at a round.

    Attributes:
        round: from 1.
        attempt: from 1.
        model: the global parameters, float32 little-endian.
        body: the first message of the secure sum.
    """

    round: int
    attempt: int
    model: bytes
    body: bytes


@dataclass(frozen=True)
class SumStep:
    """A later message of the secure sum."""

    round: int
    attempt: int
    body: bytes


def encode(message: RoundOpen | SumStep) -> bytes:
    """The bytes of an envelope."""
    kind, model = (_OPEN, message.model) if isinstance(message, RoundOpen) else (_STEP, b"")
    header = _HEADER.pack(_MAGIC, kind, message.round, message.attempt, len(model))
    return header + model + message.body


def decode(data: bytes) -> RoundOpen | SumStep:
    """Read an envelope strictly.

    Raises:
        MessageRefused: too short, wrong version, unknown kind, or lengths that do not fit.
    """
    if len(data) < _HEADER.size:
        raise MessageRefused(None, "envelope", f"{len(data)} bytes is shorter than a header")
    magic, kind, round_index, attempt, length = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise MessageRefused(None, "envelope", "not a version 1 envelope")
    body = data[_HEADER.size + length :]
    if not body:
        raise MessageRefused(None, "envelope", "no secure-sum message inside")
    if kind == _STEP and length == 0:
        return SumStep(round_index, attempt, body)
    if kind == _OPEN:
        return RoundOpen(round_index, attempt, data[_HEADER.size : _HEADER.size + length], body)
    raise MessageRefused(None, "envelope", f"unknown kind {kind} with a model of {length} bytes")


def to_wire(model: torch.Tensor) -> bytes:
    """Parameters `[d] float32` as little-endian bytes."""
    return model.detach().cpu().numpy().astype("<f4", copy=False).tobytes()


def from_wire(data: bytes, size: int) -> torch.Tensor:
    """The parameters `[size] float32` in `data`.

    Raises:
        MessageRefused: not exactly `size` values.
    """
    if len(data) != 4 * size:
        raise MessageRefused(
            None, "round-open", f"the model has {len(data)} bytes; {4 * size} are allowed"
        )
    return torch.from_numpy(np.frombuffer(data, dtype="<f4").astype(np.float32))
