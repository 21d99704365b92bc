"""Double masking: what a client refuses, what a bad share does, what an abort reveals."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import crypto.masking_client
from crypto.envelope import EVERYBODY, Heading, Step, seal
from crypto.errors import Malformed, MessageRefused, OutOfOrder, SumAborted
from crypto.hybrid import HYBRID_KEY_BYTES
from crypto.keys import Rand
from crypto.masking_keys import Advert, ClientSecrets, PairOffer, open_channel
from crypto.masking_messages import (
    Dealing,
    Kind,
    Neighbourhood,
    Opening,
    OpeningRequest,
    decode_bundle,
    decode_dealings,
    decode_delivery,
    decode_unmask_answer,
    encode_bundle,
    encode_dealings,
    encode_delivery,
)
from crypto.secure_sum import Outgoing
from tests.crypto.harness import (
    EVIDENCE,
    INTENT,
    Run,
    another,
    context_of,
    identity,
    make_terms,
    make_vectors,
    payload_of,
    resign,
    show,
    shown,
    total,
)
from tests.crypto.masking_runs import (
    ADVERTISE,
    CONSISTENCY,
    MASKED,
    SHARE,
    UNMASK,
    refuses,
    requests_of,
)


def masking(clients: int = 5, **changes: object) -> Run:
    terms = make_terms(clients, **changes)
    return Run("masking", terms, make_vectors(terms))


def asked(opening: Opening) -> bytes:
    """The request to sign an opening of the intent that is logged here."""
    return OpeningRequest(opening, EVIDENCE).encode()


# --- what a client refuses ----------------------------------------------------------------------


def test_terms_are_never_taken_from_the_aggregator() -> None:
    run = masking(5)
    for changes in (
        {"threshold": 4, "min_survivors": 4},
        {"min_survivors": 5},
        {"max_colluders": 0, "length": 6},
        {"cohort": (1, 2, 3, 4), "degree": 3},
        {"round": 1},
        {"attempt": 1},
    ):
        terms = another(run.terms, **changes)
        other = Run("masking", terms, make_vectors(terms))
        refuses(run, 1, other.aggregator.begin().messages[1], "another round, attempt, terms")


def test_another_model_is_refused_before_any_share_is_opened() -> None:
    run = masking(5)
    other = another(run.terms, model_digest=b"m" * 32)
    strayed = Run("masking", other, make_vectors(other))
    out = run.aggregator.begin()
    for k, request in out.messages.items():
        client = (strayed if k == 2 else run).clients[k]
        run.aggregator.receive(k, client.step(request))
    out = run.aggregator.advance()
    answer = strayed.clients[2].step(out.messages[2])
    with pytest.raises(MessageRefused, match="view") as caught:
        run.aggregator.receive(2, answer)
    assert caught.value.sender == 2


def test_invitation_holds_nothing() -> None:
    run = masking()
    request = requests_of(run, ADVERTISE)[1]
    refuses(run, 1, resign(request, b"x"), "not empty")
    run.clients[1].step(request)


def test_adverts_are_checked_against_the_roster() -> None:
    """Key swap: the aggregator shows client 1 a key of its own in the place of client 2's."""
    run = masking()
    request = requests_of(run, SHARE)[1]
    adverts = shown(request)
    swapped = bytearray(adverts[2])
    swapped[46 : 46 + HYBRID_KEY_BYTES] = payload_of(adverts[3])[:HYBRID_KEY_BYTES]
    for forged in (
        bytes(swapped),
        resign(adverts[2], bytes(swapped[46:-64]), signer=0),
        resign(adverts[2], bytes(swapped[46:-64]), signer=3),
        adverts[2][:-64] + bytes(64),
    ):
        changed = show(1, {**adverts, 2: forged})
        refuses(run, 1, resign(request, changed), "signature does not verify", sender=2)
    changed = show(1, {**adverts, 2: adverts[3]})
    refuses(run, 1, resign(request, changed), "another sender", sender=2)
    run.clients[1].step(request)


