"""What candidates are compared by.

Scores of validation clients follow from their data alone, and nothing hides them. They are for
clients whose scores may be shown.

Protected scores are the candidate's own private metric: the loss of its training tasks after
adaptation, released in each round under the noise of its vectors, inside the same norm bound
(privacy/extras.py). So a score is computed from what the candidate's charge already covers, and
choosing by it is post-processing. No client needs to agree to anything. It is a loss on tasks that
train, measured before the round's own step moves the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from secure_fedmeta.config import Config
from secure_fedmeta.config_tune import TuneConfig
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.evaluation import Evaluation, Interval
from secure_fedmeta.pipeline import Parts
from secure_fedmeta.scoring import personaliser

PROTECTED = "query_loss"
"""The private metric that scores."""
_LOWER_IS_BETTER = ("mse", PROTECTED)
_NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class Score:
    """A candidate's score.

    Attributes:
        interval: over clients; of a protected score the mean over rounds and what its noise alone
            makes uncertain.
        per_client: each validation client's own; empty where the score is protected.
    """

    interval: Interval
    per_client: Mapping[str, float] = field(default_factory=dict)

    def ahead_of(self, other: Score, *, lower: bool) -> Interval:
        """By how much it is better: client by client, or with the noise of both."""
        sign = -1.0 if lower else 1.0
        if not self.per_client:
            gap = sign * (self.interval.mean - other.interval.mean)
            return Interval(gap, math.hypot(self.interval.ci95, other.interval.ci95))
        shared = self.per_client.keys() & other.per_client.keys()
        return Interval.over(
            {name: sign * (self.per_client[name] - other.per_client[name]) for name in shared}
        )


class Scorer(Protocol):
    """Scores every candidate in the same way."""

    @property
    def metric(self) -> str:
        """What a score is."""

    @property
    def lower(self) -> bool:
        """Whether less is better."""

    @property
    def rounds(self) -> int | None:
        """Last rounds that a protected score is the mean of; None for other scores."""

    def score(
        self, parts: Parts, model: torch.Tensor, records: Sequence[Mapping[str, Any]]
    ) -> Score | None:
        """A trained candidate's score; None where there is nothing to score it by.

        Args:
            parts: the candidate's run.
            model: its released parameters `[d]`.
            records: its metrics lines; none where it trained in clear.
        """


@dataclass(frozen=True)
class ClientScores:
    """Scores on the fixed draws of the validation clients."""

    evaluation: Evaluation
    rounds: None = None

    @property
    def metric(self) -> str:
        """The source's metric."""
        return self.evaluation.metric

    @property
    def lower(self) -> bool:
        """Whether less is better."""
        return self.metric in _LOWER_IS_BETTER

    def score(
        self, parts: Parts, model: torch.Tensor, records: Sequence[Mapping[str, Any]]
    ) -> Score | None:
        """The mean over clients who adapt as the config says; None without any score."""
        del records
        found = self.evaluation.adapted(personaliser(parts), model)
        return Score(Interval.over(found), found) if found else None


@dataclass(frozen=True)
class ProtectedScores:
    """The mean protected loss over the last released rounds.

    A round's sum is divided by the public number of expected units. Where clients dropped out it is
    of fewer tasks, so that it is raised by selected over survivors: a candidate that lost clients
    would seem better otherwise.
    """

    rounds: int
    metric: str = PROTECTED
    lower: bool = True

    def score(
        self, parts: Parts, model: torch.Tensor, records: Sequence[Mapping[str, Any]]
    ) -> Score | None:
        """The mean, and 1.96 deviations of its noise; None where no round was released."""
        del parts, model
        last = [record for record in records if record["status"] == "released"][-self.rounds :]
        if not last:
            return None
        raised = [record["selected"] / record["survivors"] for record in last]
        found = [record["protected"][PROTECTED] for record in last]
        values = [by * one["value"] for by, one in zip(raised, found, strict=True)]
        noise = [by * one["noise_std"] for by, one in zip(raised, found, strict=True)]
        width = _NORMAL_95 * math.hypot(*noise) / len(last)
        return Score(Interval(math.fsum(values) / len(last), width))


def scorer_for(config: Config, tune: TuneConfig, base: Parts, *, charged: bool) -> Scorer:
    """What scores the candidates of a config.

    Args:
        config: with a section `[tune]`.
        tune: that section.
        base: the config's own run.
        charged: whether candidates run under noise that a population is charged for.

    Raises:
        ConfigError: scores that the config does not allow to be shown, clients that cannot score,
            or protected scores without what protects them.
    """
    if tune.scores == "protected":
        return _protected(config, tune, base, charged=charged)
    chosen, info = tune.validation, base.source.info
    for name in chosen:
        if name not in base.training:
            raise ConfigError(
                f"{name!r} trains in no run of this config; allowed: some of "
                f"{', '.join(base.training)}",
                key="tune.validation",
            )
    if len(set(chosen)) != len(chosen):
        raise ConfigError("names a client twice", key="tune.validation", value=list(chosen))
    if not (info.public or tune.public_validation):
        raise ConfigError(
            "scores on data that are not public choose the candidate and are written down without "
            'noise; set tune.scores = "protected", or take validation clients whose people agree '
            "to that, and set tune.public_validation = true",
            key="tune.validation",
            value=list(chosen),
        )
    return ClientScores(
        Evaluation(base.source, chosen, support=info.k_support, repeats=config.evaluation.repeats)
    )


def _protected(config: Config, tune: TuneConfig, base: Parts, *, charged: bool) -> ProtectedScores:
    if not charged:
        raise ConfigError(
            "the data are public and the search is free: nothing has to protect its scores; name "
            "validation clients",
            key="tune.scores",
            value=tune.scores,
        )
    if PROTECTED not in config.privacy.metrics:
        raise ConfigError(
            f"protected scores are the private metric {PROTECTED}: add it, with the largest_loss "
            "that losses are cut to",
            key="privacy.metrics",
            value=list(config.privacy.metrics),
        )
    # A candidate holds nobody out, and where a config says that its source holds out its own.
    if kept := [name for name in base.source.info.held_out if name in base.training]:
        raise ConfigError(
            f"candidates with protected scores hold nobody out, so that source "
            f"{base.source.name!r} would keep {', '.join(kept)}, who train in this config, and "
            "show their scores without noise; hold them out as well, or name them in data.unused",
            key="data.held_out",
            value=list(config.data.held_out),
        )
    planned = config.training.rounds
    rounds = tune.score_rounds or max(1, planned // 4)
    if rounds > planned:
        raise ConfigError(
            f"a candidate has {planned} rounds", key="tune.score_rounds", value=rounds
        )
    return ProtectedScores(rounds)
