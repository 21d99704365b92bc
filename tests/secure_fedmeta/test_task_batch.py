"""Cohorts of tasks: shapes that fit each other, and draws that are stacked."""

from __future__ import annotations

import pytest
import torch

from secure_fedmeta.errors import ConfigError
from secure_fedmeta.meta import TaskBatch


def test_batches_of_wrong_shapes_are_refused() -> None:
    x, y = torch.zeros(2, 4, 3), torch.zeros(2, 4, 1)
    for parts in (
        (x, y[:1], x, y),
        (x, y, x[:, :0], y[:, :0]),
        (x[:1], y[:1], x, y),
        (x, y, torch.zeros(2, 4, 2), y),
        (x, torch.zeros(2, 4), x, y),
        (torch.zeros(2), y, x, y),
    ):
        with pytest.raises(ConfigError, match="shape"):
            TaskBatch(*parts)


def test_draws_are_stacked() -> None:
    draw = tuple(torch.ones(n, m).numpy() for n, m in ((4, 3), (4, 1), (6, 3), (6, 1)))
    batch = TaskBatch.stack([draw, draw])
    assert batch.tasks == 2
    assert batch.query_x.shape == (2, 6, 3)
    assert batch[1:].tasks == 1
    with pytest.raises(ConfigError, match="at least one"):
        TaskBatch.stack([])
    with pytest.raises(ConfigError, match="equal shapes"):
        TaskBatch.stack([draw, (draw[0][:3], *draw[1:])])
