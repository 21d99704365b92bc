"""Epsilon of Gaussian noise by every accountant there is. The only importer of Opacus and Google's.

A `Course` is the whole history: (noise multiplier z, sampling rate q, steps), one row per setting.
For one unit added or removed under Poisson sampling:

    exact   closed form, without sampling only
    prv     privacy random variables (Gopi, Lee, Wutschitz 2021), Opacus: upper end of its interval
    pld     privacy loss distribution (Doroshenko et al. 2022), dp_accounting: rounded upwards
    rdp     Renyi divergence (Mironov, Talwar, Zhang 2019), Opacus

Opacus' accountant of Gaussian differential privacy is left out: it is a limit for many steps, and
reports less than the truth. Every figure is one of a course that is fixed beforehand.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeAlias

from scipy.special import log_ndtr

from privacy.errors import EventRefused

Course: TypeAlias = tuple[tuple[float, float, int], ...]

ACCOUNTANTS = ("exact", "prv", "pld", "rdp")
"""In the order of preference for a claim on one unit added or removed."""
MAX_NUMERIC = 100.0
"""Epsilon by rdp above which prv and pld are left out: their grids would grow without limit."""
MAX_TOGETHER = 16
"""Units of a person above which pld is left out: the losses would span too wide a range."""
MAX_MULTIPLIER = 1e4
"""Noise multiplier above which prv and pld are left out: the grids are coarser than the loss."""
MAX_PRV_STEPS = 10_000
"""Steps above which prv is left out: the points of its grid grow with their square root."""
PLD_STEP = 1e-4
"""Width of the grid of losses; each step of a course rounds upwards by no more than this."""
COARSE_PLD_STEP = 1e-3
"""The same for a person in several units, whose losses span a wider range."""
PLD_SPREAD = 1.0 / 8.0
"""Or this part of the deviation of one step's loss, whichever is less: the grid adds up to a sixth
of its width squared to the variance of each step's loss."""
PLD_SMALL = 0.005
"""Or else this, over the root of the steps: below it the grid adds too little to epsilon to matter.
"""
FFT_ROUNDING = 2.0**-51
"""What the FFT of a composition may take from delta for each step: a spectrum to the power of T has
T times its rounding. Found is a twentieth of it, against exact figures of 10^3 to 10^6 steps."""


def gaussian_epsilon(
    rate: float, noise_multiplier: float, rounds: int, delta: float
) -> dict[str, float]:
    """Epsilon of Poisson-sampled Gaussian rounds, one unit added or removed, by each accountant.

    Args:
        rate: sampling probability q, in (0, 1].
        noise_multiplier: z, standard deviation over sensitivity, > 0.
        rounds: T, at least 1.
        delta: in (0, 1).

    Returns:
        "prv", "pld" and "rdp", and "exact" without sampling. Where "rdp" passes 100, the noise
        multiplier 10,000, or the rounding of an FFT half of delta, "prv" and "pld" are left out,
        and "prv" above 10,000 steps or where Opacus has no figure at so small or so large a delta.

    Raises:
        EventRefused: an argument outside its range.
    """
    return add_remove(((noise_multiplier, rate, rounds),), delta)


def add_remove(
    course: Course, delta: float, accountants: Sequence[str] = ACCOUNTANTS
) -> dict[str, float]:
    """`gaussian_epsilon` of a whole course: accountant -> epsilon, of those that have a figure."""
    figures = {name: figure(course, delta, name) for name in accountants}
    return {name: value for name, value in figures.items() if value is not None}


def claim(course: Course, delta: float) -> tuple[str, float]:
    """The preferred accountant that has a figure, and its figure, for one unit added or removed."""
    for name in ACCOUNTANTS:
        value = figure(course, delta, name)
        if value is not None:
            return name, value
    raise EventRefused(f"no accountant has a figure for {course!r}")


