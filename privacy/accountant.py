"""Events -> epsilon at a delta, for each adversary. The only importer of Opacus.

The claim ("rdp") bounds the mechanism that runs: Skellam RDP at integer orders, composed by
addition. The figures named gaussian_reference_* are those of a Gaussian with the same noise
multiplier; they are printed for comparison and are no statement about the integer mechanism.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from privacy.errors import EventRefused
from privacy.events import Event, NonPrivate, SkellamRound, known_shares
from privacy.rdp import ORDERS, rdp_epsilon, skellam_rdp

CLAIM = "rdp"
REFERENCES = ("rdp", "prv", "exact")
MAX_PRV = 100.0
"""Exact epsilon above which the PRV figure is left out: its grid would grow without limit."""


class Adversary(StrEnum):
    """Who looks, and hence how much of the noise stands between it and a unit.

    AGGREGATOR: sees every opened sum; all survivors' shares.
    COLLUDERS: the aggregator with max_colluders clients, whose shares it subtracts.
    PARTICIPANTS: up to max_colluders clients alone, or one client where nobody is assumed to
        collude; they see every global model, from which the sums follow, and subtract the shares
        that they added, so this is never less than COLLUDERS.
    RECIPIENTS: those who get the final model; no credit for the rounds that they do not see.
    BROKEN_SUM: one client's message read alone, as when the secure sum fails: one share.
    """

    AGGREGATOR = "aggregator"
    COLLUDERS = "aggregator_and_colluders"
    PARTICIPANTS = "participants"
    RECIPIENTS = "recipients"
    BROKEN_SUM = "broken_sum"


BUDGETED = (
    Adversary.AGGREGATOR,
    Adversary.COLLUDERS,
    Adversary.PARTICIPANTS,
    Adversary.RECIPIENTS,
)
"""The adversaries that a budget limits: all who see no more than the protocol shows."""


@dataclass(frozen=True)
class AdversarySpend:
    """What one adversary's view costs.

    Attributes:
        epsilon: per accountant, for the configured unit; "rdp" always.
        record: epsilon of one record replaced inside one task, by the claim's accountant.
        person: epsilon of one person who makes up person_units whole units, likewise. Records
            in k units that others share count as 2 k: the units stay, and their vectors move.
        claim: the key of `epsilon` that is a proved bound of what ran.
    """

    epsilon: Mapping[str, float]
    record: float
    person: float
    claim: str = CLAIM

    @property
    def claimed(self) -> float:
        """The proved epsilon."""
        return self.epsilon[self.claim]


@dataclass(frozen=True)
class Spend:
    """Epsilon of a list of events at one delta.

    Attributes:
        delta: the delta at which every epsilon holds.
        events: how many events were composed.
        adversaries: one entry per adversary.
    """

    delta: float
    events: int
    adversaries: Mapping[Adversary, AdversarySpend]

    @property
    def worst(self) -> float:
        """Largest claim over the adversaries that a budget limits (all but BROKEN_SUM)."""
        return max(self.adversaries[adversary].claimed for adversary in BUDGETED)

    def to_json(self) -> dict[str, object]:
        """Plain data, real numbers as shortest decimal strings ("inf" for no bound)."""
        return {
            "delta": repr(self.delta),
            "events": self.events,
            "adversaries": {
                adversary.value: {
                    "claim": spent.claim,
                    "epsilon": {name: repr(value) for name, value in spent.epsilon.items()},
                    "record": repr(spent.record),
                    "person": repr(spent.person),
                }
                for adversary, spent in self.adversaries.items()
            },
        }


def spend(events: Sequence[Event], *, delta: float) -> Spend:
    """The claims on these events, composed. Cheap: equal events are counted, not repeated.

    Nothing is 0; with a NonPrivate event every figure is infinity. The list is never changed and
    nothing is remembered between calls.

    Raises:
        EventRefused: events of different units or relations, or a delta outside (0, 1).
    """
    return spend_counted(Counter(events), delta=delta)


def spend_counted(counts: Mapping[Event, int], *, delta: float) -> Spend:
    """`spend` for events given with how often each occurred."""
    _check_composable(counts)
    adversaries = {
        adversary: AdversarySpend(
            epsilon={CLAIM: _claim(counts, adversary, delta, _unit_shift)},
            record=_claim(counts, adversary, delta, _record_shift),
            person=_claim(counts, adversary, delta, _person_shift),
        )
        for adversary in Adversary
    }
    return Spend(delta=delta, events=sum(counts.values()), adversaries=adversaries)


def spend_with_reference(events: Sequence[Event], *, delta: float) -> Spend:
    """`spend`, with the gaussian_reference_* figures beside each claim (about a second).

    Their keys are those of `gaussian_epsilon`, each after "gaussian_reference_".
    """
    counts = Counter(events)
    claims = spend_counted(counts, delta=delta)
    return replace(
        claims,
        adversaries={
            adversary: replace(
                spent,
                epsilon={
                    **spent.epsilon,
                    **_gaussian_reference(counts, adversary, delta),
                },
            )
            for adversary, spent in claims.adversaries.items()
        },
    )


def noise_variance(event: SkellamRound, adversary: Adversary) -> float:
    """Variance per coordinate of the noise that this adversary cannot subtract, in steps^2."""
    if adversary in (Adversary.AGGREGATOR, Adversary.RECIPIENTS):
        shares = event.survivors
    elif adversary is Adversary.COLLUDERS:
        shares = event.survivors - event.max_colluders
    elif adversary is Adversary.PARTICIPANTS:
        shares = event.survivors - known_shares(event.max_colluders)
    else:
        shares = 1
    return shares * event.share_variance


def _check_composable(counts: Mapping[Event, int]) -> None:
    kinds = {(event.unit, event.relation) for event in counts}
    if len(kinds) > 1:
        named = ", ".join(sorted(f"{unit} under {relation}" for unit, relation in kinds))
        raise EventRefused(f"events of different units or relations never compose: {named}")


def _unit_shift(event: SkellamRound) -> tuple[int, int]:
    return event.l2, event.l1


def _record_shift(event: SkellamRound) -> tuple[int, int]:
    """One record replaced: its task stays, and its vector moves anywhere within the ball."""
    return 2 * event.l2, 2 * event.l1


def _person_shift(event: SkellamRound) -> tuple[int, int]:
    """All units of one person come or go together, clipped apart."""
    return event.person_units * event.l2, event.person_units * event.l1


def _claim(
    counts: Mapping[Event, int],
    adversary: Adversary,
    delta: float,
    shift: Callable[[SkellamRound], tuple[int, int]],
) -> float:
    total: NDArray[np.float64] = np.zeros_like(ORDERS)
    private = True
    for event, count in counts.items():
        if isinstance(event, NonPrivate):
            private = False
            continue
        total = total + count * skellam_rdp(*shift(event), noise_variance(event, adversary))
    epsilon = rdp_epsilon(total, delta)
    if not private:
        return math.inf
    return epsilon if counts else 0.0


def gaussian_epsilon(
    rate: float, noise_multiplier: float, rounds: int, delta: float
) -> dict[str, float]:
    """Epsilon of Poisson-sampled Gaussian rounds, unit added or removed.

    Args:
        rate: sampling probability q, in (0, 1].
        noise_multiplier: z, standard deviation over sensitivity, > 0.
        rounds: T, at least 1.
        delta: in (0, 1).

    Returns:
        "rdp" (Opacus, Renyi), "prv" (Opacus, upper end of its interval) and, without sampling,
        "exact" (closed form), beyond whose value 100 "prv" is left out.

    Raises:
        EventRefused: an argument outside its range.
    """
    if not (0.0 < rate <= 1.0 and 0.0 < noise_multiplier < math.inf):
        raise EventRefused(
            f"rate {rate!r} and noise multiplier {noise_multiplier!r}: allowed (0, 1] and > 0"
        )
    if rounds < 1 or not 0.0 < delta < 1.0:
        raise EventRefused(f"rounds {rounds!r} and delta {delta!r}: allowed >= 1 and (0, 1)")
    return _gaussian(((noise_multiplier, rate, rounds),), delta)


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


def _gaussian_reference(
    counts: Mapping[Event, int], adversary: Adversary, delta: float
) -> dict[str, float]:
    if not counts:
        return {f"gaussian_reference_{name}": 0.0 for name in REFERENCES}
    history: list[tuple[float, float, int]] = []
    for event, count in counts.items():
        if isinstance(event, NonPrivate):
            return {f"gaussian_reference_{name}": math.inf for name in REFERENCES}
        z = math.sqrt(noise_variance(event, adversary)) / event.l2
        history.append((z, event.rate, count))
    figures = _gaussian(tuple(sorted(history)), delta)
    return {f"gaussian_reference_{name}": value for name, value in figures.items()}


@lru_cache(maxsize=256)
def _cached_gaussian(
    history: tuple[tuple[float, float, int], ...], delta: float
) -> tuple[tuple[str, float], ...]:
    # A fresh accountant per query: get_epsilon or step of a shared one could change its history.
    from opacus.accountants import PRVAccountant, RDPAccountant

    figures: dict[str, float] = {}
    accountants = {"rdp": RDPAccountant, "prv": PRVAccountant}
    if all(rate == 1.0 for _, rate, _ in history):
        mu = math.sqrt(sum(count / z**2 for z, _, count in history))
        figures["exact"] = exact_gaussian_epsilon(mu, delta)
        if figures["exact"] > MAX_PRV:
            del accountants["prv"]
    for name, make in accountants.items():
        accountant = make()
        accountant.history = list(history)
        with _opacus_warnings():
            figures[name] = float(accountant.get_epsilon(delta))
    return tuple((name, figures[name]) for name in REFERENCES if name in figures)


def _gaussian(history: tuple[tuple[float, float, int], ...], delta: float) -> dict[str, float]:
    return dict(_cached_gaussian(history, delta))


@contextmanager
def _opacus_warnings() -> Iterator[None]:
    """Silence two warnings that say nothing here: log(1 - q) at q = 1, and wide enough orders."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Optimal order is the", UserWarning)
        warnings.filterwarnings("ignore", "divide by zero encountered in log", RuntimeWarning)
        yield
