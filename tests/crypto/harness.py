"""A federation in one process: seeded randomness, terms that pass, and a driver that records."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crypto.envelope import Heading, Step, seal
from crypto.errors import MessageRefused
from crypto.keys import Identity, Member, Rand, Roster
from crypto.masking import Masking
from crypto.masking_graph import AdvertTree, Graph, advert_leaf
from crypto.masking_messages import Neighbourhood
from crypto.protocol import check_cohort, check_survivors
from crypto.ring import Ring
from crypto.secure_sum import (
    SECURE_SUMS,
    ClientSeat,
    Done,
    Outgoing,
    Ready,
    Seat,
    SecureSum,
    SumAggregator,
    SumClient,
    SumOfficer,
    Terms,
    VectorSource,
)

Vector = NDArray[np.int64]
EVIDENCE = b"intent"
INTENT = hashlib.sha256(EVIDENCE).digest()
STEPS = {"he": 3, "masking": 5, "plain": 1, "threshold": 8}
WIDEST = {"he": 59, "masking": 62, "plain": 62, "threshold": 59}


class AnyRing(Masking):
    """Masking that takes rings of any size: small ones leave chance what is to be all but sure."""

    def check(self, terms: Terms) -> None:
        check_cohort(terms)
        check_survivors(terms)


PROTOCOLS: dict[str, SecureSum] = {**SECURE_SUMS, "ring": AnyRing()}


def input_step(name: str) -> int:
    """The step in which clients send their vectors."""
    return {"he": 1, "masking": 2, "plain": 0, "threshold": 4}[name]


def logged(evidence: bytes, survivors: int) -> bytes:
    """A check that takes any evidence for what it says, as if all of it were logged."""
    del survivors
    return hashlib.sha256(evidence).digest()


def seeded(label: object) -> Rand:
    """Reproducible randomness for tests: SHA-256 of a label and a counter."""
    count = 0

    def rand(length: int) -> bytes:
        nonlocal count
        out = b""
        while len(out) < length:
            out += hashlib.sha256(f"{label}/{count}".encode()).digest()
            count += 1
        return out[:length]

    return rand


@lru_cache(maxsize=512)
def identity(index: int) -> Identity:
    return Identity.generate(seeded(f"identity {index}"))


def seat(index: int, rand: Rand, *, signer: int | None = None) -> Seat:
    """An officer's seat; with another party's key where a signer is given."""
    return Seat(
        index=index,
        identity=identity(index if signer is None else signer),
        rand=rand,
        intent_check=logged,
    )


def client_seat(
    index: int, vector: VectorSource, rand: Rand, *, signer: int | None = None
) -> ClientSeat:
    """A client's seat; see seat."""
    return ClientSeat(
        index=index,
        identity=identity(index if signer is None else signer),
        rand=rand,
        intent_check=logged,
        vector=vector,
    )


@lru_cache(maxsize=64)
def roster(members: int, officers: int = 0) -> Roster:
    parties = [Member(f"party-{k}", identity(k).public) for k in range(1, members + officers + 1)]
    return Roster(identity(0).public, tuple(parties[:members]), tuple(parties[members:]))


def least_survivors(threshold: int, max_colluders: int) -> int:
    """The fewest vectors that may be opened: two more than anybody in the sum knows."""
    return max(threshold, max(max_colluders, 1) + 2)


def make_terms(
    clients: int,
    *,
    cohort: Iterable[int] | None = None,
    length: int = 5,
    bits: int = 20,
    max_colluders: int = 0,
    threshold: int | None = None,
    min_survivors: int | None = None,
    round_number: int = 0,
    officers: int = 1,
    committee_threshold: int | None = None,
    degree: int | None = None,
) -> Terms:
    """Terms of a complete graph with the smallest threshold allowed, unless others are given."""
    chosen = tuple(range(1, clients + 1)) if cohort is None else tuple(cohort)
    t = (len(chosen) + max_colluders) // 2 + 1 if threshold is None else threshold
    return Terms(
        run=hashlib.sha256(b"run").digest(),
        round=round_number,
        attempt=0,
        config_digest=hashlib.sha256(b"config").digest(),
        plan_digest=hashlib.sha256(b"plan").digest(),
        model_digest=hashlib.sha256(b"model").digest(),
        roster=roster(max(clients, *chosen), officers),
        cohort=chosen,
        ring=Ring(bits),
        length=length,
        degree=len(chosen) - 1 if degree is None else degree,
        threshold=t,
        min_survivors=least_survivors(t, max_colluders) if min_survivors is None else min_survivors,
        max_colluders=max_colluders,
        committee_threshold=officers // 2 + 1
        if committee_threshold is None
        else committee_threshold,
    )


def terms_for(name: str, clients: int, **changes: Any) -> Terms:
    """Terms with the committee of a protocol: the smallest that survives a loss."""
    committee = SECURE_SUMS[name].committee(3, 2)
    return make_terms(
        clients,
        officers=committee.members,
        committee_threshold=committee.threshold,
        **changes,
    )


def make_vectors(terms: Terms, seed: int = 0) -> dict[int, Vector]:
    """Vectors whose sum over the whole cohort is in range, its ends included at times."""
    top = ((1 << (terms.ring.bits - 1)) - 1) // len(terms.cohort)
    rng = np.random.default_rng(seed)
    return {k: rng.integers(-top, top, terms.length, endpoint=True) for k in terms.cohort}


def total(terms: Terms, vectors: Mapping[int, Vector], who: Iterable[int]) -> Vector:
    """The plain sum in 64-bit integers."""
    return sum((vectors[k] for k in who), np.zeros(terms.length, dtype=np.int64))


