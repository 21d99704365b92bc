"""A cohort of tasks of equal shape, ready for one vectorised pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secure_fedmeta.errors import ConfigError

Rows = NDArray[np.generic]
Draw = tuple[Rows, Rows, Rows, Rows]


@dataclass(frozen=True)
class TaskBatch:
    """Support and query rows of B tasks.

    Attributes:
        support_x: `[B, k, ...]`, rows that the inner steps learn from.
        support_y: `[B, k]` or `[B, k, o]`.
        query_x: `[B, q, ...]`, rows that the outer gradient is taken on.
        query_y: `[B, q]` or `[B, q, o]`.
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor

    def __post_init__(self) -> None:
        for part, x, y in (
            ("support", self.support_x, self.support_y),
            ("query", self.query_x, self.query_y),
        ):
            if x.ndim < 2 or x.shape[1] == 0 or y.shape[:2] != x.shape[:2]:
                raise ConfigError(
                    f"{part}: x of shape {list(x.shape)} and y of shape {list(y.shape)}; "
                    "allowed: [B, n, ...] and [B, n, ...] with n of 1 or more"
                )
        for part, support, query in (
            ("x", self.support_x, self.query_x),
            ("y", self.support_y, self.query_y),
        ):
            if support.shape[0] != query.shape[0] or support.shape[2:] != query.shape[2:]:
                raise ConfigError(
                    f"{part} of shape {list(support.shape)} for support and {list(query.shape)} "
                    "for query; only the number of rows may differ"
                )

    @classmethod
    def stack(cls, draws: Sequence[Draw]) -> TaskBatch:
        """Stack `(support_x, support_y, query_x, query_y)` arrays of equal shapes, one per task.

        Raises:
            ConfigError: no task, or tasks of different shapes or dtypes.
        """
        if not draws:
            raise ConfigError("a batch needs at least one task")
        columns = list(zip(*draws, strict=True))
        if any(part.shape != column[0].shape for column in columns for part in column):
            raise ConfigError("the tasks of one batch must have equal shapes")
        # Else the widest type of any one task would be that of all.
        if any(part.dtype != column[0].dtype for column in columns for part in column):
            raise ConfigError("the tasks of one batch must have equal dtypes")
        parts = [torch.stack([torch.as_tensor(part) for part in column]) for column in columns]
        return cls(*parts)

    @property
    def tasks(self) -> int:
        """B."""
        return self.support_x.shape[0]

    def __getitem__(self, which: slice) -> TaskBatch:
        return TaskBatch(
            self.support_x[which],
            self.support_y[which],
            self.query_x[which],
            self.query_y[which],
        )
