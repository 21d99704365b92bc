"""Which model an agent uses: chosen on its own examples alone, by cross-validation.

Candidates, the simpler first: `global`, the run's model as it is; `adapted`, that model adapted by
the run's rule; `local`, a network trained on own examples alone; `mixture`, a weighted mean of the
three's predictions. The weights are those of a grid of quarters with the least cross-validated
loss (stacking: Wolpert 1992, Neural Networks 5(2); van der Laan, Polley and Hubbard 2007, "Super
learner").

Each own example is predicted by models that did not see it: leave-one-out up to 20 examples, else
ten folds. The loss is the run's own kind: log-loss for classes, squared error for numbers; of
probabilities as the agent would give them, which is at the temperature of the other folds. The
chosen candidate is the simplest that is within one standard error, of the paired differences, of
the best one (the one-standard-error rule of Breiman, Friedman, Olshen and Stone 1984, section
3.4.3) and no worse than `global`. So an agent never chooses what did worse than no adaptation on
its own examples.

Too few examples judge nothing. With fewer than ten, or a class with one example only (leave it out,
and nothing is known of the class), the run's declared way is taken: `adapted`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from secure_fedmeta.agent.confidence import as_answered, at_its_best
from secure_fedmeta.agent.predict import Array, losses, mixed, to_prediction
from secure_fedmeta.agent.spec import Network
from secure_fedmeta.meta import Learner

Way = Literal["global", "adapted", "local", "mixture"]
Mode = Literal["auto", "global", "adapted", "local", "mixture"]
WAYS: Final[tuple[Way, ...]] = get_args(Way)
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
DECLARED: Final[Way] = "adapted"
FEWEST: Final = 10
"""Own examples below which nothing is judged."""
LEAVE_ONE_OUT: Final = 20
FOLDS: Final = 10
_QUARTERS: Final = 4


@dataclass(frozen=True)
class Choice:
    """What an agent uses, and why.

    Attributes:
        way: the candidate.
        weights: model (`global`, `adapted`, `local`) -> its weight above 0.
        scores: candidate -> cross-validated loss; empty where nothing was judged.
        why: in words.
    """

    way: Way
    weights: Mapping[str, float]
    scores: Mapping[str, float]
    why: str


@dataclass(frozen=True, eq=False, repr=False)
class Held:
    """Predictions for own examples by models that did not see them.

    Attributes:
        folds: the fold of each example, `[n]`.
        vectors: `adapted` and `local` -> the model of each fold, `[folds, d]`.
        predictions: `global`, `adapted` and `local` -> prediction of each example, `[n, ...]`.
    """

    folds: NDArray[np.intp]
    vectors: Mapping[str, torch.Tensor]
    predictions: Mapping[str, Array]

    def of(self, weights: Mapping[str, float], *, log: bool) -> Array:
        """The predictions of a weighted mean."""
        return mixed(self.predictions, weights, log=log)


def folds_of(examples: int) -> NDArray[np.intp]:
    """The fold of each example, in turn: `[n]`."""
    return np.arange(examples) % (examples if examples <= LEAVE_ONE_OUT else FOLDS)


def too_few(targets: NDArray[np.generic], *, classes: int | None) -> str | None:
    """Why these examples judge nothing, in words; None where they do."""
    if len(targets) < FEWEST:
        return f"{len(targets)} own examples are fewer than the {FEWEST} that can judge"
    if classes is not None:
        alone = [label for label, count in Counter(targets.tolist()).items() if count == 1]
        if alone:
            return "a class has one own example, which cannot be learned and judged by"
    return None


def cross_validate(
    network: Network,
    start: torch.Tensor,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    *,
    classes: int | None,
) -> Held:
    """Predict every own example by models of the others.

    Args:
        network: the learners.
        start: the run's model `[d]`.
        x: own inputs `[n, features]`; n of at least 2.
        y: own targets `[n]`.
        classes: how many are told apart; None for a number.
    """
    folds = folds_of(len(y))
    vectors, predictions = {}, {}
    plain = network.personal.predict(start, torch.tensor(x))
    predictions["global"] = _prediction(plain, classes)
    for name, learner, begin in (
        ("adapted", network.personal, start),
        ("local", network.local, network.initial),
    ):
        vectors[name] = _fold_vectors(learner, begin, x, y, folds)
        outputs = np.empty((len(y), plain.shape[-1]))
        for fold, own in enumerate(vectors[name]):
            rows = np.flatnonzero(folds == fold)
            outputs[rows] = learner.predict(own.clone(), torch.tensor(x[rows])).numpy()
        predictions[name] = to_prediction(outputs, classes=classes)
    return Held(folds, vectors, predictions)


def choose(held: Held, y: NDArray[np.float32], *, classes: int | None) -> Choice:
    """The simplest candidate that is as good as the best, by the rule above."""
    weights: dict[Way, dict[str, float]] = {way: {way: 1.0} for way in WAYS[:-1]}
    weights["mixture"] = best_blend(held, y, classes=classes)
    found = {way: errors_of(held, weights[way], y, classes=classes) for way in WAYS}
    scores: dict[str, float] = {way: _mean(found[way]) for way in WAYS}
    best = min(WAYS, key=lambda way: (scores[way], WAYS.index(way)))
    if not np.isfinite(scores[best]):
        return Choice("global", {"global": 1.0}, {}, "every candidate diverged: global is taken")
    way = next(w for w in WAYS if scores[w] <= scores["global"] and _as_good(found[w], found[best]))
    return Choice(way, weights[way], scores, _words(way, best, scores, len(y)))


def errors_of(
    held: Held, weights: Mapping[str, float], y: NDArray[np.float32], *, classes: int | None
) -> Array:
    """The loss `[n]` of each own example, by what the agent would say with these weights."""
    if classes is None:
        return losses(held.of(weights, log=False), y, classes=None)
    said = as_answered(held.of(weights, log=True), y, held.folds)
    return losses(said, y, classes=classes)


def best_blend(held: Held, y: NDArray[np.float32], *, classes: int | None) -> dict[str, float]:
    """The weights of the grid, at least two above 0, with the least cross-validated loss.

    Of equal ones the first, which gives the simpler models more.
    """
    parts = WAYS[:-1]
    grid: list[dict[str, float]] = [
        {name: share / _QUARTERS for name, share in zip(parts, shares, strict=True) if share}
        for shares in product(range(_QUARTERS, -1, -1), repeat=len(parts))
        if sum(shares) == _QUARTERS and max(shares) < _QUARTERS
    ]

    def loss(weights: Mapping[str, float]) -> float:
        said = held.of(weights, log=classes is not None)
        if classes is not None:  # one temperature for all folds: twelve blends are tried
            said = at_its_best(said, y)
        return _mean(losses(said, y, classes=classes))

    return min(grid, key=loss)


def declared(reason: str) -> Choice:
    """The run's declared way, where nothing can be judged."""
    why = f"{reason}: the run's declared way, {DECLARED}, is taken"
    return Choice(DECLARED, {DECLARED: 1.0}, {}, why)