def test_adverts_of_another_round_are_refused() -> None:
    run, old = masking(), masking(round_number=9)
    request = requests_of(run, SHARE)[1]
    replayed = shown(requests_of(old, SHARE)[1])[2]
    changed = show(1, {**shown(request), 2: replayed})
    refuses(run, 1, resign(request, changed), "another round", sender=2)


def test_adverts_must_hold_the_own_one_enough_and_no_stranger() -> None:
    run = masking(9, cohort=(1, 2, 3, 4, 5))
    request = requests_of(run, SHARE)[1]
    adverts = shown(request)
    without = Neighbourhood((2, 3, 4, 5), [], adverts).encode()
    refuses(run, 1, resign(request, without), "members are not those of the adverts and this")
    refuses(run, 1, resign(request, show(1, {2: adverts[2]})), "2 adverts; allowed: 3 or more")
    stranger = {**adverts, 9: adverts[2]}
    refuses(run, 1, resign(request, show(1, stranger)), "outside the cohort")
    # Its own advert is the one that it made, whatever is shown for it.
    own = shown(requests_of(Run("masking", run.terms, run.vectors, seed="again"), SHARE)[2])[1]
    listed = Neighbourhood((1, 2, 3, 4, 5), [], {1: own, **adverts}).encode()
    refuses(run, 1, resign(request, listed), "members are not those of the adverts")
    run.clients[1].step(resign(request, show(1, adverts)))


def test_min_survivors_counts_from_the_first_step() -> None:
    run = masking(5, min_survivors=4)
    request = requests_of(run, SHARE)[1]
    few = {k: v for k, v in shown(request).items() if k < 4}
    refuses(run, 1, resign(request, show(1, few)), "3 adverts; allowed: 4 or more")


def test_keys_of_small_order_are_refused_by_name() -> None:
    """By the aggregator, so that the others go on; and by a client if it lets them through."""
    for field in (0, HYBRID_KEY_BYTES):
        run = masking()
        out = run.aggregator.begin()
        answers = {k: run.clients[k].step(request) for k, request in out.messages.items()}
        weak = bytearray(payload_of(answers[2]))
        weak[field : field + 32] = bytes(32)
        with pytest.raises(MessageRefused, match="no shared secret") as caught:
            run.aggregator.receive(2, resign(answers[2], bytes(weak)))
        assert (caught.value.sender, caught.value.step) == (2, "advertise")
        for k, answer in answers.items():
            run.aggregator.receive(k, answer)
        request = run.aggregator.advance().messages[1]
        adverts = shown(request)
        let_through = show(1, {**adverts, 2: resign(answers[2], bytes(weak))})
        refuses(run, 1, resign(request, let_through), "no shared secret", sender=2)


def test_mask_key_of_small_order_is_refused_before_the_vector_is_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("crypto.masking_aggregator.check_hybrid_key", lambda _: None)

    class WeakSecrets(ClientSecrets):
        def advert(self, ctx1: bytes, index: int) -> Advert:
            advert = super().advert(ctx1, index)
            return replace(advert, mask=bytes(32) + advert.mask[32:])

    asked: list[int] = []
    run = masking()
    insider = run.clients[2]._rand

    def generate(rand: Rand) -> ClientSecrets:
        kind = WeakSecrets if rand is insider else ClientSecrets
        return kind.from_seeds(rand(32), rand(32), rand(32))

    monkeypatch.setattr(ClientSecrets, "generate", generate)
    for k in (1, 3, 4, 5):
        run.clients[k]._vector = lambda k=k: asked.append(k)
    with pytest.raises(SumAborted):
        run.drive()
    assert len(run.refused) == 4
    assert {(r.sender, r.reason) for r in run.refused} == {
        (2, "X25519 public key gives no shared secret")
    }
    assert not asked


