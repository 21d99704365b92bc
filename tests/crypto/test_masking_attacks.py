"""Attacks: each one that works on a peer, or on a weakened build of this code, fails here.

The weaknesses are those found in Flower's SecAgg+ (28-bit seeds, the largest ring value never
drawn, both shares of one client handed out, unsigned keys, a silently wrong mean) and what a
malicious aggregator with colluding clients could try on any double masking.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crypto.masking_client
from crypto.errors import MessageRefused, OutOfOrder, RingRefused, SumAborted, TermsRefused
from crypto.keys import AgreementKey, Rand
from crypto.masking_keys import ClientSecrets, mask_key, pair_key, self_key
from crypto.masking_messages import (
    Kind,
    UnmaskRequest,
    decode_advert,
    decode_bundle,
    decode_delivery,
    decode_masked_input,
    encode_bundle,
    encode_delivery,
)
from crypto.prg import expand
from crypto.ring import Ring, Unsigned
from crypto.secure_sum import SECURE_SUMS, Terms
from crypto.shamir import combine
from tests.crypto.harness import (
    INTENT,
    STEPS,
    Run,
    context_of,
    identity,
    make_terms,
    make_vectors,
    payload_of,
    resign,
    seeded,
    total,
)

ADVERTISE, SHARE, MASKED, UNMASK = range(4)
WEAK_BITS = 8  # Flower folds to 28 bits, hours of search; 8 bits show the same in milliseconds


# --- seeds that can be searched -----------------------------------------------------------------


def weak(seed: int) -> Rand:
    """Randomness with only WEAK_BITS of entropy behind it."""
    return seeded(f"weak {seed % 2**WEAK_BITS}")


def unmasked(run: Run, victim: int, self_seed: bytes, mask_secret: bytes) -> np.ndarray:
    """What anyone who holds both secrets of a client reads in its upload."""
    terms = run.terms
    adverts = {k: decode_advert(payload_of(answer)) for k, answer in run.answers[0].items()}
    upload = run.answers[MASKED][victim]
    ctx2 = context_of(upload)
    vector = terms.ring.unpack(decode_masked_input(payload_of(upload))[1], terms.length)
    vector = vector - expand(self_key(ctx2, victim, self_seed), terms.ring, terms.length)
    own = mask_key(mask_secret)
    for peer in adverts.keys() - {victim}:
        key = pair_key(ctx2, own, victim, adverts[peer].mask, peer)
        stream = expand(key, terms.ring, terms.length)
        vector = vector - stream if peer > victim else vector + stream
    terms.ring.reduce(vector)
    return terms.ring.decode(vector)


def search(run: Run, victim: int) -> np.ndarray | None:
    """What an aggregator that guesses seeds recovers from the public transcript, or None."""
    advert = decode_advert(payload_of(run.answers[0][victim]))
    for seed in range(2**WEAK_BITS):
        guess = ClientSecrets.generate(weak(seed))
        if guess.advert(run.terms.ctx1, victim) == advert:
            return unmasked(run, victim, guess.self_seed.reveal(), guess.mask_secret.reveal())
    return None


def run_with(rand: Rand) -> Run:
    terms = make_terms(4, length=50)
    run = Run("masking", terms, make_vectors(terms))
    run.clients[2] = SECURE_SUMS["masking"].client(
        terms, index=2, identity=identity(2), vector=lambda: run.vectors[2], rand=rand
    )
    run.drive()
    return run


def test_seed_search_recovers_the_vector_of_a_weakened_build() -> None:
    run = run_with(weak(77))
    found = search(run, victim=2)
    assert found is not None
    np.testing.assert_array_equal(found, run.vectors[2])


def test_seed_search_finds_nothing_with_full_width_seeds() -> None:
    assert search(run_with(os.urandom), victim=2) is None


def test_seeds_are_drawn_at_full_width() -> None:
    asked: list[int] = []

    def rand(length: int) -> bytes:
        asked.append(length)
        return os.urandom(length)

    run_with(rand)
    # m, b and the channel key, then the coefficients of both polynomials of degree t - 1.
    assert asked == [32, 32, 32, 2 * 32, 2 * 32]


# --- the largest ring value ---------------------------------------------------------------------


def missing(values: np.ndarray, bits: int) -> set[int]:
    return set(range(2**bits)) - {int(v) for v in values}


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_masks_reach_every_ring_value(bits: int) -> None:
    """Alpha: a uniform stream misses some value with P <= 2^b (1 - 2^-b)^4096 < 1e-26 (b = 6)."""
    length = 4096
    assert 2**bits * (1 - 2.0**-bits) ** length < 1e-26
    assert not missing(expand(os.urandom(32), Ring(bits), length), bits)
    terms = make_terms(3, bits=bits, length=length)
    run = Run(
        "masking", terms, {k: np.zeros(length, np.int64) for k in terms.cohort}, os.urandom(8)
    )
    run.drive()
    for upload in run.answers[MASKED].values():
        packed = decode_masked_input(payload_of(upload))[1]
        assert not missing(terms.ring.unpack(packed, length), bits)
    # Power: masks drawn as in Flower, below 2^b - 1, are caught every time.
    below = np.random.default_rng(0).integers(0, 2**bits - 1, length)
    assert missing(below, bits) == {2**bits - 1}


# --- what an aggregator can ask for -------------------------------------------------------------


def test_a_client_listed_as_both_alive_and_dead_is_refused_by_everybody() -> None:
    terms = make_terms(5)
    run = Run("masking", terms, make_vectors(terms))
    both = UnmaskRequest(INTENT, terms.cohort, (2,)).encode()
    answers: list[bytes] = []

    def ask_twice(step: int, client: int, request: bytes) -> bytes:
        if step == UNMASK:
            with pytest.raises(MessageRefused, match="both shares of one client"):
                answers.append(run.clients[client].step(resign(request, both)))
        return request

    done = run.drive(forge_request=ask_twice)
    assert not answers
    np.testing.assert_array_equal(done.total, total(terms, run.vectors, terms.cohort))


def test_a_drop_before_the_shares_does_not_kill_the_round() -> None:
    terms = make_terms(5)
    run = Run("masking", terms, make_vectors(terms))
    done = run.drive({2: ADVERTISE, 3: SHARE})
    assert done.contributors == (1, 4, 5)


def test_nothing_but_the_packed_vector_is_uploaded() -> None:
    terms = make_terms(4, bits=23, length=1000)
    run = Run("masking", terms, make_vectors(terms))
    run.drive()
    for upload in run.answers[MASKED].values():
        assert len(payload_of(upload)) == 32 + -(-1000 * 23 // 8)


def test_a_sum_that_could_wrap_is_refused_and_never_a_wrong_mean() -> None:
    # Flower's default weight cap wraps with a warning: here the ring is built for the bound ...
    ring = Ring.for_sum(max_abs=1000, clients=10, noise_std=0.0, dimension=5)
    assert 2 ** (ring.bits - 1) > 10 * 1000
    # ... cannot be built where no ring is wide enough ...
    with pytest.raises(RingRefused):
        Ring.for_sum(max_abs=2**60, clients=10, noise_std=0.0, dimension=5)
    # ... and a client whose vector breaks the ring sends nothing.
    terms = make_terms(3, bits=8)
    big = np.full(terms.length, 128, dtype=np.int64)
    run = Run("masking", terms, {**make_vectors(terms), 2: big})
    with pytest.raises(RingRefused):
        run.drive()
    assert 2 not in run.answers[MASKED]


# --- derivation closure -------------------------------------------------------------------------


class Aggregator:
    """A malicious aggregator with colluding clients: it keeps every share it is ever given."""

    def __init__(self, terms: Terms, corrupt: set[int], seed: int) -> None:
        self.terms = terms
        self.corrupt = corrupt
        self.run = Run("masking", terms, make_vectors(terms), seed)
        self.honest = sorted(set(terms.cohort) - corrupt)
        self.holders: dict[tuple[int, Kind], set[int]] = defaultdict(set)
        self.opened: dict[int, tuple[int, ...]] = {}

    def tell(self, client: int, request: bytes, payload: bytes) -> bytes | None:
        context = self.run.clients[client]._context
        try:
            return self.run.clients[client].step(resign(request, payload, context=context))
        except MessageRefused:
            return None

    def collect(self, victim: int, kind: Kind, holder: int) -> None:
        self.holders[victim, kind].add(holder)


@settings(max_examples=80)
@given(data=st.data())
def test_no_behaviour_of_the_aggregator_collects_both_shares_of_an_honest_client(
    data: st.DataObject,
) -> None:
    """Split views of U1, U2 and survivors, withheld deliveries, repeated and overlapping requests.

    Every honest client is the real one; corrupt clients hand over all they hold, which is one
    share of both secrets of everybody who dealt to them.
    """
    clients = data.draw(st.integers(4, 7), label="clients")
    colluders = data.draw(st.integers(0, 2 if clients > 5 else 1), label="colluders")
    least = SECURE_SUMS["masking"].default_threshold(clients, colluders)
    terms = make_terms(
        clients,
        max_colluders=colluders,
        threshold=least,
        min_survivors=max(least, colluders + 2),
    )
    corrupt = data.draw(
        st.sets(st.sampled_from(terms.cohort), min_size=colluders, max_size=colluders)
    )
    adversary = Aggregator(terms, corrupt, data.draw(st.integers(0, 9)))
    run, everybody = adversary.run, set(terms.cohort)
    requests = run.aggregator.begin().messages
    adverts = {k: run.clients[k].step(requests[k]) for k in terms.cohort}

    def subset(of: set[int], label: str) -> set[int]:
        if data.draw(st.integers(0, 3)):
            return of
        return data.draw(st.sets(st.sampled_from(sorted(of)), min_size=1), label=label)

    # Corrupt clients answer honestly: what matters is that the aggregator knows their shares.
    views = {k: subset(everybody, f"U1 shown to {k}") | {k} for k in adversary.honest}
    shared: dict[int, dict[int, bytes]] = {}
    for k in terms.cohort:
        view = views.get(k, everybody)
        payload = encode_bundle({j: adverts[j] for j in view})
        answer = adversary.tell(k, _as_share(requests[k]), payload)
        if answer is not None:
            shared[k] = decode_bundle(payload_of(answer))
            for colluder in corrupt & shared[k].keys():
                for kind in Kind:
                    adversary.collect(k, kind, colluder)

    delivered: dict[int, set[int]] = {}
    for k in sorted(set(adversary.honest) & shared.keys()):
        members = subset(set(shared), f"U2 shown to {k}") | {k}
        held = {j: shared[j][k] for j in members - {k} if k in shared[j]}
        if data.draw(st.integers(0, 5)) == 0:
            held = dict(list(held.items())[1:])
        payload = encode_delivery(tuple(sorted(members)), held)
        if adversary.tell(k, _as_masked(requests[k]), payload) is not None:
            assert held.keys() == members - {k}
            assert len(members) >= terms.quorum
            delivered[k] = members

    for k, members in delivered.items():
        for _ in range(data.draw(st.integers(1, 3), label=f"requests to {k}")):
            survivors = data.draw(st.sets(st.sampled_from(sorted(everybody)))) | {k}
            dropped = members - survivors
            if data.draw(st.integers(0, 3)) == 0:
                dropped |= data.draw(st.sets(st.sampled_from(sorted(members))))
            request = UnmaskRequest(INTENT, tuple(sorted(survivors)), tuple(sorted(dropped)))
            try:
                answer = adversary.tell(k, _as_unmask(requests[k]), request.encode())
            except OutOfOrder:
                assert k in adversary.opened
                continue
            if answer is not None:
                assert k not in adversary.opened
                assert len(survivors) >= terms.quorum
                adversary.opened[k] = request.survivors
                for victim, kind in request.kinds().items():
                    adversary.collect(victim, kind, k)

    for victim in adversary.honest:
        known = [len(adversary.holders[victim, kind]) for kind in Kind]
        assert min(known) < terms.threshold


def split_the_survivors(threshold: int) -> tuple[Run, np.ndarray | None]:
    """Show clients 1 and 4 that client 4 lives, clients 2 and 3 that it is gone; take it apart."""
    terms = make_terms(4, threshold=threshold, length=20)
    run = Run("masking", terms, make_vectors(terms))

    def lie(step: int, client: int, request: bytes) -> bytes:
        if step != UNMASK:
            return request
        lists = ((1, 2, 4), (3,)) if client in (1, 4) else ((1, 2, 3), (4,))
        return resign(request, UnmaskRequest(INTENT, *lists).encode())

    with suppress(MessageRefused, SumAborted):
        run.drive(forge_request=lie)
    given: dict[Kind, dict[int, bytes]] = {kind: {} for kind in Kind}
    for holder, answer in run.answers[UNMASK].items():
        record = payload_of(answer)[32 + 3 * 37 :]  # index 4 bytes, kind 1 byte, share 32 bytes
        given[Kind(record[4])][holder] = record[5:]
    assert {kind: sorted(held) for kind, held in given.items()} == {
        Kind.SELF_SEED: [1, 4],
        Kind.MASK_SECRET: [2, 3],
    }
    if any(len(held) < threshold for held in given.values()):
        return run, None
    self_seed, mask_secret = (combine(given[kind], threshold=threshold) for kind in Kind)
    return run, unmasked(run, 4, self_seed, mask_secret)


def test_split_survivors_take_a_client_apart_below_the_threshold_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as weakened:
        weakened.setattr("crypto.masking.check_thresholds", lambda _: None)
        run, found = split_the_survivors(threshold=2)  # 2t = n: what check refuses
        assert found is not None
        np.testing.assert_array_equal(found, run.vectors[4])
    assert split_the_survivors(threshold=3)[1] is None
    with pytest.raises(TermsRefused, match="both shares of one client"):
        split_the_survivors(threshold=2)


def single_out(threshold: int) -> tuple[Run, np.ndarray | None]:
    """Tell client 1 that only 1 to t shared; tell the others that 2 to t dropped, where it can."""
    terms = make_terms(5, threshold=threshold, length=20)
    run = Run("masking", terms, make_vectors(terms))
    few = tuple(range(1, threshold + 1))

    def lie(step: int, client: int, request: bytes) -> bytes:
        if step == MASKED and client == 1:
            envelopes = decode_delivery(payload_of(request))[1]
            return resign(request, encode_delivery(few, {k: envelopes[k] for k in few[1:]}))
        if step == UNMASK:
            members = few if client == 1 else terms.cohort
            gone = {k for k in few[1:] if k != client} if client != 1 else set()
            gone = set(sorted(gone)[: len(members) - terms.quorum])
            alive = tuple(k for k in members if k not in gone)
            return resign(request, UnmaskRequest(INTENT, alive, tuple(sorted(gone))).encode())
        return request

    # This aggregator follows its own rules, not ours: it drives the clients and keeps the shares.
    run.aggregator._read_input = lambda sender, message: None
    with suppress(MessageRefused, SumAborted):
        run.drive(forge_request=lie)
    held: dict[tuple[int, Kind], dict[int, bytes]] = defaultdict(dict)
    for holder, answer in run.answers[UNMASK].items():
        records = payload_of(answer)[32:]
        for at in range(0, len(records), 37):
            index, kind = int.from_bytes(records[at : at + 4], "little"), Kind(records[at + 4])
            held[index, kind][holder] = records[at + 5 : at + 37]
    needed = [(1, Kind.SELF_SEED), *((k, Kind.MASK_SECRET) for k in few[1:])]
    if any(len(held[key]) < threshold for key in needed):
        return run, None
    seed, *masks = (
        combine(dict(list(held[key].items())[:threshold]), threshold=threshold) for key in needed
    )
    upload = run.answers[MASKED][1]
    ctx2, ring = context_of(upload), terms.ring
    vector = ring.unpack(decode_masked_input(payload_of(upload))[1], terms.length)
    vector = vector - expand(self_key(ctx2, 1, seed), ring, terms.length)
    public = decode_advert(payload_of(run.answers[ADVERTISE][1])).mask
    for peer, secret in zip(few[1:], masks, strict=True):
        key = pair_key(ctx2, mask_key(secret), peer, public, 1)
        vector = vector - expand(key, ring, terms.length)
    ring.reduce(vector)
    return run, ring.decode(vector)


def test_limit_an_aggregator_that_lies_about_who_is_there_can_single_out_a_client() -> None:
    """Why the capability says honest-but-curious: only a consistency round closes this.

    No client gives both shares of anybody, and each sees enough survivors, but not the same ones.
    """
    run, found = single_out(threshold=3)
    assert found is not None
    np.testing.assert_array_equal(found, run.vectors[1])
    assert SECURE_SUMS["masking"].capabilities().aggregator == "honest-but-curious"
    assert single_out(threshold=4)[1] is None


def test_limit_a_dealer_can_keep_chosen_others_out_of_a_sum() -> None:
    """Nobody but the recipient can tell that shares do not open, and it stays out if they do not.

    The sum is right and holds min_survivors vectors; who is in it was the dealer's choice.
    """
    terms = make_terms(5)
    run = Run("masking", terms, make_vectors(terms))

    def forge(step: int, client: int, answer: bytes) -> bytes:
        if (step, client) != (1, 1):
            return answer
        envelopes = decode_bundle(payload_of(answer))
        for victim in (4, 5):
            sealed = payload_of(envelopes[victim])
            envelopes[victim] = resign(envelopes[victim], bytes(len(sealed)))
        return resign(answer, encode_bundle(envelopes))

    done = run.drive(forge=forge)
    assert done.contributors == (1, 2, 3)
    np.testing.assert_array_equal(done.total, total(terms, run.vectors, (1, 2, 3)))
    assert [(refusal.sender, refusal.step) for refusal in run.refused] == [(1, "share")] * 2
    assert run.ready is not None
    assert run.ready.dropped == {4: "masked input", 5: "masked input"}
    assert any(
        "keep chosen others out" in note for note in SECURE_SUMS["masking"].capabilities().notes
    )


def _as(step: int, request: bytes) -> bytes:
    return request[:1] + bytes([step]) + request[2:]


def _as_share(request: bytes) -> bytes:
    return _as(2, request)


def _as_masked(request: bytes) -> bytes:
    return _as(3, request)


def _as_unmask(request: bytes) -> bytes:
    return _as(5, request)


# --- what the view says about honest inputs -----------------------------------------------------


def test_with_ideal_streams_the_view_is_the_same_for_shifted_honest_inputs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Move delta from client 2's input to client 1's, and shift their common stream by it.

    An ideal stream is as likely to be either, so everything the aggregator and all other clients
    see must be identical byte for byte, and so must the sum.
    """
    terms = make_terms(4, length=20)
    delta = np.arange(1, 21, dtype=np.int64)
    base = {k: np.full(20, k, dtype=np.int64) for k in terms.cohort}
    shifted = {**base, 1: base[1] + delta, 2: base[2] - delta}
    first = Run("masking", terms, base)
    expected = first.drive({4: MASKED})

    pairs: dict[bytes, tuple[int, int]] = {}
    real_pair_key, real_add = crypto.masking_client.pair_key, crypto.masking_client.add_stream
    real_subtract = crypto.masking_client.subtract_stream

    def noted(ctx2: bytes, own: AgreementKey, index: int, peer: bytes, peer_index: int) -> bytes:
        key = real_pair_key(ctx2, own, index, peer, peer_index)
        pairs[key] = (min(index, peer_index), max(index, peer_index))
        return key

    def ideal(real: Callable[[Unsigned, bytes], None], sign: int) -> object:
        def apply(accumulator: Unsigned, key: bytes) -> None:
            real(accumulator, key)
            if pairs.get(key) == (1, 2):
                accumulator -= (sign * delta).astype(accumulator.dtype)

        return apply

    unshifted = Run("masking", terms, shifted)
    unshifted.drive({4: MASKED})
    assert unshifted.answers[MASKED] != first.answers[MASKED]

    monkeypatch.setattr(crypto.masking_client, "pair_key", noted)
    monkeypatch.setattr(crypto.masking_client, "add_stream", ideal(real_add, 1))
    monkeypatch.setattr(crypto.masking_client, "subtract_stream", ideal(real_subtract, -1))
    second = Run("masking", terms, shifted)
    done = second.drive({4: MASKED})
    assert (second.requests, second.answers) == (first.requests, first.answers)
    np.testing.assert_array_equal(done.total, expected.total)


