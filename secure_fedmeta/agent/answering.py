"""From rows to predictions and their confidence, by what an agent learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from secure_fedmeta.agent.confidence import Errors, at_temperature, cv_plus, nothing_known
from secure_fedmeta.agent.contents import Learned
from secure_fedmeta.agent.predict import Array, mixed, to_outputs, to_prediction
from secure_fedmeta.agent.spec import AgentSpec, Network
from secure_fedmeta.tasks.protocol import Floats

_AT_ONCE: Final = 10_000_000
"""Predictions of the models of all folds that are held at once for intervals."""


@dataclass(frozen=True, eq=False, repr=False)
class Answer:
    """Predictions for n rows, and how sure they are.

    Attributes:
        outputs: the model's outputs, `[n, o]`: logits of classes, or numbers.
        probabilities: of each class, `[n, c] float64`; None for numbers.
        interval: lower and upper ends, `[n, o] float64` each; None for classes, and where nothing
            is known.
        way: which candidate answers.
        note: what the confidence means, in words.
    """

    outputs: torch.Tensor
    probabilities: Array | None
    interval: tuple[Array, Array] | None
    way: str
    note: str


@dataclass(frozen=True, eq=False, repr=False)
class Answering:
    """What answers rows.

    Attributes:
        spec: of the agent.
        network: its learners.
        model: the run's model `[d]`.
    """

    spec: AgentSpec
    network: Network
    model: torch.Tensor

    def answer(self, x: Floats, learned: Learned | None) -> Answer:
        """Predictions for rows `[n, features]`; where nothing was learned, by the run's model."""
        outputs, prediction = self.predict(x, learned)
        if learned is None:
            calibration = nothing_known("nothing was learned yet", classes=self.spec.classes)
            way = "global"
        else:
            calibration, way = learned.calibration, learned.choice.way
        probabilities = interval = None
        if self.spec.classes is not None:
            probabilities = at_temperature(prediction, calibration.temperature)
        elif learned is not None and calibration.errors is not None:
            interval = self._interval(x, learned, calibration.errors)
        return Answer(outputs, probabilities, interval, way, calibration.note)

    def predict(self, x: Floats, learned: Learned | None) -> tuple[torch.Tensor, Array]:
        """Outputs `[n, o]`, and the prediction that they stand for, uncalibrated."""
        classes = self.spec.classes
        vectors = {} if learned is None else learned.vectors
        weights = {"global": 1.0} if learned is None else learned.choice.weights
        outputs = {name: self._outputs(name, vectors, x) for name in weights}
        predictions = {
            name: to_prediction(found.numpy().astype(np.float64), classes=classes)
            for name, found in outputs.items()
        }
        prediction = mixed(predictions, weights, log=classes is not None)
        if len(outputs) == 1:
            (only,) = outputs.values()
            return only, prediction
        return torch.from_numpy(to_outputs(prediction, self.spec.model.outputs)), prediction

    def _outputs(self, name: str, vectors: Mapping[str, torch.Tensor], x: Floats) -> torch.Tensor:
        learner = self.network.local if name == "local" else self.network.personal
        return learner.predict(vectors.get(name, self.model), torch.tensor(x))

    def _interval(self, x: Floats, learned: Learned, errors: Errors) -> tuple[Array, Array]:
        step = max(1, _AT_ONCE // errors.residuals.size)
        count = int(errors.folds.max()) + 1
        parts = []
        for at in range(0, len(x), step):
            centres = self._centres(learned, x[at : at + step], count)[errors.folds]
            parts.append(cv_plus(centres, errors.residuals))
        lower, upper = zip(*parts, strict=True)
        return np.concatenate(lower), np.concatenate(upper)

    def _centres(self, learned: Learned, x: Floats, folds: int) -> Array:
        """What the model of each fold predicts, `[folds, n, o]`."""
        weights, held = learned.choice.weights, learned.fold_vectors
        found = []
        for fold in range(folds):
            vectors = {name: many[fold].clone() for name, many in held.items()}
            predictions = {
                name: self._outputs(name, vectors, x).numpy().astype(np.float64) for name in weights
            }
            found.append(mixed(predictions, weights, log=False))
        return np.stack(found)
