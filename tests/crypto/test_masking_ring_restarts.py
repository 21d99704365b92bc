"""Masking on a ring of neighbours: every party starts again from its saved state at every call."""

from __future__ import annotations

import numpy as np
import pytest

from crypto.errors import StateRefused
from tests.crypto.harness import Run, another, make_terms, make_vectors, total
from tests.crypto.restarts import restarting, restore

CLIENTS, DEGREE = 12, 6


def ring_run() -> Run:
    terms = make_terms(CLIENTS, degree=DEGREE, threshold=4, min_survivors=6, length=33)
    return Run("ring", terms, make_vectors(terms))


@pytest.mark.parametrize("silent", [{}, {3: 0, 7: 1}, {2: 2}, {5: 3}, {9: 4}])
def test_the_sum_is_exact_if_everybody_restarts_at_every_step(silent: dict[int, int]) -> None:
    run = restarting(ring_run())
    done = run.drive(silent)
    gone = {client for client, step in silent.items() if step <= 2}
    assert done.contributors == tuple(k for k in run.terms.cohort if k not in gone)
    np.testing.assert_array_equal(done.total, total(run.terms, run.vectors, done.contributors))
    assert run.refused == []


def test_a_state_with_a_graph_is_bound_and_strict() -> None:
    run = ring_run()
    out = run.begin()
    for _ in range(2):
        for k, request in out.messages.items():
            run.aggregator.receive(k, run.clients[k].step(request))
        out = run.aggregator.advance()  # type: ignore[assignment]
    saved = {0: run.aggregator.save(), 4: run.clients[4].save()}
    for index, state in saved.items():
        assert restore(run, index, state).save() == state  # type: ignore[attr-defined]
        for damaged in (state[:-1], state + b"\0"):
            with pytest.raises(StateRefused):
                restore(run, index, damaged)
    run.terms = another(run.terms, degree=DEGREE + 2)
    for index, state in saved.items():
        with pytest.raises(StateRefused, match="other terms"):
            restore(run, index, state)
