"""Simulated clients: one pass for the tensor work of a cohort, each client's messages its own.

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

import numpy as np
import torch
from numpy.typing import NDArray

from privacy.local import LOCAL
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from secure_fedmeta.errors import DataError
from secure_fedmeta.losses import LOSSES, Loss
from secure_fedmeta.meta import MetaLearner, TaskBatch
from secure_fedmeta.tasks import Draw, TaskSource, round_key
from secure_fedmeta.tasks.drawing import keyed


class CohortWork:
    """Outer vectors of all simulated clients, computed together when the first one asks.

    Each client gets what it would have computed alone, up to rounding: support and query are
    redrawn inside each fixed block with randomness keyed by the client's own secret and the round.
    The shape of the pass follows from the declared bounds alone, as does the time it takes.

    Args:
        learner: turns a batch of tasks into one outer vector per task.
        source: the clients' tasks.
        keys: client name -> its secret drawing key.
        loss: what private metrics measure.

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
    ) -> None:
        self._learner = learner
        self._source = source
        self._keys = keys
        self._support, self._query = source.info.k_support, source.info.k_query
        self._blocks = {name: source.client(name).blocks for name in keys}
        self._loss = LOSSES.get(loss) if isinstance(loss, str) else loss
        self._losses: tuple[object, dict[str, NDArray[np.float64]]] | None = None
        self._cached: tuple[object, dict[str, NDArray[np.float32]]] | None = None
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
        question = (round_index, _digest(model))
        if self._cached is None or self._cached[0] != question:
            self._cached = (question, self._compute(model, round_index))
        return self._cached[1][client]

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
        question = (round_index, _digest(model), names)
        if self._losses is None or self._losses[0] != question:
            self._losses = (question, self._measure(model, round_index, names))
        return self._losses[1][client]

    def _measure(
        self, model: torch.Tensor, round_index: int, names: tuple[str, ...]
    ) -> dict[str, NDArray[np.float64]]:
        clients = list(self._blocks)
        batch = self._batch(clients, round_index)
        columns = []
        for name in names:
            params = model
            if name == "query_loss":
                params = self._learner.adapt_many(model, batch.support_x, batch.support_y)
            outputs = self._learner.predict_many(params, batch.query_x)
            tasks = zip(outputs, batch.query_y, strict=True)
            columns.append([float(self._loss.value(z, y)) for z, y in tasks])
        found = np.array(columns, dtype=np.float64).T
        return {name: found[rows] for name, rows in self._rows(clients, round_index).items()}

    def _compute(self, model: torch.Tensor, round_index: int) -> dict[str, NDArray[np.float32]]:
        return self._vectors(list(self._blocks), model, round_index)

    def _vectors(
        self, names: Sequence[str], model: torch.Tensor, round_index: int
    ) -> dict[str, NDArray[np.float32]]:
        batch = self._batch(names, round_index)
        found: NDArray[np.float32] = self._learner.outer_vectors(model, batch).cpu().numpy()
        return {name: found[rows] for name, rows in self._rows(names, round_index).items()}

    def _rows(self, names: Sequence[str], round_index: int) -> dict[str, NDArray[np.int64]]:
        """Where each client's tasks stand in a batch of these clients, in the tasks' order."""
        ends = np.cumsum([self._places[name] for name in names])
        return {
            name: end - self._places[name] + self._drawn_places(name, round_index)
            for name, end in zip(names, ends, strict=True)
        }

    def _drawn_places(self, name: str, round_index: int) -> NDArray[np.int64]:
        """The place of each task among those of its client, drawn by the client's secret."""
        key = keyed(round_key(self._keys[name], round_index), "secure-fedmeta/places")
        return SecureRandom.from_key(key).choice(self._places[name], len(self._blocks[name]))

    def _batch(self, names: Sequence[str], round_index: int) -> TaskBatch:
        draws: list[Draw | None] = [None] * sum(self._places[name] for name in names)
        for name, rows in self._rows(names, round_index).items():
            key = round_key(self._keys[name], round_index)
            for row, block in zip(rows, self._blocks[name], strict=True):
                draws[row] = self._source.draw(block, self._support, self._query, key=key)
        a, b, c, d = next(draw for draw in draws if draw is not None)
        nothing = (np.zeros_like(a), np.zeros_like(b), np.zeros_like(c), np.zeros_like(d))
        return TaskBatch.stack([nothing if draw is None else draw for draw in draws])


class LocalWork(CohortWork):
    """The same where each client is at parameters of its own: its tasks are computed alone."""

    def outer_vectors(
        self, client: str, model: torch.Tensor, *, round_index: int
    ) -> NDArray[np.float32]:
        """Outer vectors of one client's tasks: `[tasks, d] float32`."""
        return self._vectors([client], model, round_index)[client]


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
