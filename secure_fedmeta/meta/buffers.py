"""Memory for intermediate results that is kept from one pass to the next.

A pass over a cohort asks for the same tensors in the same order every time. Giving them back to
the allocator makes the operating system take the pages away and hand out zeroed ones again, which
for small models costs as much as the arithmetic.
"""

from __future__ import annotations

import threading

from torch import Tensor


class Buffers(threading.local):
    """Tensors handed out in order within a `with` block, and again in the next one.

    A block inside a block hands its tensors out again when it ends. Outside of any block every
    tensor is new. Each thread has its own; one thread's memory is bounded by the largest block
    that it has run.
    """

    def __init__(self) -> None:
        self._slots: list[Tensor] = []
        self._starts: list[int] = []
        self._next = 0

    def __enter__(self) -> None:
        self._starts.append(self._next)

    def __exit__(self, *error: object) -> None:
        self._next = self._starts.pop()

    def empty(self, like: Tensor, *shape: int) -> Tensor:
        """Return a tensor with the dtype and device of `like` and undefined content."""
        if not self._starts:
            return like.new_empty(shape)
        index = self._next
        self._next += 1
        if index == len(self._slots):
            self._slots.append(like.new_empty(shape))
        slot = self._slots[index]
        if slot.shape != shape or slot.dtype != like.dtype or slot.device != like.device:
            slot = self._slots[index] = like.new_empty(shape)
        return slot
