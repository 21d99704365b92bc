"""The terms of one attempt at a secure sum, as each party takes them from its own configuration."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

from crypto.codec import MAX_U32, Writer, tagged_digest
from crypto.errors import TermsRefused
from crypto.keys import Roster
from crypto.ring import Ring

DIGEST_BYTES: Final = 32


@dataclass(frozen=True)
class Sharing:
    """How secrets are shared in a cohort.

    Attributes:
        degree: neighbours that a client deals shares to; cohort size - 1 is the complete graph, 0
            is that nobody deals any.
        threshold: number of shares that recover a secret.
    """

    degree: int
    threshold: int


@dataclass(frozen=True)
class Committee:
    """The officers of a roster.

    Attributes:
        members: how many the roster names, 0 where no party holds a decryption key.
        threshold: how many of them open a sum together.
    """

    members: int
    threshold: int


@dataclass(frozen=True)
class Terms:
    """What everybody in an attempt must agree on; a party never learns any of it from a message.

    The caller guarantees that (round, attempt) strictly increases for every party, over restarts
    too: no context, and so no derived key, ever comes twice.

    Attributes:
        run: name of the run, 32 bytes.
        round: number of the round, from 0.
        attempt: number of the attempt at this round, from 0.
        config_digest: SHA-256 of the configuration.
        plan_digest: SHA-256 of the privacy plan.
        model_digest: SHA-256 of the model that the vectors were computed at.
        roster: the parties and their keys.
        cohort: roster indices of the clients of this attempt, strictly increasing.
        ring: ring of the sum, with its headroom.
        length: number of values in a vector.
        degree: number of neighbours that a client shares its secrets with; see Sharing.
        threshold: number of shares that recover a secret.
        min_survivors: least number of vectors in a sum that may be opened.
        max_colluders: number of clients that may work with the aggregator.
        committee_threshold: number of officers that open a sum together; see Committee.

    Raises:
        TermsRefused: a field is not of that form. Whether the numbers keep a protocol's promises
            is asked of SecureSum.check.
    """

    run: bytes
    round: int
    attempt: int
    config_digest: bytes
    plan_digest: bytes
    model_digest: bytes
    roster: Roster
    cohort: tuple[int, ...]
    ring: Ring
    length: int
    degree: int
    threshold: int
    min_survivors: int
    max_colluders: int
    committee_threshold: int

    def __post_init__(self) -> None:
        for name in ("run", "config_digest", "plan_digest", "model_digest"):
            value = getattr(self, name)
            if type(value) is not bytes or len(value) != DIGEST_BYTES:
                raise TermsRefused(f"{name} is not {DIGEST_BYTES} bytes")
        for name, least in (
            ("round", 0),
            ("attempt", 0),
            ("length", 1),
            ("degree", 0),
            ("threshold", 1),
            ("min_survivors", 1),
            ("max_colluders", 0),
            ("committee_threshold", 0),
        ):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= MAX_U32:
                raise TermsRefused(f"{name} is {value!r}; allowed: integers from {least} to 2^32-1")
        self._check_cohort()

    def _check_cohort(self) -> None:
        members = len(self.roster.members)
        if not self.cohort or any(type(index) is not int for index in self.cohort):
            raise TermsRefused(f"cohort is {self.cohort!r}; allowed: roster indices, one at least")
        if any(a >= b for a, b in pairwise(self.cohort)):
            raise TermsRefused(f"cohort {self.cohort} is not strictly increasing")
        if not 1 <= self.cohort[0] <= self.cohort[-1] <= members:
            raise TermsRefused(
                f"cohort from {self.cohort[0]} to {self.cohort[-1]}; allowed: 1 to {members}"
            )

    @property
    def quorum(self) -> int:
        """Least number of clients with which any step may be completed."""
        return max(self.threshold, self.min_survivors)

    @cached_property
    def ctx1(self) -> bytes:
        """Digest of all of these terms but the model, 32 bytes: signs what comes before ctx2."""
        numbers = Writer()
        for value in (self.round, self.attempt, self.ring.bits, self.length, self.degree):
            numbers.u32(value)
        for value in (self.threshold, self.min_survivors, self.max_colluders):
            numbers.u32(value)
        for value in (self.committee_threshold, *self.cohort):
            numbers.u32(value)
        return tagged_digest(
            "fedmeta/secure-sum/v1",
            self.run,
            numbers.done(),
            self.config_digest,
            self.plan_digest,
            self.roster.digest,
        )

    def ctx2(self, adverts_root: bytes, graph: bytes) -> bytes:
        """Digest of ctx1, the model, the adverts and the graph of neighbours, 32 bytes."""
        return tagged_digest(
            "fedmeta/secure-sum/v1/ctx2", self.ctx1, self.model_digest, adverts_root, graph
        )

    def to_json(self) -> dict[str, Any]:
        """Strings and integers only; digests in lowercase hexadecimal."""
        return {
            "run": self.run.hex(),
            "round": self.round,
            "attempt": self.attempt,
            "config_digest": self.config_digest.hex(),
            "plan_digest": self.plan_digest.hex(),
            "model_digest": self.model_digest.hex(),
            "roster_digest": self.roster.digest.hex(),
            "cohort": list(self.cohort),
            "ring_bits": self.ring.bits,
            "length": self.length,
            "degree": self.degree,
            "threshold": self.threshold,
            "min_survivors": self.min_survivors,
            "max_colluders": self.max_colluders,
            "committee_threshold": self.committee_threshold,
        }
