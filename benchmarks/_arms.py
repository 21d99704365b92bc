"""One training of an example under changed settings, scored on clients that do not take part.

Every arm has the noise that its plan calibrates for the example's epsilon. In clear, with the
plan's integers where noise is as planned: sums of integers are what a secure sum gives. With
another `shape` of noise over the rounds, sums and noise are real numbers, of the plan's size with
every client present.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._correlated import LINEAR, Matrix, schedule, sensitivity, square_root, workload
from privacy.clip import clip_l2
from secure_fedmeta.client import contribution
from secure_fedmeta.config import Config, load_config, parse_config
from secure_fedmeta.evaluation import Evaluation, Scores
from secure_fedmeta.pipeline import Parts, assemble
from secure_fedmeta.randomness import Randomness
from secure_fedmeta.scoring import personaliser
from secure_fedmeta.simulation import CohortWork
from secure_fedmeta.tasks import build_source

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
BANDS = 4
Shape = Literal["planned", "independent", "scheduled", "banded"]
TAILS = {"last": 1.0, "tail 1/4": 0.75, "tail 1/2": 0.5, "tail 3/4": 0.25}
"""What may be handed out: the last iterate, or the mean of those after this part of the rounds."""


@dataclass(frozen=True)
class Arm:
    """What differs from the example.

    Attributes:
        name: for tables.
        settings: section -> setting -> value.
        shape: how noise goes over the rounds: as planned; or, as real numbers, independent and
            equal, independent by the best schedule for the released model, or correlated by the
            banded square root.
    """

    name: str
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    shape: Shape = "planned"


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        example: credit or sinusoid.
        arm: see there.
        judged: clients that score it and do not train.
        absent: clients that neither train nor score.
        data_seed: of the sinusoid's people; credit has one data set.
        seed: of initial weights, of what is drawn, and of noise. Arms share what they can: noise
            of another shape comes from the same independent numbers.
    """

    example: str
    arm: Arm
    judged: tuple[str, ...]
    absent: tuple[str, ...]
    data_seed: int
    seed: int


Outcome = dict[str, Scores]
"""What was handed out ("configured", or a name of TAILS) -> client -> score after adaptation."""


def example(name: str) -> Config:
    """The config of an example."""
    return load_config(EXAMPLES / f"{name}.toml")


def clients_of(name: str) -> tuple[str, ...]:
    """The names of all clients of an example, in the source's order."""
    config = example(name)
    return build_source(config.data.source, config.data.options).clients()


def run_trial(trial: Trial) -> Outcome:
    """Train and score."""
    torch.set_num_threads(1)
    config = config_of(trial)
    parts = assemble(config)
    iterates = trained(parts, Randomness(trial.seed), trial.arm.shape)
    support, repeats = parts.source.info.k_support, config.evaluation.repeats
    evaluation = Evaluation(parts.source, trial.judged, support=support, repeats=repeats)
    learner = personaliser(parts)

    def scores(first: int) -> Scores:
        model = iterates[first - 1 :].mean(axis=0)
        return evaluation.adapted(learner, torch.from_numpy(model).to(torch.float32))

    rounds = len(iterates)
    found = {name: scores(max(1, round(part * rounds))) for name, part in TAILS.items()}
    return found | {"configured": scores(config.server.average_from or rounds)}


def trained(parts: Parts, randomness: Randomness, shape: Shape) -> NDArray[np.float64]:
    """The iterates of a training with every client present: `[rounds, d] float64`."""
    keys = randomness.stream("keys")
    secrets = {name: keys(32) for name in parts.training}
    work = CohortWork(parts.learner, parts.source, secrets, loss=parts.loss)
    sums = (planned_sums if shape == "planned" else shaped_sums(shape))(parts, work, randomness)
    state = parts.optimiser.init(parts.initial())
    iterates = []
    for round_index in range(1, parts.plan.rounds + 1):
        average = sums(state.params.to(torch.float32), round_index)
        state = parts.optimiser.update(state, torch.from_numpy(average))
        iterates.append(state.params.numpy())
    return np.stack(iterates)


Sums = Callable[[torch.Tensor, int], NDArray[np.float64]]
"""Model and round -> the average that the server gets, `[d] float64`."""


def planned_sums(parts: Parts, work: CohortWork, randomness: Randomness) -> Sums:
    """What the product's own rounds give."""
    plan = parts.plan
    noise = {name: randomness.generator(f"noise/{name}") for name in parts.training}

    def sums(model: torch.Tensor, round_index: int) -> NDArray[np.float64]:
        total = np.zeros(plan.dimension, dtype=np.int64)
        for name in parts.training:
            total += contribution(
                work, name, model, plan=plan, round_index=round_index, noise=noise[name]
            )
        return plan.decode(total, round_index=round_index)

    return sums


def shaped_sums(shape: Shape) -> Callable[[Parts, CohortWork, Randomness], Sums]:
    """Sums in real numbers, with noise of a shape over the rounds that costs the same epsilon."""

    def make(parts: Parts, work: CohortWork, randomness: Randomness) -> Sums:
        plan = parts.plan
        noise = shaped_noise(parts, shape, randomness)

        def sums(model: torch.Tensor, round_index: int) -> NDArray[np.float64]:
            total = noise[round_index - 1].copy()
            for name in parts.training:
                vectors = work.outer_vectors(name, model, round_index=round_index)
                total += clip_l2(vectors, plan.clip).sum(axis=0) / plan.expected_units
            return total

        return sums

    return make


def shaped_noise(parts: Parts, shape: Shape, randomness: Randomness) -> NDArray[np.float64]:
    """Noise in the average of every round: `[rounds, d] float64`.

    Independent noise has the plan's variance. Of the other shapes each costs what that costs: the
    vectors C x + z of all rounds have noise of the plan's variance times sensitivity^2 / rounds.
    """
    plan = parts.plan
    strategy = strategy_of(parts, shape)
    std = plan.noise_std(plan.clients) / (plan.scale * plan.expected_units)
    seed = int.from_bytes(randomness.stream("shaped")(8), "little")
    drawn = np.random.default_rng(seed).standard_normal((plan.rounds, plan.parameters))
    drawn *= std * sensitivity(strategy) / np.sqrt(plan.rounds)
    return np.linalg.solve(strategy, drawn)


def strategy_of(parts: Parts, shape: Shape) -> Matrix:
    """C. A server that is no matrix gets what is best for sgd with the same averaging."""
    rounds, optimiser = parts.plan.rounds, parts.optimiser
    if shape == "scheduled":
        linear = optimiser if optimiser.name in LINEAR else replace(optimiser, name="sgd")
        return schedule(workload(linear, rounds)[1])
    return square_root(rounds, BANDS) if shape == "banded" else np.eye(rounds)


def config_of(trial: Trial) -> Config:
    """The config of a trial's training; as many clients may drop out as in the example."""
    tree = example(trial.example).model_dump(mode="json", exclude_none=True)
    tree["model"]["init_seed"] = trial.seed
    tree["data"] |= {"held_out": list(trial.judged), "unused": list(trial.absent)}
    if trial.example == "sinusoid":
        tree["data"]["options"]["data_seed"] = trial.data_seed
    training = len(clients_of(trial.example)) - len(trial.judged) - len(trial.absent)
    tree["privacy"]["min_survivors"] = training - 2
    for section, values in trial.arm.settings.items():
        tree[section] = tree.get(section, {}) | values
    return parse_config(tree)
