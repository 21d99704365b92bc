"""Secure sums by homomorphic encryption: BFV (Fan and Vercauteren 2012) through TenSEAL's SEAL.

Three steps: the officer signs a fresh public key; each client encrypts its vector under it and
signs the ciphertexts; the officer gets all of them with evidence of the logged intent, adds them
itself, decrypts the sum once and signs it. Sums are exact integers, the same as those of `plain`.

Here stand the conditions and what is promised; parameters and the noise bound are in
he_parameters, the bytes in he_messages, SEAL in he_seal, which is loaded only where somebody
encrypts or decrypts.
"""

from __future__ import annotations

from typing import Final

from crypto.codec import MAX_U32
from crypto.envelope import AGGREGATOR, Heading, Step, unseal
from crypto.errors import TermsRefused
from crypto.he_aggregator import HeAggregator
from crypto.he_parameters import choose
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

_FRAMING: Final = 256  # bytes around an upload, more than its envelope and length take

_NOTES: Final = (
    (
        "The officer holds the key and gets every upload, so that it can read every vector by"
        " itself: trust it as you would a server that gets them in clear. Neither the aggregator"
        " nor a client may run it or work with it."
    ),
    (
        "Every client is assumed to follow the protocol. One that adds (0, k q/t) to its ciphertext"
        " and sees the sum reads the secret key in it, and with it the uploads it can get hold of;"
        " it can also choose the sum. So max_colluders must be 0."
    ),
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


class Homomorphic:
    """BFV with one officer that holds the key; see SecureSum."""

    name: Final = "he"

    def check(self, terms: Terms) -> None:
        """Refuse colluders, other than one officer, and sums without exact parameters.

        Raises:
            TermsRefused: naming the value and what is allowed.
        """
        if terms.max_colluders:
            raise TermsRefused(
                f"max_colluders is {terms.max_colluders}; allowed: 0. A client that deviates can"
                " read the officer's key in the sum: 'he' withstands curious clients only"
            )
        check_cohort(terms)
        check_survivors(terms)
        if len(terms.roster.officers) != 1:
            raise TermsRefused(
                f"the roster names {len(terms.roster.officers)} officers; allowed: 1, which holds"
                " the key"
            )
        uploads = len(terms.cohort) * (choose(terms).upload_bytes + _FRAMING)
        if uploads > MAX_U32:
            raise TermsRefused(
                f"the uploads of a round are {uploads} bytes; allowed: {MAX_U32}, since the officer"
                " gets all of them in one message. Take fewer values or clients"
            )

    def sharing(self, clients: int, max_colluders: int, min_survivors: int) -> Sharing:
        """No secret is shared: min_survivors alone decides how few vectors may be opened."""
        del clients, max_colluders, min_survivors
        return Sharing(degree=0, threshold=1)

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
        from crypto.he_client import HeClient

        self.check(terms)
        check_client(terms, index, identity)
        return HeClient(terms, index=index, identity=identity, vector=vector)

    def officer(
        self,
        terms: Terms,
        *,
        index: int,
        identity: Identity,
        rand: Rand,
        intent_check: IntentCheck,
    ) -> SumOfficer:
        """The decryptor of the attempt; SEAL draws its own randomness. See SecureSum."""
        from crypto.he_officer import HeOfficer

        self.check(terms)
        check_officer(terms, index, identity)
        return HeOfficer(terms, index=index, identity=identity, intent_check=intent_check)

    def aggregator(self, terms: Terms, *, identity: Identity) -> SumAggregator:
        """The aggregator of the attempt; see SecureSum."""
        self.check(terms)
        check_aggregator(terms, identity)
        return HeAggregator(terms, identity=identity)

    def check_invitation(self, terms: Terms, *, index: int, message: bytes) -> None:
        """See SecureSum.check_invitation."""
        step = Step.HE_INPUT if index in terms.cohort else Step.HE_KEY
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
        from crypto.he_client import HeClient

        self.check(terms)
        check_client(terms, index, identity)
        return HeClient.restored(terms, index=index, identity=identity, vector=vector, state=state)

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
        """A decryptor that goes on, with its key; see SecureSum."""
        from crypto.he_officer import HeOfficer

        self.check(terms)
        check_officer(terms, index, identity)
        return HeOfficer.restored(
            terms, index=index, identity=identity, intent_check=intent_check, state=state
        )

    def restore_aggregator(
        self, terms: Terms, *, identity: Identity, state: bytes
    ) -> SumAggregator:
        """An aggregator that goes on; see SecureSum."""
        self.check(terms)
        check_aggregator(terms, identity)
        return HeAggregator.restored(terms, identity=identity, state=state)
