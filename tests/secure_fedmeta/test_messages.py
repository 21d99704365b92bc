"""Envelopes: one encoding each, and nothing else is read."""

from __future__ import annotations

import contextlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crypto.errors import MessageRefused
from secure_fedmeta.messages import RoundOpen, SumStep, decode, encode, from_wire, to_wire

ROUNDS = st.integers(0, 2**64 - 1)
ATTEMPTS = st.integers(0, 2**32 - 1)
BODIES = st.binary(min_size=1, max_size=40)
CLIPS = st.floats(allow_nan=False)
OPENS = st.builds(RoundOpen, ROUNDS, ATTEMPTS, CLIPS, st.binary(max_size=40), BODIES)
STEPS = st.builds(SumStep, ROUNDS, ATTEMPTS, BODIES)
HEADER = 21


@given(OPENS | STEPS)
def test_round_trip(message: RoundOpen | SumStep) -> None:
    assert decode(encode(message)) == message


@given(st.binary(max_size=80))
def test_whatever_is_read_is_the_one_encoding(data: bytes) -> None:
    for prefix in (b"", b"FMR1"):
        try:
            message = decode(prefix + data)
        except MessageRefused:
            continue
        assert encode(message) == prefix + data


@given(OPENS | STEPS, st.data())
def test_a_message_cut_short_is_not_the_same_message(
    message: RoundOpen | SumStep, data: st.DataObject
) -> None:
    encoded = encode(message)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with contextlib.suppress(MessageRefused):
        assert decode(encoded[:cut]) != message


def test_layout() -> None:
    encoded = encode(RoundOpen(2, 3, 1.0, b"model", b"body"))
    assert encoded == (
        b"FMR1\x01" + (2).to_bytes(8, "little") + (3).to_bytes(4, "little")
        + (5).to_bytes(4, "little") + bytes(6) + b"\xf0\x3f" + b"model" + b"body"
    )  # fmt: skip
    assert encode(SumStep(2, 3, b"body"))[4:5] == b"\x02"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "shorter than a header"),
        (b"FMR1" + bytes(16), "shorter than a header"),
        (b"FMR2\x01" + bytes(16) + b"x", "not a version 1 envelope"),
        (b"FMR1\x01" + bytes(16), "no secure-sum message inside"),
        (b"FMR1\x01" + bytes(16) + bytes(8), "no secure-sum message inside"),
        (b"FMR1\x01" + bytes(12) + b"\x01\0\0\0" + b"m", "no secure-sum message inside"),
        (b"FMR1\x01" + bytes(12) + b"\xff\xff\xff\xff" + b"m", "no secure-sum message inside"),
        (b"FMR1\x00" + bytes(16) + b"x", "unknown kind 0"),
        (b"FMR1\x03" + bytes(16) + b"x", "unknown kind 3"),
        (b"FMR1\x02" + bytes(12) + b"\x01\0\0\0" + b"mx", "unknown kind 2 with a model of 1 bytes"),
    ],
)
def test_malformed(data: bytes, reason: str) -> None:
    with pytest.raises(MessageRefused, match=reason):
        decode(data)


def test_the_model_travels_bit_for_bit() -> None:
    model = torch.tensor([0.0, -0.0, 1.5, float("inf"), 1e-45], dtype=torch.float32)
    data = to_wire(model)
    assert len(data) == 20
    back = from_wire(data, 5)
    assert back.dtype == torch.float32
    assert to_wire(back) == data


@pytest.mark.parametrize("size", [0, 4, 6])
def test_a_model_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(MessageRefused, match=f"{4 * size} are allowed"):
        from_wire(to_wire(torch.zeros(5)), size)
