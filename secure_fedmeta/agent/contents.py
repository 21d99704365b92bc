"""Everything that makes an agent what it is, and nothing that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from secure_fedmeta.agent.choice import Choice, Mode
from secure_fedmeta.agent.confidence import Calibration
from secure_fedmeta.agent.spec import AgentSpec
from secure_fedmeta.tasks.protocol import Floats

CAPACITY: Final = 1000
"""Own examples that an agent remembers: the newest, whatever they are."""
MAX_CAPACITY: Final = 2**20
NOTICES: Final = 20
"""How many changes that it noticed an agent remembers: the newest."""


@dataclass(frozen=True, eq=False, repr=False)
class Learned:
    """What an agent made of its examples.

    Attributes:
        mode: what was asked for.
        choice: what is used, and why.
        examples: how many own examples there were.
        vectors: `adapted` and `local`, as far as they are used -> parameters `[d]`.
        calibration: what is known of the errors.
        fold_vectors: the same for the model of each fold, `[folds, d]`; empty where there are no
            intervals.
    """

    mode: Mode
    choice: Choice
    examples: int
    vectors: Mapping[str, torch.Tensor]
    calibration: Calibration
    fold_vectors: Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class Contents:
    """An agent, put down.

    Attributes:
        spec: what it is made of.
        model: the run's model `[d] float32`.
        capacity: own examples that it remembers.
        x: remembered inputs, `[n, features] float32`, the oldest first.
        y: their targets, `[n] float32`.
        seen: examples ever taken.
        learned: what it made of them, if it did.
        losses: of the feedback since the test for drift began.
        notices: changes of the feedback, in words, the oldest first.
    """

    spec: AgentSpec
    model: torch.Tensor
    capacity: int
    x: Floats
    y: Floats
    seen: int = 0
    learned: Learned | None = None
    losses: tuple[float, ...] = ()
    notices: tuple[str, ...] = ()

    @classmethod
    def fresh(cls, spec: AgentSpec, model: torch.Tensor, capacity: int) -> Contents:
        """Those of an agent that has seen nothing."""
        x = np.zeros((0, spec.model.inputs), dtype=np.float32)
        return cls(spec, model, capacity, x, np.zeros(0, dtype=np.float32))
