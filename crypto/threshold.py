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

from typing import TYPE_CHECKING, Final

from crypto.envelope import Step
from crypto.he_sum import CURIOUS_CLIENTS, EncryptedSum
from crypto.protocol import Capabilities
from crypto.terms import Committee, Terms
from crypto.threshold_parameters import check_committee, choose

if TYPE_CHECKING:
    from crypto.threshold_aggregator import ThresholdAggregator
    from crypto.threshold_client import ThresholdClient
    from crypto.threshold_member import ThresholdMember

_NOTES: Final = (
    (
        "No party holds the key. Committee members fewer than the threshold learn nothing from"
        " their shares; as many as the threshold, with the uploads, read every vector. A malicious"
        " aggregator needs fewer: with c members on its side, c > 2 * threshold - members - 1, it"
        " can have two sums of different clients opened."
    ),
    CURIOUS_CLIENTS,
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


class Threshold(EncryptedSum):
    """BFV with a committee of officers; see SecureSum.

    Terms are refused as by EncryptedSum; committees without a majority have no parameters.
    """

    name = "threshold"
    key_step = Step.THRESHOLD_COMMIT
    input_step = Step.THRESHOLD_INPUT

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

    def client_class(self) -> type[ThresholdClient]:
        """Clients, with SEAL, which draws its own randomness; see he_seal."""
        from crypto.threshold_client import ThresholdClient

        return ThresholdClient

    def officer_class(self) -> type[ThresholdMember]:
        """Members of the committee, with SEAL."""
        from crypto.threshold_member import ThresholdMember

        return ThresholdMember

    def aggregator_class(self) -> type[ThresholdAggregator]:
        """Aggregators, with SEAL: they add ciphertexts and round the opened sum."""
        from crypto.threshold_aggregator import ThresholdAggregator

        return ThresholdAggregator
