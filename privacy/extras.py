"""Coordinates beside a unit's vector: private metrics, and the indicator of an adaptive clip.

Behind the image y = A clip(x, C) of its vector every unit has one coordinate for each metric and
one for the indicator, each of them bounded by public constants:

    [ y | w_1 v_1 B | ... | w_e v_e B ],   B = largest norm of y,  |v_j| <= 1,  0 < w_j <= 1

    metric     v = min(max(x, 0), L) / L           L, the largest value, is public
    indicator  v = (b - g) / max(g, 1 - g)         b = 1 where ||x|| <= C, else 0; g the quantile

The whole is clipped once more in integers, to one Delta (clip.py): one mechanism with one event,
and nothing is charged beside it. Delta is the length sqrt(1 + sum w_j^2) B in steps.

Why no separate charge: with noise z Delta per coordinate the vector's own noise is z' = z
sqrt(1 + w^2) times B, the indicator's is z_b = z sqrt(1 + w^2) / w times its largest magnitude, and

    z'^-2 + z_b^-2 = z^-2 (1 + w^2) / (1 + w^2) = z^-2,   so   z' = (z^-2 - z_b^-2)^(-1/2),

which is what Andrew, Thakkar, McMahan and Ramaswamy 2021 ("Differentially private learning with
adaptive clipping", Theorem 1, with z_b = 2 sigma_b) prescribe for two mechanisms side by side. The
weight w says how the two share one budget. Their indicator is b - 1/2; b - g needs no number of
units to be read: whatever that number is, the sum is 0 on average where the quantile is met.

A unit that was not drawn, that is not there, or whose vector holds NaN or infinity has 0 in all of
them: that it is missing moves the sum by no more than its own coordinates did.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.adaptive_clip import AdaptiveClip
from privacy.clip import within
from privacy.draw import Rows
from privacy.errors import PlanRefused

UNCLIPPED = "unclipped"
"""The metric that `PrivacyPlan.encode` finds itself: 1 where a vector is within the clip bound."""
MIN_WEIGHT, MAX_WEIGHT = 2.0**-10, 1.0
MAX_EXTRAS = 16


@dataclass(frozen=True)
class Metric:
    """One figure of each unit that is summed under the noise of its vector.

    Attributes:
        name: what it is.
        largest: L; values are cut to [0, L].
        weight: w, its length beside the vector's bound.

    Raises:
        PlanRefused: a value out of range.
    """

    name: str
    largest: float
    weight: float

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise PlanRefused(f"metric {self.name!r} has no name")
        if type(self.largest) is not float or not 2.0**-500 <= self.largest <= 2.0**500:
            raise PlanRefused(
                f"metric {self.name}: largest {self.largest!r} is not from 2^-500 to 2^500"
            )
        if self.name == UNCLIPPED and self.largest != 1.0:
            raise PlanRefused(f"metric {UNCLIPPED} is 0 or 1; its largest value is 1.0")
        check_weight(self.name, self.weight)


@dataclass(frozen=True)
class Measured:
    """A decoded metric.

    Attributes:
        value: sum of the cut values over the public `expected_units`.
        std: standard deviation of its noise.
    """

    value: float
    std: float


@dataclass(frozen=True)
class Beside:
    """What a round releases beside its average.

    Attributes:
        metrics: by name.
        clip_error: part of the units within the clip bound, less the quantile, over the public
            `expected_units`; None where the bound stays.
        next_clip: the clip bound of the next round.
    """

    metrics: Mapping[str, Measured]
    clip_error: float | None
    next_clip: float


@dataclass(frozen=True)
class Extras:
    """Which coordinates there are beside the vector, in order: the metrics, then the indicator.

    Attributes:
        metrics: see `Metric`.
        adaptive_clip: how the clip bound moves; None: it stays.

    Raises:
        PlanRefused: a name that comes twice, or too many coordinates.
    """

    metrics: tuple[Metric, ...] = ()
    adaptive_clip: AdaptiveClip | None = None

    def __post_init__(self) -> None:
        names = [metric.name for metric in self.metrics]
        if len(set(names)) < len(names):
            raise PlanRefused(f"metrics {', '.join(names)}: one comes twice")
        if self.count > MAX_EXTRAS:
            raise PlanRefused(f"{self.count} coordinates beside the vector; allowed: {MAX_EXTRAS}")
        if self.adaptive_clip is not None:
            check_weight("the clip's indicator", self.adaptive_clip.weight)

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight w of each coordinate."""
        clip = self.adaptive_clip
        return (*(m.weight for m in self.metrics), *(() if clip is None else (clip.weight,)))

    @property
    def count(self) -> int:
        """e, how many coordinates there are."""
        return len(self.weights)

    @property
    def stretch(self) -> float:
        """sqrt(1 + sum w^2): length of the whole over that of the vector."""
        return math.sqrt(1.0 + sum(w * w for w in self.weights))

    @property
    def asked(self) -> tuple[str, ...]:
        """Names of the metrics that clients measure, in order; UNCLIPPED is none of them."""
        return tuple(metric.name for metric in self.metrics if metric.name != UNCLIPPED)

    def cut(self, measured: NDArray[np.float64] | None, rows: int) -> NDArray[np.float64] | None:
        """Values as fractions of the largest; NaN counts as the largest.

        Args:
            measured: float64 [rows, len(asked)]; may be left out where nothing is asked, or of no
                rows.
            rows: how many rows there are.

        Returns:
            float64 [rows, len(asked)], each in [0, 1]; None without any coordinate.

        Raises:
            PlanRefused: another shape or dtype, or none where metrics are asked for.
        """
        largest = self._largest
        if measured is None and not (len(largest) and rows):
            measured = np.zeros((rows, len(largest)))
        if measured is None or measured.shape != (rows, len(largest)):
            found = "nothing" if measured is None else f"{measured.dtype} {measured.shape}"
            raise PlanRefused(
                f"metrics of {rows} rows ({', '.join(self.asked) or 'none are asked for'}); "
                f"allowed: float64 [{rows}, {len(largest)}]; found {found}"
            )
        if measured.dtype != np.float64:
            raise PlanRefused(f"metrics are {measured.dtype}; allowed: float64")
        return self._within_range(measured) / largest if self.count else None

    def mean(self, measured: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean over rows, each value cut to its range before: float64 [1, len(asked)]."""
        means: NDArray[np.float64] = self._within_range(measured).mean(axis=0, keepdims=True)
        return means

    def _within_range(self, measured: NDArray[np.float64]) -> NDArray[np.float64]:
        values = np.where(np.isnan(measured), np.inf, measured)
        cut: NDArray[np.float64] = np.clip(values, 0.0, self._largest)
        return cut

    @property
    def _largest(self) -> NDArray[np.float64]:
        return np.array([m.largest for m in self.metrics if m.name != UNCLIPPED])

    def behind(self, rows: Rows, clip: float, steps: float) -> NDArray[np.float64] | None:
        """Coordinates behind each row's vector, in integer steps and not yet rounded.

        Args:
            rows: what is clipped.
            clip: the round's clip bound.
            steps: integer steps of v = w = 1.

        Returns:
            float64 [r, count], column j within [-w_j, w_j] * steps; None without any coordinate.
        """
        if rows.cut is None:
            return None
        finite, kept = within(rows.vectors, clip)
        columns = iter(rows.cut.T)
        found = [kept if m.name == UNCLIPPED else next(columns) for m in self.metrics]
        if self.adaptive_clip is not None:
            found.append(self.adaptive_clip.indicator(kept))
        values = np.stack(found, axis=1) * np.array(self.weights)
        found_steps: NDArray[np.float64] = values * steps
        return np.where((rows.counts & finite)[:, None], found_steps, 0.0)

    def read(
        self,
        behind: NDArray[np.int64],
        *,
        steps: float,
        noise_std: float,
        clip: float,
        start: float,
    ) -> Beside:
        """What an opened sum says behind the vector's coordinates.

        Args:
            behind: int64 [count].
            steps: integer steps of v = w = 1, times the public number of expected units.
            noise_std: standard deviation of one coordinate, in integer steps.
            clip: the round's clip bound.
            start: that of the first round.
        """
        metrics = {}
        for metric, value in zip(self.metrics, behind[: len(self.metrics)], strict=True):
            per_step = metric.largest / (steps * metric.weight)
            metrics[metric.name] = Measured(float(value) * per_step, noise_std * per_step)
        rule = self.adaptive_clip
        if rule is None:
            return Beside(metrics, None, clip)
        error = rule.error(int(behind[-1]), steps=steps)
        return Beside(metrics, error, rule.next(clip, error, start=start))

    def to_json(self) -> Mapping[str, Any]:
        """The terms as plain data; real numbers as shortest decimal strings."""
        clip = self.adaptive_clip
        return {
            "metrics": [
                {"name": m.name, "largest": repr(m.largest), "weight": repr(m.weight)}
                for m in self.metrics
            ],
            "adaptive_clip": None if clip is None else clip.to_json(),
        }


def check_weight(name: str, weight: object) -> None:
    """Refuse a weight outside of MIN_WEIGHT to MAX_WEIGHT. Raises PlanRefused."""
    if type(weight) is not float or not MIN_WEIGHT <= weight <= MAX_WEIGHT:
        raise PlanRefused(f"{name}: weight {weight!r} is not a float from 2^-10 to 1")
