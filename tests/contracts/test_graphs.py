"""Every secure sum on every graph, width and pattern of drops: bit for bit the sum of `plain`.

From 101 clients on double masking takes a ring, by conditions that stand in the terms of all four;
up to 100 everybody is everybody's neighbour.
"""

from __future__ import annotations

import numpy as np
import pytest

from crypto.errors import SumAborted
from crypto.secure_sum import SECURE_SUMS
from crypto.terms import Terms
from tests.crypto.harness import STEPS, WIDEST, Run, input_step, make_vectors, terms_for, total

LOSABLE = 2
GRAPHS = {"complete": 6, "ring": 102}


def terms_on(graph: str, name: str, bits: int) -> Terms:
    clients = GRAPHS[graph]
    sharing = SECURE_SUMS["masking"].sharing(clients, 0, clients - LOSABLE)
    assert (sharing.degree == clients - 1) == (graph == "complete")
    return terms_for(
        name,
        clients,
        bits=min(bits, WIDEST[name]),
        length=9,
        degree=sharing.degree,
        threshold=sharing.threshold,
        min_survivors=clients - LOSABLE,
    )


@pytest.mark.parametrize("drops", ["nobody", "before the input", "after the input", "too many"])
@pytest.mark.parametrize("bits", [9, 33, 62])
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("name", sorted(SECURE_SUMS))
def test_the_sum_is_that_of_plain(name: str, graph: str, bits: int, drops: str) -> None:
    terms = terms_on(graph, name, bits)
    vectors = make_vectors(terms, seed=bits)
    silent: dict[int, int] = {}
    gone = (2, 5) if drops != "too many" else (1, 3, 6)
    if drops != "nobody":
        last = drops == "after the input"
        silent = dict.fromkeys(gone, STEPS[name] - 1 if last else input_step(name))
    if drops == "too many":
        with pytest.raises(SumAborted):
            Run(name, terms, vectors).drive(silent)
        return
    done = Run(name, terms, vectors).drive(silent)
    dropped = {k for k in silent if silent[k] <= input_step(name)}
    expected = tuple(k for k in terms.cohort if k not in dropped)
    reference = Run("plain", terms, vectors).drive(dict.fromkeys(dropped, 0))
    assert done.contributors == reference.contributors == expected
    np.testing.assert_array_equal(done.total, reference.total)
    np.testing.assert_array_equal(done.total, total(terms, vectors, expected))
