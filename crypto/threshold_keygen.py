"""A member's part in making the key: commit, deal, check, sign.

Nobody deals for the others: each member commits to its part, shows it when it has seen all the
commitments, deals shares of its secret, and signs the sum when everybody's checks of all dealings
fit. A member that shows its part last could otherwise cancel the others' parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from crypto.channel import Channel
from crypto.envelope import AGGREGATOR, EVERYBODY, Heading, Step, refusing, seal, unseal
from crypto.errors import KeyRefused, Malformed
from crypto.hybrid import HybridKey
from crypto.keys import KEY_BYTES, Secret, draw, never_pickled
from crypto.machines import Seat
from crypto.terms import Terms
from crypto.threshold_checks import check_checks, checked_part, point_of
from crypto.threshold_contexts import (
    context_of_check,
    context_of_dealing,
    context_of_key,
    digest_of_key,
    digest_of_share,
    seed_of_check,
)
from crypto.threshold_key import KeyPart, KeyShare, common_polynomial, summed
from crypto.threshold_messages import (
    Check,
    Commitment,
    Dealing,
    Endorsement,
    Set,
    decode_bundle,
    decode_pair,
    encode_key,
    encode_part,
    encode_sized_and_bundle,
)
from crypto.threshold_pads import pair_key
from crypto.threshold_parameters import ThresholdParameters
from crypto.threshold_sharing import Share, combinations, deal

Words = NDArray[np.uint64]

_LABEL: Final = "fedmeta/threshold/v1/"
CHANNEL: Final = _LABEL + "channel key"


@dataclass(frozen=True, repr=False)
class Committed:
    """After the commitment: what is committed to, with its secret and the channel's key."""

    channel: HybridKey
    part: bytes
    secret: Words

    __reduce__ = never_pickled

    def commitment(self, context: bytes, member: int) -> Commitment:
        """What the member published."""
        return Commitment(Commitment.digest_of(context, member, self.part), self.channel.public)


@dataclass(frozen=True, repr=False)
class Dealt:
    """After dealing: the channel's key, what all committed to, the member's own share.

    Attributes:
        channel: the key that shares are sealed to.
        commitments: payloads by member.
        own: the share that the member dealt to itself.
        halves: what it drew of each pair key, by the other member.
    """

    channel: HybridKey
    commitments: dict[int, bytes]
    own: Share
    halves: dict[int, Secret]


@dataclass(frozen=True, repr=False)
class Checked:
    """After the check: the key, whose parts are in it, and the member's share of it.

    Attributes:
        context: of the check.
        dealers: whose parts are in the key.
        key: encoded.
        share: the member's share of the secret key.
        pairs: the keys of its pads, by the other member.
    """

    context: bytes
    dealers: Set
    key: bytes
    share: KeyShare
    pairs: dict[int, Secret]


Phase = Committed | Dealt | Checked


