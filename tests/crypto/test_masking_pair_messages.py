"""Messages between two clients carry no signature: who can forge, move or learn from one.

The aggregator here signs whatever it likes to whomever it likes, and client 5 helps it.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import crypto.channel
import crypto.masking_keys
from crypto.envelope import AGGREGATOR, Heading, Step, seal
from crypto.errors import KeyRefused, MessageRefused
from crypto.hybrid import CIPHERTEXT_BYTES, HybridKey
from crypto.keys import Secret
from crypto.masking_client import MaskingClient
from crypto.masking_keys import Advert, Pair, mask_key, open_channel
from crypto.masking_messages import (
    OFFER_BYTES,
    SEALED_BYTES,
    Dealing,
    DealtShares,
    decode_advert,
    decode_dealings,
    decode_delivery,
    encode_advert,
    encode_delivery,
)
from tests.crypto.harness import (
    Run,
    context_of,
    identity,
    make_terms,
    make_vectors,
    payload_of,
    resign,
)

ADVERTISE, SHARE, MASKED = range(3)
EVERY = (1, 2, 3, 4, 5)


def started() -> Run:
    """Five clients that have dealt their shares and been sent them, and 5 is corrupt."""
    terms = make_terms(5, max_colluders=1)
    run = Run("masking", terms, make_vectors(terms))
    out = run.aggregator.begin()
    for _ in (ADVERTISE, SHARE):
        run.requests.append(dict(out.messages))
        run.answers.append({k: run.clients[k].step(m) for k, m in out.messages.items()})
        for k, answer in run.answers[-1].items():
            run.aggregator.receive(k, answer)
        out = run.aggregator.advance()
    run.requests.append(dict(out.messages))
    return run


def delivered(run: Run, recipient: int) -> dict[int, bytes]:
    return decode_delivery(payload_of(run.requests[MASKED][recipient]))[1]


def adverts(run: Run) -> dict[int, Advert]:
    return {k: decode_advert(payload_of(m)) for k, m in run.answers[ADVERTISE].items()}


def refused(run: Run, recipient: int, dealer: int, forged: bytes) -> str:
    """Why the recipient refuses this in the place of what the dealer sent."""
    dealings = {**delivered(run, recipient), dealer: forged}
    message = resign(run.requests[MASKED][recipient], encode_delivery(EVERY, dealings))
    with pytest.raises(MessageRefused) as caught:
        run.clients[recipient].step(message)
    assert (caught.value.sender, caught.value.step) == (dealer, "share")
    return caught.value.reason


def test_an_aggregator_cannot_change_move_or_exchange_what_clients_deal() -> None:
    run = started()
    for recipient in (1, 2, 3):
        got = delivered(run, recipient)
        for dealer, dealing in got.items():
            places = (0, CIPHERTEXT_BYTES, SEALED_BYTES - 1, SEALED_BYTES, len(dealing) - 1)
            forged = [
                dealing[:at] + bytes([dealing[at] ^ 1]) + dealing[at + 1 :]
                for at in places
                if at < len(dealing)
            ]
            forged += [dealing[:-1], dealing + b"\0", b""]
            # Those of all others, to all others, whole and in halves; its own, reflected, too.
            for other in EVERY:
                for moved in delivered(run, other).values():
                    if moved != dealing:
                        forged.append(moved)
                        forged.append(moved[:SEALED_BYTES] + dealing[SEALED_BYTES:])
                    if dealer < recipient and moved[SEALED_BYTES:] != dealing[SEALED_BYTES:]:
                        forged.append(dealing[:SEALED_BYTES] + moved[SEALED_BYTES:])
            for forgery in forged:
                assert forgery != dealing
                reason = refused(run, recipient, dealer, forgery)
                assert len(forgery) != len(dealing) or "do not open" in reason
        # What was refused left nothing behind.
        answer = run.clients[recipient].step(run.requests[MASKED][recipient])
        run.aggregator.receive(recipient, answer)


class Pretender(HybridKey):
    """The public key of another client, with what its owner can compute in its place."""

    __slots__ = ("_guess",)

    def __init__(self, public: bytes, guess: bytes) -> None:
        super().__init__(bytes(32), "pretender")
        self.public, self._guess = public, guess

    def agree(self, peer: bytes) -> bytes:
        return self._guess


def test_a_colluder_cannot_deal_in_the_name_of_another() -> None:
    """It can encapsulate to the victim; what the X25519 keys of both ends give, it has not."""
    run = started()
    known, context = adverts(run), context_of(run.answers[SHARE][1])
    shares = DealtShares(bytes(32), bytes(32)).encode()
    own = run.clients[5]._secrets.channel
    for dealer in (1, 2, 4):
        old = Dealing.decode(delivered(run, 3)[dealer], dealer=dealer, recipient=3)
        keys = [(own, k) for k in (dealer, 5, 3)]
        for guess in (bytes(32), own.agree(known[3].channel), own.agree(known[dealer].channel)):
            keys.append((Pretender(known[dealer].channel, guess), dealer))
        for key, claimed in keys:
            sealed = open_channel(context, key, claimed).seal(
                known[3].channel, 3, shares, old.attached
            )
            assert "do not open" in refused(run, 3, dealer, sealed + old.attached)


def test_copying_the_keys_of_another_client_opens_and_forges_nothing() -> None:
    """Client 5 advertises the keys of client 2: they agree with 3 as those of 2 do.

    What 2 and 3 deal each other must not pass for what 5 and 3 do, or shares of m_2 would be
    given as those of m_5 when 5 is said to have dropped.
    """
    terms = make_terms(5, max_colluders=1)
    run = Run("masking", terms, make_vectors(terms))
    out = run.aggregator.begin()
    sent = {k: run.clients[k].step(m) for k, m in out.messages.items()}
    victim = decode_advert(payload_of(sent[2]))
    own = decode_advert(payload_of(sent[5]))
    copied = encode_advert(replace(own, mask=victim.mask, channel=victim.channel))
    sent[5] = resign(sent[5], copied)
    for k, answer in sent.items():
        run.aggregator.receive(k, answer)
    requests = run.aggregator.advance().messages
    dealt = {
        k: decode_dealings(payload_of(run.clients[k].step(requests[k])))[0] for k in (1, 2, 3, 4)
    }
    for recipient in (1, 3, 4):
        dealings = {k: dealt[k][recipient] for k in (1, 2, 3, 4) if k != recipient}
        context = run.clients[recipient]._context
        heading = Heading(Step.MASKED_INPUT, AGGREGATOR, recipient, context)
        # From 5 to a lower client there is no offer; with one, the length alone gives it away.
        payload = encode_delivery(EVERY, {**dealings, 5: dealings[2][:SEALED_BYTES]})
        with pytest.raises(MessageRefused, match="do not open") as caught:
            run.clients[recipient].step(seal(identity(0), heading, payload))
        assert caught.value.sender == 5


def test_the_mask_secret_of_one_client_opens_pairs_of_that_client_only() -> None:
    """Client 2 dropped. What is known: m_2, all adverts, all offers and all escrows."""
    run = started()
    known, context = adverts(run), context_of(run.answers[SHARE][1])
    mask = mask_key(run.clients[2]._secrets.mask.reveal())
    streams = {}
    for lower in EVERY:
        dealings, escrows = decode_dealings(payload_of(run.answers[SHARE][lower]))
        for higher in (k for k in EVERY if k > lower):
            offer = Dealing.decode(dealings[higher], dealer=lower, recipient=higher).offer
            assert offer is not None
            assert len(offer.encode()) == OFFER_BYTES
            ends = ((lower, known[lower].mask), (higher, known[higher].mask))
            pair = Pair(run.terms.ctx1, context, *ends)
            if lower == 2:
                streams[lower, higher] = pair.as_lower(mask, offer, escrows[higher])
            elif higher == 2:
                streams[lower, higher] = pair.as_higher(mask, offer)
            else:
                for escrow in (escrows[higher], *escrows.values()):
                    with pytest.raises(KeyRefused, match="escrow of a pair secret does not open"):
                        pair.as_lower(mask, offer, escrow)
                with pytest.raises(KeyRefused):
                    pair.as_higher(mask, offer)
    assert streams.keys() == {(1, 2), (2, 3), (2, 4), (2, 5)}
    assert len(set(streams.values())) == 4


def test_every_key_of_an_aead_or_a_stream_is_used_for_one_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sealed: Counter[bytes] = Counter()

    class Counting:
        def __init__(self, key: bytes) -> None:
            self._key, self._cipher = key, AESGCM(key)

        def encrypt(self, nonce: bytes, plaintext: bytes, context: bytes) -> bytes:
            sealed[self._key] += 1
            return self._cipher.encrypt(nonce, plaintext, context)

        def decrypt(self, nonce: bytes, ciphertext: bytes, context: bytes) -> bytes:
            return self._cipher.decrypt(nonce, ciphertext, context)

    monkeypatch.setattr(crypto.masking_keys, "AESGCM", Counting)
    monkeypatch.setattr(crypto.channel, "AESGCM", Counting)
    terms = make_terms(5)
    for seed in range(2):
        Run("masking", terms, make_vectors(terms), seed=seed).drive({4: MASKED})
    assert len(sealed) == 2 * (5 * 4 + 5 * 4 // 2)
    assert set(sealed.values()) == {1}


def reachable(root: object) -> Iterator[object]:
    """All that a client holds, without what all clients share (types, modules, functions)."""
    seen: set[int] = set()
    todo: list[object] = [root]
    while todo:
        held = todo.pop()
        if id(held) in seen or isinstance(held, type) or callable(held):
            continue
        seen.add(id(held))
        yield held
        todo += gc.get_referents(held)


def test_after_its_input_a_client_holds_no_secret_that_opens_it() -> None:
    run = started()
    client = run.clients[2]
    assert isinstance(client, MaskingClient)
    secrets = client._secrets
    gone = {secrets.mask.reveal(), secrets.channel.reveal(), secrets.self_seed.reveal()}
    gone |= set(client._streams.values()) | set(client._channel._agreed.values())
    assert len(gone) == 3 + 3 + 4
    before = list(reachable(client))
    assert gone <= {held for held in before if isinstance(held, bytes)}
    assert sum(isinstance(held, HybridKey) for held in before) == 2
    del secrets, before
    client.step(run.requests[MASKED][2])
    after = list(reachable(client))
    assert gone.isdisjoint({held for held in after if isinstance(held, bytes)})
    assert [type(held).__name__ for held in after if isinstance(held, Secret)] == ["Identity"]