def figure(course: Course, delta: float, accountant: str) -> float | None:
    """One accountant's epsilon for one unit added or removed; None where it has none.

    Raises:
        EventRefused: an unknown accountant, or a value out of range.
    """
    if accountant not in ACCOUNTANTS:
        raise EventRefused(
            f"accountant {accountant!r}: allowed {', '.join(ACCOUNTANTS)}; Gaussian differential "
            "privacy is a limit that reports less than the truth, and is refused"
        )
    _check(course, delta)
    return _figure(tuple(sorted(course)), delta, accountant)


def replace_one(course: Course, delta: float) -> float | None:
    """Epsilon of one replaced unit that keeps its coin, by pld; None where it has no figure.

    Under sampling, halving z in an accountant for added and removed units is not proved; the pair
    of mixtures is accounted for as it is.
    """
    _check(course, delta)
    return _replace_one(tuple(sorted(course)), delta)


def together(course: Course, delta: float, units: int) -> float | None:
    """Epsilon of k units with coins of their own that come or go together, by pld.

    Ganesh 2024 ("Tight Group-Level DP Guarantees for DP-SGD with Sampling via Mixture of Gaussians
    Mechanisms"). None where pld has no figure.
    """
    _check(course, delta)
    return _together(tuple(sorted(course)), delta, units)


def exact_gaussian_epsilon(mu: float, delta: float) -> float:
    """The exact epsilon of composed Gaussians without sampling, mu = sqrt(sum of 1/z_t^2).

    Solves delta = Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu) (Balle and Wang 2018, Theorem 8;
    Dong, Roth, Su 2019, Corollary 2.13) by bisection; the upper end is returned.
    """

    def achieved(epsilon: float) -> float:
        gain = float(log_ndtr(mu / 2.0 - epsilon / mu))
        loss = epsilon + float(log_ndtr(-mu / 2.0 - epsilon / mu))
        return math.exp(gain) - math.exp(loss) if loss < gain else 0.0

    low, high = 0.0, 1.0
    if achieved(low) <= delta:
        return 0.0
    while achieved(high) > delta:
        low, high = high, 2.0 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2.0
        low, high = (middle, high) if achieved(middle) > delta else (low, middle)
    return high


def _check(course: Course, delta: float) -> None:
    if not course:
        raise EventRefused("a course without steps has no epsilon")
    for z, rate, steps in course:
        if not (0.0 < rate <= 1.0 and 0.0 < z < math.inf):
            raise EventRefused(f"rate {rate!r} and noise multiplier {z!r}: allowed (0, 1] and > 0")
        if type(steps) is not int or steps < 1:
            raise EventRefused(f"rounds {steps!r}: allowed are integers >= 1")
    if not 0.0 < delta < 1.0:
        raise EventRefused(f"delta {delta!r}: allowed (0, 1)")


def _mu(course: Course, scale: float = 1.0) -> float | None:
    """Mu of a course without sampling; None where a step is sampled."""
    if any(rate != 1.0 for _, rate, _ in course):
        return None
    return scale * math.sqrt(sum(steps / z**2 for z, _, steps in course))


@lru_cache(maxsize=1024)
def _figure(course: Course, delta: float, accountant: str) -> float | None:
    if accountant == "exact":
        mu = _mu(course)
        return None if mu is None else exact_gaussian_epsilon(mu, delta)
    if accountant == "rdp":
        return _opacus("RDPAccountant", course, delta)
    if not _is_numeric(course, delta):
        return None
    if accountant == "prv":
        if _steps(course) > MAX_PRV_STEPS:
            return None
        try:
            return _opacus("PRVAccountant", course, _above_rounding(course, delta))
        except (ValueError, RuntimeError):  # too long a grid for a small delta; none near 1
            return None
    width = _width(course, PLD_STEP)
    return _compose([_pld(z, rate, width) for z, rate, _ in course], course, delta)


