"""What a client of double masking refuses that no honest run brings it to."""

from __future__ import annotations

import numpy as np
import pytest

from crypto.errors import OutOfOrder, RingRefused
from crypto.protocol import Outgoing
from tests.crypto.harness import Run, make_terms, make_vectors

MASKED_INPUT = 2


def before_inputs(run: Run) -> Outgoing:
    """Everybody honest up to the requests for inputs."""
    out = run.begin()
    for _ in range(MASKED_INPUT):
        for k, request in out.messages.items():
            run.aggregator.receive(k, run.clients[k].step(request))
        advanced = run.aggregator.advance()
        assert isinstance(advanced, Outgoing)
        out = advanced
    return out


@pytest.mark.parametrize("shape", [(4,), (6,), (5, 1), (1, 5), ()])
def test_a_vector_of_another_shape_never_leaves(shape: tuple[int, ...]) -> None:
    """And the client is at its end: what masks it had are not used for another vector."""
    terms = make_terms(3, officers=0, length=5)
    run = Run("masking", terms, {**make_vectors(terms), 2: np.zeros(shape, dtype=np.int64)})
    request = before_inputs(run).messages[2]
    with pytest.raises(RingRefused, match=r"allowed: \(5,\)"):
        run.clients[2].step(request)
    with pytest.raises(OutOfOrder):
        run.clients[2].step(request)
