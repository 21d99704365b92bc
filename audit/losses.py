"""Tight epsilon of Gaussian steps, from privacy losses; no code is shared with `privacy`.

Without coins the course of steps is one Gaussian of mu = s sqrt(sum 1/z^2) (s = 1 for a task that
is there or not, 2 for one whose vector moves), and epsilon solves Balle and Wang 2018, Theorem 8:

    delta = Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu).

With a secret coin of rate q one step compares, in units of the norm bound, the mixtures

    task     (1-q) N(0, z^2) + q N(1, z^2)   and   N(0, z^2), either way round
    record   (1-q) N(0, z^2) + q N(1, z^2)   and   (1-q) N(0, z^2) + q N(-1, z^2)

(Zhu, Dong and Wang 2022, Theorem 11, for the first; the second is its pair for a vector that moves
and keeps its coin). The losses log P/Q lie on a grid: the mass between two points goes to both in
such a way that the masses under P and under Q are kept, which only ever raises delta (Doroshenko et
al. 2022, "Connect the Dots"). Grids are composed by FFT.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr

from audit.errors import EntryRefused

Course: TypeAlias = tuple[tuple[float, float, int], ...]
"""(noise multiplier z, rate q, steps) for each setting."""
Floats: TypeAlias = NDArray[np.float64]

HALF = (1 << 16) - 1
"""Grid points on each side of a loss of 0."""
CIRCLE = 1 << 18
"""Length of the FFT: what wraps round it lies beyond twice the window."""
MAX_WINDOW = 340.0
"""Losses beyond which the grid would be too coarse; a claim of that size is recomputed by rdp."""
MIN_DELTA = 1e-12
"""Below it the rounding of the FFT would show."""
WRAPPED = 2e-6
"""Part of delta for losses beyond the window, on both sides."""
FFT_ROUNDING = 2.0**-51
"""Part of delta for the rounding of an FFT, for each step: a spectrum to the power of T has T times
its own."""
FLOAT_EXCESS = 1e-9
"""How far, relative, the closed form may be off: its bisection, and order of additions."""
GRID_EXCESS = 1e-5
"""How far above the truth a figure may be where the grid adds least: up to 1e-6 was found."""
GRID_FACTOR = 4.0
"""How many times what the grid adds is granted beyond that: up to 2 times was found."""
ABOVE_TIGHT = 2e-2
"""How far a stated figure may lie above this one: the width of Opacus' PRV, twice 0.01."""


@dataclass(frozen=True)
class Tight:
    """An epsilon by privacy losses.

    Attributes:
        epsilon: never below the truth but for the rounding of floats.
        excess: how far it may be above, and hence a right figure below it.
    """

    epsilon: float
    excess: float


@lru_cache(maxsize=256)
def tight_epsilon(course: Course, relation: str, delta: float, window: float) -> Tight | None:
    """Epsilon of all these steps.

    Args:
        course: the steps.
        relation: "add_remove" or "replace_one".
        delta: in (0, 1).
        window: what losses exceed, on each side, with a probability of WRAPPED * delta / 2 at most.

    Returns:
        Epsilon; None where grid or floats are too coarse to tell.

    Raises:
        EntryRefused: another relation.
    """
    if relation not in ("add_remove", "replace_one"):
        raise EntryRefused(f"Gaussian steps under {relation!r}: nothing is proved")
    if all(rate == 1.0 for _, rate, _ in course):
        shift = 2.0 if relation == "replace_one" else 1.0
        found = _without_coins(shift * math.sqrt(sum(n / z**2 for z, _, n in course)), delta)
        return Tight(found, FLOAT_EXCESS * max(1.0, found))
    rounding = FFT_ROUNDING * sum(count for _, _, count in course)
    if not window <= MAX_WINDOW or delta < MIN_DELTA or rounding > delta / 2.0:
        return None
    steps = [(_losses(z, rate, relation, window), count) for z, rate, count in course]
    ways = [[(masses[way], count) for masses, count in steps] for way in range(len(steps[0][0]))]
    found = max(_composed(way, window, delta, rounding) for way in ways)
    return Tight(found, _excess(course, relation, window / HALF, delta))


def _excess(course: Course, relation: str, step: float, delta: float) -> float:
    """How far a figure on a grid of this step may be above the truth.

    The grid adds step^2 / 6 to the variance of each step's loss, on average over where losses fall.
    That variance itself is about q^2 (e^(1/z^2) - 1), and four times that where a vector moves to
    the other side. A sum of many losses is nearly normal: epsilon grows by sqrt(2 log(1 / delta))
    times what its deviation does.
    """
    sides = 4.0 if relation == "replace_one" else 1.0
    own = sides * sum(n * q * q * math.expm1(min(z**-2, 50.0)) for z, q, n in course)
    added = sum(n for _, _, n in course) * step * step / 6.0
    wider = added / (math.sqrt(own + added) + math.sqrt(own))
    return GRID_EXCESS + GRID_FACTOR * math.sqrt(2.0 * math.log(1.0 / delta)) * wider