class KeyMaker:
    """The steps of one member; each takes the phase before and gives its answer and the next one.

    Args:
        terms: of the attempt.
        seat: of the member.
        parameters: of the sum.
    """

    def __init__(self, terms: Terms, seat: Seat, parameters: ThresholdParameters) -> None:
        self._terms = terms
        self._index = seat.index
        self._identity = seat.identity
        self._parameters = parameters
        self._scheme = parameters.scheme
        self._primes = parameters.scheme.data_primes
        self._rand = seat.rand
        self.context: Final = context_of_key(terms)

    def __repr__(self) -> str:
        return f"KeyMaker(index={self._index}, redacted)"

    def commit(self, payload: memoryview) -> tuple[bytes, Committed]:
        """Draw a part of the key and a channel, and commit to the part."""
        if len(payload):
            raise Malformed("the invitation is not empty")
        a = common_polynomial(self.context, self._scheme)
        part = KeyPart(self._scheme, a, self._rand)
        channel = HybridKey(draw(self._rand), CHANNEL)
        made = Committed(channel, encode_part(part.public, self._scheme), part.secret)
        answer = made.commitment(self.context, self._index).encode()
        return self._sealed(Step.THRESHOLD_COMMIT, self.context, answer, EVERYBODY), made

    def deal(self, payload: memoryview, phase: Committed) -> tuple[bytes, Dealt, bytes]:
        """Show the part and deal shares of its secret; also gives the context of the check."""
        commitments = self._opened(payload, Step.THRESHOLD_COMMIT, self.context)
        if commitments[self._index] != phase.commitment(self.context, self._index).encode():
            raise Malformed("the commitment of this member is another one")
        context = context_of_dealing(self._terms, commitments)
        channel = Channel(_LABEL, context, phase.channel, self._index)
        points = {k: point_of(self._terms.roster, k) for k in commitments}
        threshold = self._parameters.threshold
        shares = deal(phase.secret, list(points.values()), threshold, self._primes, self._rand)
        halves = {k: Secret(draw(self._rand)) for k in commitments if k != self._index}
        sealed = {}
        for k, half in halves.items():
            with refusing(k, Step.THRESHOLD_COMMIT):
                peer = Commitment.decode(commitments[k]).channel
            encoded = half.reveal() + shares[points[k]].encode(self._primes)
            sealed[k] = channel.seal(peer, k, encoded)
        dealing = Dealing(phase.part, {k: digest_of_share(sealed[k]) for k in sealed})
        public = self._sealed(Step.THRESHOLD_DEALING, context, dealing.encode(), EVERYBODY)
        answer = encode_sized_and_bundle(public, sealed)
        made = Dealt(phase.channel, commitments, shares[points[self._index]], halves)
        return self._sealed(Step.THRESHOLD_DEAL, context, answer, AGGREGATOR), made, context

    def check(self, payload: memoryview, phase: Dealt, context: bytes) -> tuple[bytes, Checked]:
        """Take the shares that were dealt, and publish their combinations or complaints."""
        shown, sealed = decode_pair(payload)
        dealings = self._opened_all(shown, Step.THRESHOLD_DEALING, context)
        if not dealings.keys() <= phase.commitments.keys():
            raise Malformed("a dealer is not among those that committed")
        if sealed.keys() != dealings.keys() - {self._index}:
            raise Malformed("the shares are not those of the dealers")
        parts, shares, complaints = [], {self._index: phase.own}, []
        pairs: dict[int, Secret] = {}
        for dealer, dealing in dealings.items():
            with refusing(dealer, Step.THRESHOLD_DEALING):
                decoded = Dealing.decode(dealing)
            parts.append(
                checked_part(self._terms, self._parameters, phase.commitments, dealer, decoded)
            )
            if dealer == self._index:
                continue
            if digest_of_share(sealed[dealer]) != decoded.digests.get(self._index):
                raise Malformed(f"the share of member {dealer} is not the one that it dealt")
            try:
                half, shares[dealer] = self._share(phase, context, dealer, sealed[dealer])
            except (Malformed, KeyRefused):
                complaints.append(dealer)
                continue
            halves = {dealer: half, self._index: phase.halves[dealer].reveal()}
            pairs[dealer] = pair_key(context, halves)
        own_context = context_of_check(context, dealings)
        check = Check(tuple(complaints), {})
        if not complaints:
            seeds = {d: seed_of_check(own_context, d, dealings[d]) for d in dealings}
            found = {d: combinations(shares[d], seeds[d], self._primes) for d in dealings}
            check = Check((), found)
        words = summed((share.words for share in shares.values()), self._primes)
        share = KeyShare(self._parameters, words, point_of(self._terms.roster, self._index))
        key = encode_key(self._parameters, summed(parts, self._scheme.key_primes))
        made = Checked(own_context, tuple(sorted(dealings)), key, share, pairs)
        return self._sealed(Step.THRESHOLD_CHECK, own_context, check.encode(), EVERYBODY), made

    def sign(self, messages: dict[int, bytes], phase: Checked) -> bytes:
        """Endorse the key, signed for everybody, if the checks of these members fit."""
        checks = self._opened_all(messages, Step.THRESHOLD_CHECK, phase.context)
        if not checks.keys() <= set(phase.dealers):
            raise Malformed("a member that checked did not deal")
        decoded = {}
        for k, check in checks.items():
            with refusing(k, Step.THRESHOLD_CHECK):
                decoded[k] = Check.decode(check, phase.dealers, self._primes)
        check_checks(self._terms.roster, self._parameters, decoded, phase.dealers)
        endorsed = Endorsement(digest_of_key(phase.key), phase.dealers, tuple(sorted(checks)))
        return self._sealed(Step.THRESHOLD_KEY, self.context, endorsed.encode(), EVERYBODY)

    def _share(
        self, phase: Dealt, context: bytes, dealer: int, sealed: bytes
    ) -> tuple[bytes, Share]:
        """The dealer's half of a pair key, and the share that it dealt."""
        channel = Channel(_LABEL, context, phase.channel, self._index)
        peer = Commitment.decode(phase.commitments[dealer]).channel
        opened = channel.open(peer, dealer, sealed)
        share = Share.decode(opened[KEY_BYTES:], self._primes, self._scheme.degree)
        return opened[:KEY_BYTES], share

    def _opened(self, payload: memoryview, step: Step, context: bytes) -> dict[int, bytes]:
        return self._opened_all(decode_bundle(payload), step, context)

    def _opened_all(
        self, messages: dict[int, bytes], step: Step, context: bytes
    ) -> dict[int, bytes]:
        """Payloads of what members signed for everybody, this one's among them.

        Raises:
            MessageRefused: one is not signed by a member for this step and context.
            Malformed: too few of them, or not this member's.
        """
        roster, least = self._terms.roster, self._parameters.threshold
        if not messages.keys() <= set(roster.officer_indices) or self._index not in messages:
            raise Malformed("not from members of the committee, this one among them")
        if len(messages) < least:
            raise Malformed(f"{len(messages)} members; allowed: {least} or more")
        return {
            k: bytes(unseal(message, Heading(step, k, EVERYBODY, context), roster))
            for k, message in messages.items()
        }

    def _sealed(self, step: Step, context: bytes, payload: bytes, recipient: int) -> bytes:
        return seal(self._identity, Heading(step, self._index, recipient, context), payload)
