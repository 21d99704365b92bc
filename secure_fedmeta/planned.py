"""From a config to its privacy plan; what the plan cannot know of the run is checked here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from privacy.adaptive_clip import AdaptiveClip
from privacy.errors import CompressionRefused, PlanRefused
from privacy.events import Mechanism
from privacy.extras import UNCLIPPED, Extras, Metric
from privacy.local import LOCAL
from privacy.plan import PrivacyPlan
from privacy.terms import Terms
from privacy.turns import cohort_size
from privacy.unit import Unit
from secure_fedmeta.config import Config, PrivacyConfig
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.tasks import TaskSource
from secure_fedmeta.vector import ParameterVector

_Number = TypeVar("_Number", int, float)


def plan_for(
    config: Config, source: TaskSource, training: Sequence[str], spec: ParameterVector
) -> PrivacyPlan:
    """The plan of a run.

    Args:
        config: the settings.
        source: declares how many tasks a client may have.
        training: names of the clients that train.
        spec: the layout of the shared vector.

    Raises:
        ConfigError: settings that no proved bound covers, or that contradict each other or the
            data; names the key.
    """
    privacy = config.privacy
    bounds = source.info.task_bounds
    unit = Unit(privacy.unit)
    most = max(bounds[name] for name in training) if training and unit is not Unit.CLIENT else 1
    if privacy.min_survivors > len(training):
        raise ConfigError(
            f"only {len(training)} clients train; lower it or hold out fewer clients",
            key="privacy.min_survivors",
            value=privacy.min_survivors,
        )
    if privacy.max_units_per_client is not None and privacy.max_units_per_client < most:
        raise ConfigError(
            f"a client may have {most} tasks by its declared bound; set {most} or more",
            key="privacy.max_units_per_client",
            value=privacy.max_units_per_client,
        )
    if unit is Unit.CLIENT and privacy.max_units_per_client not in (None, 1):
        raise ConfigError(
            "a client of unit client sends one vector; set 1, or leave it out",
            key="privacy.max_units_per_client",
            value=privacy.max_units_per_client,
        )
    terms: Terms = {
        "unit": unit,
        "mechanism": Mechanism(privacy.mechanism),
        "noise": privacy.noise,
        "rate": privacy.rate,
        "max_participations": privacy.max_participations,
        "delta": privacy.delta,
        "rounds": config.training.rounds,
        "clip": privacy.clip,
        "parameters": spec.size,
        "expected_units": privacy.expected_units,
        "max_units_per_client": privacy.max_units_per_client or most,
        "clients": len(training),
        "min_survivors": privacy.min_survivors,
        "max_colluders": privacy.max_colluders,
        "person_units": privacy.person_units,
        "compression": config.compression.terms(),
        "value_bits": config.compression.value_bits,
        "local_steps": _or_default(config, config.training.local_steps, 1),
        "local_lr": _or_default(config, config.training.local_lr, 1.0),
    }
    _check_turns(config, len(training))
    try:
        terms["extras"] = _extras(privacy)
        return _with_noise(privacy, terms)
    except CompressionRefused as error:
        raise ConfigError(str(error), key="compression") from error
    except PlanRefused as error:
        raise ConfigError(str(error), key="privacy") from error


def _or_default(config: Config, given: _Number | None, default: _Number) -> _Number | None:
    """A setting of local steps; where clients take none, only what was given, to be refused."""
    return default if given is None and config.privacy.noise == LOCAL else given


def _extras(privacy: PrivacyConfig) -> Extras:
    """The coordinates beside each vector."""
    return Extras(
        metrics=tuple(
            Metric(
                name,
                1.0 if privacy.largest_loss is None or name == UNCLIPPED else privacy.largest_loss,
                privacy.metric_weight,
            )
            for name in privacy.metrics
        ),
        adaptive_clip=None
        if privacy.clip_quantile is None
        else AdaptiveClip(privacy.clip_quantile, privacy.clip_speed, privacy.clip_weight),
    )


def _check_turns(config: Config, clients: int) -> None:
    """Turns leave enough clients for each round, and somebody counts them over runs."""
    most, rounds = config.privacy.max_participations, config.training.rounds
    if most is None:
        return
    size, least = cohort_size(clients, rounds, most), config.privacy.min_survivors
    if size < least:
        raise ConfigError(
            f"{rounds} rounds in which each of {clients} clients takes part at most {most} times "
            f"have {size} clients each, fewer than min_survivors {least}: set "
            f"{-(-least * rounds // clients)} or more, or fewer rounds",
            key="privacy.max_participations",
            value=most,
        )
    if config.ledger.population is not None and config.ledger.client_url is None:
        raise ConfigError(
            "a population is charged over runs, and a client that keeps no ledger counts its "
            "rounds in one run alone; set ledger.client_url",
            key="privacy.max_participations",
            value=most,
        )


def _with_noise(privacy: PrivacyConfig, terms: Terms) -> PrivacyPlan:
    if privacy.noise_multiplier is not None:
        return PrivacyPlan.from_noise_multiplier(noise_multiplier=privacy.noise_multiplier, **terms)
    if privacy.epsilon is None:
        raise ConfigError("set epsilon or noise_multiplier", key="privacy")
    return PrivacyPlan.calibrated(epsilon=privacy.epsilon, **terms)
