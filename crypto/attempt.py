"""What the aggregator of every secure sum does alike: steps in order, answers in, one opening."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import ClassVar, Self

from crypto.codec import Reader as StateReader
from crypto.codec import Writer
from crypto.envelope import AGGREGATOR, Heading, Step, refusing, seal, unseal
from crypto.errors import KeyRefused, MessageRefused, OutOfOrder, SumAborted
from crypto.inbox import Inbox
from crypto.keys import KEY_BYTES, Identity
from crypto.machines import Outgoing, Ready
from crypto.saved_state import begin_state, reading_state
from crypto.terms import Terms

Reader = Callable[[int, bytes], None]


class OnDemand(Mapping[int, bytes]):
    """Byte strings by party, each made when it is asked for: all at once may not fit in memory.

    Args:
        parties: the keys, in order.
        make: the bytes for a party; the same whenever it is called.
    """

    def __init__(self, parties: Iterable[int], make: Callable[[int], bytes]) -> None:
        self._parties = dict.fromkeys(parties)
        self._make = make

    def __getitem__(self, party: int) -> bytes:
        if party not in self._parties:
            raise KeyError(party)
        return self._make(party)

    def __iter__(self) -> Iterator[int]:
        return iter(self._parties)

    def __len__(self) -> int:
        return len(self._parties)


class AggregatorAttempt(ABC):
    """The aggregator's state in one attempt; a protocol adds its steps. See SumAggregator.

    Args:
        terms: what the aggregator read in its own config.
        identity: its signing key.

    Attributes:
        kind: what its saved states call themselves.
    """

    kind: ClassVar[str]

    def __init__(self, terms: Terms, identity: Identity) -> None:
        self._terms = terms
        self._identity = identity
        self._context = terms.ctx1
        self._inbox: Inbox | None = None
        self._ready = False
        self._over = False
        self._survivors: tuple[int, ...] = ()

    def __repr__(self) -> str:
        step = "not begun" if self._inbox is None else self._inbox.step.label
        return f"{type(self).__name__}(step={step!r}, over={self._over}, redacted)"

    def save(self) -> bytes:
        """Everything needed to go on; see SumAggregator.save."""
        writer = begin_state(self.kind, self._terms, AGGREGATOR)
        writer.flag(self._ready).flag(self._over).indices(self._survivors)
        writer.flag(self._inbox is not None)
        if self._inbox is not None:
            self._inbox.write(writer)
        self._write(writer)
        return writer.done()

    @classmethod
    def restored(cls, terms: Terms, identity: Identity, state: bytes) -> Self:
        """The aggregator that `save` was called on; see SecureSum.restore_aggregator."""
        attempt = cls(terms, identity)
        with reading_state(state, cls.kind, terms, AGGREGATOR) as reader:
            attempt._ready, attempt._over = reader.flag(), reader.flag()
            attempt._survivors = reader.indices()
            attempt._inbox = Inbox.read(reader) if reader.flag() else None
            attempt._read(reader)
        return attempt

    @property
    def expecting(self) -> frozenset[int]:
        """Parties not yet heard in this step."""
        return frozenset() if self._inbox is None else self._inbox.expecting

    def receive(self, sender: int, message: bytes) -> None:
        """Take in an answer; see SumAggregator.receive.

        Whatever else it ends with, but a refusal, ends the attempt: an interrupt may come when a
        vector is added and not yet noted, and the same message would then be added again.
        """
        inbox = self._open_inbox()
        read = self._reader(inbox.step)

        def check_and_keep() -> None:
            with refusing(sender, inbox.step):
                read(sender, message)

        try:
            inbox.take(sender, check_and_keep)
        except MessageRefused:
            raise
        except BaseException:
            self._end()
            raise

    @abstractmethod
    def _reader(self, step: Step) -> Reader:
        """Checks and keeps an answer to `step`."""

    @abstractmethod
    def _write(self, writer: Writer) -> None:
        """Append what the protocol adds to a saved state."""

    @abstractmethod
    def _read(self, reader: StateReader) -> None:
        """Inverse of _write."""

    @abstractmethod
    def _forget(self) -> None:
        """Let go of what an aborted attempt must not keep."""

    def _begin(self, step: Step, due: Iterable[int]) -> None:
        if self._inbox is not None:
            raise OutOfOrder("the attempt has begun already")
        self._inbox = Inbox(step, due)

    def _open_inbox(self) -> Inbox:
        if self._inbox is None:
            raise OutOfOrder("the attempt has not begun")
        if self._over:
            raise OutOfOrder("the attempt is over")
        return self._inbox

    def _step_to_close(self) -> Inbox:
        inbox = self._open_inbox()
        if self._ready:
            raise OutOfOrder("the sum is ready and waits for authorise")
        return inbox

    def _is_ready(self, inbox: Inbox, survivors: tuple[int, ...]) -> Ready:
        self._survivors, self._ready = survivors, True
        return Ready(survivors, dict(inbox.dropped), dict(inbox.rejected))

    def _take_intent(self, intent: bytes) -> None:
        """From here on the sum may be opened; at most once.

        Raises:
            OutOfOrder: nothing is ready.
            KeyRefused: the digest does not have 32 bytes.
        """
        if not self._ready or self._over:
            raise OutOfOrder("nothing is ready to be opened")
        if type(intent) is not bytes or len(intent) != KEY_BYTES:
            raise KeyRefused(f"intent digest is not {KEY_BYTES} bytes")
        self._ready = False

    def _unseal(
        self, step: Step, sender: int, message: bytes, *, recipient: int = AGGREGATOR
    ) -> memoryview:
        heading = Heading(step, sender, recipient, self._context)
        return unseal(message, heading, self._terms.roster)

    def _outgoing(
        self, step: Step, payloads: Mapping[int, bytes], *, context: bytes | None = None
    ) -> Outgoing:
        """Each payload signed for its recipient, under the attempt's context or a given one."""
        under = self._context if context is None else context

        def sealed(party: int) -> bytes:
            heading = Heading(step, AGGREGATOR, party, under)
            return seal(self._identity, heading, payloads[party])

        return Outgoing(OnDemand(payloads, sealed))

    def _abort(self, step: Step, reason: str) -> SumAborted:
        self._end()
        return SumAborted(step.label, reason)

    def _end(self) -> None:
        self._over = True
        self._forget()
