"""Attacks on the threshold sum: each fails, and succeeds against a build without its defence."""

from __future__ import annotations

import math
import os
import pickle
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

import crypto.progress
import crypto.threshold_aggregator
import crypto.threshold_client
import crypto.threshold_keygen
import crypto.threshold_member
from crypto.envelope import AGGREGATOR, EVERYBODY, Heading, Step, seal
from crypto.errors import KeyRefused, Malformed, MessageRefused, SumAborted, TermsRefused
from crypto.he_messages import OpenRequest, decode_ciphertexts, encode_ciphertexts
from crypto.he_packing import from_coefficients, to_coefficients
from crypto.he_seal import Rounder, scheme_for
from crypto.he_transform import transform_for
from crypto.machines import Outgoing, Ready
from crypto.progress import listening
from crypto.residues import Multiplier, Words, add, column, hashed, reduced, subtract
from crypto.secure_sum import SECURE_SUMS, SumOfficer
from crypto.threshold_contexts import context_of_key, context_under, digest_of_key, digest_of_share
from crypto.threshold_key import KeyPart, common_polynomial, summed
from crypto.threshold_keygen import Checked, Committed, Dealt
from crypto.threshold_member import ThresholdMember
from crypto.threshold_messages import (
    Dealing,
    Endorsement,
    decode_answers,
    decode_key,
    decode_part,
    decode_sets,
    decode_sized_and_bundle,
    encode_answer,
    encode_key,
    encode_part,
    encode_sets,
    encode_sized_and_bundle,
)
from crypto.threshold_parameters import choose
from crypto.threshold_sharing import Share, deal, weight_at_zero
from tests.crypto.harness import (
    EVIDENCE,
    INTENT,
    Run,
    identity,
    make_terms,
    make_vectors,
    payload_of,
    resign,
    seat,
    total,
)

CLIENTS = 4
FIRST = CLIENTS + 1
OPEN, PART = 5, 6


def committee(members: int = 5, threshold: int = 3, **changes: object) -> Run:
    """An attempt with four clients and a committee."""
    terms = make_terms(
        CLIENTS,
        officers=members,
        committee_threshold=threshold,
        min_survivors=changes.pop("min_survivors", 3),  # type: ignore[arg-type]
        threshold=1,
        length=50,
        **changes,  # type: ignore[arg-type]
    )
    return Run("threshold", terms, make_vectors(terms))


def until(run: Run, step: int, *, deaf: set[int] | None = None) -> dict[int, bytes]:
    """Everybody honest up to the requests of a step, which are returned and not yet delivered."""
    out: Outgoing | Ready = run.aggregator.begin()
    while True:
        if isinstance(out, Ready):
            run.ready = out
            out = run.aggregator.authorise(INTENT, EVIDENCE)
        assert isinstance(out, Outgoing)
        if len(run.requests) == step:
            return dict(out.messages)
        run.requests.append(dict(out.messages))
        run.answers.append({})
        for k, request in out.messages.items():
            if k not in (deaf or ()):
                run.answers[-1][k] = run.parties[k].step(request)
                run.aggregator.receive(k, run.answers[-1][k])
        out = run.aggregator.advance()  # type: ignore[assignment]


def member(run: Run, index: int) -> ThresholdMember:
    found = run.officers[index]
    assert isinstance(found, ThresholdMember)
    return found


def share_of(run: Run, index: int) -> Words:
    phase = member(run, index)._phase
    assert isinstance(phase, Checked)
    return phase.share.words


def asked(run: Run, k: int, sets: tuple[tuple[int, ...], ...]) -> bytes:
    """A request of the aggregator for answers in these sets."""
    phase = member(run, k)._phase
    assert isinstance(phase, Checked)
    heading = Heading(Step.THRESHOLD_PART, AGGREGATOR, k, context_under(run.terms, phase.key))
    return seal(identity(0), heading, encode_sets(sets))


def no_pad(
    member: int,
    keys: object,
    members: object,
    context: bytes,
    shape: tuple[int, int, int],
    primes: object,
) -> Words:
    """The pad of a build without pads."""
    return np.zeros(shape, dtype=np.uint64)