def _without_coins(mu: float, delta: float) -> float:
    def achieved(epsilon: float) -> float:
        gain = float(log_ndtr(mu / 2.0 - epsilon / mu))
        loss = epsilon + float(log_ndtr(-mu / 2.0 - epsilon / mu))
        return -math.exp(gain) * math.expm1(loss - gain) if loss < gain else 0.0

    low, high = 0.0, 1.0
    while achieved(high) > delta:
        low, high = high, 2.0 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2.0
        low, high = (middle, high) if achieved(middle) > delta else (low, middle)
    return high


@lru_cache(maxsize=64)
def _losses(z: float, rate: float, relation: str, window: float) -> tuple[Floats, ...]:
    """Masses of one step's losses on the grid, one array for each way round.

    float64 [2 HALF + 2], at losses from -window up; the last is the mass at infinity.
    """
    grid = _grid(window)
    if relation == "replace_one":
        edges = np.sign(grid) * _moved_to(np.abs(grid), z, rate)
        over, under = _mixture(edges, z, rate, 1.0), _mixture(edges, z, rate, -1.0)
        return (_dots(over, under, grid),)
    edges = np.full_like(grid, -np.inf)
    there = np.expm1(grid) + rate > 0.0
    edges[there] = z * z * (np.log(np.expm1(grid[there]) + rate) - math.log(rate)) + 0.5
    mixed, alone = _mixture(edges, z, rate, 1.0), _mixture(edges, z, 0.0, 1.0)
    return (
        _dots(mixed, alone, grid),
        _dots(alone[::-1], mixed[::-1], grid),
    )


def _grid(window: float) -> Floats:
    """Losses from -window to window, symmetric around 0: [2 HALF + 1]."""
    return np.linspace(-window, window, 2 * HALF + 1)


def _moved_to(loss: Floats, z: float, rate: float) -> Floats:
    """Where a record's mixtures have this loss >= 0: a quadratic in exp(x / z^2)."""
    c = rate * math.exp(-1.0 / (2.0 * z * z))
    half = (1.0 - rate) * np.expm1(loss) / 2.0
    found: Floats = z * z * np.log((half + np.sqrt(half**2 + c * c * np.exp(loss))) / c)
    return found


def _mixture(edges: Floats, z: float, rate: float, mean: float) -> Floats:
    """Masses of (1-q) N(0, z^2) + q N(mean, z^2) before, between and after edges: [edges + 1]."""

    def normal(at: Floats) -> Floats:
        low, high = np.append(-np.inf, at), np.append(at, np.inf)
        masses: Floats = np.where(low > 0.0, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low))
        return masses

    found: Floats = (1.0 - rate) * normal(edges / z) + rate * normal((edges - mean) / z)
    return found


def _dots(over: Floats, under: Floats, grid: Floats) -> Floats:
    """Masses between grid points as masses on them, those under both distributions kept."""
    up = (over[1:-1] - under[1:-1] * np.exp(grid[:-1])) / -math.expm1(grid[0] - grid[1])
    up = np.clip(up, 0.0, over[1:-1])
    masses = np.zeros(len(grid) + 1)
    masses[0], masses[-1] = over[0], over[-1]
    masses[:-2] += over[1:-1] - up
    masses[1:-1] += up
    return masses


def _composed(
    steps: list[tuple[Floats, int]], window: float, delta: float, rounding: float
) -> float:
    """The smallest epsilon >= 0 for delta, of losses on the grid."""
    spectrum = np.ones(CIRCLE // 2 + 1, dtype=np.complex128)
    finite = 0.0
    for masses, count in steps:
        around = np.zeros(CIRCLE)
        around[np.arange(-HALF, HALF + 1)] = masses[:-1]
        spectrum *= np.fft.rfft(around) ** count
        finite += count * math.log1p(-float(masses[-1]))
    total = np.clip(np.fft.irfft(spectrum, CIRCLE)[: CIRCLE // 2], 0.0, None)
    losses = np.arange(CIRCLE // 2) * (window / HALF)
    # delta(eps) is the sum over larger losses l of mass (1 - e^(eps - l)), and all at infinity.
    mass = np.cumsum(total[::-1])[::-1]
    weighted = np.cumsum((total * np.exp(-losses))[::-1])[::-1]
    left = delta + math.expm1(finite) - WRAPPED * delta - rounding
    kept = np.flatnonzero(mass - np.exp(losses) * weighted <= left)
    if not len(kept):
        return math.inf
    first = int(kept[0])
    if first == 0:
        return 0.0
    # Between two points the same losses are larger, and delta(eps) is a line in e^eps.
    return math.log((float(mass[first]) - left) / float(weighted[first]))
