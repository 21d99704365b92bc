"""The section of a search; see tuning.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, field_validator, model_validator

from secure_fedmeta.config_base import Count, Section

TUNABLE = {
    "model": ("name", "hidden"),
    "learner": ("algorithm", "inner_steps", "inner_lr", "rate_scale"),
    "server": ("optimiser", "lr", "average_from"),
    "privacy": ("clip",),
    "compression": ("value_bits", "rotate", "kind", "keep"),
}
"""What candidates may differ in: neither the rounds, nor the tasks, nor how they are scored."""


class TuneConfig(Section):
    """What `fedmeta tune` tries and on whom it is scored; a run takes no notice of it."""

    scores: Literal["validation", "protected"] = Field(
        "validation", description="of validation clients, or of training tasks under the noise"
    )
    validation: tuple[str, ...] = Field(
        (),
        strict=False,
        description="training clients that train in no candidate and score each of them",
    )
    public_validation: bool = Field(
        False, description="declares that scores on the validation clients may be shown"
    )
    score_rounds: Count | None = Field(
        None, description="protected alone: last rounds that score; None: a quarter of them"
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
    def _scored(self) -> TuneConfig:
        if (self.scores == "validation") != bool(self.validation):
            raise ValueError('set validation with scores = "validation", and only with it')
        if self.scores != "validation" and self.public_validation:
            raise ValueError('set public_validation with scores = "validation" alone')
        if self.scores != "protected" and self.score_rounds is not None:
            raise ValueError('set score_rounds with scores = "protected" alone')
        if self.scores == "protected" and "inner_steps" in self.settings.get("learner", {}):
            raise ValueError(
                "learner.inner_steps is the same for every candidate with protected scores: its "
                "tasks are scored after as many steps"
            )
        return self

    @model_validator(mode="after")
    def _draws(self) -> TuneConfig:
        if (self.search == "random") != (self.candidates is not None):
            raise ValueError('set candidates with search = "random", and only with it')
        if (self.search == "random-stopping") != (self.mean_trials is not None):
            raise ValueError('set mean_trials with search = "random-stopping", and only with it')
        return self
