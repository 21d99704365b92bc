"""Attacks: each one that works on a peer, or on a weakened build of this code, fails here.

The weaknesses are those found in Flower's SecAgg+ (28-bit seeds, the largest ring value never
drawn, both shares of one client handed out, unsigned keys, a silently wrong mean) and what a
malicious aggregator with colluding clients could try on any double masking.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crypto.channel
import crypto.masking_client
import crypto.masking_keys
from crypto.channel import Channel
from crypto.errors import MessageRefused, RingRefused, SumAborted, TermsRefused
from crypto.keys import Rand
from crypto.masking_client import MaskingClient
from crypto.masking_keys import ClientSecrets, Pair, self_key
from crypto.masking_messages import (
    SEALED_BYTES,
    Dealing,
    Kind,
    Opening,
    OpeningRequest,
    decode_advert,
    decode_dealings,
    decode_delivery,
    decode_masked_input,
    encode_dealings,
    encode_delivery,
)
from crypto.prg import expand
from crypto.ring import Ring, Unsigned
from crypto.secure_sum import SECURE_SUMS
from tests.crypto.adversary import (
    OTHER_INTENT,
    Adversary,
    closure,
    lie,
    pair_stream,
    secret_of,
    unmasked,
)
from tests.crypto.harness import (
    EVIDENCE,
    INTENT,
    STEPS,
    Run,
    another,
    context_of,
    make_terms,
    make_vectors,
    payload_of,
    resign,
    seeded,
    total,
)
from tests.crypto.masking_runs import ADVERTISE, CONSISTENCY, MASKED, SHARE

WEAK_BITS = 8  # Flower folds to 28 bits, hours of search; 8 bits show the same in milliseconds


# --- seeds that can be searched -----------------------------------------------------------------


def weak(seed: int) -> Rand:
    """Randomness with only WEAK_BITS of entropy behind it."""
    return seeded(f"weak {seed % 2**WEAK_BITS}")


def search(run: Run, victim: int) -> np.ndarray | None:
    """What an aggregator that guesses seeds recovers from the public transcript, or None."""
    advert = decode_advert(payload_of(run.answers[0][victim]))
    for seed in range(2**WEAK_BITS):
        guess = ClientSecrets.generate(weak(seed))
        if guess.advert(run.terms.ctx1, victim) == advert:
            return unmasked(run, victim, guess.self_seed.reveal(), guess.mask.reveal())
    return None


def run_with(rand: Rand) -> Run:
    terms = make_terms(4, length=50)
    run = Run("masking", terms, make_vectors(terms))
    run.clients[2] = run.client(2, rand)
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
    both = OpeningRequest(Opening(INTENT, terms.cohort, (2,)), EVIDENCE).encode()
    answers: list[bytes] = []

    def ask_twice(step: int, client: int, request: bytes) -> bytes:
        if step == CONSISTENCY:
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


@settings(max_examples=120)
@given(data=st.data())
def test_whatever_the_aggregator_does_it_learns_one_sum_of_enough_survivors_or_nothing(
    data: st.DataObject,
) -> None:
    """Split views of U1, U2, survivors and intent, withheld deliveries, bought signatures.

    Every honest client is the real one. Never both secrets of an honest client, never a linear
    combination of honest vectors but the sum over all honest survivors that were agreed on.
    """
    clients = data.draw(st.integers(4, 7), label="clients")
    colluders = data.draw(st.integers(0, 2 if clients > 5 else 1), label="colluders")
    least = (clients + colluders) // 2 + 1
    terms = make_terms(
        clients,
        max_colluders=colluders,
        threshold=least,
        min_survivors=max(least, colluders + 2),
    )
    everybody = set(terms.cohort)
    corrupt = data.draw(
        st.frozensets(st.sampled_from(terms.cohort), min_size=colluders, max_size=colluders)
    )
    adversary = Adversary(
        Run("masking", terms, make_vectors(terms), data.draw(st.integers(0, 9))), corrupt
    )
    honest = sorted(everybody - corrupt)

    def some(of: set[int], often: int, label: str) -> set[int]:
        if not of or data.draw(st.integers(0, often)):
            return of
        return data.draw(st.sets(st.sampled_from(sorted(of)), min_size=1), label=label)

    adversary.begin()
    for k in terms.cohort:
        view = everybody if k in corrupt else some(everybody, 60, f"U1 shown to {k}") | {k}
        adversary.show_adverts(k, view)
    common = some(set(adversary.dealt), 1, "U2")
    for k in sorted(set(honest) & adversary.dealt.keys()):
        members = some(common, 9, f"U2 shown to {k}") | {k}
        withheld = data.draw(st.sampled_from([*[frozenset()] * 30, frozenset({1})]))
        adversary.deliver(k, members, withheld)
    survivors = some(common, 1, "survivors")
    for k, (_, members) in sorted(adversary.uploads.items()):
        for _ in range(data.draw(st.integers(1, 2), label=f"openings for {k}")):
            alive = some(survivors, 12, f"survivors shown to {k}") | {k}
            gone = set(members) - alive
            if data.draw(st.integers(0, 30)) == 0:
                gone |= data.draw(st.sets(st.sampled_from(sorted(members))))
            intent = data.draw(st.sampled_from([INTENT] * 30 + [OTHER_INTENT]))
            opening = Opening(intent, tuple(sorted(alive & members)), tuple(sorted(gone)))
            adversary.ask_to_sign(k, opening)
    for k in sorted(adversary.signed):
        adversary.ask_to_open(k, adversary.signatures(k))

    closure(adversary)


def without_consistency(patch: pytest.MonkeyPatch) -> None:
    """A build that gives its shares for what it alone has signed."""
    patch.setattr(MaskingClient, "_check_agreement", lambda *_: None)


def with_signatures_of_anything(patch: pytest.MonkeyPatch) -> None:
    """A build in which a signature does not say what it is for."""
    patch.setattr(Opening, "digest", property(lambda _: bytes(32)))


def with_signatures_by_few(patch: pytest.MonkeyPatch) -> None:
    """A build that is content with its own signature."""
    real = MaskingClient._check_agreement

    def few(self: MaskingClient, opening: Opening, signatures: dict[int, bytes]) -> None:
        terms, self._terms = self._terms, another(self._terms, threshold=1, min_survivors=1)
        try:
            real(self, opening, signatures)
        finally:
            self._terms = terms

    patch.setattr(MaskingClient, "_check_agreement", few)


def split_the_survivors(threshold: int) -> tuple[Run, np.ndarray | None]:
    """Show clients 1 and 4 that client 4 lives, clients 2 and 3 that it is gone; take it apart."""
    terms = make_terms(4, threshold=threshold, length=20)
    run = Run("masking", terms, make_vectors(terms))
    lives, gone = (terms.cohort, (1, 2, 4)), (terms.cohort, (1, 2, 3))
    adversary = lie(run, {1: lives, 2: gone, 3: gone, 4: lives})
    if not all(adversary.knows(4, kind) for kind in Kind):
        return run, None
    self_seed, mask_secret = (secret_of(adversary, 4, kind) for kind in Kind)
    return run, unmasked(run, 4, self_seed, mask_secret)


def test_split_survivors_take_a_client_apart_below_the_threshold_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With 2t = n two halves of the clients each sign their own story."""
    with monkeypatch.context() as weakened:
        weakened.setattr("crypto.masking.check_sharing", lambda _: None)
        weakened.setattr("crypto.masking_client.MaskingClient._check_quorum", lambda *_: None)
        run, found = split_the_survivors(threshold=2)  # what check refuses
        assert found is not None
        np.testing.assert_array_equal(found, run.vectors[4])
    assert split_the_survivors(threshold=3)[1] is None
    with pytest.raises(TermsRefused, match="both shares of one client"):
        split_the_survivors(threshold=2)


