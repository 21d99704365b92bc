"""Candidates of a search, their trials, and which of them is best."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from privacy.events import Event
from privacy.rng import SecureRandom
from secure_fedmeta.config import Config
from secure_fedmeta.config_tune import TuneConfig
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.pipeline import Parts
from secure_fedmeta.results import finite
from secure_fedmeta.trial_scores import Score

MAX_CANDIDATES = 1000


@dataclass(frozen=True)
class Candidate:
    """One trial's settings.

    Attributes:
        number: from 1, in the order of the trials.
        settings: dotted key -> value, for what the candidates differ in.
        parts: the run that it trains: without the validation clients, which it is scored on.
    """

    number: int
    settings: Mapping[str, Any]
    parts: Parts


def most_events(parts: Parts) -> Counter[Event]:
    """What a trial costs at most: every round with the fewest contributions allowed."""
    return Counter({parts.plan.worst_event(): parts.plan.rounds})


@dataclass(frozen=True)
class Trial:
    """A candidate that trained.

    Attributes:
        candidate: its number.
        status: "completed", or how its training ended before.
        score: None where it did not complete, or nothing scores it.
        seconds: of training.
        run: directory of its run under the search's own; None where it trained in clear.
        events: what it was charged; empty where nothing is.
    """

    candidate: int
    status: str
    score: Score | None
    seconds: float
    run: str | None
    events: Counter[Event]


def settings_of(tune: TuneConfig) -> tuple[dict[str, Any], ...]:
    """The settings of every candidate, or of all that may be drawn: dotted key -> value.

    A grid holds every combination, the last setting changing fastest. A random search draws
    different ones of them, each set of candidates being as likely as any other, by the public seed.
    With random stopping every combination may be drawn.

    Raises:
        ConfigError: more candidates than allowed, or more than there are combinations.
    """
    keys = [f"{section}.{name}" for section, values in tune.settings.items() for name in values]
    choices = [values for section in tune.settings.values() for values in section.values()]
    shape = tuple(len(values) for values in choices)
    total = math.prod(shape)
    count = total if tune.candidates is None else tune.candidates
    if count > min(total, MAX_CANDIDATES):
        key = "tune.settings" if tune.candidates is None else "tune.candidates"
        raise ConfigError(
            f"{count} candidates of {total} combinations; allowed: at most "
            f"{min(total, MAX_CANDIDATES)}",
            key=key,
        )
    picked: Sequence[int] = range(count)
    if tune.search == "random":
        drawn = hashlib.sha256(f"fedmeta/tune/{tune.seed}".encode()).digest()
        picked = SecureRandom.from_key(drawn).choice(total, count).tolist()
    found = []
    for number in picked:
        places = np.unravel_index(number, shape)
        values = (choice[int(i)] for choice, i in zip(choices, places, strict=True))
        found.append(dict(zip(keys, values, strict=True)))
    return tuple(found)


def best(trials: Sequence[Trial], *, lower: bool) -> Trial | None:
    """The completed trial with the best mean score, the first of equals; None where none has one.

    Args:
        trials: in the order of the candidates.
        lower: whether less is better.
    """
    scored = [
        (trial, trial.score.interval.mean)
        for trial in trials
        if trial.status == "completed" and trial.score is not None
    ]
    if not scored:
        return None
    sign = 1.0 if lower else -1.0
    return min(scored, key=lambda pair: sign * pair[1])[0]


def lead(chosen: Trial, trials: Sequence[Trial], *, lower: bool) -> dict[str, Any] | None:
    """By how much the chosen one is ahead of the next; None without one."""
    second = best([trial for trial in trials if trial is not chosen], lower=lower)
    if second is None or second.score is None or chosen.score is None:
        return None
    found = chosen.score.ahead_of(second.score, lower=lower)
    return {"over": second.candidate, "mean": finite(found.mean), "ci95": finite(found.ci95)}


def tune_of(config: Config) -> TuneConfig:
    """The section `[tune]`.

    Raises:
        ConfigError: there is none.
    """
    if config.tune is None:
        raise ConfigError("add this section: it names validation clients and settings", key="tune")
    return config.tune


def without_tune(config: Config) -> Config:
    """The config as a run reads it."""
    return config.model_copy(update={"tune": None})


def tree_of(config: Config, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The config's settings with a candidate's in their places, without the search itself."""
    tree = without_tune(config).model_dump(mode="json", exclude_none=True)
    for key, value in settings.items():
        section, _, name = key.partition(".")
        tree[section][name] = value
    return tree