# --- messages on the way ------------------------------------------------------------------------


def mangled(data: st.DataObject, message: bytes, others: list[bytes]) -> bytes:
    """A changed, cut, extended, exchanged or replayed message; never the same one."""
    how = data.draw(st.sampled_from(["flip", "cut", "extend", "other", "swap halves"]))
    if how == "flip":
        at = data.draw(st.integers(0, len(message) - 1))
        mask = data.draw(st.integers(1, 255))
        return message[:at] + bytes([message[at] ^ mask]) + message[at + 1 :]
    if how == "cut":
        return message[: data.draw(st.integers(0, len(message) - 1))]
    if how == "extend":
        return message + data.draw(st.binary(min_size=1, max_size=9))
    if how == "other" and others:
        return data.draw(st.sampled_from(others))
    half = len(message) // 2
    return message[half:] + message[:half]


@pytest.mark.parametrize("name", sorted(STEPS))
@settings(max_examples=80)
@given(data=st.data())
def test_any_changed_message_is_refused_by_name_and_changes_nothing(
    name: str, data: st.DataObject
) -> None:
    terms = make_terms(4)
    vectors = make_vectors(terms)
    other_terms = make_terms(4, round_number=8)
    foreign = Run(name, other_terms, make_vectors(other_terms))
    foreign.drive()
    run = Run(name, terms, vectors)
    step = data.draw(st.integers(0, STEPS[name] - 1), label="step")
    client = data.draw(st.sampled_from(terms.cohort), label="client")
    to_aggregator = data.draw(st.booleans(), label="to the aggregator")
    labels = {"masking": ["advertise", "share", "masked input", "unmask"]}.get(
        name, ["plain input"]
    )

    def material(message: bytes) -> list[bytes]:
        """Everything that was sent before, to and by anyone, in this round and in another one."""
        rounds = [*run.requests, *run.answers, *foreign.requests, *foreign.answers]
        return [old for sent in rounds for old in sent.values() if old != message]

    def forge(at: int, who: int, answer: bytes) -> bytes:
        if to_aggregator and (at, who) == (step, client):
            with pytest.raises(MessageRefused) as caught:
                run.aggregator.receive(who, mangled(data, answer, material(answer)))
            assert (caught.value.sender, caught.value.step) == (client, labels[step])
            assert caught.value.reason
            assert client in run.aggregator.expecting
        return answer

    def forge_request(at: int, who: int, request: bytes) -> bytes:
        if not to_aggregator and (at, who) == (step, client):
            with pytest.raises(MessageRefused) as caught:
                run.clients[who].step(mangled(data, request, material(request)))
            assert (caught.value.sender, caught.value.step) == (0, labels[step])
            assert caught.value.reason
        return request

    done = run.drive(forge=forge, forge_request=forge_request)
    assert done.contributors == terms.cohort
    np.testing.assert_array_equal(done.total, total(terms, vectors, terms.cohort))