def test_deliveries_that_break_the_rules_are_refused() -> None:
    run = masking(6)
    requests = requests_of(run, MASKED)
    request = requests[1]
    everybody, envelopes = decode_delivery(payload_of(request))
    assert everybody == (1, 2, 3, 4, 5, 6)

    def changed(members: tuple[int, ...], held: dict[int, bytes]) -> bytes:
        return resign(request, encode_delivery(members, held))

    withheld = {k: v for k, v in envelopes.items() if k != 6}
    refuses(run, 1, changed(everybody, withheld), "are missing, or of others")
    refuses(run, 1, changed(everybody[:-1], envelopes), "are missing, or of others")
    refuses(run, 1, changed(everybody[1:], envelopes), "not among those")
    refuses(run, 1, changed((*everybody, 7), envelopes), "did not advertise")
    few = {k: envelopes[k] for k in (2, 3)}
    refuses(run, 1, changed((1, 2, 3), few), "3 members of U2; allowed: 4 or more")
    # Sealed by client 3, to client 3, and in another round.
    to_third = decode_delivery(payload_of(requests[3]))[1]
    old = decode_delivery(payload_of(requests_of(masking(6, round_number=3), MASKED)[1]))[1]
    for wrong in (envelopes[3], to_third[1], to_third[2][: len(envelopes[2])], old[2]):
        given = changed(everybody, {**envelopes, 2: wrong})
        refuses(run, 1, given, "do not open|left over", sender=2)
    run.clients[1].step(request)


def test_shares_that_do_not_open_are_refused_by_the_name_of_the_dealer() -> None:
    run = masking()
    request = requests_of(run, MASKED)[1]
    members, envelopes = decode_delivery(payload_of(request))
    sealed = envelopes[2]
    for wrong, match in (
        (sealed[:-1] + bytes([sealed[-1] ^ 1]), "sealed shares do not open"),
        (bytes([sealed[0] ^ 1]) + sealed[1:], "sealed shares do not open"),
        (sealed[:-1], "wanted"),
        (sealed + b"\0", "left over"),
        (b"", "wanted"),
    ):
        message = resign(request, encode_delivery(members, {**envelopes, 2: wrong}))
        refuses(run, 1, message, match, sender=2)
    run.clients[1].step(request)


def test_shares_under_another_view_of_the_adverts_are_refused() -> None:
    """Split views of U1 have two contexts: their shares never mix."""
    run = masking()
    request = requests_of(run, SHARE)
    adverts = shown(request[1])
    narrow = {k: adverts[k] for k in (2, 3, 4)}
    answers = {
        1: run.clients[1].step(resign(request[1], show(1, narrow))),
        2: run.clients[2].step(request[2]),
    }
    assert context_of(answers[1]) != context_of(answers[2])
    with pytest.raises(MessageRefused, match="view"):
        run.aggregator.receive(1, answers[1])
    run.aggregator.receive(2, answers[2])


@pytest.mark.parametrize(
    ("survivors", "dropped", "match"),
    [
        ((1, 2, 3, 4), (4, 5), "both shares of one client"),
        ((1, 2, 3, 4, 5), (1, 2, 3, 4, 5), "both shares of one client"),
        ((1, 2, 3, 4), (), "together are not U2"),
        ((1, 2, 3, 4, 5), (6,), "together are not U2"),
        ((1, 2, 3, 4, 5, 6), (), "together are not U2"),
        ((2, 3, 4, 5), (1,), "not among the survivors"),
        ((1, 2), (3, 4, 5), "2 survivors; allowed: 3 or more"),
        ((), (1, 2, 3, 4, 5), "not among the survivors"),
    ],
)
def test_openings_that_break_the_rules_are_refused(
    survivors: tuple[int, ...], dropped: tuple[int, ...], match: str
) -> None:
    run = masking(6, cohort=(1, 2, 3, 4, 5))
    request = requests_of(run, CONSISTENCY)[1]
    wrong = asked(Opening(INTENT, survivors, dropped))
    refuses(run, 1, resign(request, wrong), match)
    answer = run.clients[1].step(request)
    assert bytes(payload_of(answer)) == Opening(INTENT, (1, 2, 3, 4, 5), ()).digest


def test_min_survivors_above_the_threshold_is_what_a_client_asks_for() -> None:
    run = masking(5, min_survivors=5)
    request = requests_of(run, CONSISTENCY)[1]
    wrong = asked(Opening(INTENT, (1, 2, 3, 4), (5,)))
    refuses(run, 1, resign(request, wrong), "4 survivors; allowed: 5 or more")


