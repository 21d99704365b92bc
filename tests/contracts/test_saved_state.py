"""Every party of every secure sum can stop and go on in another process between any two calls."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.codec import MAX_U32
from crypto.errors import MessageRefused, OutOfOrder, StateRefused, SumAborted, TermsRefused
from crypto.secure_sum import (
    SECURE_SUMS,
)
from tests.crypto.harness import (
    EVIDENCE,
    INTENT,
    PROTOCOLS,
    Run,
    Vector,
    another,
    identity,
    input_step,
    make_vectors,
    terms_for,
    total,
)
from tests.crypto.restarts import (
    restarting,
    restore,
    restored_aggregator,
    restored_client,
    restored_officer,
)

pytestmark = pytest.mark.parametrize("name", sorted(SECURE_SUMS))


def attempt(name: str, **changes: int) -> Run:
    terms = terms_for(name, 4, length=67, **changes)
    return Run(name, terms, make_vectors(terms))


@pytest.mark.parametrize("silent", [{}, {2: 0}, {2: 1}, {2: 2}, {2: 3}, {2: 4}])
def test_the_sum_is_exact_if_everybody_restarts_at_every_step(
    name: str, silent: dict[int, int]
) -> None:
    run = restarting(attempt(name))
    done = run.drive(silent)
    gone = 2 in silent and silent[2] <= input_step(name)
    assert done.contributors == ((1, 3, 4) if gone else (1, 2, 3, 4))
    np.testing.assert_array_equal(done.total, total(run.terms, run.vectors, done.contributors))
    assert run.refused == []


@pytest.mark.parametrize("bits", [3, 33, 50])
def test_the_sum_is_exact_if_one_party_restarts(name: str, bits: int) -> None:
    parties = [0, 1, *attempt(name).officers]
    for who in parties:
        run = restarting(attempt(name, bits=bits), [who])
        np.testing.assert_array_equal(
            run.drive().total, total(run.terms, run.vectors, run.terms.cohort)
        )


def test_a_restored_party_is_the_party_that_was_saved(name: str) -> None:
    """Its state is saved as the same bytes again, and as other bytes after every step."""
    run = attempt(name)
    seen: dict[int, list[bytes]] = {k: [party.save()] for k, party in run.parties.items()}

    def look(step: int, k: int, answer: bytes) -> bytes:
        restored = restored_officer if k in run.officers else restored_client
        state = run.parties[k].save()
        assert restored(run, k, state).save() == state
        assert state not in seen[k]
        seen[k].append(state)
        aggregator = run.aggregator.save()
        assert restored_aggregator(run, aggregator).save() == aggregator
        return answer

    run.drive(forge=look)
    steps = {k: len(states) - 1 for k, states in seen.items()}
    assert sum(steps.values()) == sum(len(answers) for answers in run.answers)


def test_what_was_answered_or_refused_before_stays_so(name: str) -> None:
    run = attempt(name)
    run.drive()
    for k, party in run.parties.items():
        again = (restored_officer if k in run.officers else restored_client)(run, k, party.save())
        for sent, answers in zip(run.requests, run.answers, strict=True):
            if k not in sent:
                continue
            try:  # a committee's member repeats itself to the byte, so that losses can be survived
                assert again.step(sent[k]) == answers[k]
                assert k in run.officers
            except (OutOfOrder, MessageRefused):
                continue
    aggregator = restored_aggregator(run, run.aggregator.save())
    for call in (
        aggregator.begin,
        aggregator.advance,
        lambda: aggregator.authorise(INTENT, EVIDENCE),
    ):
        with pytest.raises(OutOfOrder):
            call()


def test_a_vector_is_asked_for_once_whatever_restarts(name: str) -> None:
    asked: list[int] = []
    run = attempt(name)
    told = dict(run.vectors)

    class Watched(dict[int, Vector]):
        def __getitem__(self, key: int) -> Vector:
            asked.append(key)
            return told[key]

    run.vectors = Watched(told)
    restarting(run).drive()
    assert sorted(asked) == [1, 2, 3, 4]


def test_the_reasons_of_silence_and_refusal_survive(name: str) -> None:
    terms = terms_for(name, 5)
    run = restarting(Run(name, terms, make_vectors(terms)))
    step = input_step(name)
    run.drive({1: step}, forge=lambda at, k, answer: b"noise" if (at, k) == (step, 2) else answer)
    assert run.ready is not None
    assert set(run.ready.dropped) == {1}
    assert set(run.ready.rejected) == {2}


def test_an_aborted_attempt_stays_aborted(name: str) -> None:
    run = restarting(attempt(name, min_survivors=4))
    with pytest.raises(SumAborted):
        run.drive({3: input_step(name)})
    for call in (run.aggregator.advance, lambda: run.aggregator.receive(1, b"")):
        with pytest.raises(OutOfOrder):
            call()


def states(name: str) -> tuple[Run, dict[int, bytes]]:
    """An attempt halfway, and the states of all its parties."""
    run = attempt(name)
    out = run.begin()
    for k, request in out.messages.items():
        run.aggregator.receive(k, run.clients[k].step(request))
    found = {k: party.save() for k, party in run.parties.items()}
    return run, {0: run.aggregator.save(), **found}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"round": 1}, "another attempt"),
        ({"attempt": 1}, "another attempt"),
        ({"run": bytes(32)}, "another attempt"),
        ({"model_digest": bytes(32)}, "another model"),
        ({"plan_digest": bytes(32)}, "other terms"),
    ],
)
def test_a_state_of_another_attempt_is_refused(
    name: str, changes: dict[str, object], match: str
) -> None:
    run, saved = states(name)
    run.terms = another(run.terms, **changes)
    for index, state in saved.items():
        with pytest.raises(StateRefused, match=match):
            restore(run, index, state)


def test_a_state_of_another_party_protocol_or_version_is_refused(name: str) -> None:
    run, saved = states(name)
    for index, state in saved.items():
        for other in saved.keys() - {index}:
            with pytest.raises(StateRefused, match=r"saved state of a"):
                restore(run, index, saved[other])
        with pytest.raises(StateRefused, match="version 2, this version reads 1"):
            restore(run, index, b"\2" + state[1:])
    for other in SECURE_SUMS.keys() - {name}:
        _, foreign = states(other)
        for index, state in foreign.items():
            if index in saved:
                with pytest.raises(StateRefused, match=r"saved state of a"):
                    restore(run, index, state)


def test_terms_and_seats_are_checked_again_when_a_party_is_restored(name: str) -> None:
    run, saved = states(name)
    protocol, other = PROTOCOLS[name], identity(9)
    unsafe = another(run.terms, min_survivors=1, threshold=1)
    for index, state in saved.items():
        if index == 0:
            with pytest.raises(TermsRefused, match="not the one in the roster"):
                protocol.restore_aggregator(run.terms, other, state)
            with pytest.raises(TermsRefused):
                protocol.restore_aggregator(unsafe, identity(0), state)
            continue
        taken = run.client_seat(index)
        make = protocol.restore_officer if index in run.officers else protocol.restore_client
        with pytest.raises(TermsRefused, match=f"{index} is not the one in the roster"):
            make(run.terms, replace(taken, identity=other), state)
        with pytest.raises(TermsRefused, match="is not in the"):
            make(run.terms, replace(taken, index=0), state)
        with pytest.raises(TermsRefused):
            make(unsafe, taken, state)
        assert make(run.terms, taken, state).save() == state


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_states_are_refused_by_type(name: str, data: st.DataObject) -> None:
    """Bytes changed, cut or added: refused, or a state that is saved as the same bytes."""
    run, saved = _states_once(name)
    index = data.draw(st.sampled_from(sorted(saved)))
    state = bytearray(saved[index])
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(state) - 1))
        width = data.draw(st.sampled_from([1, 4]))
        value = data.draw(st.sampled_from([0, 1, 2, 255, 65_536, MAX_U32]))
        state[at : at + width] = value.to_bytes(4, "little")[:width]
    cut = data.draw(st.integers(0, len(state)) | st.just(len(state)))
    damaged = bytes(state[:cut]) + data.draw(st.binary(max_size=3))
    try:
        found = restore(run, index, damaged)
    except StateRefused:
        return
    assert found.save() == damaged  # type: ignore[attr-defined]


@given(noise=st.binary(max_size=200))
def test_noise_is_no_state(name: str, noise: bytes) -> None:
    run, saved = _states_once(name)
    for index, state in saved.items():
        head = state[: state.index(run.name.encode()) + 60]
        for damaged in (noise, head[:40] + noise, state[:1] + noise):
            with pytest.raises(StateRefused):
                restore(run, index, damaged)


@lru_cache(maxsize=8)
def _states_once(name: str) -> tuple[Run, dict[int, bytes]]:
    return states(name)
