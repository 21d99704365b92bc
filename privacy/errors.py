"""Everything that `privacy` refuses, as one tree."""

from __future__ import annotations


class PrivacyError(Exception):
    """Base of every refusal of this package."""


class PlanRefused(PrivacyError):
    """A plan, or an input to one, that the proved bounds do not cover."""


class CompressionRefused(PlanRefused):
    """Terms of compression that contradict each other or the size of the vectors."""


class EventRefused(PrivacyError):
    """An event that cannot be read, or cannot be composed with the others."""


class LedgerError(PrivacyError):
    """A ledger that cannot be read, written or trusted, or a request that it must not record."""


class LedgerUnavailable(LedgerError):
    """A ledger that is locked, unreachable or was cut off; nothing was written. Try again later."""


class OutcomeUnknown(LedgerUnavailable):
    """A write that may or may not have happened. Whatever it was to charge counts as charged."""


class BudgetExceeded(PrivacyError):
    """A reservation that would take a population past its grant; nothing was written.

    Attributes:
        requested: epsilon of the population with this event included.
        granted: epsilon of the grant.
        affordable_rounds: how many more events of this kind the grant still covers.
    """

    def __init__(
        self, message: str, *, requested: float, granted: float, affordable_rounds: int
    ) -> None:
        super().__init__(message)
        self.requested = requested
        self.granted = granted
        self.affordable_rounds = affordable_rounds