@dataclass
class Twisted:
    """A member whose answers to one step are changed, and signed by it, before they leave."""

    inner: SumOfficer
    step_of: Step
    change: Callable[[bytes], bytes]

    def step(self, message: bytes) -> bytes:
        answer = self.inner.step(message)
        if answer[1] != self.step_of:
            return answer
        return resign(answer, self.change(payload_of(answer)))

    def save(self) -> bytes:
        return self.inner.save()


# --- smudging -------------------------------------------------------------------------------------


def recovered_share(run: Run, k: int) -> Words:
    """What the difference of two answers over c1 and the difference of coefficients is."""
    parameters = choose(run.terms)
    scheme, primes = parameters.scheme, parameters.scheme.data_primes
    seconds = member(run, k)._seconds
    assert seconds is not None
    one, two = (FIRST, FIRST + 1, FIRST + 2), (FIRST, FIRST + 3, FIRST + 4)
    answers = [
        decode_answers(
            memoryview(payload_of(run.officers[k].step(asked(run, k, (s,))))), 1, 1, scheme
        )[0][0]
        for s in (one, two)
    ]
    difference = subtract(answers[0], answers[1], column(primes))
    second = transform_for(scheme.degree, primes).forward(np.stack([seconds[0]] * 2))[0]
    found = np.empty_like(difference)
    for at, prime in enumerate(primes):
        weights = [weight_at_zero([i - CLIENTS for i in s], k - CLIENTS, prime) for s in (one, two)]
        scale = (weights[0] - weights[1]) % prime
        inverse = np.array([pow(int(c) * scale, -1, prime) for c in second[at]], dtype=object)
        found[at] = (difference[at].astype(object) * inverse % prime).astype(np.uint64)
    return found


