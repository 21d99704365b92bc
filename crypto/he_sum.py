"""What `he` and `threshold` share as protocols: both add BFV ciphertexts and open one sum.

They differ in who holds the key. Under which conditions ciphertexts of clients may be added and
opened is the same, and stands here.
"""

from __future__ import annotations

from typing import ClassVar, Final

from crypto.codec import MAX_U32
from crypto.envelope import AGGREGATOR, Heading, Step, unseal
from crypto.errors import TermsRefused
from crypto.protocol import SecureSum, check_cohort, check_survivors
from crypto.terms import Sharing, Terms

_FRAMING: Final = 256  # bytes around an upload, more than its envelope and length take

CURIOUS_CLIENTS: Final = (
    "Every client is assumed to follow the protocol. One that adds (0, k q/T) to its ciphertext,"
    " where T is the plaintext modulus, and sees the sum reads the secret key in it, and with it"
    " the uploads it can get hold of; it can also choose the sum. So max_colluders must be 0."
)


class EncryptedSum(SecureSum):
    """A sum of ciphertexts under a key of the officers; see SecureSum.

    Attributes:
        key_step: the first step of an officer.
        input_step: the only step of a client.
    """

    key_step: ClassVar[Step]
    input_step: ClassVar[Step]

    def check(self, terms: Terms) -> None:
        """Refuse colluders, and sums that have no exact parameters or fit no message.

        Raises:
            TermsRefused: naming the value and what is allowed.
        """
        if terms.max_colluders:
            raise TermsRefused(
                f"max_colluders is {terms.max_colluders}; allowed: 0. A client that deviates can"
                f" read the secret key in the sum: {self.name!r} withstands curious clients only"
            )
        check_cohort(terms)
        check_survivors(terms)
        uploads = len(terms.cohort) * (self.upload_bytes(terms) + _FRAMING)
        if uploads > MAX_U32:
            raise TermsRefused(
                f"the uploads of a round are {uploads} bytes; allowed: {MAX_U32}, since an officer"
                " gets all of them in one message. Take fewer values or clients"
            )

    def sharing(self, clients: int, max_colluders: int, min_survivors: int) -> Sharing:
        """No client shares a secret: min_survivors alone decides how few vectors may be opened."""
        del clients, max_colluders, min_survivors
        return Sharing(degree=0, threshold=1)

    def check_invitation(self, terms: Terms, *, index: int, message: bytes) -> None:
        """See SecureSum.check_invitation."""
        step = self.input_step if index in terms.cohort else self.key_step
        unseal(message, Heading(step, AGGREGATOR, index, terms.ctx1), terms.roster)
