"""A cohort of any size for the simulator: people with sine curves, clients with 1 to 8 of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import nn

from crypto.ring import Ring
from privacy.plan import PrivacyPlan
from secure_fedmeta.meta import Learner, build_learner
from secure_fedmeta.models import build_model
from secure_fedmeta.setting import ring_for
from secure_fedmeta.tasks import ClientData, Draw, Record, SourceInfo, TaskBlock, drawing

MOST_TASKS = 8
SHOTS = 10
HIDDEN = (40, 40)
NOISE_MULTIPLIER = 4.0
MEMORY_MB = 16
"""Of one pass: as fast as any more, and small."""


class People:
    """Sinusoids of Finn et al. (2017): each person is one task, each client has 1 to 8 people.

    A client's data are made when they are asked for and not kept here.

    Args:
        clients: how many.
        seed: of the data.
    """

    name = "people"

    def __init__(self, clients: int, seed: int) -> None:
        self._seed = seed
        self._names = tuple(f"client-{number:05d}" for number in range(clients))
        counts = [self._count(name) for name in self._names]
        self.info = SourceInfo(
            rows=2 * SHOTS * sum(counts),
            clients=clients,
            tasks=sum(counts),
            task_bounds=dict.fromkeys(self._names, MOST_TASKS),
            units=frozenset({"task"}),
            licence="generated",
            provenance="sinusoids of Finn et al. 2017",
            public=True,
            features=("x",),
            input_bounds=(-5.0, 5.0),
            output_dim=1,
            loss="mse",
            metric="mse",
            k_support=SHOTS,
            k_query=SHOTS,
        )

    def _random(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self._seed, int(name.removeprefix("client-"))])

    def _count(self, name: str) -> int:
        return int(self._random(name).integers(1, MOST_TASKS + 1))

    def clients(self) -> tuple[str, ...]:
        """All names."""
        return self._names

    def client(self, name: str) -> ClientData:
        """One client's people."""
        random = self._random(name)
        people = int(random.integers(1, MOST_TASKS + 1))
        amplitude = random.uniform(0.1, 5.0, (people, 1))
        phase = random.uniform(0.0, math.pi, (people, 1))
        x = random.uniform(-5.0, 5.0, (people, 2 * SHOTS)).astype(np.float32)
        y = (amplitude * np.sin(x - phase)).astype(np.float32)
        blocks = tuple(
            TaskBlock(f"{name}/{k}", f"{name}/{k}", x[k, :, None], y[k]) for k in range(people)
        )
        return ClientData(name, blocks, x.reshape(-1, 1), y.reshape(-1))

    def records(self) -> tuple[Record, ...]:
        """None: nothing is replaced or permuted here."""
        return ()

    def draw(self, block: TaskBlock, k_support: int, k_query: int, *, key: bytes) -> Draw:
        """Support and query of one person."""
        return drawing.draw(block, k_support, k_query, key=key)


@dataclass(frozen=True)
class Federation:
    """What the rounds of one size share.

    Attributes:
        source: the people.
        module: a small MLP with its initial weights.
        learner: second-order MAML on it.
        plan: unit task, every task in every round.
        ring: integers with room for the plan's sums.
    """

    source: People
    module: nn.Module
    learner: Learner
    plan: PrivacyPlan
    ring: Ring

    @classmethod
    def of(cls, clients: int, seed: int) -> Federation:
        """A federation of so many clients; noise for nine tenths of them, a tenth colluding."""
        source = People(clients, seed)
        module = build_model("mlp", 1, 1, HIDDEN, seed=seed)
        learner = build_learner("maml", module, "mse", inner_lr=0.01, memory_mb=MEMORY_MB)
        plan = PrivacyPlan.from_noise_multiplier(
            noise_multiplier=NOISE_MULTIPLIER,
            delta=1e-5,
            rounds=100,
            clip=1.0,
            parameters=learner.spec.size,
            expected_units=clients * MOST_TASKS // 2,
            max_units_per_client=MOST_TASKS,
            clients=clients,
            min_survivors=clients - clients // 10,
            max_colluders=clients // 10,
            person_units=1,
        )
        return cls(source, module, learner, plan, ring_for(plan))
