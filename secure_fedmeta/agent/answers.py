"""What an agent says about a file of rows, in the words of its columns."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from secure_fedmeta.agent.agent import PersonalAgent
from secure_fedmeta.agent.answering import Answer
from secure_fedmeta.agent.rows import Reader, Rows
from secure_fedmeta.evaluation import score

NOTICE: Final = (
    "An agent is private to its user: it holds their examples, and what was learned from them. No "
    "epsilon covers it; keep it, and what it says, with its user."
)


def answer(agent: PersonalAgent, rows: Rows) -> dict[str, Any]:
    """Predictions with their confidence, and the run's metric where there are targets.

    Args:
        agent: answers.
        rows: of a file that `Reader(agent.spec)` read.

    Returns:
        what `fedmeta act --json` prints; numbers that are not finite are None.
    """
    found = agent.act(rows.x)
    reader = Reader(agent.spec)
    value = None
    if rows.y is not None:
        value = score(agent.spec.metric, found.outputs, rows.y)
    return {
        "run": agent.spec.run,
        "way": found.way,
        "confidence": found.note,
        "target": reader.target,
        "classes": None if reader.labels is None else list(reader.labels),
        "predictions": _predictions(reader, found),
        "metric": agent.spec.metric,
        "score": None if value is None else _finite(value),
        "clipped": dict(rows.clipped),
        "notice": NOTICE,
    }


def _predictions(reader: Reader, found: Answer) -> list[dict[str, Any]]:
    if found.probabilities is not None and reader.labels is not None:
        labels, best = reader.labels, found.probabilities.argmax(axis=1)
        return [
            {
                "prediction": labels[place],
                "probability": _finite(float(row[place])),
                "probabilities": [_finite(one) for one in row.tolist()],
            }
            for row, place in zip(found.probabilities, best, strict=True)
        ]
    values = reader.shown(found.outputs.numpy().astype(np.float64)[:, 0])
    if found.interval is None:
        ends = [(None, None)] * len(values)
    else:
        ends = list(zip(*(reader.shown(end[:, 0]).tolist() for end in found.interval), strict=True))
    return [
        {"prediction": _finite(float(value)), "low": low, "high": high}
        for value, (low, high) in zip(values, ends, strict=True)
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
