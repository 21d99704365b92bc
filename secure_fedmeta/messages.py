"""Envelopes around secure-sum messages: which round, which attempt, and at its start the model.

Layout, all numbers little-endian: 4 bytes magic `FMR1`, 1 byte kind, u64 round, u32 attempt,
u32 model length (0 for a step), for an opening the clip bound as float64, the model, then the
secure-sum message to the end. The secure sum signs its own messages and binds model and clip bound
by digest, so the envelope carries no signature.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import torch

from crypto.errors import MessageRefused

_MAGIC = b"FMR1"
_HEADER = struct.Struct("<4sBQII")
_CLIP = struct.Struct("<d")
_OPEN, _STEP = 1, 2


@dataclass(frozen=True)
class RoundOpen:
    """Starts an attempt at a round.

    Attributes:
        round: from 1.
        attempt: from 1.
        clip: the clip bound of the round; any float until a party's own plan has judged it.
        model: the global parameters, float32 little-endian.
        body: the first message of the secure sum.
    """

    round: int
    attempt: int
    clip: float
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
    if isinstance(message, SumStep):
        return _HEADER.pack(_MAGIC, _STEP, message.round, message.attempt, 0) + message.body
    size = len(message.model)
    header = _HEADER.pack(_MAGIC, _OPEN, message.round, message.attempt, size)
    return header + _CLIP.pack(message.clip) + message.model + message.body


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
    start = _HEADER.size + (_CLIP.size if kind == _OPEN else 0)
    body = data[start + length :]
    if not body:
        raise MessageRefused(None, "envelope", "no secure-sum message inside")
    if kind == _STEP and length == 0:
        return SumStep(round_index, attempt, body)
    if kind == _OPEN:
        (clip,) = _CLIP.unpack_from(data, _HEADER.size)
        return RoundOpen(round_index, attempt, clip, data[start : start + length], body)
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
