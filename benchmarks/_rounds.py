"""One round of a secure sum as the benchmarks see it, and our contestant, driven step by step."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crypto.keys import Identity, Member, Roster
from crypto.ring import Ring
from crypto.secure_sum import (
    SECURE_SUMS,
    ClientSeat,
    Done,
    Outgoing,
    Ready,
    Sharing,
    Terms,
    VectorSource,
)

Vector = NDArray[np.int64]


class Gone(Exception):
    """Raised in place of a vector: the client falls silent."""


@dataclass(frozen=True)
class Round:
    """What one round took.

    Attributes:
        total: the sum over the survivors, [d] int64.
        seconds: all parties one after the other.
        client_seconds: all that a client does, one figure per survivor.
        mask_seconds: of that, from the moment the vector is asked for to the finished upload.
        upload_bytes: the message that carries a masked vector.
        other_bytes: all that a client sends and receives besides, one figure per survivor.
        client_sharing_seconds: secret sharing by a client, where it is timed apart.
        sharing_seconds: secret sharing and recovery by all, where it is timed apart.
    """

    total: Vector
    seconds: float
    client_seconds: tuple[float, ...]
    mask_seconds: tuple[float, ...]
    upload_bytes: int
    other_bytes: tuple[int, ...]
    client_sharing_seconds: float = 0.0
    sharing_seconds: float = 0.0

    @property
    def handshake_seconds(self) -> tuple[float, ...]:
        """All that a client does but masking."""
        pairs = zip(self.client_seconds, self.mask_seconds, strict=True)
        return tuple(whole - masking for whole, masking in pairs)


@dataclass(frozen=True)
class Federation:
    """Long-lived keys of an aggregator and its clients, and the terms of the next round."""

    aggregator: Identity
    clients: Mapping[int, Identity]
    terms: Terms

    @classmethod
    def of(
        cls,
        clients: int,
        *,
        ring: Ring,
        length: int,
        sharing: Sharing,
        min_survivors: int,
        max_colluders: int,
    ) -> Federation:
        """Generate the keys; the cohort is everybody."""
        keys = {k: Identity.generate(os.urandom) for k in range(clients + 1)}
        aggregator = keys.pop(0)
        members = tuple(Member(f"client-{k}", key.public) for k, key in keys.items())
        digest = hashlib.sha256(b"benchmark").digest()
        terms = Terms(
            run=digest,
            round=0,
            attempt=0,
            config_digest=digest,
            plan_digest=digest,
            model_digest=digest,
            roster=Roster(aggregator.public, members),
            cohort=tuple(keys),
            ring=ring,
            length=length,
            degree=sharing.degree,
            threshold=sharing.threshold,
            min_survivors=min_survivors,
            max_colluders=max_colluders,
            committee_threshold=0,
        )
        return cls(aggregator, keys, terms)

    def seat(self, client: int, vector: VectorSource) -> ClientSeat:
        """The seat of a client, with randomness of the operating system."""
        return ClientSeat(
            index=client,
            identity=self.clients[client],
            rand=os.urandom,
            intent_check=logged,
            vector=vector,
        )


def logged(evidence: bytes, survivors: int) -> bytes:
    """Checking an intent is the business of a log, which is not part of this."""
    del survivors
    return evidence


def masked_round(
    federation: Federation, vectors: Mapping[int, Vector], *, dropped: Collection[int]
) -> Round:
    """Run one round of `masking`, every message as the bytes that would go over the network.

    A dropped client falls silent when it is asked for its vector.
    """
    terms = federation.terms
    protocol = SECURE_SUMS["masking"]
    spent = dict.fromkeys(terms.cohort, 0.0)
    asked: dict[int, float] = {}
    masking: dict[int, float] = {}
    traffic = dict.fromkeys(terms.cohort, 0)
    uploads: dict[int, int] = {}

    def source(client: int) -> Callable[[], Vector]:
        def vector() -> Vector:
            if client in dropped:
                raise Gone
            asked[client] = time.perf_counter()
            return vectors[client]

        return vector

    begun = time.perf_counter()
    aggregator = protocol.aggregator(terms, federation.aggregator)
    parties = {}
    for k in federation.clients:
        start = time.perf_counter()
        parties[k] = protocol.client(terms, federation.seat(k, source(k)))
        spent[k] += time.perf_counter() - start
    step: Outgoing | Ready | Done = aggregator.begin()
    while not isinstance(step, Done):
        if isinstance(step, Ready):
            step = aggregator.authorise(terms.run, terms.run)
        for k, request in step.messages.items():
            start = time.perf_counter()
            try:
                answer = parties[k].step(request)
            except Gone:
                continue
            end = time.perf_counter()
            spent[k] += end - start
            traffic[k] += len(request) + len(answer)
            if k in asked and k not in masking:
                masking[k] = end - asked[k]
                uploads[k] = len(answer)
            aggregator.receive(k, answer)
        step = aggregator.advance()
    seconds = time.perf_counter() - begun
    survivors = step.contributors
    return Round(
        total=step.total,
        seconds=seconds,
        client_seconds=tuple(spent[k] for k in survivors),
        mask_seconds=tuple(masking[k] for k in survivors),
        upload_bytes=uploads[survivors[0]],
        other_bytes=tuple(traffic[k] - uploads[k] for k in survivors),
    )
