"""The run's configuration: frozen pydantic models read from TOML, every unknown key refused.

The digest of a config stands in the log's first entry and in every secure-sum context, so that
clients and aggregator can only take part in a round if they read the same settings.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import (
    BaseModel,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

from privacy.compression import Compression, Kind
from privacy.errors import CompressionRefused
from secure_fedmeta.config_base import Count, Name, Positive, Probability, Section, Weight
from secure_fedmeta.config_tune import TuneConfig
from secure_fedmeta.errors import ConfigError

_ALLOWED = {
    "tuple_type": "must be an array",
    "model_type": "must be a section of settings",
    "dict_type": "must be a section of settings",
}
"""Words for pydantic's error types that speak of Python rather than of TOML."""


class DataConfig(Section):
    """Where the tasks come from and which clients stay out of training."""

    source: str = Field(description="name of a task source; see `fedmeta datasets`")
    held_out: tuple[str, ...] = Field(
        (),
        strict=False,  # TOML has arrays, no tuples; the names inside stay strict
        description="clients that never train and are scored; () takes the source's own choice",
    )
    unused: tuple[str, ...] = Field(
        (), strict=False, description="clients that neither train nor are scored"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="the source's own options")


class ModelConfig(Section):
    """The network that is meta-learned."""

    name: str = "mlp"
    hidden: tuple[Count, ...] = Field(
        (16,), strict=False, description="widths of the hidden layers"
    )
    init_seed: Annotated[int, Field(ge=0)] = Field(
        0, description="public seed of the initial weights; not a privacy parameter"
    )


class LearnerConfig(Section):
    """How one task turns into one outer vector, and how a new user adapts."""

    algorithm: str = "maml"
    inner_steps: Count = 1
    inner_lr: Positive = 0.1
    rate_scale: Positive = Field(
        1.0, description="public factor between a shared number and the learned rate it stands for"
    )


class ServerConfig(Section):
    """What the aggregator does with the averaged outer vector."""

    optimiser: str = "adam"
    lr: Positive = 0.05
    average_from: Count | None = Field(None, description="first averaged round; None: last iterate")


class TrainingConfig(Section):
    """How long to train and what to do when a round fails."""

    rounds: Count = 20
    evaluate_every: Count = Field(5, description="rounds between two held-out evaluations")
    on_abort: Literal["continue", "stop"] = "continue"
    local_steps: Count | None = Field(None, description='steps of noise "local"; None: 1')
    local_lr: Positive | None = Field(None, description="size of such a step; None: 1.0")


LOSSES = ("query_loss", "query_loss_unadapted")
"""Private metrics that are losses of the training tasks."""


