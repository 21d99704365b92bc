"""The client's side of double masking (Bonawitz et al. 2017, figure 4, with consistency check).

What protects the client is decided here, by its own Terms: it never takes a threshold, a cohort
or a key from the aggregator, and each of its five steps is answered at most once. Secrets are let
go when no later step needs them: with them and recorded traffic a vector could be opened.
"""

from __future__ import annotations

from collections.abc import Callable

from crypto.channel import Channel
from crypto.codec import Reader, Writer
from crypto.envelope import (
    AGGREGATOR,
    CONTEXT_BYTES,
    EVERYBODY,
    Heading,
    Step,
    refusing,
    seal,
    unseal,
)
from crypto.errors import Malformed, OutOfOrder
from crypto.inbox import read_step
from crypto.keys import KEY_BYTES
from crypto.machines import ClientSeat, check_intent
from crypto.masking_graph import HASH_BYTES, Graph, advert_leaf, root_of
from crypto.masking_keys import (
    Advert,
    ClientSecrets,
    Pair,
    open_channel,
    self_key,
)
from crypto.masking_messages import (
    Dealing,
    DealtShares,
    Neighbourhood,
    Opening,
    OpeningRequest,
    decode_advert,
    decode_bundle,
    decode_delivery,
    encode_advert,
    encode_dealings,
    encode_masked_input,
    encode_unmask_answer,
)
from crypto.party import ClientAttempt
from crypto.prg import add_stream, subtract_stream
from crypto.shamir import split
from crypto.terms import Terms


