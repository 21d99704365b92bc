"""Small forms of large task sources: the same code, fewer clients and records.

Sources that are not named here run with their defaults.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from secure_fedmeta.tasks import TaskSource, build_source

SMALL: dict[str, dict[str, Any]] = {
    "sinusoid": {
        "clients": 4,
        "held_out_clients": 1,
        "persons": 3,
        "points": 8,
        "k_support": 3,
        "k_query": 3,
    },
    "synthetic": {
        "clients": 4,
        "held_out_clients": 1,
        "max_rows": 60,
        "records_per_block": 20,
        "k_support": 3,
        "k_query": 3,
    },
    "vowels": {"ways": 5, "repetitions": 6},  # blocks that survive the loss of some records
}


def options_of(name: str) -> dict[str, Any]:
    """The options that tests build this source with."""
    return SMALL.get(name, {})


@cache
def small_source(name: str) -> TaskSource:
    """The source in its small form."""
    return build_source(name, options_of(name))
