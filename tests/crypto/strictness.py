"""What every byte format and every state machine here must stand, said once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import strategies as st

from crypto.errors import CryptoError, Malformed
from crypto.secure_sum import Done
from tests.crypto.harness import Run, payload_of, resign

Case = tuple[bytes, bytes, Callable[[bytes], Any], Any]
"""What was written, what should have been, the decoder, and the value that it gives back."""

Pair = tuple[Callable[[Any], Any], Callable[[Any], bytes]]
"""A decoder and its encoder."""


def check_case(case: Case) -> None:
    """The bytes are as stated and read back, and are refused cut, extended or empty."""
    written, stated, decode, value = case
    assert written == stated
    assert decode(written) == value
    for wrong in (written[:-1], written + b"\0", b""):
        with pytest.raises(Malformed):
            decode(wrong)


def check_pairs(
    pairs: Iterable[Pair], data: bytes, refused: tuple[type[CryptoError], ...] = (Malformed,)
) -> None:
    """Whatever a decoder takes, its encoder writes again; it refuses the rest by these types."""
    for decode, encode in pairs:
        try:
            value = decode(memoryview(data))
        except refused:
            continue
        assert encode(value) == data


def damaged(data: st.DataObject, payload: bytes) -> bytes:
    """Random bytes, or the true payload with some bytes changed, cut or added."""
    if data.draw(st.booleans()):
        return data.draw(st.binary(max_size=300))
    changed = bytearray(payload)
    for _ in range(data.draw(st.integers(0, 3))):
        if changed:
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    return bytes(changed[: data.draw(st.integers(0, len(changed)))]) + data.draw(
        st.binary(max_size=3)
    )


def drive_with_nonsense(
    run: Run, data: st.DataObject, answering: tuple[int, int], asked: tuple[int, int]
) -> Done:
    """Drive a run in which two messages hold signed, damaged payloads.

    Args:
        run: fresh.
        data: draws the damage.
        answering: step and party whose answer is damaged.
        asked: step and party whose request is.

    Raises:
        SumAborted: the run came to no sum.
    """

    def answer(at: int, party: int, message: bytes) -> bytes:
        if (at, party) != answering:
            return message
        return resign(message, damaged(data, payload_of(message)))

    def request(at: int, party: int, message: bytes) -> bytes:
        if (at, party) != asked:
            return message
        return resign(message, damaged(data, payload_of(message)))

    return run.drive(forge=answer, forge_request=request)