class MaskingClient(ClientAttempt):
    """One client in one attempt; see SumClient."""

    kind = "masking client"

    def __init__(self, terms: Terms, seat: ClientSeat) -> None:
        super().__init__(terms, seat)
        self._secrets: ClientSecrets | None = None
        self._graph: Graph | None = None
        self._adverts: dict[int, Advert] = {}
        self._context = terms.ctx1
        self._delivered: tuple[int, ...] = ()
        self._shares: dict[int, DealtShares] = {}
        self._streams: dict[int, bytes] = {}
        self._channel: Channel | None = None
        self._opening: Opening | None = None
        self._due: Step | None = Step.ADVERTISE

    def __repr__(self) -> str:
        due = "finished" if self._due is None else self._due.label
        return f"MaskingClient(index={self._index}, due={due!r}, redacted)"

    def _write(self, writer: Writer) -> None:
        """Seeds until the vector is masked, then the shares dealt to this client."""
        writer.fixed(self._context, CONTEXT_BYTES).flag(self._due is not None)
        if self._due is not None:
            writer.u8(self._due)
        writer.flag(self._secrets is not None)
        if self._secrets is not None:
            for seed in self._secrets.seeds():
                writer.fixed(seed, KEY_BYTES)
        writer.flag(self._graph is not None)
        if self._graph is not None:
            writer.indices(self._graph.members).fixed(self._graph.seed, HASH_BYTES)
        writer.bundle({peer: encode_advert(advert) for peer, advert in self._adverts.items()})
        writer.indices(self._delivered).bundle(self._streams)
        writer.bundle({dealer: shares.encode() for dealer, shares in self._shares.items()})
        writer.sized(b"" if self._opening is None else self._opening.encode())

    def _read(self, reader: Reader) -> None:
        self._context = reader.fixed(CONTEXT_BYTES)
        self._due = read_step(reader) if reader.flag() else None
        if reader.flag():
            mask, self_seed, channel = (reader.fixed(KEY_BYTES) for _ in range(3))
            self._secrets = ClientSecrets.from_seeds(mask, self_seed, channel)
        if reader.flag():
            members, seed = reader.indices(), reader.fixed(HASH_BYTES)
            self._graph = Graph(members, self._terms.degree, seed)
        self._adverts = {peer: decode_advert(data) for peer, data in reader.bundle().items()}
        self._delivered, self._streams = reader.indices(), reader.bundle()
        dealt = reader.bundle().items()
        self._shares = {dealer: DealtShares.decode(data) for dealer, data in dealt}
        opening = reader.sized()
        self._opening = Opening.decode(opening) if opening else None
        if self._due is Step.MASKED_INPUT:
            self._channel = open_channel(self._context, self._own_secrets().channel, self._index)

    def step(self, message: bytes) -> bytes:
        """Answer the aggregator's message; see SumParty.step."""
        if self._due is None:
            raise OutOfOrder(f"client {self._index} has answered its last step")
        due = self._due
        # The list of adverts is what ctx2 is made of, so it can only be signed under ctx1.
        heading = Heading(due, AGGREGATOR, self._index, self._context)
        payload = unseal(message, heading, self._terms.roster)
        answer: Callable[[memoryview], bytes] = {
            Step.ADVERTISE: self._advertise,
            Step.SHARE: self._share,
            Step.MASKED_INPUT: self._mask,
            Step.CONSISTENCY: self._agree,
            Step.UNMASK: self._unmask,
        }[due]
        with refusing(AGGREGATOR, due):
            return answer(payload)

    def _advertise(self, payload: memoryview) -> bytes:
        if len(payload):
            raise Malformed("the invitation to advertise is not empty")
        self._secrets = secrets = ClientSecrets.generate(self._rand)
        self._due = Step.SHARE
        advert = encode_advert(secrets.advert(self._terms.ctx1, self._index))
        return self._seal(Step.ADVERTISE, advert, recipient=EVERYBODY)

    def _share(self, payload: memoryview) -> bytes:
        """Deal shares of m_i and b_i to every neighbour, sealed, and keep one of each.

        Pair secrets with higher neighbours are made here, offered to them and escrowed.
        """
        secrets = self._own_secrets()
        graph, ctx2, adverts = self._read_adverts(payload, secrets)
        channel = open_channel(ctx2, secrets.channel, self._index)
        dealt = self._deal(secrets, graph.closed(self._index))
        dealings: dict[int, bytes] = {}
        escrows: dict[int, bytes] = {}
        streams: dict[int, bytes] = {}
        for peer in graph.neighbours(self._index):
            offer, attached = None, b""
            with refusing(peer, Step.ADVERTISE):
                if peer > self._index:
                    pair = self._pair(peer, adverts, ctx2)
                    offer, escrows[peer], streams[peer] = pair.offer(secrets.mask)
                    attached = offer.encode()
                public, shares = adverts[peer].channel, dealt[peer].encode()
                sealed = channel.seal(public, peer, shares, attached)
            dealings[peer] = Dealing(sealed, offer).encode()
        self._graph, self._context = graph, ctx2
        self._adverts, self._streams, self._channel = adverts, streams, channel
        self._shares = {self._index: dealt[self._index]}
        self._due = Step.MASKED_INPUT
        return self._seal(Step.SHARE, encode_dealings(dealings, escrows))

    def _own_secrets(self) -> ClientSecrets:
        if self._secrets is None:
            raise OutOfOrder("this client has no secrets at this step")
        return self._secrets

    def _read_adverts(
        self, payload: memoryview, own: ClientSecrets
    ) -> tuple[Graph, bytes, dict[int, Advert]]:
        """The graph, ctx2 and the adverts nearby: what is shown must make one root with them."""
        shown = Neighbourhood.decode(payload)
        members = shown.members
        if not set(members) <= set(self._terms.cohort):
            raise Malformed("an advert of a client outside the cohort")
        self._check_quorum("adverts", len(members))
        places = {index: place for place, index in enumerate(members)}
        if self._index in shown.adverts or not {self._index, *shown.adverts} <= places.keys():
            raise Malformed("the members are not those of the adverts and this client")
        if len(shown.adverts) > self._terms.degree:  # before a signature of each is checked
            raise Malformed("more adverts than this client has neighbours")
        adverts = {self._index: own.advert(self._terms.ctx1, self._index)}
        for peer, message in shown.adverts.items():
            heading = Heading(Step.ADVERTISE, peer, EVERYBODY, self._terms.ctx1)
            with refusing(peer, Step.ADVERTISE):
                adverts[peer] = decode_advert(unseal(message, heading, self._terms.roster))
        leaves = {places[k]: advert_leaf(k, encode_advert(advert)) for k, advert in adverts.items()}
        root = root_of(len(members), leaves, shown.missing)
        graph = Graph.over(self._terms.ctx1, members, self._terms.degree, root)
        if adverts.keys() != set(graph.closed(self._index)):
            raise Malformed("the adverts are not those of this client's neighbours")
        return graph, self._terms.ctx2(root, graph.seed), adverts

    def _deal(self, secrets: ClientSecrets, holders: tuple[int, ...]) -> dict[int, DealtShares]:
        """Shares for this client and its neighbours; the k-th of them, increasing, holds x = k."""
        mask_shares, seed_shares = (
            split(
                secret.reveal(),
                shares=len(holders),
                threshold=self._terms.threshold,
                rand=self._rand,
            )
            for secret in (secrets.mask, secrets.self_seed)
        )
        return {
            peer: DealtShares(mask, seed)
            for peer, mask, seed in zip(holders, mask_shares, seed_shares, strict=True)
        }

    def _mask(self, payload: memoryview) -> bytes:
        """y_i = x_i + PRG(self) + sum over later - earlier neighbours in U2 of PRG(pair)."""
        delivered, dealings = decode_delivery(payload)
        self._check_delivery(self._own_graph(), delivered, dealings)
        secrets, channel = self._own_secrets(), self._channel
        if channel is None:
            raise OutOfOrder("this client has dealt no shares")
        received: dict[int, DealtShares] = {}
        stream_keys = {peer: self._streams[peer] for peer in dealings if peer > self._index}
        for peer, encoded in dealings.items():
            with refusing(peer, Step.SHARE):
                dealing = Dealing.decode(encoded, dealer=peer, recipient=self._index)
                public = self._adverts[peer].channel
                opened = channel.open(public, peer, dealing.sealed, dealing.attached)
                received[peer] = DealtShares.decode(opened)
                if dealing.offer is not None:
                    pair = self._pair(peer, self._adverts, self._context)
                    stream_keys[peer] = pair.as_higher(secrets.mask, dealing.offer)
        own_key = self_key(self._context, self._index, secrets.self_seed.reveal())
        # From here on the vector exists; whatever happens to it, it is asked for only once.
        self._due = self._secrets = self._channel = None
        self._streams, self._adverts = {}, {}
        packed = self._masked_vector(own_key, stream_keys)
        self._shares.update(received)
        self._delivered = delivered
        self._due = Step.CONSISTENCY
        return self._seal(Step.MASKED_INPUT, encode_masked_input(delivered, packed))

    def _check_delivery(
        self, graph: Graph, delivered: tuple[int, ...], dealings: dict[int, bytes]
    ) -> None:
        members = set(delivered)
        if not members <= set(graph.members):
            raise Malformed("shares of a client that did not advertise")
        if self._index not in members:
            raise Malformed("this client is not among those whose shares were delivered")
        nearby = members.intersection(graph.closed(self._index))
        if dealings.keys() != nearby - {self._index}:
            raise Malformed("shares of some member of U2 are missing, or of others are there")
        self._check_quorum("members of U2", len(members))
        self._check_threshold("members of U2 nearby", len(nearby))

    def _own_graph(self) -> Graph:
        if self._graph is None:
            raise OutOfOrder("this client has seen no adverts")
        return self._graph

    def _pair(self, peer: int, adverts: dict[int, Advert], ctx2: bytes) -> Pair:
        lower, higher = sorted([self._index, peer])
        ends = ((lower, adverts[lower].mask), (higher, adverts[higher].mask))
        return Pair(self._terms.ctx1, ctx2, *ends)

    def _masked_vector(self, own_key: bytes, stream_keys: dict[int, bytes]) -> bytes:
        ring = self._terms.ring
        total = ring.encode(self._take_vector()).astype(ring.lane)
        add_stream(total, own_key)
        for peer, key in stream_keys.items():
            (add_stream if peer > self._index else subtract_stream)(total, key)
        ring.reduce(total)
        return ring.pack(total)

    def _agree(self, payload: memoryview) -> bytes:
        """Sign one opening, the only one in this attempt, if it fits what this client has seen.

        The intent to open it must stand in the log: see IntentCheck.
        """
        request = OpeningRequest.decode(payload)
        opening = request.opening
        survivors, dropped = set(opening.survivors), set(opening.dropped)
        if survivors & dropped:
            raise Malformed("both shares of one client are asked for")
        if survivors | dropped != set(self._delivered):
            raise Malformed("survivors and dropped together are not U2")
        if self._index not in survivors:
            raise Malformed("this client, which sent its input, is not among the survivors")
        self._check_quorum("survivors", len(survivors))
        nearby = survivors.intersection(self._own_graph().closed(self._index))
        self._check_threshold("survivors nearby", len(nearby))
        check_intent(self._intent_check, request.evidence, opening.intent, len(survivors))
        self._opening = opening
        self._due = Step.UNMASK
        return self._seal(Step.CONSISTENCY, opening.digest, recipient=EVERYBODY)

    def _unmask(self, payload: memoryview) -> bytes:
        """Of every member of U2 nearby one share: of b_j if it survived, of m_j if it dropped."""
        opening = self._opening
        if opening is None:
            raise OutOfOrder("this client has signed no opening")
        self._check_agreement(opening, decode_bundle(payload))
        asked = opening.asked_of(self._own_graph().closed(self._index))
        shares = {peer: self._shares[peer].of(kind) for peer, kind in asked.items()}
        self._due = None
        self._shares = {}
        return self._seal(Step.UNMASK, encode_unmask_answer(opening, asked, shares))

    def _check_agreement(self, opening: Opening, signatures: dict[int, bytes]) -> None:
        """Refuse unless threshold of the committee signed what this client signed; see masking."""
        signers = set(opening.survivors).intersection(self._own_graph().committee)
        for peer, message in signatures.items():
            if peer not in signers:
                raise Malformed(
                    "a signature of a client that is not among the survivors of the committee"
                )
            heading = Heading(Step.CONSISTENCY, peer, EVERYBODY, self._context)
            with refusing(peer, Step.CONSISTENCY):
                if unseal(message, heading, self._terms.roster) != opening.digest:
                    raise Malformed("signs another U2, other survivors or another intent")
        self._check_threshold("signatures", len(signatures))

    def _check_quorum(self, what: str, count: int) -> None:
        if count < self._terms.quorum:
            raise Malformed(f"{count} {what}; allowed: {self._terms.quorum} or more")

    def _check_threshold(self, what: str, count: int) -> None:
        if count < self._terms.threshold:
            raise Malformed(f"{count} {what}; allowed: {self._terms.threshold} or more")

    def _seal(self, step: Step, payload: bytes, recipient: int = AGGREGATOR) -> bytes:
        context = self._terms.ctx1 if step is Step.ADVERTISE else self._context
        return seal(self._identity, Heading(step, self._index, recipient, context), payload)
