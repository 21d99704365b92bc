"""Secure sums by homomorphic encryption: BFV (Fan and Vercauteren 2012) through TenSEAL's SEAL.

Three steps: the officer signs a fresh public key; each client encrypts its vector under it and
signs the ciphertexts; the officer gets all of them with evidence of the logged intent, adds them
itself, decrypts the sum once and signs it. Sums are exact integers, the same as those of `plain`.

Here stand the conditions and what is promised; parameters and the noise bound are in
he_parameters, the bytes in he_messages, SEAL in he_seal, which is loaded only where somebody
encrypts or decrypts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crypto.envelope import Step
from crypto.errors import TermsRefused
from crypto.he_aggregator import HeAggregator
from crypto.he_parameters import choose
from crypto.he_sum import CURIOUS_CLIENTS, EncryptedSum
from crypto.protocol import Capabilities
from crypto.terms import Committee, Terms

if TYPE_CHECKING:
    from crypto.he_client import HeClient
    from crypto.he_officer import HeOfficer

_NOTES: Final = (
    (
        "The officer holds the key and gets every upload, so that it can read every vector by"
        " itself: trust it as you would a server that gets them in clear. Neither the aggregator"
        " nor a client may run it or work with it."
    ),
    CURIOUS_CLIENTS,
    (
        "The officer checks the signatures of the uploads and how many there are, and opens only"
        " what was logged as it is opened: it sees the intent in the signed log of the run. Clients"
        " do not."
    ),
    (
        "Ciphertexts rest on ring-LWE at 128 bits, against quantum computers too; signatures are"
        " Ed25519, which a quantum computer forges, but recorded vectors stay hidden."
    ),
)


class Homomorphic(EncryptedSum):
    """BFV with one officer that holds the key; see SecureSum."""

    name = "he"
    key_step = Step.HE_KEY
    input_step = Step.HE_INPUT

    def check(self, terms: Terms) -> None:
        """Refuse what EncryptedSum refuses, and other than one officer.

        Raises:
            TermsRefused: naming the value and what is allowed.
        """
        super().check(terms)
        if len(terms.roster.officers) != 1:
            raise TermsRefused(
                f"the roster names {len(terms.roster.officers)} officers; allowed: 1, which holds"
                " the key"
            )

    def capabilities(self) -> Capabilities:
        """What one key holder and encryption alone withstand."""
        return Capabilities(
            aggregator="honest-but-curious",
            clients="honest-but-curious",
            collusion="none: aggregator and clients must not work with the officer, which follows"
            " the protocol though it could read every vector",
            drops=True,
            hides_updates=True,
            notes=_NOTES,
        )

    def upload_bytes(self, terms: Terms) -> int:
        """The packed ciphertexts. See SecureSum."""
        return choose(terms).upload_bytes

    def committee(self, members: int, threshold: int) -> Committee:
        """One officer, the decryptor, whatever is configured for committees."""
        del members, threshold
        return Committee(members=1, threshold=1)

    def client_class(self) -> type[HeClient]:
        """Clients, with SEAL, which draws its own randomness; see he_seal."""
        from crypto.he_client import HeClient

        return HeClient

    def officer_class(self) -> type[HeOfficer]:
        """The decryptor, with SEAL, which draws its own randomness; see he_seal."""
        from crypto.he_officer import HeOfficer

        return HeOfficer

    def aggregator_class(self) -> type[HeAggregator]:
        """Aggregators, without SEAL."""
        return HeAggregator