@lru_cache(maxsize=1024)
def _replace_one(course: Course, delta: float) -> float | None:
    mu = _mu(course, scale=2.0)
    if mu is not None:
        return exact_gaussian_epsilon(mu, delta)
    if not _is_numeric(course, delta):
        return None
    from dp_accounting import NeighboringRelation

    relation = NeighboringRelation.REPLACE_ONE
    width = _width(course, PLD_STEP)
    parts = [_pld(z, rate, width, neighboring_relation=relation) for z, rate, _ in course]
    return _compose(parts, course, delta)


@lru_cache(maxsize=256)
def _together(course: Course, delta: float, units: int) -> float | None:
    mu = _mu(course, scale=float(units))
    if mu is not None:
        return exact_gaussian_epsilon(mu, delta)
    if units > MAX_TOGETHER or not _is_numeric(course, delta):
        return None
    width = _width(course, COARSE_PLD_STEP, units)
    return _compose([_mixture_pld(z, rate, units, width) for z, rate, _ in course], course, delta)


def _is_numeric(course: Course, delta: float) -> bool:
    if max(z for z, _, _ in course) > MAX_MULTIPLIER:
        return False
    if _above_rounding(course, delta) < delta / 2.0:
        return False
    return _opacus("RDPAccountant", course, delta) <= MAX_NUMERIC


def _steps(course: Course) -> int:
    return sum(steps for _, _, steps in course)


def _above_rounding(course: Course, delta: float) -> float:
    """What is left of delta when the rounding of an FFT has its part."""
    return delta - FFT_ROUNDING * _steps(course)


def _width(course: Course, widest: float, units: int = 1) -> float:
    """Width of the grid of losses for a whole course, which all its steps share.

    The deviation of one step's loss is about that of the likelihood ratio, the root of
    q^2 (e^(1/z^2) - 1); for several units it is that many times as large, at least.
    """
    steps = _steps(course)
    variance = sum(n * q * q * math.expm1(min(z**-2, 50.0)) for z, q, n in course) / steps
    enough = max(PLD_SPREAD * units * math.sqrt(variance), PLD_SMALL / math.sqrt(steps))
    # Few widths, so that one step's losses are kept from round to round.
    return min(widest, 2.0 ** math.floor(math.log2(enough)))


@lru_cache(maxsize=64)
def _mixture_pld(z: float, rate: float, units: int, width: float) -> Any:
    """One step, as it is asked for again after every round of a run: it takes seconds to make."""
    from dp_accounting.pld import privacy_loss_distribution as losses

    shifts = range(units + 1)
    return losses.from_mixture_gaussian_mechanism(
        z,
        [float(j) for j in shifts],
        [math.comb(units, j) * rate**j * (1.0 - rate) ** (units - j) for j in shifts],
        value_discretization_interval=width,
    )


@lru_cache(maxsize=64)
def _pld(z: float, rate: float, width: float, **relation: Any) -> Any:
    from dp_accounting.pld import privacy_loss_distribution as losses

    return losses.from_gaussian_mechanism(
        z, sampling_prob=rate, value_discretization_interval=width, **relation
    )


def _compose(parts: Sequence[Any], course: Course, delta: float) -> float:
    total: Any = None
    for part, (_, _, steps) in zip(parts, course, strict=True):
        repeated = part.self_compose(steps) if steps > 1 else part
        total = repeated if total is None else total.compose(repeated)
    return float(total.get_epsilon_for_delta(_above_rounding(course, delta)))


def _opacus(name: str, course: Course, delta: float) -> float:
    # A fresh accountant per query: get_epsilon or step of a shared one could change its history.
    from opacus import accountants

    accountant = getattr(accountants, name)()
    accountant.history = list(course)
    with _opacus_warnings():
        return float(accountant.get_epsilon(delta))


@contextmanager
def _opacus_warnings() -> Iterator[None]:
    """Silence two warnings that say nothing here: log(1 - q) at q = 1, and wide enough orders."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Optimal order is the", UserWarning)
        warnings.filterwarnings("ignore", "divide by zero encountered in log", RuntimeWarning)
        yield
