"""Whose turn it is: clients take part in a public order, none more often than it may.

With unit client and `max_participations` p, the cohorts of R rounds take equal parts of a circle of
n clients, one after the other. Of size floor(n p / R), all cohorts together are at most p times
around it, and the count of each client is at most p. Everybody computes the order from the plan:
nobody is told whose turn it is. It says nothing of the data, and nothing about privacy rests on it:
each client counts for itself and refuses to take part more often (secure_fedmeta/client.py).
"""

from __future__ import annotations


def cohort_size(clients: int, rounds: int, most: int | None) -> int:
    """How many of `clients` take part in each of `rounds` rounds; 0 where no size is possible.

    Args:
        clients: of the federation.
        rounds: of the whole run.
        most: rounds in which one client takes part at most; None: no limit.
    """
    return clients if most is None else min(clients, clients * most // rounds)


def cohort(round_index: int, clients: int, size: int) -> tuple[int, ...]:
    """Clients of a round, from 1, increasing.

    Args:
        round_index: from 1.
        clients: of the federation.
        size: how many take part.
    """
    first = (round_index - 1) * size
    return tuple(sorted((first + place) % clients + 1 for place in range(size)))
