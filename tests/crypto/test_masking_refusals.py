"""What parties of double masking refuse that no honest run brings them to."""

from __future__ import annotations

import numpy as np
import pytest

from crypto.errors import OutOfOrder, RingRefused
from crypto.masking_aggregator import MaskingAggregator
from crypto.masking_messages import Kind
from tests.crypto.harness import Run, make_terms, make_vectors, seeded
from tests.crypto.masking_runs import MASKED, requests_of


@pytest.mark.parametrize("shape", [(4,), (6,), (5, 1), (1, 5), ()])
def test_a_vector_of_another_shape_never_leaves(shape: tuple[int, ...]) -> None:
    """And the client is at its end: what masks it had are not used for another vector."""
    terms = make_terms(3, officers=0, length=5)
    run = Run("masking", terms, {**make_vectors(terms), 2: np.zeros(shape, dtype=np.int64)})
    request = requests_of(run, MASKED)[2]
    with pytest.raises(RingRefused, match=r"allowed: \(5,\)"):
        run.clients[2].step(request)
    with pytest.raises(OutOfOrder):
        run.clients[2].step(request)


def test_of_many_wrong_secrets_none_is_the_one_committed_to() -> None:
    """Their public keys and commitments are less or greater than the right ones by chance."""
    terms = make_terms(3, officers=0)
    run = Run("masking", terms, make_vectors(terms))
    requests_of(run, MASKED)
    aggregator, rand = run.aggregator, seeded("wrong secrets")
    assert isinstance(aggregator, MaskingAggregator)
    for _ in range(16):
        wrong = rand(32)
        for kind in Kind:
            assert not any(aggregator._is_committed(k, kind, wrong) for k in terms.cohort)
