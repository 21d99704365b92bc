"""A malicious aggregator of double masking with colluding clients, and what it can derive."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from hypothesis import event

from crypto.envelope import AGGREGATOR, EVERYBODY, Heading, Step, seal
from crypto.errors import MessageRefused, OutOfOrder
from crypto.masking_graph import Graph
from crypto.masking_keys import Pair, mask_key, self_key
from crypto.masking_messages import (
    Dealing,
    Kind,
    Opening,
    OpeningRequest,
    decode_advert,
    decode_dealings,
    decode_masked_input,
    decode_unmask_answer,
    encode_bundle,
    encode_delivery,
)
from crypto.prg import expand
from crypto.shamir import combine
from tests.crypto.harness import (
    EVIDENCE,
    INTENT,
    Run,
    context_of,
    identity,
    logged,
    payload_of,
    show_nearby,
)
from tests.crypto.masking_runs import ADVERTISE, MASKED, SHARE

OTHER_EVIDENCE = b"another intent"
OTHER_INTENT = logged(OTHER_EVIDENCE, 0)


@dataclass
class Adversary:
    """A malicious aggregator with colluding clients: it tells every client what it likes.

    It keeps all it is given. Corrupt clients hand over all they hold, one share of both secrets of
    everybody who dealt to them, and sign whatever it wants.
    """

    run: Run
    corrupt: frozenset[int] = frozenset()
    adverts: dict[int, bytes] = field(default_factory=dict)
    dealt: dict[int, dict[int, bytes]] = field(default_factory=dict)
    shared: dict[int, bytes] = field(default_factory=dict)
    uploads: dict[int, tuple[bytes, set[int]]] = field(default_factory=dict)
    signed: dict[int, tuple[Opening, bytes]] = field(default_factory=dict)
    shares: dict[tuple[int, Kind], dict[int, bytes]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    opened: dict[int, tuple[bytes, Opening]] = field(default_factory=dict)

    def tell(self, step: Step, client: int, payload: bytes) -> bytes | None:
        """What a client answers to a payload that the aggregator signs."""
        party = self.run.clients[client]
        heading = Heading(step, AGGREGATOR, client, party._context)
        try:
            return party.step(seal(identity(0), heading, payload))
        except (MessageRefused, OutOfOrder):
            return None

    def graph(self, client: int) -> Graph:
        """The graph that a client has computed."""
        found = self.run.clients[client]._graph
        assert found is not None
        return found

    def begin(self) -> None:
        """Collect the adverts."""
        for k in self.run.terms.cohort:
            self.adverts[k] = self.tell(Step.ADVERTISE, k, b"")

    def show_adverts(self, client: int, members: set[int]) -> None:
        """Show a client who is in U1."""
        payload = show_nearby(self.run.terms, client, {j: self.adverts[j] for j in members})
        answer = self.tell(Step.SHARE, client, payload)
        if answer is not None:
            self.shared[client] = answer
            self.dealt[client] = decode_dealings(payload_of(answer))[0]
            for colluder in self.corrupt & self.dealt[client].keys():
                for kind in Kind:
                    self.shares[client, kind].setdefault(colluder, b"")

    def deliver(self, client: int, members: set[int], withheld: frozenset[int]) -> None:
        """Show a client who is in U2."""
        nearby = members.intersection(self.graph(client).closed(client))
        others = [j for j in nearby - {client} - withheld if client in self.dealt.get(j, {})]
        envelopes = {j: self.dealt[j][client] for j in others}
        payload = encode_delivery(tuple(sorted(members)), envelopes)
        upload = self.tell(Step.MASKED_INPUT, client, payload)
        if upload is not None:
            assert envelopes.keys() == nearby - {client}
            assert len(members) >= self.run.terms.quorum
            self.run.answers.append({client: upload})
            self.uploads[client] = (context_of(upload), nearby)

    def ask_to_sign(self, client: int, opening: Opening) -> None:
        """Show a client what is to be opened."""
        evidence = EVIDENCE if opening.intent == INTENT else OTHER_EVIDENCE
        request = OpeningRequest(opening, evidence).encode()
        signature = self.tell(Step.CONSISTENCY, client, request)
        if signature is not None:
            assert client not in self.signed
            self.signed[client] = (opening, signature)

    def signatures(self, client: int) -> dict[int, bytes]:
        """All that this client may accept: honest ones over its context and opening, and bought."""
        context, opening = self.run.clients[client]._context, self.signed[client][0]
        signers = set(opening.survivors).intersection(self.graph(client).committee)
        bought = {}
        for k in self.corrupt & signers:
            heading = Heading(Step.CONSISTENCY, k, EVERYBODY, context)
            bought[k] = seal(identity(k), heading, opening.digest)
        honest = {
            k: message
            for k, (signed, message) in self.signed.items()
            if k in signers and (signed.digest, context_of(message)) == (opening.digest, context)
        }
        return {**bought, **honest}

    def ask_to_open(self, client: int, signatures: dict[int, bytes]) -> None:
        """Ask a client for its shares."""
        answer = self.tell(Step.UNMASK, client, encode_bundle(signatures))
        if answer is not None:
            assert client not in self.opened
            opening = self.signed[client][0]
            self.opened[client] = (context_of(answer), opening)
            asked = opening.asked_of(self.graph(client).closed(client))
            given = decode_unmask_answer(payload_of(answer), opening, asked)
            for victim, kind in asked.items():
                self.shares[victim, kind][client] = given[victim]

    def knows(self, victim: int, kind: Kind) -> bool:
        """Whether enough shares of a secret are known."""
        return victim in self.corrupt or (
            len(self.shares[victim, kind]) >= self.run.terms.threshold
        )

    def open_sums(self) -> np.ndarray:
        """Basis [k, honest uploads] of the linear combinations of uploads that no mask covers.

        A stream is known if a secret of one of its ends is. Uploads are rows of unknown streams
        with signs; what adds up to no stream at all is open.
        """
        rows = sorted(self.uploads)
        columns: dict[object, int] = {}
        entries: list[tuple[int, int, int]] = []
        for row, k in enumerate(rows):
            context, members = self.uploads[k]
            unknown: list[tuple[object, int]] = []
            if not self.knows(k, Kind.SELF_SEED):
                unknown.append((k, 1))
            for j in members - {k}:
                if not (self.knows(k, Kind.MASK_SECRET) or self.knows(j, Kind.MASK_SECRET)):
                    unknown.append(((context, min(j, k), max(j, k)), 1 if j > k else -1))
            entries += [(row, columns.setdefault(s, len(columns)), sign) for s, sign in unknown]
        matrix = np.zeros((len(rows), max(len(columns), len(rows))))
        for row, column, sign in entries:
            matrix[row, column] = sign
        left, singular, _ = np.linalg.svd(matrix)
        return left.T[singular < 1e-9]


def closure(adversary: Adversary) -> None:
    """Never both secrets of an honest client; one opening; one sum over all of its survivors."""
    terms, corrupt = adversary.run.terms, adversary.corrupt
    for victim in set(terms.cohort) - corrupt:
        assert not all(adversary.knows(victim, kind) for kind in Kind)
    agreed = set(adversary.opened.values())
    assert len(agreed) <= 1
    basis = adversary.open_sums()
    event(f"shares given: {bool(agreed)}, sum open: {bool(len(basis))}")
    if not len(basis):
        return
    ((_, opening),) = agreed
    assert len(opening.survivors) >= terms.quorum
    (combination,) = basis
    inside = np.array([k in opening.survivors for k in sorted(adversary.uploads)])
    assert inside.sum() == len(set(opening.survivors) - corrupt) >= 2
    # One unit vector spans it: equal weights on all honest survivors, none on anybody else.
    np.testing.assert_allclose(np.abs(combination.sum() * combination), inside, atol=1e-9)


def lie(run: Run, stories: dict[int, tuple[tuple[int, ...], tuple[int, ...]]]) -> Adversary:
    """Tell every client its own (U2, survivors) and take what shares it gives for it."""
    adversary = Adversary(run)
    adversary.begin()
    run.answers.append(adversary.adverts)
    for k in run.terms.cohort:
        adversary.show_adverts(k, set(run.terms.cohort))
    for k, (members, _) in stories.items():
        adversary.deliver(k, set(members), frozenset())
    uploads = {k: upload for sent in run.answers[1:] for k, upload in sent.items()}
    run.answers[1:] = [adversary.shared, uploads]
    for k, (members, survivors) in stories.items():
        dropped = tuple(sorted(set(members) - set(survivors)))
        adversary.ask_to_sign(k, Opening(INTENT, survivors, dropped))
    for k in stories:
        adversary.ask_to_open(k, adversary.signatures(k))
    return adversary


def secret_of(adversary: Adversary, victim: int, kind: Kind) -> bytes:
    """Put a secret together from the shares that were given."""
    threshold = adversary.run.terms.threshold
    held = sorted(adversary.shares[victim, kind].items())[:threshold]
    return combine(dict(held), threshold=threshold)


def unmasked(run: Run, victim: int, self_seed: bytes, mask_secret: bytes) -> np.ndarray:
    """What anyone who holds both secrets of a client reads in its upload."""
    terms = run.terms
    adverts = {k: decode_advert(payload_of(answer)) for k, answer in run.answers[0].items()}
    upload = run.answers[MASKED][victim]
    ctx2 = context_of(upload)
    vector = terms.ring.unpack(decode_masked_input(payload_of(upload))[1], terms.length)
    vector = vector - expand(self_key(ctx2, victim, self_seed), terms.ring, terms.length)
    for peer in adverts.keys() - {victim}:
        key = pair_stream(run, victim, mask_secret, peer, ctx2)
        stream = expand(key, terms.ring, terms.length)
        vector = vector - stream if peer > victim else vector + stream
    terms.ring.reduce(vector)
    return terms.ring.decode(vector)


def pair_stream(run: Run, known: int, mask_secret: bytes, peer: int, ctx2: bytes) -> bytes:
    """Stream key of a pair, from one end's mask secret and what went through the aggregator."""
    lower, higher = sorted([known, peer])
    ends = [(k, decode_advert(payload_of(run.answers[ADVERTISE][k])).mask) for k in (lower, higher)]
    dealings, escrows = decode_dealings(payload_of(run.answers[SHARE][lower]))
    offer = Dealing.decode(dealings[higher], dealer=lower, recipient=higher).offer
    pair, key = Pair(run.terms.ctx1, ctx2, *ends), mask_key(mask_secret)
    if known == lower:
        return pair.as_lower(key, offer, escrows[higher])
    return pair.as_higher(key, offer)
