"""Saved states of parties: what a party needs to go on with an attempt in another process.

Format (little-endian): version u8 = 1 | kind behind its length u32 | binding 32 bytes | what the
party of that kind writes. The binding is a digest of kind, terms, model and index, so that a state
goes on only where it came from. There is no other integrity in it, and the secrets in it stand in
clear: a state is sealed before it leaves memory (see sealed_state).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from crypto.codec import Reader, Writer, tagged_digest
from crypto.errors import CryptoError, StateRefused
from crypto.terms import DIGEST_BYTES, Terms

VERSION: Final = 1


def begin_state(kind: str, terms: Terms, index: int) -> Writer:
    """The head of a state, for the party to append to.

    Args:
        kind: protocol and part, such as "masking client".
        terms: of the attempt.
        index: roster index of the party.
    """
    writer = Writer().u8(VERSION).text(kind)
    return writer.fixed(_binding(kind, terms, index), DIGEST_BYTES)


@contextmanager
def reading_state(state: bytes, kind: str, terms: Terms, index: int) -> Iterator[Reader]:
    """What stands behind the head of a state, which the block reads to its end.

    Raises:
        StateRefused: a newer version, another kind, attempt, model or party, or not exactly one
            state.
    """
    try:
        reader = Reader(state)
        check_version("saved state", reader.u8(), VERSION)
        found = reader.text()
        if found != kind:
            raise StateRefused(f"saved state of a {found!r:.60}, not of a {kind!r}")
        if reader.fixed(DIGEST_BYTES) != _binding(kind, terms, index):
            raise StateRefused(
                f"saved state of a {kind!r} in another attempt, under other terms or at another"
                " model: give that attempt up; the next one starts anew"
            )
        yield reader
        reader.end()
    except StateRefused:
        raise
    except CryptoError as error:
        raise StateRefused(
            f"saved state of a {kind!r} is damaged ({error}): give the attempt up"
        ) from None


def check_version(what: str, found: int, known: int) -> None:
    """Refuse the state that another version of this software wrote.

    Args:
        what: the kind of state, for people.
        found: the version in the state.
        known: the version that is read here.

    Raises:
        StateRefused: they differ; names both.
    """
    if found != known:
        raise StateRefused(
            f"{what} of version {found}, this version reads {known}: go on with the version that"
            " wrote it"
        )


def _binding(kind: str, terms: Terms, index: int) -> bytes:
    party = Writer().u32(index).done()
    return tagged_digest(
        "fedmeta/saved-state/v1", kind.encode(), terms.ctx1, terms.model_digest, party
    )
