"""The aggregator's side of double masking: it learns the sum over the survivors, or nothing."""

from __future__ import annotations

from functools import partial

import numpy as np

from crypto.attempt import AggregatorAttempt, OnDemand, Reader
from crypto.codec import Reader as StateReader
from crypto.codec import Writer
from crypto.envelope import CONTEXT_BYTES, EVERYBODY, Heading, Step, unseal
from crypto.errors import KeyRefused, Malformed, OutOfOrder
from crypto.hybrid import CIPHERTEXT_BYTES, check_hybrid_key
from crypto.keys import KEY_BYTES, Identity
from crypto.machines import Done, Outgoing, Ready
from crypto.masking_graph import HASH_BYTES, AdvertTree, Graph, advert_leaf
from crypto.masking_keys import (
    ESCROW_BYTES,
    Advert,
    Pair,
    PairOffer,
    commitment,
    mask_key,
    self_key,
)
from crypto.masking_messages import (
    OFFER_BYTES,
    Dealing,
    Kind,
    Neighbourhood,
    Opening,
    OpeningRequest,
    decode_advert,
    decode_bundle,
    decode_dealings,
    decode_masked_input,
    decode_unmask_answer,
    delivered_digest,
    encode_advert,
    encode_bundle,
    encode_delivery,
)
from crypto.masking_recovery import recover
from crypto.packing import unpack_bits
from crypto.prg import add_stream, subtract_stream
from crypto.terms import Terms


