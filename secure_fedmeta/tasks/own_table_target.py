"""From what a person declares of the column that is predicted to targets, losses and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from secure_fedmeta.tasks.dictionary import Category, Number, Value, linear
from secure_fedmeta.tasks.own_table_options import TargetOptions


def task_of(
    target: TargetOptions,
) -> tuple[int, Literal["mse", "cross_entropy"], Literal["auc", "mse", "accuracy"]]:
    """Outputs of the model, loss and metric."""
    if not target.values:
        return 1, "mse", "mse"
    if len(target.values) == 2:
        return 1, "cross_entropy", "auc"
    return len(target.values), "cross_entropy", "accuracy"


def target_column(target: TargetOptions) -> Number | Category:
    """What the column may hold."""
    if target.bounds is None:
        return Category(target.column, target.values)
    return Number(target.column, "", *target.bounds, above=target.above)


def target_of(target: TargetOptions) -> Callable[[Mapping[str, Value]], float]:
    """A row's target: the place of its word, or the number scaled to [-1, 1]."""
    if target.bounds is None:
        places = {word: float(place) for place, word in enumerate(target.values)}
        return lambda row: places[str(row[target.column])]
    return linear(target.column, target.column, *target.bounds).scaled
