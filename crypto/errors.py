"""Errors of this package. No message ever holds a key, a seed, a share or a value of a vector."""

from __future__ import annotations


class CryptoError(Exception):
    """Root of every error that this package raises on purpose."""


class Malformed(CryptoError):
    """Bytes that are not exactly one value of the expected format."""


class RingRefused(CryptoError):
    """A ring that cannot hold a sum, or integers that do not fit the ring."""


class TermsRefused(CryptoError):
    """Terms under which a secure sum would not keep its promises."""


class KeyRefused(CryptoError):
    """Key material of the wrong length, or a public key that gives no shared secret."""


class SharesRefused(CryptoError):
    """Secret shares that are too few, too many, repeated or of unequal length."""


class StateRefused(CryptoError):
    """Saved state that is not this party's in this attempt, or is damaged, or of a newer version.

    What it was saved for cannot go on from it. The message tells what can be done.
    """


class LockRefused(CryptoError):
    """A locked file that the given key does not open, that was changed, or of a newer version."""


class OutOfOrder(CryptoError):
    """A call that the state of this party does not allow; nothing was changed."""


class MessageRefused(CryptoError):
    """A message that was not acted on; the state is as if it had never arrived.

    Attributes:
        sender: roster index of the alleged sender (0 is the aggregator), None where unknown.
        step: the step of the protocol that the message was taken for.
        reason: what is wrong with it, in words that hold nothing secret.
    """

    def __init__(self, sender: int | None, step: str, reason: str) -> None:
        super().__init__(sender, step, reason)
        self.sender = sender
        self.step = step
        self.reason = reason

    def __str__(self) -> str:
        who = "an unknown sender" if self.sender is None else f"sender {self.sender}"
        return f"{self.step}: message from {who} refused: {self.reason}"


class SumAborted(CryptoError):
    """The attempt is over without a sum; another attempt needs fresh keys.

    Attributes:
        step: the step that could not be completed.
        reason: which threshold or check failed.
    """

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(step, reason)
        self.step = step
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.step}: sum aborted: {self.reason}"
