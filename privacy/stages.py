"""The stages of a round by name, for whoever measures them; marking one costs a look-up otherwise.

An observer sees names and how long they take, and nothing of what is computed. Times are not
harmless all the same: how long a client computes says how much it holds. Who observes decides who
may see them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from enum import StrEnum
from typing import Final


class Stage(StrEnum):
    """What a simulated round is made of. A stage may lie inside another."""

    ROUND = "round"
    """All of one round that is none of the others."""
    DRAW = "draw"
    """Support and query rows, and the coins of the units."""
    VECTORS = "outer vectors"
    """Adaptation and outer vectors of a cohort."""
    CLIP = "clip"
    """Units to vectors within the bound, mapped by the public basis."""
    ENCODE = "encode"
    """Those to integers within the bound, and their sum."""
    NOISE = "noise"
    """A client's share of the noise."""
    MASK = "mask"
    """All that a party does in the secure sum: keys, shares, masks, packing, signatures."""
    SUM = "sum"
    """The aggregator's side of it up to the last upload."""
    CHARGE = "charge"
    """Ledger, audit log and accounting."""
    OPEN = "open"
    """The aggregator's side from the logged intent to the sum."""
    SERVER = "server step"
    """The sum to an average, and the next model."""
    EVALUATE = "evaluate"
    """Scores on held-out clients."""


Observer = Callable[[Stage], AbstractContextManager[object]]

_NOBODY: Final = nullcontext()
_observer: ContextVar[Observer | None] = ContextVar("observer", default=None)


@contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Enter `observer(stage)` around every stage in this block, in this thread."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


def stage(name: Stage) -> AbstractContextManager[object]:
    """A block that is one stage of a round."""
    observer = _observer.get()
    return _NOBODY if observer is None else observer(name)
