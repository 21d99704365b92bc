"""The arms of the closing table, each with the same examples, network and initial weights."""

from __future__ import annotations

import torch

from secure_fedmeta.baseline import train_in_clear
from secure_fedmeta.evaluation import Evaluation, Scores
from secure_fedmeta.meta import Learner
from secure_fedmeta.pipeline import Parts
from secure_fedmeta.randomness import Randomness
from secure_fedmeta.simulation import CohortWork

_SGD = "fedavg"  # adapts by plain gradient descent on all parameters


def personaliser(parts: Parts, algorithm: str) -> Learner:
    """How a new user adapts: the configured schedule, with the rule of `algorithm`."""
    settings = parts.config.evaluation
    return parts.learner_like(
        algorithm,
        inner_steps=settings.adapt_steps,
        inner_lr=settings.adapt_lr or parts.config.learner.inner_lr,
    )


def closing_arms(
    parts: Parts, evaluation: Evaluation, model: torch.Tensor, randomness: Randomness
) -> tuple[dict[str, Scores | None], dict[str, str]]:
    """Scores of every arm per held-out client, and why an arm was not run.

    Args:
        parts: the run.
        evaluation: held-out clients and their draws.
        model: the released meta-model `[d] float32`.
        randomness: noise and drawing keys of the FedAvg baseline.
    """
    settings = parts.config.evaluation
    meta = personaliser(parts, parts.config.learner.algorithm)
    local = parts.learner_like(_SGD, inner_steps=settings.local_steps, inner_lr=settings.local_lr)
    initial = parts.initial()
    arms: dict[str, Scores | None] = {
        "no_adaptation": evaluation.unadapted(meta, model),
        "local_k": evaluation.adapted(local, initial, steps=settings.local_steps),
        "local_all": evaluation.local_all(local, initial, steps=settings.local_steps),
        "fedavg_ft": None,
        "meta": evaluation.adapted(meta, model, steps=settings.adapt_steps),
    }
    if not parts.source.info.public:
        reason = "not run: a second training on data that are not public would need a second budget"
        return arms, {"fedavg_ft": reason}
    averaged = train_fedavg(parts, randomness)
    arms["fedavg_ft"] = evaluation.adapted(
        personaliser(parts, _SGD), averaged, steps=settings.adapt_steps
    )
    return arms, {}


def train_fedavg(parts: Parts, randomness: Randomness) -> torch.Tensor:
    """FedAvg under the run's own plan on public data: parameters `[d] float32`."""
    keys = randomness.stream("fedavg/keys")
    learner = parts.learner_like(
        _SGD,
        inner_steps=parts.config.evaluation.fedavg_inner_steps,
        inner_lr=parts.config.learner.inner_lr,
    )
    work = CohortWork(learner, parts.source, {name: keys(32) for name in parts.training})
    return train_in_clear(
        work,
        parts.training,
        plan=parts.plan,
        optimiser=parts.optimiser,
        initial=parts.initial(),
        noise=lambda name: randomness.generator(f"fedavg/noise/{name}"),
    )
