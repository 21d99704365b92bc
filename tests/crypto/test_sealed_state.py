"""Sealed states: opened by their party alone, under a fresh key each, and refused if changed."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.errors import KeyRefused, StateRefused
from crypto.sealed_state import MAGIC, SALT_BYTES, SEAL_BYTES, StateSealer
from tests.crypto.harness import identity, seeded

SEALER = StateSealer(identity(1), bytes(range(32)), 1, "party", os.urandom)
STATE = b"a secret that must not show, 0123456789abcdef"


@given(state=st.binary(max_size=300))
def test_what_was_sealed_opens(state: bytes) -> None:
    sealed = SEALER.seal(state)
    assert len(sealed) == len(state) + SEAL_BYTES
    assert SEALER.open(sealed) == state


def test_nothing_of_the_state_is_in_the_seal() -> None:
    sealed = SEALER.seal(STATE)
    for at in range(len(STATE) - 3):
        assert STATE[at : at + 4] not in sealed
    assert SEALER.identity.reveal() not in sealed
    assert SEALER.identity.reveal().hex() not in repr(SEALER)


def test_every_seal_has_a_salt_and_so_a_key_of_its_own() -> None:
    sealed = [SEALER.seal(STATE) for _ in range(50)]
    assert len({one[5 : 5 + SALT_BYTES] for one in sealed}) == 50
    assert len({one[5 + SALT_BYTES : 9 + SALT_BYTES] for one in sealed}) == 50
    with pytest.raises(KeyRefused):
        replace(SEALER, rand=lambda n: bytes(n - 1)).seal(STATE)


def test_the_key_depends_on_salt_identity_and_kind() -> None:
    fixed = replace(SEALER, rand=bytes)
    bodies = {fixed.seal(STATE)[5 + SALT_BYTES :]}
    for other in (
        replace(fixed, rand=seeded(1)),
        replace(fixed, identity=identity(2)),
        replace(fixed, kind="other"),
    ):
        bodies.add(other.seal(STATE)[5 + SALT_BYTES :])
    assert len({body[:16] for body in bodies}) == 4


@pytest.mark.parametrize(
    "change", [{"identity": identity(2)}, {"run": bytes(32)}, {"index": 2}, {"kind": "other"}]
)
def test_nobody_else_opens_it(change: dict[str, object]) -> None:
    sealed = SEALER.seal(STATE)
    with pytest.raises(StateRefused, match=r"another identity, run or party. Put the party's own"):
        replace(SEALER, **change).open(sealed)  # type: ignore[arg-type]


def test_a_flipped_byte_anywhere_is_refused() -> None:
    sealed = SEALER.seal(STATE)
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises(StateRefused):
            SEALER.open(bytes(changed))


def test_a_seal_cut_off_or_continued_is_refused() -> None:
    sealed = SEALER.seal(STATE)
    for cut in range(len(sealed)):
        with pytest.raises(StateRefused):
            SEALER.open(sealed[:cut])
    with pytest.raises(StateRefused):
        SEALER.open(sealed + b"\0")


def test_errors_tell_what_to_do() -> None:
    sealed = SEALER.seal(STATE)
    for bad, told in (
        (b"", "put the party's own file back"),
        (MAGIC + bytes([2]) + sealed[5:], "go on with the version that wrote it"),
        (sealed[:-1], "or leave the run"),
    ):
        with pytest.raises(StateRefused, match=told):
            SEALER.open(bad)
