"""Scores on clients that never trained: every arm sees the same examples, scored the same way.

A subject is what adapts as one: a user, where the source knows users, else the whole client. Per
subject a few examples are drawn as support, even over the labels where the source's own draws are;
everything else the subject has is the test set. The draws are keyed by a public constant, so that
all models and all rounds are compared on equal terms.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from secure_fedmeta.errors import ConfigError
from secure_fedmeta.meta import MetaLearner
from secure_fedmeta.tasks import ClientData, TaskSource
from secure_fedmeta.tasks.drawing import evenly


class Scores(dict[str, float]):
    """Client -> its score: the mean over those of its draws whose targets allow a score.

    A client of which no draw has a score is left out.

    Args:
        draws: client -> the score of each of its draws; NaN where its targets allow none.

    Attributes:
        per_draw: the clients that have a score -> the score of each of their draws, in the order
            of the draws: subject by subject, repeat by repeat (fold by fold for `local_all`).
    """

    def __init__(self, draws: Mapping[str, Sequence[float]]) -> None:
        defined = {
            client: [v for v in values if not math.isnan(v)] for client, values in draws.items()
        }
        super().__init__({client: float(np.mean(own)) for client, own in defined.items() if own})
        self.per_draw = {client: tuple(draws[client]) for client in self}


@dataclass(frozen=True, repr=False)
class Split:
    """One draw: adapt on the support examples, be scored on the rest.

    Attributes:
        client: the held-out client.
        support_x: `[k, features] float32`; `support_y` its targets.
        test_x: `[n - k, features] float32`; `test_y` its targets.
    """

    client: str
    support_x: NDArray[np.float32]
    support_y: NDArray[np.generic]
    test_x: NDArray[np.float32]
    test_y: NDArray[np.generic]


@dataclass(frozen=True)
class Interval:
    """Mean over clients and half the width of its 95 % Student interval.

    The mean of no score is NaN and that of a model which diverged is infinite; the width is NaN
    unless there are two finite scores or more.
    """

    mean: float
    ci95: float

    @classmethod
    def over(cls, scores: Mapping[str, float]) -> Interval:
        """Treats each client's score as one observation."""
        values = np.array(list(scores.values()))
        if len(values) == 0:
            return cls(math.nan, math.nan)
        if len(values) == 1 or not np.isfinite(values).all():
            return cls(float(values.mean()), math.nan)
        quantile = float(stats.t.ppf(0.975, len(values) - 1))
        return cls(float(values.mean()), quantile * float(stats.sem(values)))


def auc(logits: NDArray[np.floating], targets: NDArray[np.generic]) -> float:
    """Area under the ROC curve, ties counted half; NaN where only one class is present."""
    positive = targets.astype(bool)
    hits, misses = int(positive.sum()), int((~positive).sum())
    if hits == 0 or misses == 0:
        return math.nan
    ranks = stats.rankdata(logits)
    return float((ranks[positive].sum() - hits * (hits + 1) / 2) / (hits * misses))


def average_precision(logits: NDArray[np.floating], targets: NDArray[np.generic]) -> float:
    """Mean over the positives of the precision at the place where each is found, from the top.

    Equal logits are one place, so that the order of the rows does not matter. NaN where there is no
    positive; with no skill it is the share of positives, about.
    """
    positive = targets.astype(bool)
    if not positive.any():
        return math.nan
    order = np.argsort(-logits, kind="stable")
    hits = np.cumsum(positive[order])
    last = np.append(np.flatnonzero(np.diff(logits[order])), len(logits) - 1)
    found = np.diff(hits[last], prepend=0)
    return float(np.sum(found * hits[last] / (last + 1)) / hits[-1])


_RANKED = {"auc": auc, "average_precision": average_precision}


def score(metric: str, outputs: torch.Tensor, targets: NDArray[np.generic]) -> float:
    """The value of a metric for model outputs `[n, outputs]` against targets `[n, ...]`.

    Outputs that are not finite, of a model that diverged, score as badly as can be: infinity by
    mse, else 0. NaN means that the targets allow no score (auc of one class, average
    precision without a positive).

    Raises:
        ConfigError: unknown metric.
    """
    out = outputs.detach().cpu().numpy().astype(np.float64)
    if not np.isfinite(out).all():
        return math.inf if metric == "mse" else 0.0
    if metric == "mse":
        wanted = targets.astype(np.float64).reshape(out.shape)
        return float(np.mean((out - wanted) ** 2))
    if metric in _RANKED:
        logits = out[:, 0] if out.shape[1] == 1 else out[:, 1] - out[:, 0]
        return _RANKED[metric](logits, targets.reshape(-1))
    if metric == "accuracy":
        return float(np.mean(out.argmax(axis=1) == targets.reshape(-1)))
    raise ConfigError(
        "a task source may report auc, average_precision, mse or accuracy",
        key="metric",
        value=metric,
    )


