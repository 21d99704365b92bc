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
    ConfigDict,
    Field,
    FiniteFloat,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from privacy.compression import Compression, Kind
from privacy.errors import CompressionRefused
from secure_fedmeta.errors import ConfigError

Positive = Annotated[FiniteFloat, Field(gt=0)]
Probability = Annotated[FiniteFloat, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


_ALLOWED = {
    "tuple_type": "must be an array",
    "model_type": "must be a section of settings",
    "dict_type": "must be a section of settings",
}
"""Words for pydantic's error types that speak of Python rather than of TOML."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataConfig(_Section):
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


class ModelConfig(_Section):
    """The network that is meta-learned."""

    name: str = "mlp"
    hidden: tuple[Count, ...] = Field(
        (16,), strict=False, description="widths of the hidden layers"
    )
    init_seed: Annotated[int, Field(ge=0)] = Field(
        0, description="public seed of the initial weights; not a privacy parameter"
    )


class LearnerConfig(_Section):
    """How one task turns into one outer vector, and how a new user adapts."""

    algorithm: str = "maml"
    inner_steps: Count = 1
    inner_lr: Positive = 0.1
    rate_scale: Positive = Field(
        1.0, description="public factor between a shared number and the learned rate it stands for"
    )


class ServerConfig(_Section):
    """What the aggregator does with the averaged outer vector."""

    optimiser: str = "adam"
    lr: Positive = 0.05
    average_from: Count | None = Field(None, description="first averaged round; None: last iterate")


class TrainingConfig(_Section):
    """How long to train and what to do when a round fails."""

    rounds: Count = 20
    evaluate_every: Count = Field(5, description="rounds between two held-out evaluations")
    on_abort: Literal["continue", "stop"] = "continue"
    local_steps: Count | None = Field(None, description='steps of noise "local"; None: 1')
    local_lr: Positive | None = Field(None, description="size of such a step; None: 1.0")


class PrivacyConfig(_Section):
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
    def _one_noise(self) -> PrivacyConfig:
        if (self.epsilon is None) == (self.noise_multiplier is None):
            raise ValueError("set exactly one of epsilon and noise_multiplier")
        if self.max_colluders >= self.min_survivors:
            raise ValueError("max_colluders must be below min_survivors: honest noise must remain")
        return self


class CompressionConfig(_Section):
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


class SecureSumConfig(_Section):
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


class TransportConfig(_Section):
    """How messages travel; the probabilities inject faults into the in-memory transport."""

    name: str = "memory"
    drop: Probability = 0.0
    delay: Probability = 0.0
    duplicate: Probability = 0.0
    tamper: Probability = 0.0


class ComputeConfig(_Section):
    """Where tensors live and how much memory a batch of tasks may take."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    memory_mb: Count = 1024


class EvaluationConfig(_Section):
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


class LedgerConfig(_Section):
    """Where the budget is kept; shipped public data default to one population per run."""

    url: str | None = Field(None, description="SQLAlchemy URL; None: SQLite in the state directory")
    population: Name | None = None
    client_url: str | None = None


TUNABLE = {
    "model": ("name", "hidden"),
    "learner": ("algorithm", "inner_steps", "inner_lr", "rate_scale"),
    "server": ("optimiser", "lr", "average_from"),
    "privacy": ("clip",),
    "compression": ("value_bits", "rotate", "kind", "keep"),
}
"""What candidates may differ in: neither the rounds, nor the tasks, nor how they are scored."""


class TuneConfig(_Section):
    """What `fedmeta tune` tries and on whom it is scored; a run takes no notice of it."""

    validation: tuple[str, ...] = Field(
        strict=False,
        min_length=1,
        description="training clients that train in no candidate and score each of them",
    )
    public_validation: bool = Field(
        False, description="declares that scores on the validation clients may be shown"
    )
    search: Literal["grid", "random", "random-stopping"] = "grid"
    candidates: Count | None = Field(
        None, description="random alone: how many different candidates are drawn"
    )
    seed: Annotated[int, Field(ge=0)] = Field(
        0, description="random alone: public seed of the draw; not a privacy parameter"
    )
    mean_trials: Annotated[FiniteFloat, Field(gt=1, le=1000)] | None = Field(
        None, description="random-stopping alone: mean of the secret number of trials"
    )
    stopping: Literal["logarithmic", "geometric"] = Field(
        "logarithmic", description="random-stopping alone: distribution of that number"
    )
    settings: dict[
        str, dict[str, Annotated[tuple[Any, ...], Field(strict=False, min_length=1)]]
    ] = Field(min_length=1, description="section -> setting -> the values to try")

    @field_validator("settings")
    @classmethod
    def _tunable(cls, settings: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        known = {f"{section}.{name}" for section, names in TUNABLE.items() for name in names}
        for section, values in settings.items():
            for name, choices in values.items():
                if f"{section}.{name}" not in known:
                    raise ValueError(
                        f"{section}.{name} is the same for every candidate, so that their scores "
                        f"compare; allowed: {', '.join(sorted(known))}"
                    )
                if any(value in choices[:i] for i, value in enumerate(choices)):
                    raise ValueError(f"{section}.{name} names a value twice")
        return settings

    @model_validator(mode="after")
    def _draws(self) -> TuneConfig:
        if (self.search == "random") != (self.candidates is not None):
            raise ValueError('set candidates with search = "random", and only with it')
        if (self.search == "random-stopping") != (self.mean_trials is not None):
            raise ValueError('set mean_trials with search = "random-stopping", and only with it')
        return self


class NotPrivateConfig(_Section):
    """Replaces every secret by one seed. The run is marked as not private everywhere."""

    seed: Annotated[int, Field(ge=0, lt=2**63)]


class Config(_Section):
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
