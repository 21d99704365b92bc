"""Simulated clients: one pass for the tensor work of a cohort, each client's messages its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from privacy.local import LOCAL
from privacy.plan import PrivacyPlan
from secure_fedmeta.errors import DataError
from secure_fedmeta.losses import LOSSES, Loss
from secure_fedmeta.meta import MetaLearner, TaskBatch
from secure_fedmeta.tasks import TaskSource, round_key


class CohortWork:
    """Outer vectors of all simulated clients, computed together when the first one asks.

    Each client gets what it would have computed alone: support and query are redrawn inside each
    fixed block with randomness keyed by the client's own secret and the round.

    Args:
        learner: turns a batch of tasks into one outer vector per task.
        source: the clients' tasks.
        keys: client name -> its secret drawing key.
        loss: what private metrics measure.

    Raises:
        DataError: a client has no task.
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
        for name, blocks in self._blocks.items():
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
        return dict(zip(clients, np.split(found, self._ends(clients)), strict=True))

    def _ends(self, clients: Sequence[str]) -> NDArray[np.int64]:
        """Where the tasks of all clients but the last end, in a batch of all."""
        return np.cumsum([len(self._blocks[name]) for name in clients])[:-1]

    def _compute(self, model: torch.Tensor, round_index: int) -> dict[str, NDArray[np.float32]]:
        names = list(self._blocks)
        batch = self._batch(names, round_index)
        vectors = self._learner.outer_vectors(model, batch).cpu().numpy()
        return dict(zip(names, np.split(vectors, self._ends(names)), strict=True))

    def _batch(self, names: Sequence[str], round_index: int) -> TaskBatch:
        keys = {name: round_key(self._keys[name], round_index) for name in names}
        return TaskBatch.stack(
            [
                self._source.draw(block, self._support, self._query, key=keys[name])
                for name in names
                for block in self._blocks[name]
            ]
        )


class LocalWork(CohortWork):
    """The same where each client is at parameters of its own: its tasks are computed alone."""

    def outer_vectors(
        self, client: str, model: torch.Tensor, *, round_index: int
    ) -> NDArray[np.float32]:
        """Outer vectors of one client's tasks: `[tasks, d] float32`."""
        batch = self._batch([client], round_index)
        found: NDArray[np.float32] = self._learner.outer_vectors(model, batch).cpu().numpy()
        return found


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
