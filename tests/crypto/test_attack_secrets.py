"""Attacks on the secrets of one client: each succeeds in a build that is weaker in one place.

Both shares of one client, keys of the aggregator's own in the place of others', a seed that comes a
second time after the mask secret was revealed, and a share that was made up.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

import crypto.masking_client
from crypto.envelope import AGGREGATOR, EVERYBODY, Heading, Step, seal
from crypto.errors import MessageRefused
from crypto.keys import Rand, Roster
from crypto.masking_aggregator import MaskingAggregator
from crypto.masking_client import MaskingClient
from crypto.masking_keys import ClientSecrets, Pair, open_channel, self_key
from crypto.masking_messages import (
    Dealing,
    DealtShares,
    Kind,
    Opening,
    OpeningRequest,
    decode_advert,
    decode_dealings,
    decode_masked_input,
    decode_unmask_answer,
    encode_advert,
    encode_delivery,
    encode_unmask_answer,
)
from crypto.prg import expand
from crypto.shamir import combine
from tests.crypto.adversary import lie, secret_of, unmasked
from tests.crypto.harness import (
    INTENT,
    Run,
    context_of,
    identity,
    make_terms,
    make_vectors,
    payload_of,
    resign,
    seeded,
    show,
    total,
)
from tests.crypto.masking_runs import CONSISTENCY, MASKED, UNMASK

VICTIM = 4


# --- both shares ----------------------------------------------------------------------------------


def forgetful(patch: pytest.MonkeyPatch) -> None:
    """A build in which a client does not know that it has given its shares."""
    real = MaskingClient._unmask

    def again(self: MaskingClient, payload: memoryview) -> bytes:
        kept = self._shares
        answer = real(self, payload)
        self._shares, self._due = kept, Step.CONSISTENCY
        return answer

    patch.setattr(MaskingClient, "_unmask", again)


def ask_twice() -> tuple[Run, np.ndarray | None]:
    """Ask everybody for shares with the victim alive, then the others with the victim gone."""
    terms = make_terms(5, length=20)
    run = Run("masking", terms, make_vectors(terms))
    adversary = lie(run, dict.fromkeys(terms.cohort, (terms.cohort, terms.cohort)))
    assert adversary.knows(VICTIM, Kind.SELF_SEED)
    others = tuple(k for k in terms.cohort if k != VICTIM)
    adversary.signed.clear()
    adversary.opened.clear()
    for k in others:
        adversary.ask_to_sign(k, Opening(INTENT, others, (VICTIM,)))
    for k in adversary.signed:
        adversary.ask_to_open(k, adversary.signatures(k))
    if not adversary.knows(VICTIM, Kind.MASK_SECRET):
        assert not adversary.shares[VICTIM, Kind.MASK_SECRET]
        return run, None
    self_seed, mask_secret = (secret_of(adversary, VICTIM, kind) for kind in Kind)
    return run, unmasked(run, VICTIM, self_seed, mask_secret)


def test_both_shares_of_one_client_are_had_where_clients_answer_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert ask_twice()[1] is None
    forgetful(monkeypatch)
    run, found = ask_twice()
    np.testing.assert_array_equal(found, run.vectors[VICTIM])


# --- keys of one's own ----------------------------------------------------------------------------


def unchecked_adverts(patch: pytest.MonkeyPatch) -> None:
    """A build that takes adverts from the aggregator, whoever signed them."""
    real = crypto.masking_client.unseal

    def lax(message: bytes, heading: Heading, roster: Roster) -> memoryview:
        if heading.recipient == EVERYBODY and heading.step is Step.ADVERTISE:
            return memoryview(message)[46:-64]
        return real(message, heading, roster)

    patch.setattr(crypto.masking_client, "unseal", lax)


def play_everybody_else(run: Run) -> np.ndarray:
    """What an aggregator reads that shows client 1 its own keys for all the others."""
    terms, client, others = run.terms, run.clients[1], run.terms.cohort[1:]
    own = {k: ClientSecrets.generate(os.urandom) for k in others}

    def tell(step: Step, context: bytes, payload: bytes) -> bytes:
        return client.step(seal(identity(0), Heading(step, AGGREGATOR, 1, context), payload))

    def pretend(k: int) -> bytes:
        heading = Heading(Step.ADVERTISE, k, EVERYBODY, terms.ctx1)
        return seal(identity(0), heading, encode_advert(own[k].advert(terms.ctx1, k)))

    advert = tell(Step.ADVERTISE, terms.ctx1, b"")
    adverts = {1: advert, **{k: pretend(k) for k in others}}
    shared = tell(Step.SHARE, terms.ctx1, show(1, adverts))
    ctx2, victim = context_of(shared), decode_advert(payload_of(advert))
    shares, back, keys = {}, {}, []
    for k, encoded in decode_dealings(payload_of(shared))[0].items():
        dealing = Dealing.decode(encoded, dealer=1, recipient=k)
        channel = open_channel(ctx2, own[k].channel, k)
        opened = channel.open(victim.channel, 1, dealing.sealed, dealing.attached)
        shares[k] = DealtShares.decode(opened).self_seed
        nothing = DealtShares(bytes(32), bytes(32)).encode()
        back[k] = Dealing(channel.seal(victim.channel, 1, nothing), None).encode()
        pair = Pair(terms.ctx1, ctx2, (1, victim.mask), (k, own[k].mask.public))
        assert dealing.offer is not None
        keys.append(pair.as_higher(own[k].mask, dealing.offer))
    upload = tell(Step.MASKED_INPUT, ctx2, encode_delivery(terms.cohort, back))
    held = dict(sorted(shares.items())[: terms.threshold])
    keys.append(self_key(ctx2, 1, combine(held, threshold=terms.threshold)))
    ring = terms.ring
    vector = ring.unpack(decode_masked_input(payload_of(upload))[1], terms.length)
    for key in keys:
        vector = vector - expand(key, ring, terms.length)
    ring.reduce(vector)
    return ring.decode(vector)


def test_swapped_keys_open_a_client_where_adverts_are_not_checked_against_the_roster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terms = make_terms(5, length=20)
    run = Run("masking", terms, make_vectors(terms))
    with pytest.raises(MessageRefused, match="signature does not verify") as caught:
        play_everybody_else(run)
    assert caught.value.sender == 2
    assert MASKED not in run.answers
    unchecked_adverts(monkeypatch)
    weakened = Run("masking", terms, run.vectors)
    np.testing.assert_array_equal(play_everybody_else(weakened), run.vectors[1])


# --- an attempt over again ------------------------------------------------------------------------


def recovered(run: Run, victim: int) -> bytes:
    """The secret of the victim that the survivors' answers give, of whichever kind they gave."""
    terms = run.terms
    request = next(iter(run.requests[CONSISTENCY].values()))
    opening = OpeningRequest.decode(payload_of(request)).opening
    answers = sorted(run.answers[UNMASK].items())[: terms.threshold]
    asked = opening.asked_of(terms.cohort)
    shares = {k: decode_unmask_answer(payload_of(m), opening, asked)[victim] for k, m in answers}
    return combine(shares, threshold=terms.threshold)


