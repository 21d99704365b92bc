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
BELOW_TIGHT, ABOVE_TIGHT = 1e-3, 2e-2
"""How far a stated figure may lie from this one: for the grids, and for Opacus' own margin."""


@lru_cache(maxsize=256)
def tight_epsilon(course: Course, relation: str, delta: float, window: float) -> float | None:
    """Epsilon of all these steps, never below the truth but for the rounding of floats.

    Args:
        course: the steps.
        relation: "add_remove" or "replace_one".
        delta: in (0, 1).
        window: what losses exceed, on each side, with a probability of WRAPPED * delta / 2 at most.

    Returns:
        Epsilon; None where the grid is too coarse to tell.

    Raises:
        EntryRefused: another relation.
    """
    if relation not in ("add_remove", "replace_one"):
        raise EntryRefused(f"Gaussian steps under {relation!r}: nothing is proved")
    if all(rate == 1.0 for _, rate, _ in course):
        shift = 2.0 if relation == "replace_one" else 1.0
        return _without_coins(shift * math.sqrt(sum(n / z**2 for z, _, n in course)), delta)
    if not window <= MAX_WINDOW or delta < MIN_DELTA:
        return None
    steps = [(_losses(z, rate, relation, window), count) for z, rate, count in course]
    ways = [[(masses[way], count) for masses, count in steps] for way in range(len(steps[0][0]))]
    return max(_composed(way, window, delta) for way in ways)


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


def _composed(steps: list[tuple[Floats, int]], window: float, delta: float) -> float:
    """The smallest loss >= 0 of the grid that is an epsilon for delta."""
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
    shown = mass - np.exp(losses) * weighted - math.expm1(finite) + WRAPPED * delta
    kept = np.flatnonzero(shown <= delta)
    return float(losses[kept[0]]) if len(kept) else math.inf