class PrivacyConfig(Section):
    """The claim: per unit, at `delta`, over all rounds, whatever drops out within the limits."""

    unit: Literal["record", "task", "user", "client"] = "task"
    noise: Literal["distributed", "local"] = "distributed"
    mechanism: Literal["skellam", "discrete-gaussian", "gaussian"] = "skellam"
    rate: Annotated[FiniteFloat, Field(gt=0, le=1)] = Field(
        1.0, description="probability with which a unit takes part in a round, by a secret coin"
    )
    max_participations: Count | None = Field(
        None, description="unit client alone: rounds in which one client takes part, at most"
    )
    epsilon: Positive | None = Field(None, description="target; exclusive with noise_multiplier")
    noise_multiplier: Positive | None = None
    delta: Annotated[FiniteFloat, Field(gt=0, lt=1)] = 1e-5
    clip: Positive = Field(1.0, description="L2 norm bound of one unit's outer vector")
    metrics: tuple[Literal["query_loss", "query_loss_unadapted", "unclipped"], ...] = Field(
        (), strict=False, description="figures of training that are summed under the same noise"
    )
    metric_weight: Weight = Field(0.2, description="length of a metric beside the clip bound")
    largest_loss: Positive | None = Field(None, description="losses are cut to it; public")
    clip_quantile: Annotated[FiniteFloat, Field(gt=0, lt=1)] | None = Field(
        None, description="part of units that the clip bound is moved to hold; None: it stays"
    )
    clip_speed: Annotated[FiniteFloat, Field(gt=0, le=2)] = Field(
        0.2, description="how fast the clip bound moves"
    )
    clip_weight: Weight = Field(0.2, description="length of its indicator beside the clip bound")
    expected_units: Count = Field(description="public divisor of the sum; never a data count")
    max_units_per_client: Count | None = Field(
        None, description="public cap on the units of one client; None: the source's bound"
    )
    min_survivors: Count = Field(description="fewer uploads abort the round before it is opened")
    max_colluders: Annotated[int, Field(ge=0)] = Field(
        1, description="clients that may pool what they know with the aggregator"
    )
    person_units: Annotated[int, Field(ge=1, le=1000)] = Field(
        2, description="k of the printed epsilon of a person in k units"
    )

    @model_validator(mode="after")
    def _go_together(self) -> PrivacyConfig:
        if (self.epsilon is None) == (self.noise_multiplier is None):
            raise ValueError("set exactly one of epsilon and noise_multiplier")
        if self.max_colluders >= self.min_survivors:
            raise ValueError("max_colluders must be below min_survivors: honest noise must remain")
        if any(name in LOSSES for name in self.metrics) != (self.largest_loss is not None):
            raise ValueError(f"set largest_loss with one of {', '.join(LOSSES)}, and only with it")
        return self


class CompressionConfig(Section):
    """How a vector becomes shorter or flatter before the secure sum, by public linear maps."""

    value_bits: Annotated[int, Field(ge=8, le=20)] | None = Field(
        None, description="bits of one coordinate of one unit; None: rounding costs little"
    )
    rotate: bool = Field(False, description="random signs and Walsh-Hadamard transforms")
    kind: Literal["none", "subset", "low-rank"] = "none"
    keep: Annotated[FiniteFloat, Field(gt=0, lt=1)] | None = Field(
        None, description="fraction of coordinates that are summed"
    )

    @model_validator(mode="after")
    def _terms(self) -> CompressionConfig:
        try:
            self.terms()
        except CompressionRefused as error:
            raise ValueError(str(error)) from error
        return self

    def terms(self) -> Compression:
        """The terms of the plan."""
        return Compression(kind=Kind(self.kind), rotate=self.rotate, keep=self.keep)


class SecureSumConfig(Section):
    """What the aggregator may see."""

    protocol: str = "masking"
    threshold: Count | None = Field(
        None,
        description="shares that recover a secret; None: above two thirds of the clients where "
        "min_survivors allows it, else the protocol's least",
    )
    committee: Count = Field(5, description="officers of 'threshold', 2 to 15")
    committee_threshold: Count = Field(
        3, description="officers that open a sum of 'threshold' together, more than half of them"
    )
    allow_insecure: bool = Field(False, description="permit a protocol that shows updates")


class TransportConfig(Section):
    """How messages travel; the probabilities inject faults into the in-memory transport."""

    name: str = "memory"
    drop: Probability = 0.0
    delay: Probability = 0.0
    duplicate: Probability = 0.0
    tamper: Probability = 0.0


