"""Signed messages: every byte that one party sends another is signed by its sender's roster key.

Format (little-endian): version u8 = 1 | step u8 | sender u32 | recipient u32 | context 32 bytes |
payload behind its length u32 | Ed25519 signature 64 bytes over the tagged SHA-256 of all that
stands before it. Sender 0 is the aggregator; recipient 2^32 - 1 is everybody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from crypto.codec import MAX_U32, Reader, Writer
from crypto.errors import KeyRefused, Malformed, MessageRefused
from crypto.keys import SIGNATURE_BYTES, Identity, Roster, verify

VERSION: Final = 1
AGGREGATOR: Final = 0
EVERYBODY: Final = MAX_U32
CONTEXT_BYTES: Final = 32
_FRONT_BYTES: Final = 1 + 1 + 4 + 4 + CONTEXT_BYTES + 4
SEALED_OVERHEAD: Final = _FRONT_BYTES + SIGNATURE_BYTES
_LABEL: Final = b"fedmeta/secure-sum/v1/message\0"


class Step(IntEnum):
    """Steps of all protocols; a number is never given to another step."""

    ADVERTISE = 1
    SHARE = 2
    MASKED_INPUT = 3
    CONSISTENCY = 4
    UNMASK = 5
    PLAIN_INPUT = 16
    HE_KEY = 32
    HE_INPUT = 33
    HE_OPEN = 34
    THRESHOLD_COMMIT = 48
    THRESHOLD_DEAL = 49
    THRESHOLD_DEALING = 50
    THRESHOLD_CHECK = 51
    THRESHOLD_SIGN = 52
    THRESHOLD_KEY = 53
    THRESHOLD_INPUT = 54
    THRESHOLD_OPEN = 55
    THRESHOLD_PART = 56

    @property
    def label(self) -> str:
        """Name in errors and reports."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True)
class Heading:
    """What a message claims to be; compared as a whole with what the recipient waits for."""

    step: Step
    sender: int
    recipient: int
    context: bytes

    def encode(self) -> bytes:
        """Encode the fixed part in front of the payload."""
        writer = Writer().u8(VERSION).u8(self.step).u32(self.sender).u32(self.recipient)
        return writer.fixed(self.context, CONTEXT_BYTES).done()


def seal(identity: Identity, heading: Heading, payload: bytes) -> bytes:
    """Encode and sign a message."""
    front = heading.encode() + Writer().u32(len(payload)).done()
    signature = identity.sign(_digest(front, payload))
    return b"".join((front, payload, signature))  # a payload may be large: it is copied once


def unseal(message: bytes | memoryview, heading: Heading, roster: Roster) -> memoryview:
    """Return the payload of a message that is exactly what was waited for, validly signed.

    Raises:
        MessageRefused: naming the sender that was waited for, the step and the first difference.
    """
    with refusing(heading.sender, heading.step):
        reader = Reader(message)
        if reader.u8() != VERSION:
            raise Malformed("unknown version")
        if reader.u8() != heading.step:
            raise Malformed("belongs to another step")
        if reader.u32() != heading.sender:
            raise Malformed("names another sender")
        if reader.u32() != heading.recipient:
            raise Malformed("names another recipient")
        if reader.fixed(CONTEXT_BYTES) != heading.context:
            raise Malformed("belongs to another round, attempt, terms or view")
        payload = reader.sized_view()
        signature = reader.fixed(SIGNATURE_BYTES)
        reader.end()
        body = memoryview(message)[:-SIGNATURE_BYTES]
        if not verify(roster.public_of(heading.sender), signature, _digest(body)):
            raise Malformed("signature does not verify")
        return payload


def payload_of(message: bytes) -> bytes:
    """The payload of a message that unseal has taken before."""
    return message[_FRONT_BYTES:-SIGNATURE_BYTES]


@contextmanager
def refusing(sender: int, step: Step) -> Iterator[None]:
    """Turn a complaint about the bytes or keys of a message into a refusal of that message."""
    try:
        yield
    except (Malformed, KeyRefused) as error:
        raise MessageRefused(sender, step.label, str(error)) from None


def _digest(*body: bytes | memoryview) -> bytes:
    state = hashlib.sha256(_LABEL)
    for part in body:
        state.update(part)
    return state.digest()
