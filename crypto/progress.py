"""What a long operation tells while it runs, to whoever listens. The library itself is silent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

Listener = Callable[[str], None]

QUIET_SECONDS: Final = 2.0
_EVERY_SECONDS: Final = 0.5
_EVERY_PART: Final = 0.1
"""Or this part of the time since the operation began, whichever is more: an hour is 60 lines."""
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have operations in this block, in this thread, tell `listener` how far they are."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(text: str) -> None:
    """Tell whoever listens what begins that may take longer than QUIET_SECONDS."""
    listener = _listener.get()
    if listener is not None:
        listener(text)


class Ticker:
    """Counts one operation's parts; tells nothing in its first QUIET_SECONDS.

    Args:
        what: the operation and its parts, such as "encrypting: ciphertexts".
        total: how many parts there are.
        clock: seconds that only grow.
    """

    def __init__(
        self, what: str, total: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what, self._total, self._clock = what, total, clock
        self._listener = _listener.get()
        self._began = clock()
        self._next = self._began + QUIET_SECONDS
        self._done = 0

    def add(self, parts: int) -> None:
        """So many more are done."""
        self._done += parts
        now = self._clock()
        if self._listener is not None and now >= self._next:
            self._next = now + max(_EVERY_SECONDS, _EVERY_PART * (now - self._began))
            self._listener(f"{self._what} {self._done} of {self._total}")