def single_out(threshold: int) -> tuple[Adversary, np.ndarray | None]:
    """Tell client 1 that only 1 to t shared; tell the others that 2 to t dropped, where it can."""
    terms = make_terms(5, threshold=threshold, length=20)
    run = Run("masking", terms, make_vectors(terms))
    few = tuple(range(1, threshold + 1))
    stories = {1: (few, few)}
    for k in terms.cohort[1:]:
        gone = [j for j in few[1:] if j != k][: len(terms.cohort) - terms.quorum]
        stories[k] = (terms.cohort, tuple(j for j in terms.cohort if j not in gone))
    adversary = lie(run, stories)
    if not adversary.knows(1, Kind.SELF_SEED) or not all(
        adversary.knows(k, Kind.MASK_SECRET) for k in few[1:]
    ):
        return adversary, None
    upload = run.answers[MASKED][1]
    ctx2, ring = context_of(upload), terms.ring
    vector = ring.unpack(decode_masked_input(payload_of(upload))[1], terms.length)
    seed = secret_of(adversary, 1, Kind.SELF_SEED)
    vector = vector - expand(self_key(ctx2, 1, seed), ring, terms.length)
    for peer in few[1:]:
        secret = secret_of(adversary, peer, Kind.MASK_SECRET)
        key = pair_stream(run, peer, secret, 1, ctx2)
        vector = vector - expand(key, ring, terms.length)
    ring.reduce(vector)
    return adversary, ring.decode(vector)


