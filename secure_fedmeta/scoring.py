"""The arms of the closing table, each with the same examples, network and initial weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import torch

from secure_fedmeta.baseline import train_in_clear
from secure_fedmeta.config import Config
from secure_fedmeta.evaluation import Evaluation, Scores
from secure_fedmeta.meta import Learner
from secure_fedmeta.pipeline import Parts
from secure_fedmeta.randomness import Randomness
from secure_fedmeta.simulation import work_for

_ARMS = ("no_adaptation", "meta", "local_k", "local_all", "fedavg_ft")
_SGD = "fedavg"  # adapts by plain gradient descent on all parameters


class Schedule(TypedDict):
    """Steps of adaptation, and the size of one."""

    steps: int
    lr: float


def adaptation(config: Config) -> Schedule:
    """How long and how fast a new user adapts the meta-model."""
    settings = config.evaluation
    lr = settings.adapt_lr or config.learner.inner_lr
    return Schedule(steps=settings.adapt_steps, lr=lr)


def personaliser(parts: Parts) -> Learner:
    """How a new user adapts the meta-model: the configured rule and schedule."""
    return parts.learner.scheduled(**adaptation(parts.config))


def fine_tuner(parts: Parts) -> Learner:
    """How a new user fine-tunes the averaged model: a schedule of its own, as tuned for it."""
    settings, learner = parts.config.evaluation, parts.config.learner
    return parts.learner_like(
        _SGD,
        inner_steps=settings.fedavg_adapt_steps or settings.adapt_steps,
        inner_lr=settings.fedavg_adapt_lr or settings.adapt_lr or learner.inner_lr,
    )


def closing_arms(
    parts: Parts,
    evaluation: Evaluation,
    model: torch.Tensor,
    randomness: Randomness,
    *,
    announce: Callable[[str], None] = lambda _: None,
) -> tuple[dict[str, Scores | None], dict[str, str]]:
    """Scores of every arm per held-out client, and why an arm was not run.

    Where nobody is held out no arm is run and none has a score.

    Args:
        parts: the run.
        evaluation: held-out clients and their draws.
        model: the released meta-model `[d] float32`.
        randomness: noise and drawing keys of the FedAvg baseline.
        announce: told in words what is computed next.
    """
    if not evaluation.splits:  # nobody to score: no arm is worth its training
        return dict.fromkeys(_ARMS), {}
    settings = parts.config.evaluation
    meta = personaliser(parts)
    local = parts.learner_like(_SGD, inner_steps=settings.local_steps, inner_lr=settings.local_lr)
    initial = local.initial(parts.module)
    announce("scoring held-out clients: the meta-model")
    arms: dict[str, Scores | None] = {
        "no_adaptation": evaluation.unadapted(meta, model),
        "meta": evaluation.alone(meta, model),
    }
    announce("scoring held-out clients: training on k examples alone")
    arms["local_k"] = evaluation.adapted(local, initial)
    announce("scoring held-out clients: training on all own examples alone")
    arms["local_all"] = evaluation.local_all(local, initial)
    arms["fedavg_ft"] = None
    if not parts.source.info.public:
        reason = "not run: a second training on data that are not public would need a second budget"
        return arms, {"fedavg_ft": reason}
    announce("training the FedAvg baseline under the same plan")
    averaged = train_in_clear_as_planned(parts, averager(parts), randomness)
    announce("scoring held-out clients: fine-tuning the FedAvg baseline")
    arms["fedavg_ft"] = evaluation.adapted(fine_tuner(parts), averaged)
    return arms, {}


def averager(parts: Parts) -> Learner:
    """The FedAvg baseline's learner: some local steps of plain gradient descent per task."""
    settings = parts.config.evaluation
    return parts.learner_like(
        _SGD,
        inner_steps=settings.fedavg_inner_steps,
        inner_lr=settings.fedavg_inner_lr or parts.config.learner.inner_lr,
    )


def train_in_clear_as_planned(
    parts: Parts,
    learner: Learner,
    randomness: Randomness,
    *,
    done: Callable[[int], None] = lambda _: None,
) -> torch.Tensor:
    """Train `learner` on public data under the run's own terms: its vector `[d] float32`.

    Args:
        parts: the run.
        learner: what trains, which need not be the run's own.
        randomness: noise and drawing keys.
        done: told each round that ended.
    """
    keys = randomness.stream("in-clear/keys")
    secrets = {name: keys(32) for name in parts.training}
    work = work_for(parts.plan, learner, parts.source, secrets, loss=parts.loss)
    return train_in_clear(
        work,
        parts.training,
        plan=parts.plan_for(learner),
        optimiser=parts.optimiser,
        initial=learner.initial(parts.module),
        noise=lambda name: randomness.generator(f"in-clear/noise/{name}"),
        done=done,
    )
