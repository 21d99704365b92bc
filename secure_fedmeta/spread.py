"""How held-out clients spread around their mean, and for how many of them joining was a loss.

A mean over clients can rise while some of them lose. Those who decide whether a client should join
need the tail, and the comparison with what the client could have without anybody else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from secure_fedmeta.evaluation import Interval

ALONE: Final = ("local_k", "local_all")
"""The arms that need no federation: the same few examples, and all that the client has."""
_LOWER_IS_BETTER = ("mse",)
_QUANTILES = {"lowest": 0.0, "tenth": 0.1, "median": 0.5, "ninetieth": 0.9, "highest": 1.0}


def spread(metric: str, scores: Mapping[str, float]) -> dict[str, Any]:
    """Quantiles over clients, and the mean of the worst tenth of them, as plain data.

    Args:
        metric: what a score is; by mse less is better.
        scores: client -> its score, at least one; infinite where its model diverged.

    Returns:
        `quantiles`: each the score of some client (inverse of the empirical distribution), so that
        one that diverged does not spoil the others; `worst_decile`: the mean over the worst tenth,
        and over how many clients that is: a tenth rounded up. Infinite values are None.
    """
    values = np.sort(np.array(list(scores.values()), dtype=np.float64))
    count = math.ceil(len(values) / 10)
    worst = values[-count:] if metric in _LOWER_IS_BETTER else values[:count]
    found = np.quantile(values, list(_QUANTILES.values()), method="inverted_cdf")
    return {
        "quantiles": {
            name: _finite(float(value)) for name, value in zip(_QUANTILES, found, strict=True)
        },
        "worst_decile": {"mean": _finite(float(worst.mean())), "clients": count},
    }


def harm(metric: str, joined: Mapping[str, float], alone: Mapping[str, float]) -> dict[str, Any]:
    """For how many clients the federation's model is a loss against one of their own.

    A client is harmed where its score with the federation's model is worse than its score alone, by
    however little. Clients that have one of the two scores only are not compared.

    Args:
        metric: what a score is; by mse less is better.
        joined: client -> its score with a model of the federation.
        alone: client -> its score with a model that needs nobody else.

    Returns:
        `compared` clients, how many of them are `harmed` and their `share`; `gain`, by which the
        federation's model is better, client by client in the mean, and half the width of its 95 %
        Student interval `gain_ci95`; `largest_shortfall`, of the client that loses most, 0 where
        none does. None where there is no number: nobody to compare, or a model that diverged.
    """
    sign = -1.0 if metric in _LOWER_IS_BETTER else 1.0
    pairs = {name: (joined[name], alone[name]) for name in joined if name in alone}
    gains = {
        name: 0.0 if own == other else sign * (own - other) for name, (own, other) in pairs.items()
    }
    losses = [-gain for gain in gains.values() if gain < 0]
    interval = Interval.over(gains)
    return {
        "compared": len(gains),
        "harmed": len(losses),
        "share": len(losses) / len(gains) if gains else None,
        "gain": _finite(interval.mean),
        "gain_ci95": _finite(interval.ci95),
        "largest_shortfall": _finite(max(losses, default=0.0)) if gains else None,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