def _fold_vectors(
    learner: Learner,
    start: torch.Tensor,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    folds: NDArray[np.intp],
) -> torch.Tensor:
    """The model of every fold `[folds, d]`; folds of equal size share a pass."""
    count = int(folds.max()) + 1
    rows = [np.flatnonzero(folds != fold) for fold in range(count)]
    result = torch.empty(count, start.shape[0])
    for size in sorted({len(one) for one in rows}):
        which = [fold for fold in range(count) if len(rows[fold]) == size]
        many_x = torch.tensor(np.stack([x[rows[fold]] for fold in which]))
        many_y = torch.tensor(np.stack([y[rows[fold]] for fold in which]))
        result[which] = learner.adapt_many(start, many_x, many_y)
    return result


def _prediction(outputs: torch.Tensor, classes: int | None) -> Array:
    return to_prediction(outputs.numpy().astype(np.float64), classes=classes)


def _mean(found: Array) -> float:
    """The mean loss; infinite for a model that diverged."""
    mean = float(np.mean(found))
    return mean if np.isfinite(mean) else float("inf")


def _as_good(one: Array, best: Array) -> bool:
    """Whether the mean loss is within a standard error of the best's, pair by pair."""
    difference = one - best
    if not np.isfinite(difference).all():
        return False
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    return float(difference.mean()) <= error


def _words(way: Way, best: Way, scores: Mapping[str, float], examples: int) -> str:
    shown = ", ".join(f"{name} {score:.4g}" for name, score in scores.items())
    judged = f"cross-validated loss on {examples} own examples: {shown}"
    if way == best:
        return f"{way} is best; {judged}"
    return f"{way} is simpler than {best} and within one standard error of it; {judged}"