@pytest.mark.parametrize(
    "weaken", [without_consistency, with_signatures_of_anything, with_signatures_by_few]
)
def test_an_aggregator_that_lies_about_who_is_there_singles_out_nobody(
    monkeypatch: pytest.MonkeyPatch, weaken: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """It works where clients do not check that enough of them were told the same.

    No client gives both shares of anybody, and each sees enough survivors, but not the same ones.
    """
    with monkeypatch.context() as weakened:
        weaken(weakened)
        adversary, found = single_out(threshold=3)
        assert found is not None
        np.testing.assert_array_equal(found, adversary.run.vectors[1])
        # What the closure above asserts does not hold of this build.
        assert len(set(adversary.opened.values())) > 1
        assert any(np.count_nonzero(np.abs(row) > 1e-9) == 1 for row in adversary.open_sums())
    for threshold in (3, 4):
        adversary, found = single_out(threshold)
        assert found is None
        assert not adversary.opened
        assert not len(adversary.open_sums())
    assert SECURE_SUMS["masking"].capabilities().aggregator == "malicious"


def test_limit_a_dealer_can_keep_chosen_others_out_of_a_sum() -> None:
    """Nobody but the recipient can tell that shares do not open, and it stays out if they do not.

    The sum is right and holds min_survivors vectors; who is in it was the dealer's choice.
    """
    terms = make_terms(5)
    run = Run("masking", terms, make_vectors(terms))

    def forge(step: int, client: int, answer: bytes) -> bytes:
        if (step, client) != (1, 1):
            return answer
        dealings, escrows = decode_dealings(payload_of(answer))
        for victim in (4, 5):
            dealings[victim] = bytes(SEALED_BYTES) + dealings[victim][SEALED_BYTES:]
        return resign(answer, encode_dealings(dealings, escrows))

    done = run.drive(forge=forge)
    assert done.contributors == (1, 2, 3)
    np.testing.assert_array_equal(done.total, total(terms, run.vectors, (1, 2, 3)))
    assert [(refusal.sender, refusal.step) for refusal in run.refused] == [(1, "share")] * 2
    assert run.ready is not None
    assert run.ready.dropped == {4: "masked input", 5: "masked input"}
    assert any(
        "keep chosen others out" in note for note in SECURE_SUMS["masking"].capabilities().notes
    )


# --- escrows ------------------------------------------------------------------------------------


def lying_escrow() -> tuple[Run, object]:
    """Client 1 escrows another secret than it encapsulated, well sealed, then sends no input."""
    terms = make_terms(5)
    run = Run("masking", terms, make_vectors(terms))

    def forge(step: int, client: int, answer: bytes) -> bytes:
        if (step, client) != (SHARE, 1):
            return answer
        dealings, escrows = decode_dealings(payload_of(answer))
        adverts = {k: decode_advert(payload_of(m)).mask for k, m in run.answers[ADVERTISE].items()}
        offer = Dealing.decode(dealings[2], dealer=1, recipient=2).offer
        assert offer is not None
        pair = Pair(terms.ctx1, context_of(answer), (1, adverts[1]), (2, adverts[2]))
        cipher, context = pair._escrow(run.clients[1]._secrets.mask, offer.ciphertext)
        escrows[2] = cipher.encrypt(bytes(12), os.urandom(32), context)
        return resign(answer, encode_dealings(dealings, escrows))

    return run, run.drive({1: MASKED}, forge=forge)


def test_an_escrow_of_another_secret_never_gives_a_wrong_sum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as weakened:
        weakened.setattr("crypto.masking_keys.compare_digest", lambda *_: True)
        run, done = lying_escrow()
        assert (done.total != total(run.terms, run.vectors, done.contributors)).any()
    with pytest.raises(
        SumAborted,
        match="tag of a pair secret is not that of the secret: offered by client 1 to client 2",
    ):
        lying_escrow()


# --- what the view says about honest inputs -----------------------------------------------------


def with_ideal_kem(patch: pytest.MonkeyPatch) -> None:
    """Encapsulation that repeats itself from run to run, and still never within one."""
    drawn: dict[bytes, tuple[bytes, bytes]] = {}
    kept: dict[bytes, bytes] = {}
    real = crypto.masking_keys.encapsulate
    sender: list[object] = []

    def again(peer: bytes) -> tuple[bytes, bytes]:
        key = peer + repr(sender[-1]).encode()
        if key not in drawn:
            drawn[key] = real(peer)
            kept[drawn[key][1]] = drawn[key][0]
        return drawn[key]

    def noting(method: Callable[..., object]) -> Callable[..., object]:
        def call(self: object, *args: object) -> object:
            own = self._own.public if isinstance(self, Channel) else self._lower
            sender.append((type(self).__mro__[-2].__name__, own))
            return method(self, *args)

        return call

    patch.setattr(crypto.masking_keys, "encapsulate", again)
    patch.setattr(crypto.channel, "encapsulate", again)
    patch.setattr(Channel, "seal", noting(Channel.seal))
    patch.setattr(Pair, "offer", noting(Pair.offer))


def test_with_ideal_streams_the_view_is_the_same_for_shifted_honest_inputs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Move delta from client 2's input to client 1's, and shift their common stream by it.

    An ideal stream is as likely to be either, so everything the aggregator and all other clients
    see must be identical byte for byte, and so must the sum.
    """
    with_ideal_kem(monkeypatch)
    terms = make_terms(4, length=20)
    delta = np.arange(1, 21, dtype=np.int64)
    base = {k: np.full(20, k, dtype=np.int64) for k in terms.cohort}
    shifted = {**base, 1: base[1] + delta, 2: base[2] - delta}
    first = Run("masking", terms, base)
    expected = first.drive({4: MASKED})

    pairs: dict[bytes, tuple[int, int]] = {}
    real_pair, real_add = Pair, crypto.masking_client.add_stream
    real_subtract = crypto.masking_client.subtract_stream

    class Noted(real_pair):
        """Remembers whose stream keys it gave out."""

        def __init__(
            self, ctx1: bytes, ctx2: bytes, lower: tuple[int, bytes], higher: tuple[int, bytes]
        ) -> None:
            super().__init__(ctx1, ctx2, lower, higher)
            self.clients = (lower[0], higher[0])

        def _derive(self, *secrets: bytes) -> tuple[bytes, bytes]:
            stream, tag = super()._derive(*secrets)
            pairs[stream] = self.clients
            return stream, tag

    def ideal(real: Callable[[Unsigned, bytes], None], sign: int) -> object:
        def apply(accumulator: Unsigned, key: bytes) -> None:
            real(accumulator, key)
            if pairs.get(key) == (1, 2):
                accumulator -= (sign * delta).astype(accumulator.dtype)

        return apply

    unshifted = Run("masking", terms, shifted)
    unshifted.drive({4: MASKED})
    assert unshifted.answers[MASKED] != first.answers[MASKED]

    monkeypatch.setattr(crypto.masking_client, "Pair", Noted)
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


@pytest.mark.parametrize("name", ["masking", "plain"])  # those without officers
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
    labels = {"masking": ["advertise", "share", "masked input", "consistency", "unmask"]}.get(
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
    for step in range(5):
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
            out = run.aggregator.authorise(INTENT, EVIDENCE)
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
        with pytest.raises(MessageRefused, match="do not open") as caught:
            run.clients[1].step(forged)
        assert (caught.value.sender, caught.value.step) == (3, "share")
        return request

    run.drive(forge_request=replay)
