"""How sure an agent is, in words that can be checked.

Classes: the probability of each. Own examples that were predicted by models which did not see them
(`choice.cross_validate`) give the temperature that these predictions should have had: Guo, Pleiss,
Sun and Weinberger (2017, "On calibration of modern neural networks", arXiv 1706.04599, section
4.2). With fewer than 20 the probability is the model's own, and that is said.

Numbers: the interval CV+ of Barber, Candes, Ramdas and Tibshirani (2021, "Predictive inference with
the jackknife+", Annals of Statistics 49(1), section 3), the jackknife+ where every example is a
fold of its own. With R_i the absolute error of example i under the model of the others, the
interval at x reaches from the floor(alpha (n + 1))-th smallest m_i(x) - R_i to the
ceil((1 - alpha)(n + 1))-th smallest m_i(x) + R_i. Its level is `LEVEL`, 1 - alpha; what is
*guaranteed* for exchangeable examples, whatever their distribution, is `guaranteed(n, folds)`: for
the jackknife+ 1 - 2 alpha, and 1 - alpha where the model does not depend on own examples at all.
The guarantee is for a model that was fixed beforehand; a way that was chosen on the same examples
is near it, no more. Fewer than 1 / alpha - 1 examples give no interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from secure_fedmeta.agent.predict import Array, losses

LEVEL: Final = 0.9
FEWEST_FOR_TEMPERATURE: Final = 20
COLDEST, HOTTEST = 1 / 16, 16.0
"""What a temperature may be."""


@dataclass(frozen=True, eq=False, repr=False)
class Errors:
    """Errors of own examples under models that did not see them.

    Attributes:
        residuals: absolute error of each, `[n, outputs]`.
        folds: the fold of each, `[n]`.
    """

    residuals: Array
    folds: NDArray[np.intp]


@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    """What own examples say about the errors of an agent's predictions.

    Attributes:
        temperature: that log-probabilities are divided by; 1 where nothing is known.
        errors: absolute errors of own examples; None for classes, and where nothing is known.
        note: in words: what the confidence means.
    """

    temperature: float
    errors: Errors | None
    note: str


def nothing_known(reason: str, *, classes: int | None) -> Calibration:
    """The calibration where no own example tells anything.

    Args:
        reason: why, in words.
        classes: how many are told apart; None for a number.
    """
    what = "no interval" if classes is None else "the probability is the model's own, unchecked"
    return Calibration(1.0, None, f"{reason}: {what}")


def calibrated(prediction: Array, targets: NDArray[np.generic]) -> Calibration:
    """The temperature of log-probabilities `[n, c]` of examples that their models did not see."""
    count = len(targets)
    if count < FEWEST_FOR_TEMPERATURE:
        few = f"{count} own examples are fewer than the {FEWEST_FOR_TEMPERATURE} that can calibrate"
        return nothing_known(few, classes=prediction.shape[-1])
    temperature = temperature_of(prediction, targets)
    found = "no correction stands out" if temperature == 1 else f"temperature {temperature:.3g}"
    note = (
        f"probabilities are calibrated on {count} own examples that their models did not see "
        f"({found})"
    )
    return Calibration(temperature, None, note)


def as_answered(prediction: Array, targets: NDArray[np.generic], folds: NDArray[np.intp]) -> Array:
    """Log-probabilities `[n, c]` as an agent would give them: at the temperature of other folds.

    Where there are too few examples for a temperature they are given back as they are.
    """
    if len(targets) < FEWEST_FOR_TEMPERATURE:
        return prediction
    result = np.empty_like(prediction)
    for fold in range(int(folds.max()) + 1):
        here = folds == fold
        temperature = temperature_of(prediction[~here], targets[~here])
        result[here] = log_softmax(prediction[here] / temperature, axis=-1)
    return result


def at_its_best(prediction: Array, targets: NDArray[np.generic]) -> Array:
    """Log-probabilities `[n, c]` at the temperature of these examples, if there are enough."""
    if len(targets) < FEWEST_FOR_TEMPERATURE:
        return prediction
    return np.asarray(log_softmax(prediction / temperature_of(prediction, targets), axis=-1))


def temperature_of(prediction: Array, targets: NDArray[np.generic]) -> float:
    """The best temperature; 1 where it is not better by more than one standard error."""
    if not np.isfinite(prediction).all():
        return 1.0
    temperature = fit_temperature(prediction, targets)
    gain = losses(prediction, targets, classes=prediction.shape[-1]) - losses(
        log_softmax(prediction / temperature, axis=-1), targets, classes=prediction.shape[-1]
    )
    error = float(gain.std(ddof=1)) / math.sqrt(len(gain))
    return temperature if float(gain.mean()) > error else 1.0


def fit_temperature(prediction: Array, targets: NDArray[np.generic]) -> float:
    """The temperature in [1/16, 16] with the least log-loss; convex in its inverse."""
    rows, labels = np.arange(len(targets)), targets.astype(np.intp)

    def loss(inverse: float) -> float:
        return -float(log_softmax(prediction * inverse, axis=-1)[rows, labels].mean())

    found = minimize_scalar(loss, bounds=(1 / HOTTEST, 1 / COLDEST), method="bounded")
    return 1.0 / float(found.x)


def at_temperature(prediction: Array, temperature: float) -> Array:
    """Probabilities `[n, c]` of log-probabilities at a temperature."""
    return np.asarray(np.exp(log_softmax(prediction / temperature, axis=-1)))


def with_residuals(
    prediction: Array, targets: NDArray[np.generic], folds: NDArray[np.intp], *, fixed: bool
) -> Calibration:
    """The residuals of outputs `[n, o]` of examples that their models did not see.

    Args:
        prediction: of each example; at least 1 / alpha - 1 of them, or there is no such rank.
        targets: of each example.
        folds: of each example.
        fixed: whether the model would be the same without own examples.
    """
    count = len(targets)
    residuals = np.abs(prediction - targets.astype(np.float64).reshape(prediction.shape))
    least = LEVEL if fixed else guaranteed(count, int(folds.max()) + 1)
    note = (
        f"intervals of level {LEVEL:.0%} by CV+ on {count} own examples; at least {least:.0%} of "
        "such examples fall inside if they keep coming alike and the way was fixed beforehand"
    )
    return Calibration(1.0, Errors(residuals, folds), note)


def guaranteed(examples: int, folds: int) -> float:
    """The coverage that CV+ guarantees: theorem 4 of Barber and others, at alpha = 1 - LEVEL."""
    alpha, size = 1 - LEVEL, examples / folds
    excess = min(2 * (1 - 1 / folds) / (size + 1), (1 - 1 / size) / (folds + 1))
    return max(0.0, 1 - 2 * alpha - excess)


def cv_plus(centres: Array, residuals: Array, *, level: float = LEVEL) -> tuple[Array, Array]:
    """Lower and upper ends `[m, o]` of the intervals.

    Args:
        centres: m_i(x): what the model that did not see example i predicts at each of m points,
            `[n, m, o]`.
        residuals: R_i, `[n, o]`.
        level: 1 - alpha; n must be at least 1 / alpha - 1.
    """
    count = len(residuals)
    # Sums such as 0.9 * 10 are not exact: without the slack the ceiling takes one rank too many.
    rank = math.ceil(level * (count + 1) - 1e-9)
    lower = np.sort(centres - residuals[:, None], axis=0)[count - rank]
    upper = np.sort(centres + residuals[:, None], axis=0)[rank - 1]
    return lower, upper
