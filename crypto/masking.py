"""Secure sums by double masking (Bonawitz et al., CCS 2017; on a ring: Bell et al., CCS 2020).

Every client adds to its vector one stream per neighbour, with opposite signs at the two ends, and
one stream of its own. In the sum over the survivors the pair streams cancel; the survivors then
give shares of each neighbour's own seed if it survived and of its pair secret if it dropped, never
of both for one client. Five steps: advertise, share, masked input, consistency, unmask.

Why a lying aggregator learns one sum of enough vectors or nothing. There are n clients, at most c
of them colluders; k is the degree, t the threshold, q = min_survivors; N[v] is v with its
neighbours; an opening is U2, survivors and intent; conditions (i) to (iv) are in crypto.sharing. On
the complete graph N[v] is everybody who advertised, 2t > n + c, and every step below is certain. On
a ring, steps 2, 5 and 6 fail with the chances computed there.

1. An honest client signs one opening per attempt, and only one that fits its own view: U2 is its
   own U2, at least q survive, at least t of them in its N, itself among them. It gives its shares
   (it is then a giver) only for what it signed itself, and only when it sees the signatures on it
   of t survivors of the committee, which is N of the ring's first place.
2. Two sets of t members of the committee have 2t - |N| members in common, by (i) more than there
   are colluders in it, so an honest one: in one context all givers give for one opening O.
   Neighbours' signatures would not do: two regions of a ring could each accept an opening.
3. So of every client givers give shares of one kind at most, and colluders hold fewer than t of the
   other (i). Unknown stay both secrets of honest clients outside O, b_j of the dropped and m_j of
   the survivors, and hence the stream of every pair of honest survivors that are neighbours.
4. Let a linear combination of honest uploads be free of unknown streams. It holds no client that
   is not a survivor of O, for its b_j is unknown. Let it hold the survivor v; its b_v is known, so
   givers and colluders in N[v] are t together.
5. v's own U2 has at least t members in N[v] too, so 2t - |N| of those t are in it, by (i) more than
   there are colluders: a giver g is. If g is not v, the stream of v and g is in v's upload, so it
   must cancel against g's: g is held, with equal weight.
6. g's masks cover its neighbours in U2 of O, so every honest survivor beside a held giver is held
   with equal weight. On the complete graph that is everybody. On a ring, of the t givers and
   colluders in N[g] at most k / 2 + 1 are g and the k / 2 places on its one side, so t - k / 2 - 1
   are on its other side: a giver among them, which is held, unless so many colluders are there. So
   held givers follow each other at distances of k / 2 at most, in both directions, until they meet.
   Then every place has a held giver beside it, and all honest survivors are held with equal
   weights. If they do not meet there is a gap between two of them. In a gap of up to k places each
   place is beside one of the two, so all are held as well. A longer gap has k / 2 places at its
   either end without a place in common, both with t - k / 2 - 1 colluders: excluded by (ii).
7. Clients that were shown other adverts have another context, and no share or signature counts in
   two contexts. In each, 1 to 6 hold by themselves. Every honest survivor of an opened O is beside
   a giver, which took in what it dealt, and so is in O's own context. So two openings in two
   contexts have colluders alone in common, and 2q <= n + c: excluded by (iv), or by 2t > n + c.

There are q - c >= 2 honest vectors in the sum at least. On a ring the colluders are those that were
bought before its order was known: who can buy t chosen neighbours afterwards opens a vector. That
an aggregator can try many orders, and picks whom it calls dropped after it has seen the order, is
reckoned with: the argument takes the givers as they come, and the bound is 2^-120.

Here stands what is promised; the two sides are masking_client and masking_aggregator, the graph
masking_graph, the keys masking_keys, the bytes masking_messages.
"""

from __future__ import annotations

from typing import Final

from crypto.envelope import AGGREGATOR, Heading, Step, unseal
from crypto.masking_aggregator import MaskingAggregator
from crypto.masking_client import MaskingClient
from crypto.protocol import Capabilities, SecureSum
from crypto.sharing import check_sharing, choose_sharing
from crypto.terms import Sharing, Terms

_NOTES: Final = (
    (
        "Whatever the aggregator does, it learns the sum over the survivors that a threshold of a"
        " committee of clients signed, at least min_survivors of them, or nothing: its answers for"
        " one sum are of no use for another, and never both shares of one client."
    ),
    (
        "Up to 100 clients everybody is everybody's neighbour and the committee. Beyond that (up to"
        " 255 where no ring fits), neighbours are next to each other on a ring in pseudorandom"
        " order; then this holds but for a chance of 2^-119 in every order that the aggregator"
        " tries, for colluders that are chosen before the order is known."
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


class Masking(SecureSum):
    """Double masking on a complete graph or a ring; see SecureSum."""

    name = "masking"

    def check(self, terms: Terms) -> None:
        """Refuse fewer than 3 clients and unsafe graphs and thresholds; see check_sharing."""
        check_sharing(terms)

    def sharing(self, clients: int, max_colluders: int, min_survivors: int) -> Sharing:
        """A complete graph or a ring; see choose_sharing."""
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

    def check_invitation(self, terms: Terms, *, index: int, message: bytes) -> None:
        """See SecureSum.check_invitation."""
        unseal(message, Heading(Step.ADVERTISE, AGGREGATOR, index, terms.ctx1), terms.roster)

    def client_class(self) -> type[MaskingClient]:
        """Clients; see SecureSum."""
        return MaskingClient

    def aggregator_class(self) -> type[MaskingAggregator]:
        """Aggregators; see SecureSum."""
        return MaskingAggregator