def test_every_opening_is_bound_to_the_intent() -> None:
    run = masking()
    request = OpeningRequest.decode(payload_of(requests_of(run, CONSISTENCY)[1]))
    opening = request.opening
    assert request.evidence == EVIDENCE
    assert opening == Opening(INTENT, (1, 2, 3, 4, 5), ())
    digests = {
        opening.digest,
        Opening(bytes(32), (1, 2, 3, 4, 5), ()).digest,
        Opening(INTENT, (1, 2, 3, 4), (5,)).digest,
        Opening(INTENT, (1, 2, 3, 4), ()).digest,
    }
    assert len(digests) == 4


def test_nothing_is_signed_without_evidence_of_the_intent() -> None:
    """The check is the party's own; what it refuses, and any other intent, is refused by name."""
    run = masking()
    request = requests_of(run, CONSISTENCY)[1]
    opening = OpeningRequest.decode(payload_of(request)).opening
    told: list[tuple[bytes, int]] = []

    def check(evidence: bytes, survivors: int) -> bytes:
        told.append((evidence, survivors))
        if evidence != EVIDENCE:
            raise Malformed("no such entry")
        return INTENT

    run.clients[1]._intent_check = check
    wrong = OpeningRequest(opening, b"another").encode()
    refuses(run, 1, resign(request, wrong), "no such entry")
    other = asked(Opening(bytes(32), opening.survivors, ()))
    refuses(run, 1, resign(request, other), "evidence is for another intent")
    assert run.clients[1]._opening is None
    run.clients[1].step(request)
    assert told == [(b"another", 5), (EVIDENCE, 5), (EVIDENCE, 5)]


def test_a_client_signs_one_opening_and_gives_its_shares_once() -> None:
    run = masking()
    first = requests_of(run, CONSISTENCY)[1]
    signature = run.clients[1].step(first)
    for again in (first, resign(first, asked(Opening(INTENT, (1, 2, 3, 4), (5,))))):
        refuses(run, 1, again, "another step")
    run.aggregator.receive(1, signature)
    for k in (2, 3, 4, 5):
        request = resign(first, payload_of(first), recipient=k)
        run.aggregator.receive(k, run.clients[k].step(request))
    request = run.aggregator.advance().messages[1]
    answer = run.clients[1].step(request)
    opening = OpeningRequest.decode(payload_of(first)).opening
    given = decode_unmask_answer(payload_of(answer), opening, opening.asked_of(range(1, 6)))
    assert given.keys() == {1, 2, 3, 4, 5}
    with pytest.raises(OutOfOrder):
        run.clients[1].step(request)


def test_no_share_is_given_without_threshold_signatures_of_the_same_opening() -> None:
    run = masking(6, cohort=(1, 2, 3, 4, 5))
    request = requests_of(run, UNMASK)[1]
    shown = decode_bundle(payload_of(request))
    assert shown.keys() == {1, 2, 3}
    refuses(run, 1, resign(request, encode_bundle({})), "0 signatures; allowed: 3 or more")
    few = {k: shown[k] for k in (1, 2)}
    refuses(run, 1, resign(request, encode_bundle(few)), "2 signatures; allowed: 3 or more")
    digest = payload_of(shown[3])
    for wrong in (
        Opening(INTENT, (1, 2, 3, 4), (5,)).digest,
        Opening(bytes(32), (1, 2, 3, 4, 5), ()).digest,
        b"",
        digest + b"\0",
    ):
        changed = {**shown, 3: resign(shown[3], wrong)}
        refuses(run, 1, resign(request, encode_bundle(changed)), "signs another U2", sender=3)
    for wrong, match in (
        (resign(shown[3], digest, signer=2), "signature does not verify"),
        (resign(shown[3], digest, context=run.terms.ctx1), "another round"),
        (shown[2], "another sender"),
    ):
        changed = {**shown, 3: wrong}
        refuses(run, 1, resign(request, encode_bundle(changed)), match, sender=3)
    run.clients[1].step(request)


