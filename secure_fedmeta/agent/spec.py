"""What an agent is made of, in public words: model, rule of adaptation, inputs and target.

It comes from a run's config and travels in the agent file, which anybody may have written: every
number has a bound, and the network is counted before a single weight of it is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

import torch
from pydantic import Field, FiniteFloat, StringConstraints, ValidationError, model_validator
from torch import nn

from secure_fedmeta.config import Config
from secure_fedmeta.config_base import Positive, Section
from secure_fedmeta.errors import AgentError
from secure_fedmeta.meta import Learner, build_learner
from secure_fedmeta.models import MODELS, build_model
from secure_fedmeta.scoring import adaptation
from secure_fedmeta.tasks import Columns, Schema
from secure_fedmeta.tasks.own_table_features import dictionary_of
from secure_fedmeta.tasks.own_table_options import FeatureOptions, TargetOptions

MAX_PARAMETERS: Final = 2**26
"""Trainable and frozen numbers of a network, 256 MiB."""
MEMORY_MB: Final = 1024
LOCAL: Final = "fedavg"
"""The learner that adapts by plain gradient descent on all parameters."""
Line = StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", max_length=2000)
"""Text without control characters: what a file says is shown on terminals."""
_Text = Annotated[str, Line, Field(min_length=1, max_length=300)]
_Size = Annotated[int, Field(ge=1, le=2**20)]
_Steps = Annotated[int, Field(ge=1, le=100_000)]


class ModelSpec(Section):
    """The network, as `models.build_model` takes it."""

    name: _Text
    inputs: _Size
    outputs: Annotated[int, Field(ge=1, le=100_000)]
    hidden: tuple[_Size, ...] = Field(max_length=64, strict=False)
    init_seed: Annotated[int, Field(ge=0, lt=2**63)]


class RuleSpec(Section):
    """An algorithm, and the schedule by which it adapts."""

    algorithm: _Text
    trained_steps: _Steps
    rate_scale: Positive
    steps: _Steps
    lr: Positive
    local_steps: _Steps
    local_lr: Positive


class ColumnsSpec(Section):
    """The columns of a table as people keep it."""

    features: dict[_Text, FeatureOptions] = Field(min_length=1, max_length=10_000)
    target: TargetOptions


class AgentSpec(Section):
    """Everything public about an agent but the model's numbers.

    Attributes:
        run: the run directory's name.
        source: the task source that the model was trained on.
        model: the network.
        rule: how it adapts.
        loss: what it adapts by.
        metric: what is reported.
        k_support: examples that a draw of the run adapted on.
        features: the name of each input.
        low: lowest value of any input.
        high: highest value of any input.
        columns: the columns behind the inputs, where people keep these; None: the inputs by name.
    """

    run: _Text
    source: _Text
    model: ModelSpec
    rule: RuleSpec
    loss: Literal["mse", "cross_entropy"]
    metric: Literal["auc", "average_precision", "mse", "accuracy"]
    k_support: _Size
    features: tuple[_Text, ...] = Field(min_length=1, max_length=2**20, strict=False)
    low: FiniteFloat
    high: FiniteFloat
    columns: ColumnsSpec | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.features) != self.model.inputs:
            raise ValueError(f"{len(self.features)} features for {self.model.inputs} inputs")
        if self.columns is not None:
            _check_words(self.columns)
            inputs = dictionary_of(self.columns.features).features
            if tuple(one.name for one in inputs) != self.features:
                raise ValueError("the columns give other inputs than the features")
        if self.loss == "mse" and self.model.outputs != 1:
            raise ValueError(f"{self.model.outputs} outputs for one number")
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        return self

    @classmethod
    def of(cls, config: Config, schema: Schema, *, run: str) -> AgentSpec:
        """What an agent of a run is made of.

        Args:
            config: the run's.
            schema: what its source reads and predicts.
            run: the name of its directory.

        Raises:
            AgentError: the run is beyond what an agent may be.
        """
        try:
            return cls._of(config, schema, run)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "columns"
            raise AgentError(f"no agent can be made of this run: {where}: {first['msg']}") from None

    @classmethod
    def _of(cls, config: Config, schema: Schema, run: str) -> AgentSpec:
        columns = schema.columns
        evaluation, learner = config.evaluation, config.learner
        return cls(
            run=run,
            source=config.data.source,
            model=ModelSpec(
                name=config.model.name,
                inputs=len(schema.features),
                outputs=schema.output_dim,
                hidden=config.model.hidden,
                init_seed=config.model.init_seed,
            ),
            rule=RuleSpec(
                algorithm=learner.algorithm,
                trained_steps=learner.inner_steps,
                rate_scale=learner.rate_scale,
                **adaptation(config),
                local_steps=evaluation.local_steps,
                local_lr=evaluation.local_lr,
            ),
            loss=schema.loss,
            metric=schema.metric,
            k_support=schema.k_support,
            features=schema.features,
            low=schema.input_bounds[0],
            high=schema.input_bounds[1],
            columns=None if columns is None else _columns(columns),
        )

    @property
    def classes(self) -> int | None:
        """How many classes are told apart; None for a number."""
        if self.loss == "mse":
            return None
        return max(2, self.model.outputs)

    def build(self) -> Network:
        """The network and the learners on it.

        Raises:
            ConfigError: an unknown model or learner, or a network that is refused.
            AgentError: the network would be too large.
        """
        model, rule = self.model, self.rule
        _check_size(model)
        module = build_model(
            model.name, model.inputs, model.outputs, model.hidden, seed=model.init_seed
        )

        def learner(algorithm: str, steps: int, lr: float) -> Learner:
            return build_learner(
                algorithm,
                module,
                self.loss,
                inner_steps=steps,
                inner_lr=lr,
                rate_scale=rule.rate_scale,
                memory_mb=MEMORY_MB,
                device="cpu",
            )

        trained = learner(rule.algorithm, rule.trained_steps, rule.lr)
        local = learner(LOCAL, rule.local_steps, rule.local_lr)
        return Network(
            trained.scheduled(steps=rule.steps, lr=rule.lr),
            local,
            local.initial(module),
            _first_layer(module, model.inputs),
        )


@dataclass(frozen=True, eq=False)
class Network:
    """The learners of an agent.

    Attributes:
        personal: adapts the run's model by the run's rule and schedule.
        local: trains a network on its own, from the public initial weights.
        initial: these weights, `[d] float32` of `local`.
        reads: name of the weight `[outputs, inputs]` that the inputs meet first; None where the
            first layer is of another kind.
    """

    personal: Learner
    local: Learner
    initial: torch.Tensor
    reads: str | None


def _first_layer(module: nn.Module, inputs: int) -> str | None:
    for name, part in module.named_modules():
        if next(part.parameters(recurse=False), None) is not None:
            fits = isinstance(part, nn.Linear) and part.in_features == inputs
            return f"{name}.weight".removeprefix(".") if fits else None
    return None


def _check_words(columns: ColumnsSpec) -> None:
    """Refuse control characters in what a file names.

    Raises:
        ValueError: a name or word of a column has one.
    """
    words = [*columns.features, columns.target.column, *columns.target.values]
    words += [word for one in columns.features.values() for word in one.values]
    if not all(word.isprintable() for word in words):
        raise ValueError("a name or a word of a column has characters that cannot be shown")


def _columns(columns: Columns) -> ColumnsSpec:
    return ColumnsSpec(features=dict(columns.features), target=columns.target)


def _check_size(model: ModelSpec) -> None:
    """Count the network on torch's meta device, which allocates nothing."""
    builder = MODELS.get(model.name)
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            shape = builder(model.inputs, model.outputs, model.hidden)
    except RuntimeError as error:  # what the meta device cannot do is one of these
        raise AgentError(
            f"model {model.name!r} cannot be counted before it is made ({error}): its builder must "
            'run under torch.device("meta")'
        ) from error
    held = shape.parameters() if isinstance(shape, nn.Module) else ()
    size = sum(parameter.numel() for parameter in held)
    if size > MAX_PARAMETERS:
        raise AgentError(f"a network of {size:,} numbers; allowed: up to {MAX_PARAMETERS:,}")