@dataclass
class Run:
    """One attempt, driven step by step.

    `requests[k]` and `answers[k]` are the messages of step k, by client.
    """

    name: str
    terms: Terms
    vectors: Mapping[int, Vector]
    seed: object = 0
    aggregator: SumAggregator = field(init=False)
    clients: dict[int, SumClient] = field(init=False)
    officers: dict[int, SumOfficer] = field(init=False)
    requests: list[dict[int, bytes]] = field(default_factory=list)
    answers: list[dict[int, bytes]] = field(default_factory=list)
    refused: list[MessageRefused] = field(default_factory=list)
    ready: Ready | None = None

    def __post_init__(self) -> None:
        protocol = PROTOCOLS[self.name]
        self.aggregator = protocol.aggregator(self.terms, identity(0))
        self.clients = {k: self.client(k) for k in self.terms.cohort}
        self.officers = {
            k: protocol.officer(self.terms, seat(k, seeded(f"{self.seed} officer {k}")))
            for k in self.terms.roster.officer_indices[: protocol.committee(15, 8).members]
        }

    def client_seat(self, index: int, rand: Rand | None = None) -> ClientSeat:
        """The seat of a client of this run, with randomness of the run's seed or another one."""
        chosen = seeded(f"{self.seed} client {index}") if rand is None else rand
        return client_seat(index, lambda: self.vectors[index], chosen)

    def client(self, index: int, rand: Rand | None = None) -> SumClient:
        """A new client of this run; see client_seat."""
        return PROTOCOLS[self.name].client(self.terms, self.client_seat(index, rand))

    @property
    def parties(self) -> dict[int, SumClient | SumOfficer]:
        """Clients and officers by index."""
        return {**self.clients, **self.officers}

    def begin(self) -> Outgoing:
        """The first messages to clients; what officers do before is done."""
        out: Outgoing | Ready | Done = self.aggregator.begin()
        while isinstance(out, Outgoing) and out.messages.keys() <= self.officers.keys():
            for k, request in out.messages.items():
                self.aggregator.receive(k, self.officers[k].step(request))
            out = self.aggregator.advance()
        assert isinstance(out, Outgoing)
        return out

    def drive(
        self,
        silent: Mapping[int, int] | None = None,
        *,
        forge: Callable[[int, int, bytes], bytes | None] | None = None,
        forge_request: Callable[[int, int, bytes], bytes] | None = None,
    ) -> Done:
        """Run to the end.

        Args:
            silent: the step (0, 1, ...) from which on a client no longer answers.
            forge: replaces the answer (step, client, message), or loses it with None.
            forge_request: replaces the aggregator's message (step, client, message).
        """
        gone = silent or {}
        out = self.aggregator.begin()
        while not isinstance(out, Done):
            if isinstance(out, Ready):
                self.ready = out
                out = self.aggregator.authorise(INTENT, EVIDENCE)
            step = len(self.requests)
            self.requests.append(dict(out.messages))
            self.answers.append({})
            for k, request in out.messages.items():
                if gone.get(k, step + 1) <= step:
                    continue
                sent = request if forge_request is None else forge_request(step, k, request)
                try:
                    answer = self.parties[k].step(sent)
                except MessageRefused as refusal:
                    self.refused.append(refusal)
                    continue
                self.answers[step][k] = answer
                heard = answer if forge is None else forge(step, k, answer)
                if heard is None:
                    continue
                try:
                    self.aggregator.receive(k, heard)
                except MessageRefused as refusal:
                    self.refused.append(refusal)
            out = self.aggregator.advance()
        return out


def another(terms: Terms, **changes: object) -> Terms:
    """The same terms with some fields changed."""
    return replace(terms, **changes)


def graph_of(terms: Terms, adverts: Mapping[int, bytes]) -> tuple[AdvertTree, Graph]:
    """The tree and the graph over these signed adverts, as the aggregator makes them."""
    members = tuple(sorted(adverts))
    tree = AdvertTree([advert_leaf(k, payload_of(adverts[k])) for k in members])
    return tree, Graph.over(terms.ctx1, members, terms.degree, tree.root)


def show_nearby(terms: Terms, client: int, adverts: Mapping[int, bytes]) -> bytes:
    """What a client is shown if these have advertised, itself among them."""
    tree, graph = graph_of(terms, adverts)
    missing = tree.proof([graph.members.index(k) for k in graph.closed(client)])
    nearby = {k: adverts[k] for k in graph.neighbours(client)}
    return Neighbourhood(graph.members, missing, nearby).encode()


def show(client: int, adverts: Mapping[int, bytes]) -> bytes:
    """What a client of a complete graph is shown if these have advertised, itself among them."""
    others = {k: advert for k, advert in adverts.items() if k != client}
    return Neighbourhood(tuple(sorted({client, *adverts})), [], others).encode()


def shown(request: bytes) -> dict[int, bytes]:
    """The signed adverts in a request of the second step."""
    return dict(Neighbourhood.decode(payload_of(request)).adverts)


def context_of(message: bytes) -> bytes:
    """The context that a message was signed under (bytes 10 to 42 of an envelope)."""
    return message[10:42]


def payload_of(message: bytes) -> bytes:
    """The payload of an envelope, unchecked."""
    return message[46:-64]


def resign(
    message: bytes,
    payload: bytes,
    *,
    signer: int | None = None,
    recipient: int | None = None,
    context: bytes | None = None,
) -> bytes:
    """A message like this one with another payload, validly signed: what an insider can send."""
    heading = Heading(
        Step(message[1]),
        int.from_bytes(message[2:6], "little"),
        int.from_bytes(message[6:10], "little") if recipient is None else recipient,
        context_of(message) if context is None else context,
    )
    return seal(identity(heading.sender if signer is None else signer), heading, payload)
