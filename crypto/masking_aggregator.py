"""The aggregator's side of double masking: it learns the sum over the survivors, or nothing."""

from __future__ import annotations

from functools import partial

import numpy as np

from crypto.attempt import AggregatorAttempt, Reader
from crypto.codec import Reader as StateReader
from crypto.codec import Writer
from crypto.envelope import CONTEXT_BYTES, EVERYBODY, Heading, Step, unseal
from crypto.errors import KeyRefused, Malformed, OutOfOrder
from crypto.hybrid import CIPHERTEXT_BYTES, check_hybrid_key
from crypto.keys import KEY_BYTES, Identity
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
    COMPLETE_GRAPH,
    OFFER_BYTES,
    Dealing,
    Kind,
    Opening,
    OpeningRequest,
    adverts_root,
    decode_advert,
    decode_bundle,
    decode_dealings,
    decode_masked_input,
    decode_unmask_answer,
    delivered_digest,
    encode_bundle,
    encode_delivery,
)
from crypto.masking_recovery import recover
from crypto.packing import unpack_bits
from crypto.prg import add_stream, subtract_stream
from crypto.protocol import Done, Outgoing, Ready
from crypto.terms import Terms


class MaskingAggregator(AggregatorAttempt):
    """The aggregator in one attempt; see SumAggregator. Memory does not grow with the clients.

    Uploads are added as they arrive. Recovered secrets are checked against the signed adverts, so
    a wrong share costs time or the attempt, never a wrong sum.
    """

    kind = "masking aggregator"

    def __init__(self, terms: Terms, *, identity: Identity) -> None:
        super().__init__(terms, identity=identity)
        self._adverts: dict[int, Advert] = {}
        self._signed_adverts: dict[int, bytes] = {}
        self._dealt: dict[int, dict[int, bytes]] = {}
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
        # From the consistency step on all vectors are in; what is needed are signatures and shares.
        late = inbox.step in (Step.CONSISTENCY, Step.UNMASK)
        needed = self._terms.threshold if late else self._terms.quorum
        if len(answered) < needed:
            raise self._abort(inbox.step, f"{len(answered)} clients answered, {needed} needed")
        if inbox.step is Step.ADVERTISE:
            return self._send_adverts(answered)
        if inbox.step is Step.SHARE:
            return self._deliver_shares(answered)
        if inbox.step is Step.MASKED_INPUT:
            return self._is_ready(inbox, answered)
        if inbox.step is Step.CONSISTENCY:
            return self._ask_for_shares(answered)
        return self._finish()

    def authorise(self, intent: bytes, evidence: bytes) -> Outgoing:
        """Ask every survivor to sign what is to be opened; see SumAggregator.authorise."""
        self._take_intent(intent)
        inbox = self._open_inbox()
        dropped = tuple(sorted(set(self._delivered) - set(self._survivors)))
        self._opening = Opening(intent, self._survivors, dropped)
        self._offers = {
            pair: kept for pair, kept in self._offers.items() if not set(dropped).isdisjoint(pair)
        }
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
        inbox = self._open_inbox()
        inbox.open(Step.SHARE, advertised)
        payload = encode_bundle(self._signed_adverts)
        outgoing = self._outgoing(Step.SHARE, dict.fromkeys(advertised, payload))
        self._context = self._terms.ctx2(adverts_root(self._adverts), COMPLETE_GRAPH)
        return outgoing

    def _read_shares(self, sender: int, message: bytes) -> None:
        """Check of every dealing what can be checked unopened: for whom it is, and its form.

        Offers and escrows are kept: with a dropped client's mask secret they give its streams.
        """
        dealings, escrows = decode_dealings(self._unseal(Step.SHARE, sender, message))
        if dealings.keys() != self._adverts.keys() - {sender}:
            raise Malformed("shares for other clients than those that advertised")
        if escrows.keys() != {peer for peer in dealings if peer > sender}:
            raise Malformed("escrows for other pairs than those with higher clients")
        offers: dict[tuple[int, int], tuple[PairOffer, bytes]] = {}
        for peer, dealing in dealings.items():
            offer = Dealing.decode(dealing, dealer=sender, recipient=peer).offer
            if offer is not None:
                offers[sender, peer] = (offer, escrows[peer])
        self._dealt[sender] = dealings
        self._offers.update(offers)

    def _deliver_shares(self, dealers: tuple[int, ...]) -> Outgoing:
        inbox = self._open_inbox()
        inbox.open(Step.MASKED_INPUT, dealers)
        self._delivered = dealers
        payloads = {
            peer: encode_delivery(
                dealers, {dealer: self._dealt[dealer][peer] for dealer in dealers if dealer != peer}
            )
            for peer in dealers
        }
        self._dealt = {}
        return self._outgoing(Step.MASKED_INPUT, payloads)

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
        """As many signatures as clients want to see go to all who signed."""
        self._open_inbox().open(Step.UNMASK, signed)
        shown = {client: self._signatures[client] for client in signed[: self._terms.threshold]}
        return self._outgoing(Step.UNMASK, dict.fromkeys(signed, encode_bundle(shown)))

    def _read_unmasking(self, sender: int, message: bytes) -> None:
        payload = self._unseal(Step.UNMASK, sender, message)
        self._answers[sender] = decode_unmask_answer(payload, self._agreed_opening())

    def _finish(self) -> Done:
        """Take off the self masks of survivors and the pair masks left by the dropped."""
        order = sorted(self._answers)
        for index, kind in self._agreed_opening().kinds().items():
            secret, order = self._recover(index, kind, order)
            if kind is Kind.SELF_SEED:
                subtract_stream(self._total, self_key(self._context, index, secret))
            else:
                self._cancel_pairs(index, secret)
        ring = self._terms.ring
        ring.reduce(self._total)
        self._answers = {}
        self._over = True
        return Done(ring.decode(self._total), self._survivors, ())

    def _recover(self, index: int, kind: Kind, order: list[int]) -> tuple[bytes, list[int]]:
        """The secret that the signed advert commits to, and who to ask first next time."""
        position = {client: k for k, client in enumerate(self._terms.cohort, start=1)}
        holder = {k: client for client, k in position.items()}
        found = recover(
            {position[client]: self._answers[client][index] for client in order},
            threshold=self._terms.threshold,
            order=[position[client] for client in order],
            accept=partial(self._is_committed, index, kind),
        )
        if found is None:
            what = "self mask" if kind is Kind.SELF_SEED else "pair masks"
            raise self._abort(
                Step.UNMASK, f"the shares do not give back the {what} of client {index}"
            )
        secret, subset = found
        good = [holder[k] for k in subset]
        return secret, [*good, *(client for client in order if client not in good)]

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
        for survivor in self._survivors:
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

    def _agreed_opening(self) -> Opening:
        if self._opening is None:
            raise OutOfOrder("nothing was asked to be opened")
        return self._opening

    def _write(self, writer: Writer) -> None:
        writer.fixed(self._context, CONTEXT_BYTES).bundle(self._signed_adverts)
        writer.bundle({dealer: encode_bundle(dealt) for dealer, dealt in self._dealt.items()})
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
        self._dealt = {dealer: decode_bundle(dealt) for dealer, dealt in reader.bundle().items()}
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