def test_smudging_that_follows_from_the_ciphertexts_gives_the_share_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without pads, so that smudging stands alone."""
    k = FIRST
    monkeypatch.setattr(crypto.threshold_member, "pad_of", no_pad)
    run = committee_at_part(os.urandom)
    assert (recovered_share(run, k) == share_of(run, k)).mean() < 0.01
    weak = committee_at_part(None)
    np.testing.assert_array_equal(recovered_share(weak, k), share_of(weak, k))


def committee_at_part(rand: Callable[[int], bytes] | None) -> Run:
    """A committee ready to answer; without randomness, smudging is a hash of the ciphertexts."""
    run = committee()
    until(run, PART)
    seconds = member(run, FIRST)._seconds
    assert seconds is not None
    for k in run.officers:
        inner = member(run, k)

        class Derived:
            """Starts again with every answer, as a function of what is answered for."""

            def __init__(self) -> None:
                self.source = hashed(seconds.tobytes())

            def __call__(self, length: int) -> bytes:
                return self.source(length)

        if rand is not None:
            inner._rand = rand
        else:
            given = inner._parts.give

            def give(sets: object, make: object, k: int = k, given: object = given) -> bytes:
                member(run, k)._rand = Derived()
                return given(sets, make)  # type: ignore[operator, no-any-return]

            inner._parts.give = give  # type: ignore[method-assign, assignment]
    return run


def test_the_same_set_gets_the_same_bytes_and_there_is_a_limit() -> None:
    run = committee()
    until(run, PART)
    k = FIRST
    sets = [(k, k + 1, k + 2), (k, k + 2, k + 3), (k, k + 3, k + 4), (k, k + 1, k + 4)]
    limit = choose(run.terms).answers
    assert limit == 3
    given = [run.officers[k].step(asked(run, k, (s,))) for s in sets[:limit]]
    assert len(set(given)) == limit
    with pytest.raises(MessageRefused, match="4 sets of members; allowed: 3"):
        run.officers[k].step(asked(run, k, (sets[3],)))
    restarted = SECURE_SUMS["threshold"].restore_officer(
        run.terms, seat(k, os.urandom), run.officers[k].save()
    )
    for who in (run.officers[k], restarted):
        assert [who.step(asked(run, k, (s,))) for s in sets[:limit]] == given
    for wrong in ((k, k + 1), (k + 1, k + 2, k + 3), (1, 2, k), (k, k + 1, 99)):
        with pytest.raises(MessageRefused, match="set"):
            run.officers[k].step(asked(run, k, (wrong,)))


# --- answers apart --------------------------------------------------------------------------------


def key_from_one_answer(run: Run, opened: np.ndarray) -> Words:
    """What t - 1 members make of the answer that another one gave in a set without them.

    Its answer is r c1 (s - known) + smudging, where r = a / b is the quotient of its coefficients
    in the two sets, so that b times it tells a v modulo b, v being the noise: of the sum, and once
    b is large enough all of it, whatever the smudging.
    """
    parameters = choose(run.terms)
    scheme, primes = parameters.scheme, parameters.scheme.data_primes
    modulus, degree = math.prod(primes), scheme.degree
    curious, i, asked_for = (3, 5, 6), 7, (1, 2, 4, 7)
    own = (*curious, i)
    answer = decode_answers(
        memoryview(
            payload_of(
                run.officers[CLIENTS + i].step(
                    asked(run, CLIENTS + i, (tuple(CLIENTS + x for x in asked_for),))
                )
            )
        ),
        1,
        1,
        scheme,
    )[0][0]
    total_of = run.aggregator._total  # type: ignore[attr-defined]
    first, second = total_of[0]
    transform = transform_for(degree, primes)
    second = transform.forward(np.stack([second] * 2))[0]
    known = np.zeros_like(answer)
    for j in curious:
        part = Multiplier(share_of(run, CLIENTS + j), primes).times(second)
        known = add(known, times(part, coefficient(own, j), primes), column(primes))
    coefficients = to_coefficients(opened, scheme)[0]
    plain_bits = scheme.plain_bits
    scaled = [(modulus * int(c) + (1 << plain_bits - 1)) >> plain_bits for c in coefficients]
    message = np.array([[v % p for v in scaled] for p in primes], dtype=np.uint64)
    message = subtract(message, first, column(primes))  # c1 s less the noise
    ratio = coefficient(asked_for, i) / coefficient(own, i)
    a, b = ratio.numerator, ratio.denominator
    left = times(transform.backward(np.stack([answer] * 2))[0], Fraction(b), primes)
    less = subtract(message, transform.backward(np.stack([known] * 2))[0], column(primes))
    rest = centred(subtract(left, times(less, Fraction(a), primes), column(primes)), primes)
    noise = [int(z) * pow(a, -1, b) % b for z in rest]
    noise = np.array([v - b if v > b // 2 else v for v in noise], dtype=np.int64)
    whole = add(message, reduced(noise, primes), column(primes))
    whole = transform.forward(np.stack([whole] * 2))[0]
    return np.stack([quotient(*rows) for rows in zip(whole, second, primes, strict=True)])


def quotient(left: Words, right: Words, prime: int) -> Words:
    """Word by word modulo a prime."""
    pairs = zip(left, right, strict=True)
    return np.array([int(x) * pow(int(y), -1, prime) % prime for x, y in pairs], dtype=np.uint64)


def coefficient(points: tuple[int, ...], x: int) -> Fraction:
    """The Lagrange coefficient as the rational number that it is."""
    return math.prod((Fraction(-y, x - y) for y in points if y != x), start=Fraction(1))


def times(words: Words, factor: Fraction, primes: tuple[int, ...]) -> Words:
    """Words times a rational number, modulo every prime."""
    scale = [[factor.numerator * pow(factor.denominator, -1, p) % p] for p in primes]
    return Multiplier(np.array(scale, dtype=np.uint64), primes).times(words)


def centred(words: Words, primes: tuple[int, ...]) -> np.ndarray:
    modulus, value = math.prod(primes), np.zeros(words.shape[-1], dtype=object)
    for row, prime in zip(words, primes, strict=True):
        rest = modulus // prime
        value = (value + row.astype(object) * (rest * pow(rest, -1, prime))) % modulus
    return np.where(value > modulus // 2, value - modulus, value)


def test_fewer_than_the_threshold_do_not_get_the_key_from_what_others_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three of seven, curious only, with an aggregator that is too; four open a sum."""

    def attempt() -> tuple[Words, Words]:
        run = committee(7, 4)
        until(run, PART)
        primes = choose(run.terms).scheme.data_primes
        points = (1, 2, 3, 4)
        parts = [times(share_of(run, CLIENTS + x), coefficient(points, x), primes) for x in points]
        secret = summed(parts, primes)
        opened = total(run.terms, run.vectors, run.terms.cohort)
        return key_from_one_answer(run, opened), secret

    found, secret = attempt()
    assert (found == secret).mean() < 0.01
    monkeypatch.setattr(crypto.threshold_member, "pad_of", no_pad)
    found, secret = attempt()
    np.testing.assert_array_equal(found, secret)