class Evaluation:
    """The fixed draws of a run's held-out clients, and the arms scored on them.

    Args:
        source: where the clients come from.
        held_out: their names; none of them may train.
        support: examples to adapt on (k).
        repeats: draws per subject.
    """

    def __init__(
        self, source: TaskSource, held_out: Sequence[str], *, support: int, repeats: int
    ) -> None:
        self.metric = source.info.metric
        self._subjects: list[tuple[str, NDArray[np.float32], NDArray[np.generic]]] = []
        self.splits: list[Split] = []
        for name in held_out:
            for number, (x, y) in enumerate(_subjects(source.client(name))):
                if len(x) <= support:
                    continue
                self._subjects.append((name, x, y))
                for repeat in range(repeats):
                    order = _order(f"{name}/{number}/{repeat}", len(x))
                    if source.info.balanced:
                        order = evenly(order, y)
                    head, tail = order[:support], order[support:]
                    self.splits.append(Split(name, x[head], y[head], x[tail], y[tail]))
        if held_out and not self.splits:
            raise ConfigError(
                f"no held-out client has more than {support} examples", key="data.held_out"
            )

    def unadapted(self, learner: MetaLearner, params: torch.Tensor) -> Scores:
        """Every client scored by the model as it is."""
        return _per_client(
            (split.client, self._score(learner, params, split.test_x, split.test_y))
            for split in self.splits
        )

    def adapted(self, learner: MetaLearner, params: torch.Tensor) -> Scores:
        """Every client scored after the learner adapted on its support examples."""
        if not self.splits:
            return Scores({})
        support_x = torch.as_tensor(np.stack([split.support_x for split in self.splits]))
        support_y = torch.as_tensor(np.stack([split.support_y for split in self.splits]))
        adapted = learner.adapt_many(params, support_x, support_y)
        return _per_client(
            (split.client, self._score(learner, own, split.test_x, split.test_y))
            for split, own in zip(self.splits, adapted, strict=True)
        )

    def alone(self, learner: MetaLearner, params: torch.Tensor) -> Scores:
        """As `adapted`, each draw by itself: bit for bit what its user computes with these files.

        Rounding depends on how many tasks share a pass (`meta.Learner`), so that this is slower.
        """
        return _per_client(
            (split.client, self._score(learner, own, split.test_x, split.test_y))
            for split in self.splits
            for own in [adapt_alone(learner, params, split.support_x, split.support_y)]
        )

    def local_all(self, learner: MetaLearner, params: torch.Tensor, *, folds: int = 5) -> Scores:
        """Every subject on its own: cross-validated training on all its examples."""
        found = sorted(self._local_folds(learner, params, folds), key=lambda one: one[0])
        return _per_client((self._subjects[number][0], value) for (number, _), value in found)

    def _local_folds(
        self, learner: MetaLearner, params: torch.Tensor, folds: int
    ) -> Iterator[tuple[tuple[int, int], float]]:
        """Subject and fold -> score; folds with equally many training rows train in one pass."""
        cuts: dict[int, list[tuple[int, int, NDArray[np.intp], NDArray[np.intp]]]]
        cuts = defaultdict(list)
        for number, (name, x, _) in enumerate(self._subjects):
            order = _order(f"{name}/{number}/folds", len(x))
            for fold, test in enumerate(np.array_split(order, min(folds, len(x)))):
                train = np.setdiff1d(np.arange(len(x)), test)
                cuts[len(train)].append((number, fold, train, test))
        for group in cuts.values():
            rows = [self._subjects[number][1][train] for number, _, train, _ in group]
            labels = [self._subjects[number][2][train] for number, _, train, _ in group]
            trained = learner.adapt_many(
                params, torch.as_tensor(np.stack(rows)), torch.as_tensor(np.stack(labels))
            )
            for (number, fold, _, test), own in zip(group, trained, strict=True):
                _, x, y = self._subjects[number]
                yield (number, fold), self._score(learner, own, x[test], y[test])

    def _score(
        self,
        learner: MetaLearner,
        params: torch.Tensor,
        x: NDArray[np.float32],
        y: NDArray[np.generic],
    ) -> float:
        return score(self.metric, learner.predict(params, torch.tensor(x)), y)


def adapt_alone(
    learner: MetaLearner,
    params: torch.Tensor,
    x: NDArray[np.float32],
    y: NDArray[np.generic],
) -> torch.Tensor:
    """`params` `[d]` adapted to one task's rows, in memory of its own: the same bits every time.

    Args:
        learner: adapts.
        params: where it starts, `[d] float32`.
        x: `[n, features] float32`.
        y: `[n]`.
    """
    return learner.adapt(params, torch.tensor(x), torch.tensor(y)).clone()


def _per_client(scores: Iterable[tuple[str, float]]) -> Scores:
    draws: dict[str, list[float]] = defaultdict(list)
    for client, value in scores:
        draws[client].append(value)
    return Scores(draws)


def _subjects(data: ClientData) -> list[tuple[NDArray[np.float32], NDArray[np.generic]]]:
    """The users of a client, or the client as a whole where users are unknown."""
    users: dict[str, list[int]] = defaultdict(list)
    for position, block in enumerate(data.blocks):
        if block.user is None:
            return [(data.x, data.y)]
        users[block.user].append(position)
    return [
        (
            np.concatenate([data.blocks[i].x for i in positions]),
            np.concatenate([data.blocks[i].y for i in positions]),
        )
        for positions in users.values()
    ]


def _order(label: str, count: int) -> NDArray[np.intp]:
    """A public permutation of `count` examples, the same in every run."""
    seed = hashlib.sha256(f"fedmeta/evaluation/{label}".encode()).digest()
    return np.argsort(
        np.frombuffer(hashlib.shake_256(seed).digest(8 * count), dtype="<u8"), kind="stable"
    )
