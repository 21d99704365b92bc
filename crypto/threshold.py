"""Secure sums under a key that nobody holds: BFV with a committee, any t of which decrypt.

Key: each officer commits to a part of the public key, shows it, deals shares of its secret to the
others, checks what it was dealt, and signs the sum of the parts (threshold_keygen). Clients encrypt
under it as with `he`. Every officer gets all uploads with evidence of the logged intent, adds them
itself, and answers, in a set of t, with its smudged part of the decryption; the answers add up.
The set is compared with others while there are members to compare (threshold_sets).

Here stand the conditions and what is promised; parameters and bounds are in threshold_parameters,
bytes in threshold_messages. SEAL is loaded only where somebody encrypts, answers or opens.
"""

from __future__ import annotations

from typing import Final

from crypto.codec import MAX_U32
from crypto.envelope import AGGREGATOR, Heading, Step, unseal
from crypto.errors import TermsRefused
from crypto.keys import Identity, Rand
from crypto.protocol import (
    Capabilities,
    IntentCheck,
    SumAggregator,
    SumClient,
    SumOfficer,
    VectorSource,
    check_aggregator,
    check_client,
    check_cohort,
    check_officer,
    check_survivors,
)
from crypto.terms import Committee, Sharing, Terms
from crypto.threshold_parameters import check_committee, choose

_FRAMING: Final = 256  # bytes around an upload, more than its envelope and length take

_NOTES: Final = (
    (
        "No party holds the key. Committee members fewer than the threshold learn nothing from"
        " their shares; as many as the threshold, with the uploads, read every vector. A malicious"
        " aggregator needs fewer: with c members on its side, c > 2 * threshold - members - 1, it"
        " can have two sums of different clients opened."
    ),
    (
        "Every client is assumed to follow the protocol. One that adds (0, k q/T) to its ciphertext"
        " and sees the sum reads the secret key in it, and with it the uploads it can get hold of;"
        " it can also choose the sum. So max_colluders must be 0."
    ),
    (
        "Members are assumed to draw their parts of the key as they should. One that takes larger"
        " numbers is noticed when they exceed the smudging; smaller ones can spoil sums and weaken"
        " the smudging, not show a vector."
    ),
    (
        "A member can shift the sum in its answer. Sets of members are compared so that one that"
        " deviates alone is noticed; where too few are left to compare, the members whose answers"
        " nobody compared are named with the sum. Members that deviate together are not noticed"
        " while each set has one of them."
    ),
    (
        "Answers of members hide everything but the sum up to a statistical distance of 2^-40 over"
        " all that may be opened under one key, which is fresh for each attempt. Streams of AES-256"
        " that two members share, and that cancel in a set, hide each answer by itself."
    ),
    (
        "Every member opens only what was logged as it is opened: it sees the intent in the signed"
        " log of the run. Clients do not."
    ),
    (
        "Ciphertexts rest on ring-LWE at 128 bits, and shares are sealed with X25519 and"
        " ML-KEM-768; signatures are Ed25519, which a quantum computer forges, but recorded vectors"
        " stay hidden."
    ),
)


class Threshold:
    """BFV with a committee of officers; see SecureSum."""

    name: Final = "threshold"

    def check(self, terms: Terms) -> None:
        """Refuse colluders, committees without a majority, and sums without exact parameters.

        Raises:
            TermsRefused: naming the value and what is allowed.
        """
        if terms.max_colluders:
            raise TermsRefused(
                f"max_colluders is {terms.max_colluders}; allowed: 0. A client that deviates can"
                " read the committee's key in the sum: 'threshold' withstands curious clients only"
            )
        check_cohort(terms)
        check_survivors(terms)
        uploads = len(terms.cohort) * (choose(terms).scheme.upload_bytes + _FRAMING)
        if uploads > MAX_U32:
            raise TermsRefused(
                f"the uploads of a round are {uploads} bytes; allowed: {MAX_U32}, since every"
                " officer gets all of them in one message. Take fewer values or clients"
            )

    def sharing(self, clients: int, max_colluders: int, min_survivors: int) -> Sharing:
        """No client shares a secret: min_survivors alone decides how few vectors may be opened."""
        del clients, max_colluders, min_survivors
        return Sharing(degree=0, threshold=1)

    def upload_bytes(self, terms: Terms) -> int:
        """The packed ciphertexts. See SecureSum."""
        return choose(terms).scheme.upload_bytes

    def committee(self, members: int, threshold: int) -> Committee:
        """The committee that is configured; see threshold_parameters.check_committee."""
        check_committee(members, threshold)
        return Committee(members, threshold)

    def capabilities(self) -> Capabilities:
        """What a committee and encryption withstand."""
        return Capabilities(
            aggregator="malicious",
            clients="honest-but-curious",
            collusion="fewer officers than the threshold with an aggregator that follows the"
            " protocol; with one that does not, up to 2 * threshold - officers - 1 of them; no"
            " client with anybody",
            drops=True,
            hides_updates=True,
            notes=_NOTES,
        )

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
        """A client of the attempt; SEAL draws its own randomness, see he_seal. See SecureSum."""
        from crypto.threshold_client import ThresholdClient

        self.check(terms)
        check_client(terms, index, identity)
        return ThresholdClient(terms, index=index, identity=identity, vector=vector)

    def officer(
        self,
        terms: Terms,
        *,
        index: int,
        identity: Identity,
        rand: Rand,
        intent_check: IntentCheck,
    ) -> SumOfficer:
        """A member of the committee; see SecureSum."""
        from crypto.threshold_member import ThresholdMember

        self.check(terms)
        check_officer(terms, index, identity)
        return ThresholdMember(
            terms, index=index, identity=identity, rand=rand, intent_check=intent_check
        )

    def aggregator(self, terms: Terms, *, identity: Identity) -> SumAggregator:
        """The aggregator of the attempt; see SecureSum."""
        from crypto.threshold_aggregator import ThresholdAggregator

        self.check(terms)
        check_aggregator(terms, identity)
        return ThresholdAggregator(terms, identity=identity)

    def check_invitation(self, terms: Terms, *, index: int, message: bytes) -> None:
        """See SecureSum.check_invitation."""
        step = Step.THRESHOLD_INPUT if index in terms.cohort else Step.THRESHOLD_COMMIT
        unseal(message, Heading(step, AGGREGATOR, index, terms.ctx1), terms.roster)

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
        """A client that goes on; see SecureSum."""
        from crypto.threshold_client import ThresholdClient

        self.check(terms)
        check_client(terms, index, identity)
        return ThresholdClient.restored(
            terms, index=index, identity=identity, vector=vector, state=state
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
        """A member that goes on, with its share and its answers; see SecureSum."""
        from crypto.threshold_member import ThresholdMember

        self.check(terms)
        check_officer(terms, index, identity)
        return ThresholdMember.restored(
            terms,
            index=index,
            identity=identity,
            rand=rand,
            intent_check=intent_check,
            state=state,
        )

    def restore_aggregator(
        self, terms: Terms, *, identity: Identity, state: bytes
    ) -> SumAggregator:
        """An aggregator that goes on; see SecureSum."""
        from crypto.threshold_aggregator import ThresholdAggregator

        self.check(terms)
        check_aggregator(terms, identity)
        return ThresholdAggregator.restored(terms, identity=identity, state=state)
