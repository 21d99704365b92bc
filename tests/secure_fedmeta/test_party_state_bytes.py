"""The bytes of a party's state: read back as they were written, and nothing else is read."""

from __future__ import annotations

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from crypto.errors import StateRefused
from secure_fedmeta.party_state import PartyState
from tests.crypto.strictness import damaged

RUN, INDEX = bytes(range(32)), 3
COUNTS = st.integers(0, 2**32 - 1)
PARTS = st.binary(max_size=40)
STATES = st.builds(
    PartyState,
    last=st.tuples(COUNTS, COUNTS),
    contributions=COUNTS,
    seen=PARTS,
    asked=PARTS,
    reply=PARTS,
    model_digest=PARTS,
    model=PARTS,
    machine=PARTS,
)


@given(state=STATES)
def test_a_state_is_read_as_it_was_written(state: PartyState) -> None:
    assert PartyState.decode(state.encode(RUN, INDEX), RUN, INDEX) == state


@given(state=STATES, data=st.data())
def test_a_damaged_state_is_refused_or_reads_as_what_it_says(
    state: PartyState, data: st.DataObject
) -> None:
    """One state has one encoding: nothing that is read was written otherwise."""
    found = damaged(data, state.encode(RUN, INDEX))
    try:
        read = PartyState.decode(found, RUN, INDEX)
    except StateRefused:
        event("refused")
        return
    event("read")
    assert read.encode(RUN, INDEX) == found


@given(state=STATES)
def test_a_state_of_another_run_party_or_version_is_refused(state: PartyState) -> None:
    kept = state.encode(RUN, INDEX)
    with pytest.raises(StateRefused, match="another run or party"):
        PartyState.decode(kept, bytes(32), INDEX)
    with pytest.raises(StateRefused, match="another run or party"):
        PartyState.decode(kept, RUN, INDEX + 1)
    with pytest.raises(StateRefused, match="of version 9"):
        PartyState.decode(b"\x09" + kept[1:], RUN, INDEX)


@given(state=STATES)
def test_a_state_is_not_shown(state: PartyState) -> None:
    assert repr(state).startswith("<secure_fedmeta.party_state.PartyState object at ")
