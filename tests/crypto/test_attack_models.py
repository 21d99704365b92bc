"""Different models for different clients: masking adds what it is given, wherever it was computed.

Pasquini, Francati and Ateniese (2022), "Eluding secure aggregation in federated learning via model
inconsistency": clients that get a model without gradient send zeros, and the sum is one client's.
"""

from __future__ import annotations

import numpy as np
import pytest

from crypto.errors import SumAborted
from crypto.secure_sum import Done
from crypto.terms import Terms
from tests.crypto.harness import Run, another, make_terms, make_vectors

VICTIM = 3
REAL_CTX2 = Terms.ctx2


def elude() -> tuple[np.ndarray, Done]:
    """The aggregator shows the victim the model, and everybody else one without gradient."""
    terms = make_terms(5, length=20)
    wanted = make_vectors(terms)[VICTIM]
    vectors = {k: wanted if k == VICTIM else np.zeros_like(wanted) for k in terms.cohort}
    run = Run("masking", another(terms, model_digest=b"0" * 32), vectors)
    shown = Run("masking", terms, vectors)
    run.clients[VICTIM] = shown.clients[VICTIM]
    return wanted, run.drive()


def test_one_client_is_singled_out_where_the_model_is_in_no_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted, done = elude()
    assert VICTIM not in done.contributors
    assert not done.total.any()

    def without_model(self: Terms, *rest: bytes) -> bytes:
        return REAL_CTX2(another(self, model_digest=bytes(32)), *rest)

    monkeypatch.setattr(Terms, "ctx2", without_model)
    wanted, done = elude()
    np.testing.assert_array_equal(done.total, wanted)


def test_as_many_models_as_clients_give_no_sum() -> None:
    terms = make_terms(4)
    run = Run("masking", terms, make_vectors(terms))
    for k in terms.cohort:
        own = Run("masking", another(terms, model_digest=bytes([k]) * 32), run.vectors)
        run.clients[k] = own.clients[k]
    with pytest.raises(SumAborted):
        run.drive()
    assert all(not answers for answers in run.answers[2:])