class ComputeConfig(Section):
    """Where tensors live and how much memory a batch of tasks may take."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    memory_mb: Count = 1024


class EvaluationConfig(Section):
    """How held-out clients are scored; the same examples and schedules for every arm."""

    repeats: Count = Field(20, description="support draws per held-out client")
    adapt_steps: Count = Field(1, description="adaptation steps of a new user")
    adapt_lr: Positive | None = Field(None, description="None: the learner's inner_lr")
    local_steps: Count = Field(100, description="steps of the local-only arms")
    local_lr: Positive = 0.1
    fedavg_inner_steps: Count = Field(5, description="local steps of the FedAvg baseline")
    fedavg_inner_lr: Positive | None = Field(None, description="None: the learner's inner_lr")
    fedavg_adapt_steps: Count | None = Field(None, description="None: adapt_steps")
    fedavg_adapt_lr: Positive | None = Field(None, description="None: adapt_lr")


class LedgerConfig(Section):
    """Where the budget is kept; shipped public data default to one population per run."""

    url: str | None = Field(None, description="SQLAlchemy URL; None: SQLite in the state directory")
    population: Name | None = None
    client_url: str | None = None


class NotPrivateConfig(Section):
    """Replaces every secret by one seed. The run is marked as not private everywhere."""

    seed: Annotated[int, Field(ge=0, lt=2**63)]


class Config(Section):
    """Everything a run depends on, apart from the data and the secrets."""

    name: Name
    data: DataConfig
    model: ModelConfig = ModelConfig()
    learner: LearnerConfig = LearnerConfig()
    server: ServerConfig = ServerConfig()
    training: TrainingConfig = TrainingConfig()
    privacy: PrivacyConfig
    compression: CompressionConfig = CompressionConfig()
    secure_sum: SecureSumConfig = SecureSumConfig()
    transport: TransportConfig = TransportConfig()
    compute: ComputeConfig = ComputeConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    ledger: LedgerConfig = LedgerConfig()
    tune: TuneConfig | None = None
    not_private: NotPrivateConfig | None = None

    def digest(self) -> bytes:
        """SHA-256 over the sorted JSON of every setting, defaults included: 32 bytes."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).digest()

    def to_toml(self) -> str:
        """TOML that reads back to an equal config."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config file and apply `section.key=value` overrides (values in TOML syntax).

    Raises:
        ConfigError: the file cannot be read, is no TOML, or holds a setting that is unknown, of
            the wrong type or out of range; the message names file, key, value and what is allowed.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"is not valid TOML: {error}", file=str(path)) from error
    try:
        for override in overrides:
            _override(tree, override)
        return parse_config(tree)
    except ConfigError as error:
        raise error.in_file(str(path)) from error


def parse_config(tree: Mapping[str, Any]) -> Config:
    """Validate a tree of settings.

    Raises:
        ConfigError: names the first key that is wrong, its value, and what is allowed.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise _explain(error) from error


def _override(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not separator or not all(parts):
        raise ConfigError("write --set section.key=value", key="--set", value=override)
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string: --set learner.algorithm=anil
    table = tree
    for part in parts[:-1]:
        child = table.setdefault(part, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{part} is a value, not a section", key="--set", value=override)
        table = child
    table[parts[-1]] = value


def _explain(error: ValidationError) -> ConfigError:
    errors = error.errors(include_url=False)
    # A misspelt setting is told before the one that is missing because of it.
    first = next((item for item in errors if item["type"] == "extra_forbidden"), errors[0])
    path = [str(part) for part in first["loc"]]
    key = ".".join(path) or None
    if first["type"] == "extra_forbidden":
        known = sorted(_fields_at(path[:-1]))
        near = get_close_matches(path[-1], known, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return ConfigError(f"no such setting.{hint} Known: {', '.join(known)}", key=key)
    if first["type"] == "missing":
        return ConfigError("this setting is required", key=key)
    allowed = _ALLOWED.get(first["type"], first["msg"].removeprefix("Value error, "))
    return ConfigError(allowed, key=key, value=_shown(first["input"]))


def _shown(value: object) -> object:
    """The offending value, or None where it is a whole section (the key names it already)."""
    return None if isinstance(value, Mapping) else value


def _fields_at(path: Sequence[str]) -> set[str]:
    model: type[BaseModel] = Config
    for part in path:
        annotation = model.model_fields[part].annotation
        members = [annotation, *getattr(annotation, "__args__", ())]
        model = next(m for m in members if isinstance(m, type) and issubclass(m, BaseModel))
    return set(model.model_fields)