@given(data=st.data())
def test_messages_that_never_arrive_in_good_order_never_give_a_wrong_sum(
    data: st.DataObject,
) -> None:
    """Answers of one step in any order, some repeated, some lost, some under a wrong sender."""
    terms = make_terms(5)
    vectors = make_vectors(terms)
    run = Run("masking", terms, vectors)
    out = run.aggregator.begin()
    survivors: tuple[int, ...] = ()
    for step in range(4):
        answers = [(k, run.clients[k].step(request)) for k, request in out.messages.items()]
        extra = data.draw(st.lists(st.sampled_from(answers), max_size=3))
        wrong = [(k % 5 + 1, answer) for k, answer in extra]
        lost = data.draw(st.sampled_from([None, *(k for k, _ in answers)]))
        if len(answers) <= 3:
            lost = None
        for k, answer in data.draw(st.permutations([*answers, *extra, *wrong])):
            if k == lost:
                continue
            with suppress(MessageRefused):
                run.aggregator.receive(k, answer)
        out = run.aggregator.advance()
        if step == MASKED:
            survivors = out.survivors
            out = run.aggregator.authorise(INTENT)
    assert out.contributors == survivors
    np.testing.assert_array_equal(out.total, total(terms, vectors, survivors))


def test_delivery_of_a_replayed_envelope_is_refused() -> None:
    terms = make_terms(4)
    old = Run("masking", terms, make_vectors(terms), seed="old")
    old.drive()
    run = Run("masking", terms, make_vectors(terms), seed="new")

    def replay(step: int, client: int, request: bytes) -> bytes:
        if (step, client) != (MASKED, 1):
            return request
        members, envelopes = decode_delivery(payload_of(request))
        stale = decode_delivery(payload_of(old.requests[MASKED][1]))[1][3]
        forged = resign(request, encode_delivery(members, {**envelopes, 3: stale}))
        with pytest.raises(MessageRefused, match="view") as caught:
            run.clients[1].step(forged)
        assert (caught.value.sender, caught.value.step) == (3, "share")
        return request

    run.drive(forge_request=replay)
