"""How many threads a pass may use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

WORTH_THREADS = 2**17


@contextmanager
def threads_for(entries: int) -> Iterator[None]:
    """Run the block on one CPU thread if it works on less than `WORTH_THREADS` vector entries.

    A small pass is some hundred kernels of a few microseconds. Splitting each over threads gains
    nothing, and where other processes hold a core every kernel waits for the slowest thread. The
    setting applies to the calling thread and is restored.
    """
    before = torch.get_num_threads()
    if before == 1 or entries >= WORTH_THREADS:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