def test_signatures_of_clients_that_are_no_survivors_do_not_count() -> None:
    run = masking(6, max_colluders=0, cohort=(1, 2, 3, 4, 5))
    out = run.aggregator.begin()
    for _ in range(4):
        for k, request in out.messages.items():
            if not (k == 5 and request[1] == Step.MASKED_INPUT):
                run.aggregator.receive(k, run.clients[k].step(request))
        step = run.aggregator.advance()
        out = step if isinstance(step, Outgoing) else run.aggregator.authorise(INTENT, EVIDENCE)
    shown = decode_bundle(payload_of(out.messages[1]))
    template = shown.pop(3)
    heading = Heading(Step.CONSISTENCY, 5, EVERYBODY, context_of(template))
    dropped = {**shown, 5: seal(identity(5), heading, payload_of(template))}
    refuses(run, 1, resign(out.messages[1], encode_bundle(dropped)), "not among the survivors")


@pytest.mark.parametrize("lost", [(), (4,), (1, 5)])
@pytest.mark.parametrize("later", [(), (2,)])
def test_drops_between_input_and_shares_leave_the_survivors_in_the_sum(
    lost: tuple[int, ...], later: tuple[int, ...]
) -> None:
    run = masking(6, threshold=4)
    gone = {**dict.fromkeys(lost, CONSISTENCY), **dict.fromkeys(later, UNMASK)}
    if len(gone) > 2:
        with pytest.raises(SumAborted, match="3 clients answered, 4 needed"):
            run.drive(gone)
        return
    done = run.drive(gone)
    assert done.contributors == run.terms.cohort
    assert run.requests[UNMASK].keys() == set(run.terms.cohort) - set(lost)
    np.testing.assert_array_equal(done.total, total(run.terms, run.vectors, run.terms.cohort))


def test_a_vector_that_fails_ends_the_client() -> None:
    run = masking()
    requests = requests_of(run, MASKED)
    asked = 0

    def broken() -> np.ndarray:
        nonlocal asked
        asked += 1
        raise ValueError("no data")

    run.clients[1]._vector = broken
    with pytest.raises(ValueError, match="no data"):
        run.clients[1].step(requests[1])
    with pytest.raises(OutOfOrder):
        run.clients[1].step(requests[1])
    assert asked == 1


# --- what the aggregator refuses from an insider ------------------------------------------------


def test_dealings_of_an_insider_must_be_for_all_that_advertised_and_of_the_right_form() -> None:
    run = masking()
    out = requests_of(run, SHARE)
    answer = run.clients[1].step(out[1])
    envelopes, escrows = decode_dealings(payload_of(answer))
    for wrong, match in (
        ({k: v for k, v in envelopes.items() if k != 2}, "other clients"),
        ({**envelopes, 1: envelopes[2]}, "other clients"),
        ({**envelopes, 2: bytes(79)}, "1168 bytes wanted, 79 left"),
        ({**envelopes, 2: envelopes[2][:1168]}, "1088 bytes wanted, 0 left"),
        ({**envelopes, 2: bytes(1 << 20)}, "bytes left over"),
    ):
        with pytest.raises(MessageRefused, match=match) as caught:
            run.aggregator.receive(1, resign(answer, encode_dealings(wrong, escrows)))
        assert (caught.value.sender, caught.value.step) == (1, "share")
    for kept, match in (
        ({}, "escrows for other pairs"),
        ({**escrows, 1: escrows[2]}, "escrows for other pairs"),
        ({**escrows, 2: bytes(47)}, "does not have 48 bytes"),
    ):
        with pytest.raises(MessageRefused, match=match):
            run.aggregator.receive(1, resign(answer, encode_dealings(envelopes, kept)))
    run.aggregator.receive(1, answer)


def test_masks_over_another_set_are_refused() -> None:
    run = masking()
    requests = requests_of(run, MASKED)
    members, envelopes = decode_delivery(payload_of(requests[1]))
    narrow = {k: v for k, v in envelopes.items() if k != 5}
    message = resign(requests[1], encode_delivery(members[:-1], narrow))
    answer = run.clients[1].step(message)
    with pytest.raises(MessageRefused, match="other clients than U2"):
        run.aggregator.receive(1, answer)
    assert 1 in run.aggregator.expecting


