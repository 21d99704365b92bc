"""From the outputs of models to predictions that can be mixed, judged and calibrated.

For classes a prediction is a row of log-probabilities, for numbers the outputs themselves. All of
it is float64 and a function of one row at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit, log_softmax, logsumexp

Array: TypeAlias = NDArray[np.float64]


def log_probabilities(outputs: Array) -> Array:
    """`[..., c]` for logits `[..., o]`: one output is the logit of class 1 of two."""
    if outputs.shape[-1] == 1:
        return np.concatenate([log_expit(-outputs), log_expit(outputs)], axis=-1)
    found: Array = log_softmax(outputs, axis=-1)
    return found


def to_prediction(outputs: Array, *, classes: int | None) -> Array:
    """Log-probabilities `[n, c]`, or the outputs `[n, o]` where a number is predicted."""
    return outputs if classes is None else log_probabilities(outputs)


def to_outputs(prediction: Array, width: int) -> Array:
    """Outputs `[n, width]` that give this prediction: logits for classes."""
    if width == 1 and prediction.shape[-1] == 2:
        found: Array = prediction[..., 1:] - prediction[..., :1]
        return found
    return prediction


def mixed(predictions: Mapping[str, Array], weights: Mapping[str, float], *, log: bool) -> Array:
    """The weighted mean of predictions: of probabilities if these are logarithms, else of numbers.

    Args:
        predictions: model -> `[n, ...]`.
        weights: model -> its weight above 0; they add up to 1.
        log: whether predictions are log-probabilities.
    """
    names = sorted(weights)  # the sum is the same bits, however the weights were stored
    stacked = np.stack([predictions[name] for name in names])
    shares = np.array([weights[n] for n in names]).reshape(-1, *(1,) * (stacked.ndim - 1))
    if len(weights) == 1:
        return np.asarray(stacked[0])
    if log:
        return np.asarray(logsumexp(stacked, axis=0, b=shares))
    return np.asarray((stacked * shares).sum(axis=0))


def losses(prediction: Array, targets: NDArray[np.generic], *, classes: int | None) -> Array:
    """The loss of every row `[n]`: minus the log-probability of its class, or squared error."""
    if classes is None:
        wanted = targets.astype(np.float64).reshape(prediction.shape)
        return np.asarray(((prediction - wanted) ** 2).mean(axis=-1))
    rows = np.arange(len(targets))
    return np.asarray(-prediction[rows, targets.astype(np.intp)])