# --- a member that lies ---------------------------------------------------------------------------


def shifting(run: Run, k: int, delta: int) -> Twisted:
    """Adds q/T * delta to the first coefficient of its answers: no linear check sees it."""
    parameters = choose(run.terms)
    scheme, primes = parameters.scheme, parameters.scheme.data_primes
    step = math.prod(primes) * delta // (1 << scheme.plain_bits)
    shift = np.zeros((2, len(primes), scheme.degree), dtype=np.uint64)
    shift[:, :, 0] = [step % prime for prime in primes]
    shift = transform_for(scheme.degree, primes).forward(shift)

    def change(payload: bytes) -> bytes:
        size = len(
            encode_answer(
                np.zeros((scheme.ciphertexts, len(primes), scheme.degree), np.uint64), scheme
            )
        )
        answers = decode_answers(payload, len(payload) // size, scheme.ciphertexts, scheme)
        out = []
        for answer in answers:
            answer[0] = add(answer[0], shift[0], column(primes))
            out.append(encode_answer(answer, scheme))
        return b"".join(out)

    return Twisted(run.officers[k], Step.THRESHOLD_PART, change)


@pytest.mark.parametrize("k", [FIRST, FIRST + 1, FIRST + 2])
def test_a_shifted_answer_is_noticed_by_comparing(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run = committee()
    run.officers[k] = shifting(run, k, 5)
    with pytest.raises(SumAborted, match="the committee disagrees"):
        run.drive()
    kept = vars(run.aggregator)
    assert kept["_total"] is None
    assert kept["_uploads"] == kept["_answers"] == kept["_shares"] == {}
    monkeypatch.setattr(crypto.threshold_aggregator, "comparing", lambda *_: ())
    run = committee()
    run.officers[k] = shifting(run, k, 5)
    wrong = run.drive().total - total(run.terms, run.vectors, run.terms.cohort)
    assert wrong[0] == 5
    assert not wrong[1:].any()


def test_with_t_members_left_a_shift_is_not_noticed_and_they_are_named() -> None:
    run = committee()
    run.officers[FIRST] = shifting(run, FIRST, 5)
    done = run.drive({FIRST + 3: OPEN, FIRST + 4: OPEN})
    assert done.total[0] == total(run.terms, run.vectors, run.terms.cohort)[0] + 5
    assert done.unchecked == (FIRST, FIRST + 1, FIRST + 2)
    assert committee().drive().unchecked == ()


def test_noise_in_the_place_of_an_answer_ends_the_attempt() -> None:
    run = committee()

    def noise(payload: bytes) -> bytes:
        parameters = choose(run.terms)
        scheme = parameters.scheme
        answers = decode_answers(payload, 1, scheme.ciphertexts, scheme)
        answers[0] ^= np.uint64(1 << 30)
        answers[0] %= column(scheme.data_primes)
        return encode_answer(answers[0], scheme)

    run.officers[FIRST] = Twisted(run.officers[FIRST], Step.THRESHOLD_PART, noise)
    with pytest.raises(SumAborted, match=r"answers of the members .*: "):
        run.drive()


# --- the key --------------------------------------------------------------------------------------


def test_a_member_that_waits_for_the_others_cannot_choose_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Were parts not committed to, the last one could cancel the others: the key is its own."""

    def attempt() -> tuple[Run, Words]:
        run = committee()
        requests = until(run, 1)
        scheme = choose(run.terms).scheme
        a = common_polynomial(context_of_key(run.terms), scheme)
        own = KeyPart(scheme, a, os.urandom).public
        seen = []
        for k, request in requests.items():
            answer = run.officers[k].step(request)
            public, sealed = decode_sized_and_bundle(memoryview(payload_of(answer)))
            dealing = Dealing.decode(payload_of(public))
            if k < FIRST + 4:
                seen.append(decode_part(dealing.part, scheme))
                run.aggregator.receive(k, answer)
                continue
            rogue = own
            for part in seen:
                rogue = subtract(rogue, part, column(scheme.key_primes))
            forged = Dealing(encode_part(rogue, scheme), dealing.digests)
            again = resign(public, forged.encode())
            run.aggregator.receive(k, resign(answer, encode_sized_and_bundle(again, sealed)))
        return run, own

    with pytest.raises(MessageRefused, match="not the one committed to") as caught:
        attempt()
    assert caught.value.sender == FIRST + 4
    monkeypatch.setattr(
        crypto.threshold_aggregator,
        "checked_part",
        lambda terms, parameters, commitments, dealer, dealing: decode_part(
            dealing.part, parameters.scheme
        ),
    )
    run, own = attempt()
    out = run.aggregator.advance()
    assert isinstance(out, Outgoing)
    with pytest.raises(MessageRefused, match="not the one committed to"):
        run.officers[FIRST].step(out.messages[FIRST])
    np.testing.assert_array_equal(
        decode_key(run.aggregator._key, choose(run.terms)),
        own,  # type: ignore[attr-defined]
    )


def dealing_with(
    run: Run, k: int, change: Callable[[int, bytes], bytes], *, told_of: bool = True
) -> Twisted:
    """A dealer that changes sealed shares, and tells of the changed ones or of the others."""

    def dealt(payload: bytes) -> bytes:
        public, sealed = decode_sized_and_bundle(memoryview(payload))
        dealing = Dealing.decode(payload_of(public))
        other = {r: change(r, share) for r, share in sealed.items()}
        digests = {r: digest_of_share(share) for r, share in other.items()}
        told = Dealing(dealing.part, digests) if told_of else dealing
        return encode_sized_and_bundle(resign(public, told.encode()), other)

    return Twisted(run.officers[k], Step.THRESHOLD_DEAL, dealt)


def test_a_share_that_does_not_open_is_complained_of_by_name() -> None:
    run = committee()
    run.officers[FIRST] = dealing_with(
        run,
        FIRST,
        lambda r, share: share[:-1] + bytes([share[-1] ^ 1]) if r == FIRST + 2 else share,
    )
    with pytest.raises(SumAborted, match=rf"dealing of member {FIRST}: member {FIRST + 2} compl"):
        run.drive()


def test_shares_that_the_dealing_does_not_tell_of_cost_their_dealer_alone() -> None:
    """Whoever must check them later could not tell which were dealt."""
    run = committee()
    run.officers[FIRST] = dealing_with(
        run, FIRST, lambda r, share: bytes([share[0] ^ 1]) + share[1:], told_of=False
    )
    done = run.drive()
    (refusal,) = run.refused
    assert (refusal.sender, refusal.step) == (FIRST, "threshold deal")
    assert "not those that the dealing tells of" in refusal.reason
    np.testing.assert_array_equal(done.total, total(run.terms, run.vectors, run.terms.cohort))


def test_the_aggregator_counts_in_how_many_sets_it_asked_each_member() -> None:
    run = committee()
    run.drive({FIRST: PART})
    asked: Counter[int] = Counter()
    for step in run.requests[PART:]:
        asked.update({k: len(decode_sets(payload_of(message))) for k, message in step.items()})
    assert max(asked.values()) > 1
    assert vars(run.aggregator)["_asked"] == asked


def test_shares_of_another_length_cost_their_dealers_alone() -> None:
    """They are seen before anybody has to complain, and the others go on."""
    run = committee()
    for dealer, change in ((FIRST, lambda share: share[:-1]), (FIRST + 1, lambda s: s + b"\0")):
        run.officers[dealer] = dealing_with(
            run,
            dealer,
            lambda r, share, change=change: change(share) if r == FIRST + 2 else share,
        )
    done = run.drive()
    told = {refusal.sender: (refusal.step, refusal.reason) for refusal in run.refused}
    assert told.keys() == {FIRST, FIRST + 1}
    for step, reason in told.values():
        assert step == "threshold deal"
        assert "a sealed share does not have" in reason
    np.testing.assert_array_equal(done.total, total(run.terms, run.vectors, run.terms.cohort))


@pytest.mark.parametrize("victim", [FIRST + 1, FIRST + 4])
def test_shares_that_do_not_fit_together_are_noticed(
    victim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dealer that gives one member a share of something else, in good form.

    Without both checks of the dealing members sign the key, and its test ends the attempt. Without
    the test, too, clients encrypt under a key that this member's sets do not open.
    """
    honest = crypto.threshold_keygen.deal

    def deal(*arguments: object) -> dict[int, Share]:
        shares = honest(*arguments)  # type: ignore[arg-type]
        point = victim - CLIENTS
        words = shares[point].words.copy()
        words[0, 0] ^= np.uint64(1)
        shares[point] = Share(words, shares[point].blinding)
        return shares

    def attempt() -> Run:
        run = committee()
        requests = until(run, 1)
        for k, request in requests.items():
            with monkeypatch.context() as patch:
                if k == FIRST:
                    patch.setattr(crypto.threshold_keygen, "deal", deal)
                run.aggregator.receive(k, run.officers[k].step(request))
        out = run.aggregator.advance()
        assert isinstance(out, Outgoing)
        for k, request in out.messages.items():
            run.aggregator.receive(k, run.officers[k].step(request))
        return run

    with pytest.raises(SumAborted, match=f"dealing of member {FIRST}: the shares that member"):
        attempt().aggregator.advance()
    monkeypatch.setattr(crypto.threshold_aggregator, "check_checks", lambda *_: None)
    run = attempt()
    out = run.aggregator.advance()
    assert isinstance(out, Outgoing)
    for k, request in out.messages.items():
        with pytest.raises(MessageRefused, match="do not fit together"):
            run.officers[k].step(request)
    monkeypatch.setattr(crypto.threshold_keygen, "check_checks", lambda *_: None)
    with pytest.raises(SumAborted, match="are not of the key that they signed"):
        on_to_the_end(run, out)
    monkeypatch.setattr(crypto.threshold_aggregator, "key_fits", lambda *_: True)
    run = attempt()
    out = run.aggregator.advance()
    assert isinstance(out, Outgoing)
    with pytest.raises(SumAborted, match="the noise is larger"):
        on_to_the_end(run, out)
    assert run.ready is not None  # every client had encrypted under that key


def on_to_the_end(run: Run, out: Outgoing) -> None:
    """Everybody answers from here on."""
    found: object = out
    while isinstance(found, Outgoing | Ready):
        if isinstance(found, Ready):
            run.ready = found
            found = run.aggregator.authorise(INTENT, EVIDENCE)
        for k, request in found.messages.items():
            run.aggregator.receive(k, run.parties[k].step(request))
        found = run.aggregator.advance()


def signed_key(run: Run) -> tuple[bytes, bytes, dict[int, bytes]]:
    """A client's request, with the key and its endorsements."""
    request = until(run, 4)[1]
    key, endorsements = decode_sized_and_bundle(memoryview(payload_of(request)))
    return request, key, endorsements


def test_a_key_that_the_committee_did_not_sign_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a key of the aggregator's own it would read the upload."""
    run = committee()
    request, key, endorsements = signed_key(run)
    parameters = choose(run.terms)
    scheme = parameters.scheme
    a = common_polynomial(context_of_key(run.terms), scheme)
    own = KeyPart(scheme, a, os.urandom)
    forged = encode_key(parameters, own.public)
    context = context_of_key(run.terms)

    def by(signers: tuple[int, ...], signed: bytes, listed: tuple[int, ...]) -> dict[int, bytes]:
        endorsed = Endorsement(digest_of_key(signed), tuple(range(FIRST, FIRST + 5)), listed)
        return {
            k: seal(
                identity(k), Heading(Step.THRESHOLD_KEY, k, EVERYBODY, context), endorsed.encode()
            )
            for k in signers
        }

    everybody = tuple(range(FIRST, FIRST + 5))
    few = dict(list(endorsements.items())[:4])
    for bad, signatures, match in (
        (forged, endorsements, "signed another key"),
        (forged, {}, "signed by"),
        (forged, by(everybody[:2], forged, everybody[:2]), "allowed: 3 or more"),
        (forged, by((1, 2, 3), forged, (1, 2, 3)), "allowed: 3 or more"),
        (forged, {**endorsements, **by(everybody[:2], forged, everybody)}, "signed another key"),
        (key, few, "not all"),
        (key[:-1] + bytes([key[-1] ^ 1]), endorsements, "signed another key"),
    ):
        with pytest.raises(MessageRefused, match=match):
            run.clients[1].step(resign(request, encode_sized_and_bundle(bad, signatures)))
    monkeypatch.setattr(
        crypto.threshold_client,
        "check_signed_key",
        lambda terms, parameters, key, endorsements: decode_key(key, parameters),
    )
    upload = run.clients[1].step(resign(request, encode_sized_and_bundle(forged, {})))
    words = decode_ciphertexts(memoryview(payload_of(upload)), scheme)
    primes = scheme.data_primes
    transform = transform_for(scheme.degree, primes)
    product = Multiplier(own.secret, primes).times(transform.forward(words[0])[1])
    plain = add(words[0, 0], transform.backward(np.stack([product] * 2))[0], column(primes))
    read = from_coefficients(
        Rounder(scheme_for(scheme)).round(plain)[None], scheme, run.terms.length
    )
    np.testing.assert_array_equal(read, run.vectors[1])


# --- what is opened -------------------------------------------------------------------------------


def reopened(run: Run, request: bytes, uploads: list[bytes]) -> bytes:
    return resign(request, OpenRequest(INTENT, EVIDENCE, uploads).encode())


def test_the_sum_of_one_client_is_not_opened() -> None:
    run = committee()
    requests = until(run, OPEN)
    uploads = list(run.answers[4].values())
    for k, request in requests.items():
        for few in (uploads[:1], uploads[:2], [uploads[0]] * 3, uploads[::-1]):
            with pytest.raises(MessageRefused, match="uploads"):
                run.officers[k].step(reopened(run, request, few))
        foreign = [resign(uploads[0], payload_of(uploads[0]), signer=9), *uploads[1:]]
        with pytest.raises(MessageRefused, match="signature"):
            run.officers[k].step(reopened(run, request, foreign))
        wrong = OpenRequest(INTENT, b"another", uploads).encode()
        with pytest.raises(MessageRefused, match="another intent"):
            run.officers[k].step(resign(request, wrong))
        run.officers[k].step(request)


def test_a_second_set_of_ciphertexts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sum, less the first one, would be one client's vector: shown in a build that forgets."""
    run = committee()
    requests = until(run, OPEN)
    uploads = list(run.answers[4].values())
    for k, request in requests.items():
        first = run.officers[k].step(request)
        with pytest.raises(MessageRefused, match="other ciphertexts of this round already"):
            run.officers[k].step(reopened(run, request, uploads[:3]))
        assert run.officers[k].step(request) == first
        run.aggregator.receive(k, first)
    whole = finish(run)
    for k, request in requests.items():
        inner = member(run, k)
        inner._held = inner._seconds = None
        inner._parts = crypto.threshold_member.Answers(3)
        run.officers[k].step(reopened(run, request, uploads[:3]))
    scheme = choose(run.terms).scheme
    words = [decode_ciphertexts(memoryview(payload_of(u)), scheme) for u in uploads[:3]]
    summed = words[0]
    for other in words[1:]:
        summed = add(summed, other, column(scheme.data_primes))
    chosen = (FIRST, FIRST + 1, FIRST + 2)
    answers = [
        decode_answers(payload_of(run.officers[k].step(asked(run, k, (chosen,)))), 1, 1, scheme)[0]
        for k in chosen
    ]
    part = crypto.threshold_aggregator.Opener(choose(run.terms)).open(
        summed, answers, run.terms.length
    )
    np.testing.assert_array_equal(whole - part, run.vectors[4])


def finish(run: Run) -> np.ndarray:
    out = run.aggregator.advance()
    while isinstance(out, Outgoing):
        for k, request in out.messages.items():
            run.aggregator.receive(k, run.officers[k].step(request))
        out = run.aggregator.advance()
    assert not isinstance(out, Ready)
    return out.total


def test_a_client_that_deviates_is_refused_in_the_terms() -> None:
    terms = make_terms(5, officers=5, max_colluders=1)
    with pytest.raises(TermsRefused, match=r"max_colluders is 1; allowed: 0.*secret key"):
        SECURE_SUMS["threshold"].check(terms)


def test_transparent_sums_and_foreign_words_are_refused() -> None:
    run = committee()
    requests = until(run, OPEN)
    uploads = list(run.answers[4].values())
    scheme = choose(run.terms).scheme
    words = [decode_ciphertexts(memoryview(payload_of(u)), scheme) for u in uploads]
    primes = column(scheme.data_primes)
    cancelling = words[3].copy()
    cancelling[:, 1] = 0
    for other in words[:3]:
        cancelling[:, 1] = subtract(cancelling[:, 1], other[:, 1], primes)
    uploads[3] = resign(uploads[3], encode_ciphertexts(scheme, cancelling))
    with pytest.raises(MessageRefused, match="transparent"):
        run.officers[FIRST].step(reopened(run, requests[FIRST], uploads))
    full = b"\xff" * len(payload_of(run.answers[4][1]))
    with pytest.raises(Malformed, match="below its prime"):
        decode_ciphertexts(memoryview(full), scheme)


@pytest.mark.parametrize("step", [1, 2, OPEN, PART])
def test_members_show_and_pickle_nothing_of_their_state(step: int) -> None:
    """Committed, dealt, checked, and with a sum to answer for."""
    run = committee(3, 2)
    until(run, step)
    for k in run.officers:
        phase = member(run, k)._phase
        text = repr(run.officers[k]) + repr(phase)
        if isinstance(phase, Committed):
            secrets = phase.secret[0, :50]
        elif isinstance(phase, Dealt):
            secrets = phase.own.words[0, :50]
            text += repr(phase.own) + repr(phase.halves)
        else:
            assert isinstance(phase, Checked)
            secrets = phase.share.words[0, :50]
            text += repr(phase.share) + repr(phase.pairs)
        assert not any(str(word) in text for word in secrets if word > 1000)
        assert "redacted" in repr(run.officers[k])
        for thing in (run.officers[k], phase):
            with pytest.raises((KeyRefused, TypeError)):
                pickle.dumps(thing)


def test_parts_and_shares_of_a_key_are_never_pickled() -> None:
    scheme = choose(committee().terms).scheme
    part = KeyPart(scheme, common_polynomial(bytes(32), scheme), os.urandom)
    share = deal(part.secret, (1, 2), 2, scheme.data_primes, os.urandom)[1]
    for thing in (part, share, Multiplier(part.secret, scheme.data_primes)):
        with pytest.raises(KeyRefused, match="never pickled"):
            pickle.dumps(thing)
        assert str(part.secret[0, 0]) not in repr(thing)


def test_long_steps_tell_how_far_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(crypto.progress, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(crypto.progress, "_EVERY_SECONDS", 0.0)
    with listening(told.append):
        committee(3, 2).drive()
    parts = ("encrypting: ciphertext", "adding: upload", "drawing pads: member")
    for what in (*parts, "answering: ciphertext", "opening: ciphertext"):
        assert any(line.startswith(f"{what} ") for line in told), what