def test_uploads_of_another_length_are_refused_and_not_added() -> None:
    run = masking()

    def forge(step: int, client: int, answer: bytes) -> bytes:
        if step == MASKED and client == 2:
            for wrong in (payload_of(answer)[:-1], payload_of(answer) + b"\0", b"x"):
                with pytest.raises(MessageRefused):
                    run.aggregator.receive(2, resign(answer, wrong))
        return answer

    done = run.drive(forge=forge)
    np.testing.assert_array_equal(done.total, total(run.terms, run.vectors, run.terms.cohort))


@pytest.mark.parametrize("gone", [{}, {5: MASKED}])
@pytest.mark.parametrize("liars", [(1,), (1, 2), (3, 4)])
def test_wrong_shares_never_give_a_wrong_sum(gone: dict[int, int], liars: tuple[int, ...]) -> None:
    """Up to the number that leaves a threshold of honest answers: the sum; above: an abort."""
    run = masking(5)

    def forge(step: int, client: int, answer: bytes) -> bytes:
        if step != UNMASK or client not in liars:
            return answer
        payload = bytearray(payload_of(answer))
        for k in range(32 + 5, len(payload), 37):
            # In two bytes with other ratios, so that two liars cannot cancel each other out.
            payload[k] ^= 1
            payload[k + 1] ^= client
        return resign(answer, bytes(payload))

    honest = 5 - len(gone) - len(liars)
    if honest >= run.terms.threshold:
        done = run.drive(gone, forge=forge)
        np.testing.assert_array_equal(
            done.total, total(run.terms, run.vectors, set(run.terms.cohort) - gone.keys())
        )
    else:
        with pytest.raises(SumAborted, match="do not give back"):
            run.drive(gone, forge=forge)
        with pytest.raises(OutOfOrder):
            run.aggregator.advance()


def test_a_dealer_of_wrong_shares_is_named_when_its_mask_cannot_be_taken_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = masking(5)
    real = crypto.masking_client.split
    calls = Counter()

    def crooked(secret: bytes, **options: object) -> tuple[bytes, ...]:
        calls[len(calls)] += 1
        dealt = real(secret, **options)
        return tuple(bytes(32) for _ in dealt) if len(calls) == 3 else dealt

    monkeypatch.setattr(crypto.masking_client, "split", crooked)
    with pytest.raises(SumAborted, match="pair masks of client 2"):
        run.drive({2: MASKED})


@pytest.mark.parametrize("gone", [1, 2])
@pytest.mark.parametrize("forged", ["escrow", "ciphertext", "tag"])
def test_a_forged_offer_or_escrow_never_gives_a_wrong_sum(gone: int, forged: str) -> None:
    """The insider is client 1, its pair is with client 2; one of the two sends no input.

    Where the pair's stream is needed the attempt is over and says whose offer it was. Where client
    2 refuses the offer and client 1 is gone, neither is in the sum; nor is an escrow needed for 2.
    """
    run = masking(5)

    def forge(step: int, client: int, answer: bytes) -> bytes:
        if (step, client) != (SHARE, 1):
            return answer
        envelopes, escrows = decode_dealings(payload_of(answer))
        dealing = Dealing.decode(envelopes[2], dealer=1, recipient=2)
        other = Dealing.decode(envelopes[3], dealer=1, recipient=3)
        offer, foreign = dealing.offer, other.offer
        assert offer is not None
        assert foreign is not None
        if forged == "escrow":
            escrows[2] = escrows[3]
        elif forged == "ciphertext":
            offer = replace(offer, ciphertext=foreign.ciphertext)
        else:
            offer = replace(offer, tag=foreign.tag)
        envelopes[2] = replace(dealing, offer=offer).encode()
        return resign(answer, encode_dealings(envelopes, escrows))

    if (forged == "escrow") == (gone == 1):
        with pytest.raises(SumAborted, match="offered by client 1 to client 2"):
            run.drive({gone: MASKED}, forge=forge)
        return
    done = run.drive({gone: MASKED}, forge=forge)
    assert done.contributors == ((3, 4, 5) if gone == 1 else (1, 3, 4, 5))
    np.testing.assert_array_equal(done.total, total(run.terms, run.vectors, done.contributors))


