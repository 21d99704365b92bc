"""Sharing of secrets on a graph: which degree and threshold keep the promises of double masking.

On the complete graph the condition is certain (see check_sharing). On the ring of masking_graph,
of degree k with threshold t, it holds but for a chance that is computed here in exact integers.
The argument that needs it is in the docstring of masking. There are n clients, c of them work with
the aggregator and were chosen before the order of the ring, and any m >= q = min_survivors clients
may have advertised. H(m, c, s) is the number of colluders among s places of the ring, which is
hypergeometric.

(i)   One opening: n P[H(q, c, k + 1) >= 2t - k - 1] <= 2^-120. The neighbourhood of no place, the
      committee's included, holds so many colluders that two sets of t members overlap in them.
(ii)  One sum: n^2 / 2 P[H(q, c, k / 2) >= t - k / 2 - 1]^2 <= 2^-120. No two half-neighbourhoods
      without a common place both do. Numbers of colluders in disjoint sets of places are negatively
      associated (Joag-Dev and Proschan, Annals of Statistics 11, 1983), so the chance of both is at
      most the product.
(iii) Liveness: n P[H(n, n - q, k + 1) > k + 1 - t] <= 2^-30. Where all but q clients vanish at
      random, everybody keeps t survivors nearby.
(iv)  k + 2 <= q, or a ring may be the complete graph with a threshold that is too low for it; and
      2q > n + c, or two sums over different clients could be opened at the same time.

H(m, c, s) grows stochastically as m falls, so q stands for every m in (i) and (ii). An aggregator
can try other members and adverts of its colluders until it likes the order: hence 2^-120 where
other protocols take 2^-40. After 2^60 tries it has had a chance of 2^-60.
"""

from __future__ import annotations

from functools import lru_cache
from math import comb
from typing import Final

from crypto.errors import TermsRefused
from crypto.protocol import check_cohort, check_survivors
from crypto.shamir import MAX_SHARES
from crypto.terms import Sharing, Terms

COMPLETE_UP_TO: Final = 100
SECURITY_BITS: Final = 120
LIVENESS_BITS: Final = 30


