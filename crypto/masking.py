"""Secure sums by double masking (Bonawitz et al., CCS 2017) on a complete graph.

Every client adds to its vector one stream per other client, with opposite signs at the two ends,
and one stream of its own. In the sum over the survivors the pair streams cancel; the survivors
then give shares of each survivor's own seed and of each dropped client's pair secret, never of
both for one client. Four steps: advertise, share, masked input, unmask.

Here stand the conditions and what is promised; the two sides are masking_client and
masking_aggregator, the keys masking_keys, the bytes masking_messages.
"""

from __future__ import annotations

from typing import Final

from crypto.errors import TermsRefused
from crypto.keys import Identity, Rand
from crypto.masking_aggregator import MaskingAggregator
from crypto.masking_client import MaskingClient
from crypto.protocol import (
    Capabilities,
    SumAggregator,
    SumClient,
    SumOfficer,
    VectorSource,
    check_aggregator,
    check_client,
    check_thresholds,
)
from crypto.shamir import MAX_SHARES
from crypto.terms import Terms

_NOTES: Final = (
    (
        "Whatever the aggregator does, it cannot collect both shares of one client, and a client"
        " refuses to open fewer vectors than its own thresholds allow."
    ),
    (
        "There is no consistency round: the aggregator is trusted to tell every client the same."
        " One that shows different members of U2 or survivors to different clients can open the"
        " sum of fewer clients than min_survivors, at the lowest thresholds a single vector."
    ),
    (
        "A client can choose its own input, can make an attempt fail with wrong shares, and can"
        " keep chosen others out of a sum with shares that do not open for them; it cannot make the"
        " others' inputs count wrongly."
    ),
    (
        "Pair secrets rest on X25519 alone: recorded traffic is not safe against a later quantum"
        " computer."
    ),
)


class Masking:
    """Double masking on a complete graph; see SecureSum."""

    name: Final = "masking"

    def check(self, terms: Terms) -> None:
        """Refuse fewer than 3 or more than 255 clients and unsafe thresholds; see SecureSum."""
        check_thresholds(terms)
        if len(terms.cohort) > MAX_SHARES:
            raise TermsRefused(
                f"cohort of {len(terms.cohort)} clients; allowed: up to {MAX_SHARES} on a complete"
                " graph (shares are over GF(2^8))"
            )

    def default_threshold(self, clients: int, max_colluders: int) -> int:
        """Smallest t with 2t > clients + max_colluders; see check_thresholds."""
        return (clients + max_colluders) // 2 + 1

    def capabilities(self) -> Capabilities:
        """What double masking without a consistency round withstands."""
        return Capabilities(
            aggregator="honest-but-curious",
            clients="malicious",
            collusion="the aggregator and up to max_colluders clients",
            drops=True,
            hides_updates=True,
            notes=_NOTES,
        )

    def officers(self) -> int:
        """No party holds a decryption key."""
        return 0

    def client(
        self, terms: Terms, *, index: int, identity: Identity, vector: VectorSource, rand: Rand
    ) -> SumClient:
        """A client of the attempt with fresh secrets; see SecureSum."""
        self.check(terms)
        check_client(terms, index, identity)
        return MaskingClient(terms, index=index, identity=identity, vector=vector, rand=rand)

    def officer(self, terms: Terms, *, index: int, identity: Identity, rand: Rand) -> SumOfficer:
        """Refuse: there are no officers. See SecureSum."""
        raise TermsRefused(f"officer {index} of {self.name!r}, which has no officers")

    def aggregator(self, terms: Terms, *, identity: Identity) -> SumAggregator:
        """The aggregator of the attempt; see SecureSum."""
        self.check(terms)
        check_aggregator(terms, identity)
        return MaskingAggregator(terms, identity=identity)
