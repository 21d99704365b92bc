"""Sharing of secrets on a graph: which degree and threshold keep the promises of double masking."""

from __future__ import annotations

from crypto.errors import TermsRefused
from crypto.protocol import check_cohort, check_survivors
from crypto.terms import Sharing, Terms


def choose_sharing(clients: int, max_colluders: int, min_survivors: int) -> Sharing:
    """The complete graph, with a threshold above two thirds where min_survivors allows it.

    Such a threshold withstands a third of the clients, more than were declared; the least one
    survives the most drops.

    Raises:
        TermsRefused: min_survivors is below the least threshold.
    """
    least = _least_threshold(clients, max_colluders)
    if min_survivors < least:
        raise TermsRefused(
            f"min_survivors is {min_survivors}; allowed: {least} to {clients} for {clients}"
            f" clients with {max_colluders} colluders, since {least} shares are needed to recover"
            " a secret"
        )
    return Sharing(clients - 1, max(least, min(min_survivors, 2 * clients // 3 + 1)))


def check_sharing(terms: Terms) -> None:
    """Conditions on a complete graph that the derivation closure of double masking needs.

    A client gives one kind of share per neighbour and attempt. For both kinds of one neighbour to
    reach the threshold t, honest clients A and B without overlap and the colluders C must satisfy
    |A| + |C| >= t and |B| + |C| >= t, hence n + |C| >= 2t: excluded by 2t > n + max_colluders.

    Raises:
        TermsRefused: naming the value and what is allowed.
    """
    check_cohort(terms)
    n, t, c = len(terms.cohort), terms.threshold, terms.max_colluders
    if terms.degree != n - 1:
        raise TermsRefused(f"degree {terms.degree} of {n} clients; allowed: {n - 1}")
    if not _least_threshold(n, c) <= t <= n:
        raise TermsRefused(
            f"threshold {t} of {n} clients with {c} colluders; allowed: {_least_threshold(n, c)}"
            f" to {n} (2 * threshold > clients + max_colluders), else both shares of one client"
            " could be collected"
        )
    check_survivors(terms)


def _least_threshold(clients: int, max_colluders: int) -> int:
    return (clients + max_colluders) // 2 + 1