def choose_sharing(clients: int, max_colluders: int, min_survivors: int) -> Sharing:
    """The complete graph for 100 clients, and beyond it the ring of the smallest degree.

    Up to 255 clients the complete graph is also taken where no ring will do. Its threshold is above
    two thirds of the clients where min_survivors allows it, which withstands more colluders than
    were declared; the least one survives the most drops.

    Raises:
        TermsRefused: no graph keeps the promises under these numbers.
    """
    if clients > COMPLETE_UP_TO:
        found = _least_ring(clients, max_colluders, min_survivors)
        if found is not None:
            return found
        if clients > MAX_SHARES:
            raise TermsRefused(
                f"no degree up to {MAX_SHARES - 1} keeps the promises for {clients} clients with"
                f" {max_colluders} colluders and min_survivors {min_survivors}; lower max_colluders"
                f" or raise min_survivors (with {MAX_SHARES - 1} neighbours:"
                f" {_why_not(clients, max_colluders, min_survivors)})"
            )
    least = _least_threshold(clients, max_colluders)
    if min_survivors < least:
        raise TermsRefused(
            f"min_survivors is {min_survivors}; allowed: {least} to {clients} for {clients}"
            f" clients with {max_colluders} colluders, since {least} shares are needed to recover"
            " a secret"
        )
    return Sharing(clients - 1, max(least, min(min_survivors, 2 * clients // 3 + 1)))


def check_sharing(terms: Terms) -> None:
    """Conditions that the derivation closure of double masking needs.

    On the complete graph: a client gives one kind of share per neighbour and attempt. For both
    kinds of one neighbour to reach the threshold t, honest clients A and B without overlap and the
    colluders C must satisfy |A| + |C| >= t and |B| + |C| >= t, hence n + |C| >= 2t: excluded by
    2t > n + max_colluders. On a ring: see the module.

    Raises:
        TermsRefused: naming the value and what is allowed.
    """
    check_cohort(terms)
    n, t, c = len(terms.cohort), terms.threshold, terms.max_colluders
    if terms.degree == n - 1:
        if n > MAX_SHARES:
            raise TermsRefused(
                f"cohort of {n} clients; allowed: up to {MAX_SHARES} on a complete graph (shares"
                " are over GF(2^8))"
            )
        if not _least_threshold(n, c) <= t <= n:
            raise TermsRefused(
                f"threshold {t} of {n} clients with {c} colluders; allowed:"
                f" {_least_threshold(n, c)} to {n} (2 * threshold > clients + max_colluders), else"
                " both shares of one client could be collected"
            )
        check_survivors(terms)
        return
    check_survivors(terms)
    broken = broken_condition(n, c, terms.min_survivors, Sharing(terms.degree, t))
    if broken is not None:
        raise TermsRefused(
            f"degree {terms.degree} with threshold {t} for {n} clients, {c} colluders and"
            f" min_survivors {terms.min_survivors}: {broken}"
        )


@lru_cache(maxsize=256)
def broken_condition(
    clients: int,
    max_colluders: int,
    min_survivors: int,
    sharing: Sharing,
    *,
    security_bits: int = SECURITY_BITS,
) -> str | None:
    """The first condition that a ring does not meet, in words; None if it meets all of them.

    Args:
        clients: size of the cohort.
        max_colluders: of them, an absolute number.
        min_survivors: least number of clients that advertise and survive.
        sharing: degree and threshold.
        security_bits: the chance of (i) and of (ii) is at most 2 to minus this.
    """
    n, c, q = clients, max_colluders, min_survivors
    k, t = sharing.degree, sharing.threshold
    if k % 2 or not 2 <= k < MAX_SHARES:
        return f"a degree below {n - 1} is even and from 2 to {MAX_SHARES - 1}"
    if not k // 2 + 2 <= t <= k + 1:
        return f"allowed thresholds of degree {k}: {k // 2 + 2} to {k + 1}"
    if not (k + 2 <= q and 2 * q > n + c):
        return f"allowed min_survivors: {max(k + 2, (n + c) // 2 + 1)} to {n}"
    around, half = _tail(q, c, k + 1, 2 * t - k - 1), _tail(q, c, k // 2, t - k // 2 - 1)
    if n * around << security_bits > comb(q, k + 1):
        return "colluders nearby could make two openings of one; raise the threshold"
    if n * n * half * half << security_bits > 2 * comb(q, k // 2) ** 2:
        return "colluders could cut the ring in two; raise the threshold"
    if n * _tail(n, n - q, k + 1, k + 2 - t) << LIVENESS_BITS > comb(n, k + 1):
        return "random drops could leave somebody below the threshold; lower it"
    return None


@lru_cache(maxsize=64)
def _least_ring(clients: int, max_colluders: int, min_survivors: int) -> Sharing | None:
    for degree in range(2, min(MAX_SHARES - 1, clients - 2) + 1, 2):
        sharing = Sharing(degree, _safe_threshold(clients, max_colluders, min_survivors, degree))
        if broken_condition(clients, max_colluders, min_survivors, sharing) is None:
            return sharing
    return None


def _safe_threshold(clients: int, max_colluders: int, min_survivors: int, degree: int) -> int:
    """Smallest threshold that security allows, by bisection; degree + 1 where none does."""
    low, high = degree // 2 + 2, degree + 1
    while low < high:
        middle = (low + high) // 2
        broken = broken_condition(clients, max_colluders, min_survivors, Sharing(degree, middle))
        if broken is not None and "raise the threshold" in broken:
            low = middle + 1
        else:
            high = middle
    return low


def _why_not(clients: int, max_colluders: int, min_survivors: int) -> str | None:
    degree = MAX_SHARES - 1
    threshold = _safe_threshold(clients, max_colluders, min_survivors, degree)
    return broken_condition(clients, max_colluders, min_survivors, Sharing(degree, threshold))


def _tail(population: int, marked: int, drawn: int, least: int) -> int:
    """Of all sets of `drawn` among a population, how many hold at least `least` marked ones."""
    plain = population - marked
    most = min(marked, drawn)
    return sum(
        comb(marked, k) * comb(plain, drawn - k)
        for k in range(max(least, drawn - plain, 0), most + 1)
    )


def _least_threshold(clients: int, max_colluders: int) -> int:
    return (clients + max_colluders) // 2 + 1
