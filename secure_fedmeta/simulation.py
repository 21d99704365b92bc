"""Simulated clients: one pass for the tensor work of many, each client's messages its own.

Clients are computed in groups of the roster's order, as many as GROUP_BYTES hold, so that memory
does not grow with the cohort. A group is computed when the first of its clients asks, and let go
when one of another group does: whoever asks in the roster's order has each group computed once.

A pass rounds a row by the shape of the whole batch and by where the row stands in it, and an
aggregator can make a model that magnifies the last bit to any size. With as many rows as there are
tasks, one task more would then move the vectors of all others, which no bound on single vectors
includes. So every client fills as many places as its source declares in public, whatever it holds:
its tasks stand in places drawn anew in each round by its own secret, and rows of zeros in the
rest. With a task more or less nothing changes but the content of one place. (The places of the
other tasks have the same distribution with it and without it, and for each choice of them the
bound of one vector holds; divergences between mixtures with the same weights are at most the
largest between their parts.) What remains is that the kernels do not round one row by the numbers
in another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from privacy.local import LOCAL
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from privacy.stages import Stage, stage
from secure_fedmeta.errors import ConfigError, DataError
from secure_fedmeta.losses import LOSSES, Loss
from secure_fedmeta.meta import MetaLearner, TaskBatch
from secure_fedmeta.tasks import TaskSource, round_key
from secure_fedmeta.tasks.drawing import keyed

GROUP_BYTES = 128 * 2**20
"""Vectors and rows of one group of clients, at most; one client is always a group."""


@dataclass(frozen=True, eq=False)
class _Answer:
    """What a group of clients was asked last, and what was found.

    Attributes:
        question: group, round, model, and what else decides the answer.
        found: one row per place of the group.
        rows: client -> where its tasks stand in it.
    """

    question: tuple[object, ...]
    found: NDArray[Any]
    rows: Mapping[str, NDArray[np.int64]]


class CohortWork:
    """Outer vectors of all simulated clients, a group together when the first of it asks.

    Each client gets what it would have computed alone, up to rounding: support and query are
    redrawn inside each fixed block with randomness keyed by the client's own secret and the round.
    The shape of the pass follows from the declared bounds alone, as does the time it takes.

    Args:
        learner: turns a batch of tasks into one outer vector per task.
        source: the clients' tasks.
        keys: client name -> its secret drawing key.
        loss: what private metrics measure.
        group_bytes: see GROUP_BYTES.

    Raises:
        DataError: a client has no task, or more than its source declares.
    """

    def __init__(
        self,
        learner: MetaLearner,
        source: TaskSource,
        keys: Mapping[str, bytes],
        *,
        loss: str | Loss,
        group_bytes: int = GROUP_BYTES,
    ) -> None:
        self._learner = learner
        self._source = source
        self._keys = keys
        self._support, self._query = source.info.k_support, source.info.k_query
        self._blocks = {name: source.client(name).blocks for name in keys}
        self._loss = LOSSES.get(loss) if isinstance(loss, str) else loss
        self._vectors: _Answer | None = None
        self._losses: _Answer | None = None
        self._places = {name: source.info.task_bounds[name] for name in keys}
        for name, blocks in self._blocks.items():
            if len(blocks) > self._places[name]:
                raise DataError(
                    f"client {name!r} has {len(blocks)} tasks, more than the {self._places[name]} "
                    f"that source {source.name!r} declares"
                )
            if not blocks:
                raise DataError(
                    f"client {name!r} has no task with {self._support + self._query} examples: "
                    "lower k_support or k_query in data.options, or leave the client out"
                )
        self._groups = self._grouped(group_bytes)

    def units(self, client: str) -> int:
        """How many tasks the client has; known to the client alone in a deployment."""
        return len(self._blocks[client])

    def users(self, client: str) -> NDArray[np.int64]:
        """Whose each task is, the client's users numbered from 0: `[tasks] int64`.

        Raises:
            DataError: a task that is not one user's alone.
        """
        names = self.user_names(client)
        number = {name: index for index, name in enumerate(dict.fromkeys(names))}
        return np.array([number[name] for name in names], dtype=np.int64)

    def clients_that_share_a_user(self) -> tuple[str, str] | None:
        """Two clients who hold tasks of one user, who then has no client to see to its coin."""
        holder: dict[str, str] = {}
        for name in self._blocks:
            for user in self.user_names(name):
                if holder.setdefault(user, name) != name:
                    return holder[user], name
        return None

    def user_names(self, client: str) -> tuple[str, ...]:
        """The user of each task. Raises DataError for a task that is not one user's alone."""
        users = tuple(block.user for block in self._blocks[client] if block.user is not None)
        if len(users) != len(self._blocks[client]):
            raise DataError(
                f"client {client!r} has a task that is not one user's alone, so that its source "
                "cannot promise unit user: set privacy.unit to another"
            )
        return users

    def outer_vectors(
        self, client: str, model: torch.Tensor, *, round_index: int
    ) -> NDArray[np.float32]:
        """Outer vectors of one client's tasks: `[tasks, d] float32`."""
        group = self._groups[client]
        question = (group, round_index, _digest(model))
        if self._vectors is None or self._vectors.question != question:
            self._vectors = None  # the last group's go before this one's come
            self._vectors = _Answer(question, *self._compute(group, model, round_index))
        answer = self._vectors
        vectors: NDArray[np.float32] = answer.found[answer.rows[client]]
        return vectors

    def measured(
        self, client: str, model: torch.Tensor, *, round_index: int, names: tuple[str, ...]
    ) -> NDArray[np.float64]:
        """Losses on the query rows of one client's tasks: `[tasks, names] float64`.

        Args:
            client: its name.
            model: global parameters `[d]`.
            round_index: the round, whose draws are those of the outer vectors.
            names: of "query_loss", after adaptation on the support rows as the algorithm adapts,
                and "query_loss_unadapted".
        """
        group = self._groups[client]
        question = (group, round_index, _digest(model), names)
        if self._losses is None or self._losses.question != question:
            found = self._measure(group, model, round_index, names)
            self._losses = _Answer(question, *found)
        losses: NDArray[np.float64] = self._losses.found[self._losses.rows[client]]
        return losses

    def _measure(
        self, group: Sequence[str], model: torch.Tensor, round_index: int, names: tuple[str, ...]
    ) -> tuple[NDArray[np.float64], Mapping[str, NDArray[np.int64]]]:
        rows = self._rows(group, round_index)
        batch = self._batch(group, rows, round_index)
        columns = []
        with stage(Stage.VECTORS):
            for name in names:
                params = model
                if name == "query_loss":
                    params = self._learner.adapt_many(model, batch.support_x, batch.support_y)
                outputs = self._learner.predict_many(params, batch.query_x)
                tasks = zip(outputs, batch.query_y, strict=True)
                columns.append([float(self._loss.value(z, y)) for z, y in tasks])
        return np.array(columns, dtype=np.float64).T, rows

    def _compute(
        self, group: Sequence[str], model: torch.Tensor, round_index: int
    ) -> tuple[NDArray[np.float32], Mapping[str, NDArray[np.int64]]]:
        rows = self._rows(group, round_index)
        batch = self._batch(group, rows, round_index)
        with stage(Stage.VECTORS):
            found: NDArray[np.float32] = self._learner.outer_vectors(model, batch).cpu().numpy()
        return found, rows

    def _grouped(self, group_bytes: int) -> dict[str, tuple[str, ...]]:
        """Client -> the group that it is computed in, which follows from declared bounds alone."""
        info = self._source.info
        numbers = (self._support + self._query) * (info.input_dim + 1) + self._learner.spec.size
        most = max(1, group_bytes // (4 * numbers))
        groups: list[list[str]] = [[]]
        held = 0
        for name, places in self._places.items():
            if groups[-1] and held + places > most:
                groups.append([])
                held = 0
            groups[-1].append(name)
            held += places
        return {name: tuple(group) for group in groups for name in group}

    def _rows(self, names: Sequence[str], round_index: int) -> dict[str, NDArray[np.int64]]:
        """Where each client's tasks stand in a batch of these clients, in the tasks' order."""
        ends = np.cumsum([self._places[name] for name in names])
        with stage(Stage.DRAW):
            return {
                name: end - self._places[name] + self._drawn_places(name, round_index)
                for name, end in zip(names, ends, strict=True)
            }

    def _drawn_places(self, name: str, round_index: int) -> NDArray[np.int64]:
        """The place of each task among those of its client, drawn by the client's secret."""
        key = keyed(round_key(self._keys[name], round_index), "secure-fedmeta/places")
        return SecureRandom.from_key(key).choice(self._places[name], len(self._blocks[name]))

    def _batch(
        self, names: Sequence[str], rows: Mapping[str, NDArray[np.int64]], round_index: int
    ) -> TaskBatch:
        """The tasks of these clients in their places, and zeros in the other places."""
        places = sum(self._places[name] for name in names)
        columns: tuple[NDArray[np.float32], ...] | None = None
        with stage(Stage.DRAW):
            for name in names:
                key = round_key(self._keys[name], round_index)
                for row, block in zip(rows[name], self._blocks[name], strict=True):
                    draw = self._source.draw(block, self._support, self._query, key=key)
                    if columns is None:
                        columns = tuple(np.zeros((places, *one.shape), one.dtype) for one in draw)
                    for column, one in zip(columns, draw, strict=True):
                        # What the first task is of must not decide how the others are stored.
                        if (one.shape, one.dtype) != (column.shape[1:], column.dtype):
                            raise ConfigError("the tasks of a batch must have one shape and dtype")
                        column[row] = one
            if columns is None:
                raise DataError("a batch needs at least one client")
            return TaskBatch(*(torch.from_numpy(column) for column in columns))


class LocalWork(CohortWork):
    """The same where each client is at parameters of its own: its tasks are computed alone."""

    def _grouped(self, group_bytes: int) -> dict[str, tuple[str, ...]]:
        del group_bytes
        return {name: (name,) for name in self._places}


def work_for(
    plan: PrivacyPlan,
    learner: MetaLearner,
    source: TaskSource,
    keys: Mapping[str, bytes],
    *,
    loss: str | Loss,
) -> CohortWork:
    """The work of all clients, computed together where they are all at the same model.

    Args:
        plan: says where they are.
        learner: turns a batch of tasks into one outer vector per task.
        source: the clients' tasks.
        keys: client name -> its secret drawing key.
        loss: what private metrics measure.

    Raises:
        DataError: a client has no task.
    """
    return (LocalWork if plan.noise == LOCAL else CohortWork)(learner, source, keys, loss=loss)


def _digest(model: torch.Tensor) -> bytes:
    return hashlib.sha256(model.detach().cpu().numpy().tobytes()).digest()
