"""What an aggregator has heard in each step: who answered, fell silent or was refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from crypto.codec import Reader, Writer
from crypto.envelope import Step
from crypto.errors import Malformed, MessageRefused


class Inbox:
    """Answers of one attempt, step by step. A refused message leaves no trace but its reason.

    Attributes:
        step: the step that is open.
        answered: clients whose answer to this step was taken in.
        dropped: clients that fell silent, with the label of the step.
        rejected: clients of which only refused answers arrived, with the reason of the last.
    """

    def __init__(self, step: Step, due: Iterable[int]) -> None:
        self.step = step
        self._due = frozenset(due)
        self._refused: dict[int, str] = {}
        self.answered: set[int] = set()
        self.dropped: dict[int, str] = {}
        self.rejected: dict[int, str] = {}

    @property
    def expecting(self) -> frozenset[int]:
        """Clients that have not answered this step."""
        return self._due - self.answered

    def take(self, sender: int, read: Callable[[], None]) -> None:
        """Take in an answer of `sender` if `read`, which checks and keeps it, does not refuse it.

        Raises:
            MessageRefused: the sender is not due, has answered, or `read` refused.
        """
        if sender not in self._due:
            raise MessageRefused(sender, self.step.label, "nothing is due from this sender")
        if sender in self.answered:
            raise MessageRefused(sender, self.step.label, "this sender has answered already")
        try:
            read()
        except MessageRefused as refusal:
            self._refused[sender] = refusal.reason
            raise
        self.answered.add(sender)

    def close(self) -> tuple[int, ...]:
        """Settle the open step, take no more answers to it, return who answered, increasing."""
        for silent in sorted(self.expecting):
            if silent in self._refused:
                self.rejected[silent] = self._refused[silent]
            else:
                self.dropped[silent] = self.step.label
        self._due = frozenset()
        return tuple(sorted(self.answered))

    def open(self, step: Step, due: Iterable[int]) -> None:
        """Begin another step."""
        self.step = step
        self._due = frozenset(due)
        self._refused = {}
        self.answered = set()

    def write(self, writer: Writer) -> None:
        """Append everything to a saved state."""
        writer.u8(self.step).indices(sorted(self._due)).indices(sorted(self.answered))
        for reasons in (self._refused, self.dropped, self.rejected):
            writer.bundle({index: reason.encode() for index, reason in reasons.items()})

    @classmethod
    def read(cls, reader: Reader) -> Inbox:
        """Inverse of write.

        Raises:
            Malformed: there is no such step, or the bytes are no inbox.
        """
        inbox = cls(read_step(reader), reader.indices())
        inbox.answered = set(reader.indices())
        inbox._refused, inbox.dropped, inbox.rejected = (_texts(reader) for _ in range(3))
        return inbox


def read_step(reader: Reader) -> Step:
    """A step in a saved state.

    Raises:
        Malformed: there is no such step.
    """
    number = reader.u8()
    try:
        return Step(number)
    except ValueError:
        raise Malformed(f"there is no step {number}") from None


def _texts(reader: Reader) -> dict[int, str]:
    try:
        return {index: text.decode() for index, text in reader.bundle().items()}
    except UnicodeDecodeError:
        raise Malformed("a reason is not UTF-8") from None