def attempt(rand: Rand, *, late: bool) -> Run:
    """An attempt in which the victim's input is in time, or reaches the aggregator too late."""
    terms = make_terms(5, length=20)
    run = Run("masking", terms, make_vectors(terms), os.urandom(8))
    run.clients[VICTIM] = run.client(VICTIM, rand)
    lost = {(MASKED, VICTIM)} if late else set()
    done = run.drive(forge=lambda step, k, answer: None if (step, k) in lost else answer)
    assert (VICTIM in done.contributors) is not late
    return run


def replay(rands: tuple[Rand, Rand]) -> tuple[Run, np.ndarray]:
    """The late input of one attempt, under its mask secret and the self seed of the next one."""
    first = attempt(rands[0], late=True)
    mask_secret = recovered(first, VICTIM)
    self_seed = recovered(attempt(rands[1], late=False), VICTIM)
    try:
        return first, unmasked(first, VICTIM, self_seed, mask_secret)
    except ValueError:
        raise AssertionError("the mask secret that was revealed is not the victim's") from None


def test_a_seed_that_comes_again_opens_what_came_late_in_the_attempt_before() -> None:
    """m_i was revealed, since i seemed gone; b_i hides its input still, if it never comes again."""
    run, found = replay((seeded("victim"), seeded("victim")))
    np.testing.assert_array_equal(found, run.vectors[VICTIM])
    run, found = replay((os.urandom, os.urandom))
    # Each of 20 values of 20 bits is right by chance with P = 2^-20.
    assert (found == run.vectors[VICTIM]).sum() <= 1


# --- shares that were made up ---------------------------------------------------------------------


def with_a_made_up_share(gone: dict[int, int]) -> tuple[Run, np.ndarray]:
    """Client 1 gives another share of client 4's secret than it was dealt."""
    terms = make_terms(5, length=20)
    run = Run("masking", terms, make_vectors(terms))

    def forge(step: int, client: int, answer: bytes) -> bytes:
        if (step, client) != (UNMASK, 1):
            return answer
        request = payload_of(run.requests[CONSISTENCY][1])
        opening = OpeningRequest.decode(request).opening
        asked = opening.asked_of(terms.cohort)
        shares = decode_unmask_answer(payload_of(answer), opening, asked)
        made_up = {**shares, VICTIM: os.urandom(32)}
        return resign(answer, encode_unmask_answer(opening, asked, made_up))

    done = run.drive(gone, forge=forge)
    return run, done.total - total(terms, run.vectors, done.contributors)


@pytest.mark.parametrize("gone", [{}, {VICTIM: MASKED}], ids=["self seed", "mask secret"])
def test_a_made_up_share_gives_a_wrong_sum_where_recovered_secrets_are_not_checked(
    monkeypatch: pytest.MonkeyPatch, gone: dict[int, int]
) -> None:
    assert not with_a_made_up_share(gone)[1].any()
    monkeypatch.setattr(MaskingAggregator, "_is_committed", lambda *_: True)
    monkeypatch.setattr("crypto.masking_keys.compare_digest", lambda *_: True)
    monkeypatch.setattr(Pair, "as_lower", lambda self, lower, offer, escrow: os.urandom(32))
    wrong = with_a_made_up_share(gone)[1]
    assert (wrong != 0).mean() > 0.9
