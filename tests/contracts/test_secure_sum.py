"""What every registered secure sum must do, whatever it hides: add exactly, survive, refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.errors import (
    KeyRefused,
    MessageRefused,
    OutOfOrder,
    RingRefused,
    SumAborted,
    TermsRefused,
)
from crypto.secure_sum import SECURE_SUMS, Done, Outgoing, Ready
from tests.crypto.harness import (
    EVIDENCE,
    INTENT,
    STEPS,
    WIDEST,
    Run,
    another,
    client_seat,
    identity,
    input_step,
    least_survivors,
    make_vectors,
    resign,
    seeded,
    terms_for,
    total,
)

ENCRYPTING = ("he", "threshold")  # clients that deviate are not withstood
pytestmark = pytest.mark.parametrize("name", sorted(SECURE_SUMS))


def test_registry_names_the_protocol(name: str) -> None:
    assert SECURE_SUMS[name].name == name


@pytest.mark.parametrize("clients", [3, 4, 7, 12])
@pytest.mark.parametrize("bits", [2, 3, 20, 31, 32, 33, 62])
def test_sum_is_exact_for_every_width(name: str, clients: int, bits: int) -> None:
    terms = terms_for(name, clients, bits=min(bits, WIDEST[name]), length=67)
    vectors = make_vectors(terms, seed=bits)
    done = Run(name, terms, vectors).drive()
    assert done.contributors == terms.cohort
    assert done.total.dtype == np.int64
    np.testing.assert_array_equal(done.total, total(terms, vectors, terms.cohort))


def test_long_vectors_cross_every_block_border(name: str) -> None:
    terms = terms_for(name, 4, bits=19, length=270_001)
    vectors = make_vectors(terms)
    done = Run(name, terms, vectors).drive({4: input_step(name)})
    assert done.contributors == (1, 2, 3)
    np.testing.assert_array_equal(done.total, total(terms, vectors, (1, 2, 3)))


def test_cohort_is_a_part_of_the_roster(name: str) -> None:
    terms = terms_for(name, 9, cohort=(2, 3, 7, 9))
    vectors = make_vectors(terms)
    done = Run(name, terms, vectors).drive()
    np.testing.assert_array_equal(done.total, total(terms, vectors, (2, 3, 7, 9)))


@pytest.mark.parametrize("length", [1, 300, 9000])
def test_the_bytes_of_an_upload_are_as_stated(name: str, length: int) -> None:
    """Around them stand an envelope (110 bytes) and at most a digest."""
    terms = terms_for(name, 4, bits=19, length=length)
    run = Run(name, terms, make_vectors(terms))
    run.drive()
    stated = SECURE_SUMS[name].upload_bytes(terms)
    for answer in run.answers[input_step(name)].values():
        assert 110 <= len(answer) - stated <= 110 + 32


@pytest.mark.parametrize("step", range(max(STEPS.values())))
@pytest.mark.parametrize("gone", [(1,), (5,), (2, 4)])
def test_drops_at_every_step(name: str, step: int, gone: tuple[int, ...]) -> None:
    terms = terms_for(name, 5)
    vectors = make_vectors(terms)
    run = Run(name, terms, vectors)
    done = run.drive(dict.fromkeys(gone, step))
    if step > input_step(name):
        expected = terms.cohort
    else:
        expected = tuple(k for k in terms.cohort if k not in gone)
    assert done.contributors == expected
    np.testing.assert_array_equal(done.total, total(terms, vectors, expected))
    assert run.ready is not None
    assert set(run.ready.dropped) == set(terms.cohort) - set(expected)


@settings(max_examples=30)
@given(data=st.data())
def test_equals_the_plain_sum_for_any_drop_pattern(name: str, data: st.DataObject) -> None:
    clients = data.draw(st.integers(3, 6), label="clients")
    least = clients // 2 + 1
    terms = terms_for(
        name,
        clients,
        bits=data.draw(st.integers(2, WIDEST[name]), label="bits"),
        length=data.draw(st.integers(1, 40), label="length"),
        threshold=data.draw(st.integers(least, clients), label="threshold"),
        min_survivors=clients if data.draw(st.booleans(), label="all must survive") else None,
    )
    steps = STEPS[name]
    silent = data.draw(
        st.dictionaries(st.sampled_from(terms.cohort), st.integers(0, steps)), label="silent"
    )
    vectors = make_vectors(terms, seed=data.draw(st.integers(0, 2**32 - 1)))
    run = Run(name, terms, vectors)
    heard = [[k for k in terms.cohort if silent.get(k, steps) > step] for step in range(steps)]
    inputs = heard[input_step(name)]
    opening = terms.threshold if name not in ENCRYPTING else 0
    enough = len(inputs) >= terms.quorum and len(heard[-1]) >= opening
    if not enough:
        with pytest.raises(SumAborted):
            run.drive(silent)
        return
    done = run.drive(silent)
    assert done.contributors == tuple(inputs)
    np.testing.assert_array_equal(done.total, total(terms, vectors, inputs))


def test_largest_and_smallest_sums(name: str) -> None:
    terms = terms_for(name, 4, bits=8, length=2)
    vectors = {k: np.array([32 - (k == 1), -32], dtype=np.int64) for k in terms.cohort}
    done = Run(name, terms, vectors).drive()
    np.testing.assert_array_equal(done.total, [127, -128])


def test_vector_is_asked_for_once_and_only_after_the_checks(name: str) -> None:
    terms = terms_for(name, 3)
    asked: list[int] = []
    run = Run(name, terms, make_vectors(terms))

    def vector() -> np.ndarray:
        asked.append(len(run.requests))
        return np.zeros(terms.length, dtype=np.int64)

    run.clients[2] = SECURE_SUMS[name].client(terms, client_seat(2, vector, seeded("asked")))
    run.drive()
    assert asked == [input_step(name) + 1]


@pytest.mark.parametrize("shape", [(), (0,), (4,), (6,), (5, 1), (1, 5)])
def test_a_vector_of_another_shape_is_refused(name: str, shape: tuple[int, ...]) -> None:
    terms = terms_for(name, 3)
    run = Run(name, terms, make_vectors(terms))
    seat = client_seat(2, lambda: np.zeros(shape, dtype=np.int64), seeded("another shape"))
    run.clients[2] = SECURE_SUMS[name].client(terms, seat)
    with pytest.raises(RingRefused, match=r"vector of shape .*; allowed: \(5,\)"):
        run.drive()


@pytest.mark.parametrize("value", [1 << 19, -(1 << 19) - 1, (1 << 62) + 1])
def test_a_value_beyond_the_ring_is_refused(name: str, value: int) -> None:
    terms = terms_for(name, 3, bits=20)
    run = Run(name, terms, make_vectors(terms))
    vector = np.array([0, 0, value, 0, 0], dtype=np.int64)
    run.clients[2] = SECURE_SUMS[name].client(
        terms, client_seat(2, lambda: vector, seeded("beyond"))
    )
    with pytest.raises(RingRefused, match="a value lies outside"):
        run.drive()


def test_calls_out_of_order(name: str) -> None:
    terms = terms_for(name, 3)
    run = Run(name, terms, make_vectors(terms))
    aggregator = run.aggregator
    assert aggregator.expecting == frozenset()
    for call in (aggregator.advance, lambda: aggregator.receive(1, b"")):
        with pytest.raises(OutOfOrder):
            call()
    with pytest.raises(OutOfOrder):
        aggregator.authorise(INTENT, EVIDENCE)
    done = run.drive()
    assert isinstance(done, Done)
    for call in (aggregator.begin, aggregator.advance, lambda: aggregator.receive(1, b"")):
        with pytest.raises(OutOfOrder):
            call()
    with pytest.raises(OutOfOrder):
        aggregator.authorise(INTENT, EVIDENCE)
    with pytest.raises(OutOfOrder):
        run.clients[1].step(next(sent[1] for sent in run.requests if 1 in sent))


def test_nothing_is_opened_before_authorise(name: str) -> None:
    terms = terms_for(name, 3)
    run = Run(name, terms, make_vectors(terms))
    out = run.aggregator.begin()
    while not isinstance(out, Ready):
        assert isinstance(out, Outgoing)
        for k, request in out.messages.items():
            run.aggregator.receive(k, run.parties[k].step(request))
        out = run.aggregator.advance()
    with pytest.raises(OutOfOrder):
        run.aggregator.advance()
    with pytest.raises(KeyRefused):
        run.aggregator.authorise(b"too short", EVIDENCE)
    assert run.aggregator.expecting == frozenset()
    assert isinstance(run.aggregator.authorise(INTENT, EVIDENCE), Outgoing)
    with pytest.raises(OutOfOrder):
        run.aggregator.authorise(INTENT, EVIDENCE)


def test_expecting_shrinks_as_answers_arrive(name: str) -> None:
    terms = terms_for(name, 3)
    run = Run(name, terms, make_vectors(terms))
    out = run.begin()
    waiting = set(terms.cohort)
    for k, request in out.messages.items():
        assert run.aggregator.expecting == waiting
        run.aggregator.receive(k, run.clients[k].step(request))
        waiting.discard(k)
    assert run.aggregator.expecting == frozenset()


def test_repeated_and_late_answers_change_nothing(name: str) -> None:
    terms = terms_for(name, 5)
    vectors = make_vectors(terms)
    run = Run(name, terms, vectors)
    late = 0

    def again(step: int, client: int, answer: bytes) -> bytes | None:
        nonlocal late
        if step == input_step(name) and client == 2:
            return None
        run.aggregator.receive(client, answer)
        for old in [answer, *(answers.get(client, answer) for answers in run.answers)]:
            with pytest.raises(MessageRefused):
                run.aggregator.receive(client, old)
        if run.ready is not None:
            with pytest.raises(MessageRefused, match="nothing is due"):
                run.aggregator.receive(2, run.answers[input_step(name)][2])
            late += 1
        return None

    done = run.drive(forge=again)
    assert done.contributors == (1, 3, 4, 5)
    np.testing.assert_array_equal(done.total, total(terms, vectors, (1, 3, 4, 5)))
    assert late == {"he": 1, "masking": 8, "plain": 0, "threshold": 8}[name]


def test_upload_between_ready_and_authorise_is_not_added(name: str) -> None:
    terms = terms_for(name, 4)
    vectors = make_vectors(terms)
    run = Run(name, terms, vectors)
    out = run.aggregator.begin()
    held = b""
    while not isinstance(out, Ready):
        for k, request in out.messages.items():
            answer = run.parties[k].step(request)
            if k == 3 and len(out.messages) == 4:
                held = answer
            if k != 3 or len(run.requests) != input_step(name):
                run.aggregator.receive(k, answer)
        run.requests.append(dict(out.messages))
        out = run.aggregator.advance()
    assert out.survivors == (1, 2, 4)
    with pytest.raises(MessageRefused):
        run.aggregator.receive(3, held)
    done: Outgoing | Ready | Done = run.aggregator.authorise(INTENT, EVIDENCE)
    while isinstance(done, Outgoing):
        for k, request in done.messages.items():
            run.aggregator.receive(k, run.parties[k].step(request))
        done = run.aggregator.advance()
    assert isinstance(done, Done)
    np.testing.assert_array_equal(done.total, total(terms, vectors, (1, 2, 4)))


def test_refused_answers_are_counted_apart_from_silence(name: str) -> None:
    terms = terms_for(name, 5)
    run = Run(name, terms, make_vectors(terms))
    step = input_step(name)
    done = run.drive(
        {1: step}, forge=lambda k, client, answer: b"noise" if (k, client) == (step, 2) else answer
    )
    assert done.contributors == (3, 4, 5)
    assert run.ready is not None
    assert set(run.ready.dropped) == {1}
    assert set(run.ready.rejected) == {2}
    assert [(refusal.sender, bool(refusal.reason)) for refusal in run.refused] == [(2, True)]


def test_a_stranger_is_refused(name: str) -> None:
    terms = terms_for(name, 9, cohort=(1, 2, 3))
    run = Run(name, terms, make_vectors(terms))
    out = run.begin()
    answer = run.clients[1].step(out.messages[1])
    for sender in (0, 2, 4, 9, 10, 2**32 - 1):
        with pytest.raises(MessageRefused) as caught:
            run.aggregator.receive(sender, answer)
        assert caught.value.sender == sender
    run.aggregator.receive(1, answer)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"cohort": (1, 2), "threshold": 2, "min_survivors": 2}, "subtracting"),
        ({"threshold": 2, "min_survivors": 2}, "both shares"),
        ({"max_colluders": 1}, "both shares"),
        ({"threshold": 6, "min_survivors": 6}, "threshold 6"),
        ({"min_survivors": 2}, "min_survivors is 2"),
        ({"min_survivors": 6}, "min_survivors is 6"),
        ({"max_colluders": 4, "threshold": 5, "min_survivors": 5}, "fewer than 2 honest"),
        (
            {"cohort": (1, 2, 3), "degree": 2, "threshold": 2, "min_survivors": 2},
            "one curious client",
        ),
    ],
)
def test_terms_that_break_the_promise_are_refused(
    name: str, changes: dict[str, object], match: str
) -> None:
    protocol = SECURE_SUMS[name]
    protocol.check(terms_for(name, 5))
    if name in ENCRYPTING and "max_colluders" in changes:
        match = "max_colluders"
    elif name in ENCRYPTING and match == "both shares":  # nothing is shared
        changes, match = {"threshold": 1, "min_survivors": 1}, "fewer than 2 honest"
    terms = another(terms_for(name, 5), **changes)
    with pytest.raises(TermsRefused, match=match):
        protocol.check(terms)
    with pytest.raises(TermsRefused, match=match):
        protocol.aggregator(terms, identity(0))
    with pytest.raises(TermsRefused, match=match):
        protocol.client(terms, client_seat(1, lambda: np.zeros(5), seeded(0)))


@pytest.mark.parametrize("clients", range(3, 41))
def test_the_sharing_of_a_protocol_is_one_that_it_allows(name: str, clients: int) -> None:
    """Up to the most drops that can be survived; with fewer survivors there is no sharing."""
    protocol = SECURE_SUMS[name]
    for colluders in range(clients // 3 + 1 if name not in ENCRYPTING else 1):
        least = least_survivors((clients + colluders) // 2 + 1, colluders)
        for survivors in range(least, clients + 1):
            sharing = protocol.sharing(clients, colluders, survivors)
            assert sharing.threshold <= survivors
            terms = terms_for(name, clients, max_colluders=colluders, min_survivors=survivors)
            protocol.check(another(terms, degree=sharing.degree, threshold=sharing.threshold))
        if name in ENCRYPTING:
            assert (sharing.degree, sharing.threshold) == (0, 1)
            continue
        few = (clients + colluders) // 2
        with pytest.raises(TermsRefused, match=f"min_survivors is {few}"):
            protocol.sharing(clients, colluders, few)
        with pytest.raises(TermsRefused):
            protocol.check(terms_for(name, clients, max_colluders=colluders, threshold=few))


def test_identities_must_be_those_of_the_roster(name: str) -> None:
    protocol, terms = SECURE_SUMS[name], terms_for(name, 9, cohort=(1, 2, 3))
    with pytest.raises(TermsRefused, match="aggregator's identity"):
        protocol.aggregator(terms, identity(1))
    for index, who in ((1, 2), (4, 4), (0, 0)):
        with pytest.raises(TermsRefused, match=f"client {index}"):
            protocol.client(terms, client_seat(index, lambda: np.zeros(5), seeded(0), signer=who))


def test_invitations_hold_nothing(name: str) -> None:
    terms = terms_for(name, 3)
    run = Run(name, terms, make_vectors(terms))
    for k, request in run.aggregator.begin().messages.items():
        with pytest.raises(MessageRefused, match="not empty"):
            run.parties[k].step(resign(request, b"x"))
        run.parties[k].step(request)


def test_capabilities_are_plain_values(name: str) -> None:
    told = SECURE_SUMS[name].capabilities().to_json()
    assert told["hides_updates"] is (name != "plain")
    assert told["drops"] is True
    assert isinstance(told["notes"], list)
    assert all(isinstance(note, str) for note in told["notes"])
    assert {"aggregator", "clients", "collusion"} <= told.keys()
