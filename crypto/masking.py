"""Secure sums by double masking (Bonawitz et al., CCS 2017) on a complete graph.

Every client adds to its vector one stream per other client, with opposite signs at the two ends,
and one stream of its own. In the sum over the survivors the pair streams cancel; the survivors
then give shares of each survivor's own seed and of each dropped client's pair secret, never of
both for one client. Five steps: advertise, share, masked input, consistency, unmask.

Why a lying aggregator learns one sum of enough vectors or nothing (n clients, threshold t, at most
c colluders, 2t > n + c; an opening is U2, survivors and intent):

1. An honest client signs one opening per attempt, and only one that fits its own view. It gives
   its shares only for what it signed itself, and only when it sees t survivors' signatures on it.
2. Two sets of t signers share 2t - n > c clients, so an honest one: all shares that honest clients
   give in one attempt are for one opening O, under one ctx2.
3. So of every client honest clients give shares of one kind at most; colluders hold c < t of the
   other. Unknown stay both secrets of honest clients outside O, b_j of the dropped and m_j of the
   survivors, and hence the stream of every pair of honest survivors.
4. Let a linear combination of honest uploads be free of unknown streams. It holds no client that
   is not a survivor of O, for its b_j is unknown. Let it hold the survivor v.
5. v's own U2 has at least t members, and t clients signed O, so an honest signer w is in both. The
   stream of v and w is in v's upload, so it must cancel against w's: w is held, with equal weight.
6. w's masks cover U2 of O, so all survivors, and each of its streams must cancel in the same way:
   all honest survivors are held, with equal weights. There are min_survivors - c >= 2 at least.

Here stand the conditions and what is promised; the two sides are masking_client and
masking_aggregator, the keys masking_keys, the bytes masking_messages.
"""

from __future__ import annotations

from typing import Final

from crypto.envelope import AGGREGATOR, Heading, Step, unseal
from crypto.errors import TermsRefused
from crypto.keys import Identity, Rand
from crypto.masking_aggregator import MaskingAggregator
from crypto.masking_client import MaskingClient
from crypto.protocol import (
    Capabilities,
    IntentCheck,
    SumAggregator,
    SumClient,
    SumOfficer,
    VectorSource,
    check_aggregator,
    check_client,
)
from crypto.shamir import MAX_SHARES
from crypto.sharing import check_sharing, choose_sharing
from crypto.terms import Committee, Sharing, Terms

_NOTES: Final = (
    (
        "Whatever the aggregator does, it learns the sum over the survivors that a threshold of"
        " clients signed, at least min_survivors of them, or nothing: its answers for one sum are"
        " of no use for another, and never both shares of one client."
    ),
    (
        "This holds for at most max_colluders clients that work with the aggregator, places of"
        " one party in the roster included, and for clients that know the right roster."
    ),
    (
        "The aggregator chooses whom it counts as dropped, and so whose vectors are in the sum,"
        " down to min_survivors."
    ),
    (
        "A client signs only what was logged as it is opened: it sees the intent in the signed log"
        " of the run, which only grows for this client. Two clients that never compare what they"
        " saw can be shown two logs."
    ),
    (
        "A client can choose its own input, can make an attempt fail with wrong shares or offers,"
        " and can keep chosen others out of a sum with shares that do not open for them; it cannot"
        " make the others' inputs count wrongly."
    ),
    (
        "Pair secrets and sealed shares rest on X25519 and ML-KEM-768 together: recorded traffic"
        " stays closed to a later quantum computer. Signatures are Ed25519 alone, and what clients"
        " deal each other is authenticated by X25519 alone: whoever breaks one of them while an"
        " attempt runs can take the places of others."
    ),
)


class Masking:
    """Double masking on a complete graph; see SecureSum."""

    name: Final = "masking"

    def check(self, terms: Terms) -> None:
        """Refuse fewer than 3 or more than 255 clients and unsafe thresholds; see SecureSum."""
        check_sharing(terms)
        if len(terms.cohort) > MAX_SHARES:
            raise TermsRefused(
                f"cohort of {len(terms.cohort)} clients; allowed: up to {MAX_SHARES} on a complete"
                " graph (shares are over GF(2^8))"
            )

    def sharing(self, clients: int, max_colluders: int, min_survivors: int) -> Sharing:
        """The complete graph; see choose_sharing."""
        return choose_sharing(clients, max_colluders, min_survivors)

    def capabilities(self) -> Capabilities:
        """What double masking with the consistency step withstands."""
        return Capabilities(
            aggregator="malicious",
            clients="malicious",
            collusion="the aggregator and up to max_colluders clients",
            drops=True,
            hides_updates=True,
            notes=_NOTES,
        )

    def upload_bytes(self, terms: Terms) -> int:
        """The packed residues. See SecureSum."""
        return terms.ring.packed_size(terms.length)

    def committee(self, members: int, threshold: int) -> Committee:
        """None: no party holds a key that opens anything."""
        del members, threshold
        return Committee(members=0, threshold=0)

    def client(
        self,
        terms: Terms,
        *,
        index: int,
        identity: Identity,
        vector: VectorSource,
        rand: Rand,
        intent_check: IntentCheck,
    ) -> SumClient:
        """A client of the attempt with fresh secrets; see SecureSum."""
        self.check(terms)
        check_client(terms, index, identity)
        return MaskingClient(
            terms,
            index=index,
            identity=identity,
            vector=vector,
            rand=rand,
            intent_check=intent_check,
        )

    def officer(
        self,
        terms: Terms,
        *,
        index: int,
        identity: Identity,
        rand: Rand,
        intent_check: IntentCheck,
    ) -> SumOfficer:
        """Refuse: there are no officers. See SecureSum."""
        raise TermsRefused(f"officer {index} of {self.name!r}, which has no officers")

    def aggregator(self, terms: Terms, *, identity: Identity) -> SumAggregator:
        """The aggregator of the attempt; see SecureSum."""
        self.check(terms)
        check_aggregator(terms, identity)
        return MaskingAggregator(terms, identity=identity)

    def check_invitation(self, terms: Terms, *, index: int, message: bytes) -> None:
        """See SecureSum.check_invitation."""
        unseal(message, Heading(Step.ADVERTISE, AGGREGATOR, index, terms.ctx1), terms.roster)

    def restore_client(
        self,
        terms: Terms,
        *,
        index: int,
        identity: Identity,
        vector: VectorSource,
        rand: Rand,
        intent_check: IntentCheck,
        state: bytes,
    ) -> SumClient:
        """A client that goes on, with its secrets; see SecureSum."""
        self.check(terms)
        check_client(terms, index, identity)
        return MaskingClient.restored(
            terms,
            index=index,
            identity=identity,
            vector=vector,
            rand=rand,
            intent_check=intent_check,
            state=state,
        )

    def restore_officer(
        self,
        terms: Terms,
        *,
        index: int,
        identity: Identity,
        rand: Rand,
        intent_check: IntentCheck,
        state: bytes,
    ) -> SumOfficer:
        """Refuse: there are no officers. See SecureSum."""
        raise TermsRefused(f"officer {index} of {self.name!r}, which has no officers")

    def restore_aggregator(
        self, terms: Terms, *, identity: Identity, state: bytes
    ) -> SumAggregator:
        """An aggregator that goes on; see SecureSum."""
        self.check(terms)
        check_aggregator(terms, identity)
        return MaskingAggregator.restored(terms, identity=identity, state=state)