def test_a_client_refuses_an_offer_that_was_changed_on_its_way_or_has_another_tag() -> None:
    """Both ends of a pair compare the tag before a vector is masked with its stream."""
    run = masking()
    request = requests_of(run, MASKED)[2]
    members, dealings = decode_delivery(payload_of(request))
    dealing = Dealing.decode(dealings[1], dealer=1, recipient=2)
    assert dealing.offer is not None
    for wrong in (replace(dealing.offer, tag=bytes(32)), PairOffer(bytes(1088), dealing.offer.tag)):
        forged = {**dealings, 1: replace(dealing, offer=wrong).encode()}
        message = resign(request, encode_delivery(members, forged))
        refuses(run, 2, message, "do not open", sender=1)
        # The dealer itself can seal any offer.
        dealer = open_channel(context_of(request), run.clients[1]._secrets.channel, 1)
        public = run.clients[2]._secrets.channel.public
        sealed = dealer.seal(public, 2, bytes(64), wrong.encode())
        message = resign(
            request, encode_delivery(members, {**dealings, 1: Dealing(sealed, wrong).encode()})
        )
        refuses(run, 2, message, "tag of a pair secret", sender=1)
    run.clients[2].step(request)


def test_signatures_and_answers_for_another_opening_are_refused() -> None:
    run = masking(5)
    first = requests_of(run, CONSISTENCY)
    other = Opening(hashlib.sha256(b"other").digest(), (1, 2, 3, 4, 5), ())
    request = OpeningRequest(other, b"other").encode()
    strayed = run.clients[1].step(resign(first[1], request))
    with pytest.raises(MessageRefused, match="signs another U2"):
        run.aggregator.receive(1, strayed)
    for k in (2, 3, 4, 5):
        run.aggregator.receive(k, run.clients[k].step(first[k]))
    requests = run.aggregator.advance().messages
    assert requests.keys() == {2, 3, 4, 5}
    answer = run.clients[2].step(requests[2])
    payload = bytearray(payload_of(answer))
    with pytest.raises(MessageRefused, match="answers another request"):
        run.aggregator.receive(2, resign(answer, other.digest + bytes(payload[32:])))
    payload[36] = Kind.MASK_SECRET
    with pytest.raises(MessageRefused, match="other shares than those asked for"):
        run.aggregator.receive(2, resign(answer, bytes(payload)))


# --- thresholds ---------------------------------------------------------------------------------


def revealed(run: Run) -> Counter[tuple[int, Kind]]:
    """How many shares of each secret the answers of the last step hold."""
    count: Counter[tuple[int, Kind]] = Counter()
    if len(run.answers) <= UNMASK:
        return count
    for k, answer in run.answers[UNMASK].items():
        opening = OpeningRequest.decode(payload_of(run.requests[CONSISTENCY][k])).opening
        asked = opening.asked_of(run.terms.cohort)
        shares = decode_unmask_answer(payload_of(answer), opening, asked)
        count.update((j, opening.kinds[j]) for j in shares)
    return count


@given(data=st.data())
def test_outside_the_thresholds_it_aborts_with_nothing_revealed(data: st.DataObject) -> None:
    clients = data.draw(st.integers(3, 6))
    run = masking(clients, max_colluders=data.draw(st.integers(0, 1)) if clients > 4 else 0)
    threshold = run.terms.threshold
    step = data.draw(st.integers(ADVERTISE, UNMASK), label="step at which too many are lost")
    lost = data.draw(
        st.sets(
            st.sampled_from(run.terms.cohort),
            min_size=clients - threshold + 1,
            max_size=clients,
        )
    )
    with pytest.raises(SumAborted, match="needed"):
        run.drive(dict.fromkeys(lost, step))
    assert len(run.answers) == step + 1
    assert all(count < threshold for count in revealed(run).values())
    with pytest.raises(OutOfOrder):
        run.aggregator.authorise(INTENT, EVIDENCE)
