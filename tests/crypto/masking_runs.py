"""Rounds of double masking up to a step, for tests of what comes then."""

from __future__ import annotations

import pytest

from crypto.errors import MessageRefused
from crypto.secure_sum import Outgoing
from tests.crypto.harness import EVIDENCE, INTENT, Run

ADVERTISE, SHARE, MASKED, CONSISTENCY, UNMASK = range(5)


def requests_of(run: Run, step: int) -> dict[int, bytes]:
    """Drive honestly until the aggregator's requests of a step are out; gives them by client."""
    out = run.aggregator.begin()
    for _ in range(step):
        for k, request in out.messages.items():
            run.aggregator.receive(k, run.clients[k].step(request))
        out = run.aggregator.advance()
        if not isinstance(out, Outgoing):
            out = run.aggregator.authorise(INTENT, EVIDENCE)
    return dict(out.messages)


def refuses(run: Run, client: int, message: bytes, match: str, sender: int = 0) -> None:
    """The client refuses the message by name."""
    with pytest.raises(MessageRefused, match=match) as caught:
        run.clients[client].step(message)
    assert caught.value.sender == sender