class MaskingAggregator(AggregatorAttempt):
    """The aggregator in one attempt; see SumAggregator.

    Uploads are added as they arrive, so that vectors take as much memory as one. What clients deal
    is held until all uploads are in: 3.5 kB for each pair of neighbours. Recovered secrets are
    checked against the signed adverts, so a wrong share costs time or the attempt, never a wrong
    sum.
    """

    kind = "masking aggregator"

    def __init__(self, terms: Terms, identity: Identity) -> None:
        super().__init__(terms, identity)
        self._adverts: dict[int, Advert] = {}
        self._signed_adverts: dict[int, bytes] = {}
        self._graph: Graph | None = None
        self._dealt: dict[int, dict[int, bytes]] = {}
        self._escrows: dict[int, dict[int, bytes]] = {}
        self._offers: dict[tuple[int, int], tuple[PairOffer, bytes]] = {}
        self._delivered: tuple[int, ...] = ()
        self._total = np.zeros(terms.length, dtype=terms.ring.lane)
        self._opening: Opening | None = None
        self._signatures: dict[int, bytes] = {}
        self._answers: dict[int, dict[int, bytes]] = {}

    def begin(self) -> Outgoing:
        """Invite the cohort to advertise."""
        self._begin(Step.ADVERTISE, self._terms.cohort)
        return self._outgoing(Step.ADVERTISE, dict.fromkeys(self._terms.cohort, b""))

    def advance(self) -> Outgoing | Ready | Done:
        """Close the step with what has arrived; see SumAggregator.advance."""
        inbox = self._step_to_close()
        answered = inbox.close()
        found, needed = self._counted(inbox.step, answered)
        if found < needed:
            raise self._abort(inbox.step, f"{found} clients answered, {needed} needed")
        if inbox.step is Step.ADVERTISE:
            return self._send_adverts(answered)
        if inbox.step is Step.SHARE:
            return self._deliver_shares(answered)
        if inbox.step is Step.MASKED_INPUT:
            self._keep_offers(answered)
            return self._is_ready(inbox, answered)
        if inbox.step is Step.CONSISTENCY:
            return self._ask_for_shares(answered)
        return self._finish()

    def _counted(self, step: Step, answered: tuple[int, ...]) -> tuple[int, int]:
        """How many answers there are of those that count, and how many are needed.

        When all vectors are in, signatures of the committee are needed, then shares near everybody.
        """
        if step is Step.CONSISTENCY:
            return len(set(answered).intersection(self._ring().committee)), self._terms.threshold
        if step is Step.UNMASK:
            heard, graph = set(answered), self._ring()
            nearby = (len(heard.intersection(graph.closed(k))) for k in self._delivered)
            return min(nearby), self._terms.threshold
        return len(answered), self._terms.quorum

    def authorise(self, intent: bytes, evidence: bytes) -> Outgoing:
        """Ask every survivor to sign what is to be opened; see SumAggregator.authorise."""
        self._take_intent(intent)
        inbox = self._open_inbox()
        dropped = tuple(sorted(set(self._delivered) - set(self._survivors)))
        self._opening = Opening(intent, self._survivors, dropped)
        inbox.open(Step.CONSISTENCY, self._survivors)
        payload = OpeningRequest(self._opening, evidence).encode()
        return self._outgoing(Step.CONSISTENCY, dict.fromkeys(self._survivors, payload))

    def _reader(self, step: Step) -> Reader:
        return {
            Step.ADVERTISE: self._read_advert,
            Step.SHARE: self._read_shares,
            Step.MASKED_INPUT: self._read_input,
            Step.CONSISTENCY: self._read_signature,
            Step.UNMASK: self._read_unmasking,
        }[step]

    def _read_advert(self, sender: int, message: bytes) -> None:
        payload = self._unseal(Step.ADVERTISE, sender, message, recipient=EVERYBODY)
        advert = decode_advert(payload)
        # A key that cannot be used would make every other client refuse the attempt.
        check_hybrid_key(advert.mask)
        check_hybrid_key(advert.channel)
        self._adverts[sender] = advert
        self._signed_adverts[sender] = bytes(message)

    def _send_adverts(self, advertised: tuple[int, ...]) -> Outgoing:
        self._open_inbox().open(Step.SHARE, advertised)
        leaves = [advert_leaf(k, encode_advert(self._adverts[k])) for k in advertised]
        tree = AdvertTree(leaves)
        graph = Graph.over(self._terms.ctx1, advertised, self._terms.degree, tree.root)
        places = {index: place for place, index in enumerate(advertised)}
        signed = self._signed_adverts

        def shown_to(client: int) -> bytes:
            missing = tree.proof([places[k] for k in graph.closed(client)])
            adverts = {k: signed[k] for k in graph.neighbours(client)}
            return Neighbourhood(advertised, missing, adverts).encode()

        outgoing = self._outgoing(Step.SHARE, OnDemand(advertised, shown_to))
        self._graph, self._context = graph, self._terms.ctx2(tree.root, graph.seed)
        return outgoing

    def _read_shares(self, sender: int, message: bytes) -> None:
        """Check of every dealing what can be checked unopened: for whom it is, and its form.

        Offers and escrows are kept: with a dropped client's mask secret they give its streams.
        """
        dealings, escrows = decode_dealings(self._unseal(Step.SHARE, sender, message))
        if dealings.keys() != set(self._ring().neighbours(sender)):
            raise Malformed("shares for other clients than its neighbours")
        if escrows.keys() != {peer for peer in dealings if peer > sender}:
            raise Malformed("escrows for other pairs than those with higher clients")
        for peer, dealing in dealings.items():
            Dealing.decode(dealing, dealer=sender, recipient=peer)
        self._dealt[sender], self._escrows[sender] = dealings, escrows

    def _deliver_shares(self, dealers: tuple[int, ...]) -> Outgoing:
        inbox = self._open_inbox()
        inbox.open(Step.MASKED_INPUT, dealers)
        self._delivered = dealers
        dealt, graph = self._dealt, self._ring()

        def delivered_to(client: int) -> bytes:
            nearby = [dealer for dealer in graph.neighbours(client) if dealer in dealt]
            return encode_delivery(dealers, {dealer: dealt[dealer][client] for dealer in nearby})

        return self._outgoing(Step.MASKED_INPUT, OnDemand(dealers, delivered_to))

    def _keep_offers(self, survivors: tuple[int, ...]) -> None:
        """Of all that was dealt, what takes off the streams that dropped clients left behind."""
        graph, alive = self._ring(), set(survivors)
        for gone in set(self._delivered) - alive:
            for survivor in alive.intersection(graph.closed(gone)):
                lower, higher = sorted([gone, survivor])
                dealing = self._dealt[lower][higher]
                offer = Dealing.decode(dealing, dealer=lower, recipient=higher).offer
                if offer is not None:
                    self._offers[lower, higher] = (offer, self._escrows[lower][higher])
        self._dealt, self._escrows = {}, {}

    def _read_input(self, sender: int, message: bytes) -> None:
        digest, packed = decode_masked_input(self._unseal(Step.MASKED_INPUT, sender, message))
        if digest != delivered_digest(self._delivered):
            raise Malformed("the masks cover other clients than U2")
        ring = self._terms.ring
        masked = unpack_bits(packed, ring.bits, self._terms.length)
        np.add(self._total, masked, out=self._total)

    def _read_signature(self, sender: int, message: bytes) -> None:
        signed = self._unseal(Step.CONSISTENCY, sender, message, recipient=EVERYBODY)
        if signed != self._agreed_opening().digest:
            raise Malformed("signs another U2, other survivors or another intent")
        self._signatures[sender] = bytes(message)

    def _ask_for_shares(self, signed: tuple[int, ...]) -> Outgoing:
        """As many signatures of the committee as clients want to see go to all who signed."""
        self._open_inbox().open(Step.UNMASK, signed)
        signers = [client for client in self._ring().committee if client in self._signatures]
        shown = {client: self._signatures[client] for client in signers[: self._terms.threshold]}
        return self._outgoing(Step.UNMASK, dict.fromkeys(signed, encode_bundle(shown)))

    def _read_unmasking(self, sender: int, message: bytes) -> None:
        payload, opening = self._unseal(Step.UNMASK, sender, message), self._agreed_opening()
        asked = opening.asked_of(self._ring().closed(sender))
        self._answers[sender] = decode_unmask_answer(payload, opening, asked)

    def _finish(self) -> Done:
        """Take off the self masks of survivors and the pair masks left by the dropped."""
        self._over = True  # what is interrupted in here cannot be begun again: masks are off
        good: set[int] = set()
        for index, kind in self._agreed_opening().kinds.items():
            secret = self._recover(index, kind, good)
            if kind is Kind.SELF_SEED:
                subtract_stream(self._total, self_key(self._context, index, secret))
            else:
                self._cancel_pairs(index, secret)
        ring = self._terms.ring
        ring.reduce(self._total)
        self._answers = {}
        return Done(ring.decode(self._total), self._survivors, ())

    def _recover(self, index: int, kind: Kind, good: set[int]) -> bytes:
        """The secret that the signed advert commits to.

        Args:
            index: whose secret.
            kind: which one.
            good: clients whose shares were right before, asked first; those that are now are added.
        """
        holders = {
            position: client
            for position, client in enumerate(self._ring().closed(index), start=1)
            if client in self._answers
        }
        found = recover(
            {position: self._answers[client][index] for position, client in holders.items()},
            threshold=self._terms.threshold,
            order=sorted(holders, key=lambda position: holders[position] not in good),
            accept=partial(self._is_committed, index, kind),
        )
        if found is None:
            what = "self mask" if kind is Kind.SELF_SEED else "pair masks"
            raise self._abort(
                Step.UNMASK, f"the shares do not give back the {what} of client {index}"
            )
        secret, subset = found
        good.update(holders[position] for position in subset)
        return secret

    def _is_committed(self, index: int, kind: Kind, secret: bytes) -> bool:
        advert = self._adverts[index]
        if kind is Kind.SELF_SEED:
            return commitment(self._terms.ctx1, index, secret) == advert.commitment
        return mask_key(secret).public == advert.mask

    def _cancel_pairs(self, gone: int, mask_secret: bytes) -> None:
        """Undo what each survivor added or subtracted for a client that never sent its input.

        The recovered stream key must give the tag that the lower client published and the higher
        one compared. Where it does not, no other share could help, and the attempt is over.
        """
        mask = mask_key(mask_secret)
        survivors = set(self._survivors)
        for survivor in survivors.intersection(self._ring().closed(gone)):
            lower, higher = sorted([gone, survivor])
            offer, escrow = self._offers[lower, higher]
            ends = ((lower, self._adverts[lower].mask), (higher, self._adverts[higher].mask))
            pair = Pair(self._terms.ctx1, self._context, *ends)
            try:
                if gone == lower:
                    stream_key = pair.as_lower(mask, offer, escrow)
                else:
                    stream_key = pair.as_higher(mask, offer)
            except KeyRefused as error:
                reason = f"{error}: offered by client {lower} to client {higher}"
                raise self._abort(Step.UNMASK, reason) from None
            (subtract_stream if gone > survivor else add_stream)(self._total, stream_key)

    def _ring(self) -> Graph:
        if self._graph is None:
            raise OutOfOrder("nobody has advertised")
        return self._graph

    def _agreed_opening(self) -> Opening:
        if self._opening is None:
            raise OutOfOrder("nothing was asked to be opened")
        return self._opening

    def _write(self, writer: Writer) -> None:
        writer.fixed(self._context, CONTEXT_BYTES).bundle(self._signed_adverts)
        writer.flag(self._graph is not None)
        if self._graph is not None:
            writer.indices(self._graph.members).fixed(self._graph.seed, HASH_BYTES)
        for bundles in (self._dealt, self._escrows):
            writer.bundle({dealer: encode_bundle(each) for dealer, each in bundles.items()})
        writer.u32(len(self._offers))
        for lower, higher in sorted(self._offers):
            offer, escrow = self._offers[lower, higher]
            writer.u32(lower).u32(higher)
            writer.fixed(offer.encode(), OFFER_BYTES).fixed(escrow, ESCROW_BYTES)
        writer.indices(self._delivered).sized(self._total.tobytes()).bundle(self._signatures)
        writer.sized(b"" if self._opening is None else self._opening.encode())
        writer.bundle({client: encode_bundle(shares) for client, shares in self._answers.items()})

    def _read(self, reader: StateReader) -> None:
        self._context, self._signed_adverts = reader.fixed(CONTEXT_BYTES), reader.bundle()
        for sender, message in self._signed_adverts.items():
            heading = Heading(Step.ADVERTISE, sender, EVERYBODY, self._terms.ctx1)
            self._adverts[sender] = decode_advert(unseal(message, heading, self._terms.roster))
        if reader.flag():
            members, seed = reader.indices(), reader.fixed(HASH_BYTES)
            self._graph = Graph(members, self._terms.degree, seed)
        self._dealt, self._escrows = (
            {dealer: decode_bundle(each) for dealer, each in reader.bundle().items()}
            for _ in range(2)
        )
        for _ in range(reader.u32()):
            pair = (reader.u32(), reader.u32())
            offer = PairOffer(reader.fixed(CIPHERTEXT_BYTES), reader.fixed(KEY_BYTES))
            self._offers[pair] = (offer, reader.fixed(ESCROW_BYTES))
        self._delivered = reader.indices()
        total = reader.sized_view()
        if len(total) != self._total.nbytes:
            raise Malformed(f"a sum of {len(total)} bytes")
        self._total[:] = np.frombuffer(total, dtype=self._total.dtype)
        self._signatures, opening = reader.bundle(), reader.sized()
        self._opening = Opening.decode(opening) if opening else None
        answers = reader.bundle().items()
        self._answers = {client: decode_bundle(shares) for client, shares in answers}

    def _forget(self) -> None:
        self._answers = {}
