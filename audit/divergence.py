"""What one logged event shows, recomputed from the papers; no code is shared with `privacy`.

Every function gives bounds on the Renyi divergence at integer orders a from 2 on.

Skellam noise (Agarwal, Kairouz and Liu 2021, Corollary 3.6): a shift of at most D2 in L2 norm and
D1 in L1 norm under variance mu per coordinate shows at most

    a D2^2 / (2 mu) + min( ((2a - 1) D2^2 + 6 D1) / (4 mu^2),  3 D1 / (2 mu) ).

A sum of n discrete Gaussian shares of parameter s^2 >= 1/4 in d coordinates (Kairouz, Liu and
Steinke 2021, Proposition 14; tau in Theorem 1): with e2 = D2 / (sqrt(n) s), e1 = D1 / (sqrt(n) s)
and tau = 10 sum_{k<n} exp(-2 pi^2 s^2 k / (k+1)) the least of

    a e2^2 / 2 + tau d,   a/2 (e2^2 + 2 e1 tau + tau^2 d),   a/2 (e2 + sqrt(d) tau)^2.

One unit that takes part by a secret coin of rate q (Mironov, Talwar and Zhang 2019, Theorem 5 and
Section 3.3), from the unsampled bounds eps(m):

    R(a) = 1/(a-1) log sum_{m=0..a} C(a, m) (1-q)^(a-m) q^m exp((m-1) eps(m)).

A step of a client's own optimiser with Gaussian noise of z times the norm bound (Mironov 2017,
Corollary 3) shows a shift by that bound at most a / (2 z^2), and one by j bounds j^2 times that;
what a client sends stands alone, so that every adversary sees it under all of its noise.

One record replaced inside a task moves its vector twice as far. Under a coin the lesser of
1/(a-1) log(1 - q + q exp((a-1) eps'(a))), by joint convexity, and, by the triangle inequality of
Mironov 2017, Proposition 11, (a-1/2)/(a-1) R(2a) + R(2a-1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.canonical import parse_decimal
from audit.errors import EntryRefused

ORDERS: NDArray[np.float64] = np.arange(2.0, 513.0)
MIN_VARIANCE, MAX_VARIANCE = 1e-60, 1e60
MIN_MULTIPLIER, MAX_MULTIPLIER = 1e-30, 1e30
"""Noise outside would overflow the formulas rather than mean anything."""
MIN_RATE = 2.0**-20
RELATIONS = {
    "record": "replace_one",
    "task": "add_remove",
    "user": "add_remove",
    "client": "zero_out",
}
STEPS = "gaussian_steps"
KINDS = {
    "skellam": "skellam_round",
    "discrete-gaussian": "discrete_gaussian_round",
    "gaussian": STEPS,
}
"""Mechanism of a plan -> kind of its events."""

_COUNTS = ("l2", "l1", "survivors", "max_colluders", "clients", "dimension", "person_units")
FIELDS = frozenset(
    {"kind", "unit", "relation", "rate", "share_variance", "max_participations", *_COUNTS}
)
STEPS_FIELDS = frozenset(
    {"kind", "unit", "relation", "rate", "noise_multiplier", "steps", "person_units"}
)


@dataclass(frozen=True)
class Charge:
    """What the formulas need of one event.

    Attributes:
        kind, unit, relation: as logged.
        bounded: False where the event has no bound at all.
        max_participations: of how many such events one client is in, at most; None: of all.
        l2, l1, dimension, rate, share_variance, survivors, max_colluders: as logged.
        noise_multiplier, steps: as logged, of Gaussian steps; one step otherwise.
    """

    kind: str
    unit: str
    relation: str
    bounded: bool
    max_participations: int | None = None
    l2: int = 0
    l1: int = 0
    dimension: int = 0
    rate: float = 1.0
    share_variance: float = 0.0
    survivors: int = 0
    max_colluders: int = 0
    noise_multiplier: float = 0.0
    steps: int = 1

    def shares(self, adversary: str) -> int:
        """Shares of the noise that this adversary cannot subtract."""
        if self.kind == STEPS:
            return 1
        if adversary in ("aggregator", "recipients"):
            return self.survivors
        if adversary == "aggregator_and_colluders":
            return self.survivors - self.max_colluders
        if adversary == "participants":
            return self.survivors - max(self.max_colluders, 1)
        return 1

    def divergence(self, adversary: str) -> NDArray[np.float64]:
        """Bound for one configured unit at ORDERS: float64 [511]."""
        return self.steps * _divergence(self, self.shares(adversary))


def read_charge(event: Mapping[str, Any]) -> Charge:
    """The numbers of an event, each checked.

    Raises:
        EntryRefused: an unknown kind, which is never taken for free; a unit under another relation
            than its own; a coin or a cap where there can be none; a number out of range.
    """
    kind, unit, relation = event.get("kind"), event.get("unit"), event.get("relation")
    if not isinstance(unit, str) or not isinstance(relation, str):
        raise EntryRefused("an event states its unit and relation")
    if kind == "non_private":
        return Charge("non_private", unit, relation, bounded=False)
    if not isinstance(kind, str) or kind not in KINDS.values():
        raise EntryRefused(f"event kind {kind!r} is not known; its spend cannot be recomputed")
    fields = STEPS_FIELDS if kind == STEPS else FIELDS
    if set(event) != fields:
        raise EntryRefused(f"event fields {sorted(set(event) ^ fields)} are missing or unknown")
    if RELATIONS.get(unit) != relation:
        raise EntryRefused(f"unit {unit!r} under {relation!r}: allowed are {RELATIONS}")
    if kind == STEPS:
        return _read_steps(event, unit, relation)
    for name in _COUNTS:
        if type(event[name]) is not int or event[name] < (0 if name == "max_colluders" else 1):
            raise EntryRefused(f"event {name} {event[name]!r} is out of range")
    rate = _real(event, "rate", MIN_RATE, 1.0)
    share = _real(event, "share_variance", MIN_VARIANCE, MAX_VARIANCE)
    turns = event["max_participations"]
    if turns is not None and (type(turns) is not int or turns < 1 or unit != "client"):
        raise EntryRefused(f"event max_participations {turns!r} for unit {unit} is out of range")
    if unit == "client" and rate != 1.0:
        raise EntryRefused(f"event rate {rate!r} for unit client, whose participation is seen")
    l2, l1, survivors, colluders = (
        event[name] for name in ("l2", "l1", "survivors", "max_colluders")
    )
    if not max(colluders, 1) < survivors <= event["clients"]:
        raise EntryRefused(
            f"{survivors} survivors, {colluders} colluders, {event['clients']} in all"
        )
    # |v|_1 <= sqrt(d) |v|_2, and |v|_1 <= |v|_2^2 for integers: less would understate the spend.
    if l1 < min(math.isqrt(l2 * l2 * event["dimension"]), l2 * l2):
        raise EntryRefused(f"event l1 {l1} is below what l2 {l2} allows")
    if kind == KINDS["discrete-gaussian"] and share < 0.25:
        raise EntryRefused(f"event share_variance {share!r}: nothing is proved below 0.25")
    return Charge(
        kind,
        unit,
        relation,
        bounded=True,
        max_participations=turns,
        l2=l2,
        l1=l1,
        dimension=event["dimension"],
        rate=rate,
        share_variance=share,
        survivors=survivors,
        max_colluders=colluders,
    )


def _read_steps(event: Mapping[str, Any], unit: str, relation: str) -> Charge:
    """The numbers of Gaussian steps; see read_charge."""
    if unit not in ("task", "record"):
        raise EntryRefused(f"event unit {unit!r} with noise at the client, which bounds one task")
    for name in ("steps", "person_units"):
        if type(event[name]) is not int or event[name] < 1:
            raise EntryRefused(f"event {name} {event[name]!r} is out of range")
    return Charge(
        STEPS,
        unit,
        relation,
        bounded=True,
        rate=_real(event, "rate", MIN_RATE, 1.0),
        noise_multiplier=_real(event, "noise_multiplier", MIN_MULTIPLIER, MAX_MULTIPLIER),
        steps=event["steps"],
    )


def _real(event: Mapping[str, Any], name: str, least: float, most: float) -> float:
    text = event[name]
    value = parse_decimal(text) if isinstance(text, str) else math.nan
    if not least <= value <= most:
        raise EntryRefused(f"event {name} {text!r} is no decimal from {least:g} to {most:g}")
    return value


@lru_cache(maxsize=256)
def _divergence(charge: Charge, shares: int) -> NDArray[np.float64]:
    replaced = charge.relation == "replace_one"
    if charge.rate == 1.0:
        found = _unsampled(charge, shares, 2 if replaced else 1, 512)
    elif replaced:
        added = _sampled(_unsampled(charge, shares, 1, 1024), charge.rate)
        found = _replaced(added, _unsampled(charge, shares, 2, 512), charge.rate)
    else:
        found = _sampled(_unsampled(charge, shares, 1, 512), charge.rate)
    found.flags.writeable = False
    return found


def _unsampled(charge: Charge, shares: int, times: int, highest: int) -> NDArray[np.float64]:
    """Orders 2 to `highest` for a shift of `times` the vector's norms."""
    a = np.arange(2.0, highest + 1.0)
    if charge.kind == STEPS:
        return a / 2.0 * (times / charge.noise_multiplier) ** 2
    d2, d1 = float(times * charge.l2), float(times * charge.l1)
    mu = shares * charge.share_variance
    if charge.kind == KINDS["skellam"]:
        tail = ((2.0 * a - 1.0) * d2 * d2 + 6.0 * d1) / (4.0 * mu * mu)
        return a * d2 * d2 / (2.0 * mu) + np.minimum(tail, 3.0 * d1 / (2.0 * mu))
    e2, e1, root = d2 / math.sqrt(mu), d1 / math.sqrt(mu), math.sqrt(charge.dimension)
    tau = _tau(charge.share_variance, shares)
    by_norms = e2 * e2 + 2.0 * e1 * tau + tau * tau * charge.dimension
    return np.minimum(
        a / 2.0 * e2 * e2 + tau * charge.dimension,
        a / 2.0 * min(by_norms, (e2 + root * tau) ** 2),
    )


def _tau(share_variance: float, shares: int) -> float:
    """Terms fall with k: those beyond the thousandth are taken as large as that one."""
    total = last = 0.0
    for k in range(1, min(shares, 1001)):
        last = math.exp(-2.0 * math.pi**2 * share_variance * k / (k + 1))
        total += last
    return 10.0 * (total + last * max(0, shares - 1001))


def _sampled(unsampled: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """R(a), one order at a time; the weights are built up by C(a, m) = C(a, m-1) (a-m+1) / m."""
    found = np.empty(len(unsampled))
    odds = math.log(rate) - math.log1p(-rate)
    m = np.arange(1.0, len(unsampled) + 2.0)
    x = m[1:] - 1.0
    x = x * unsampled
    gains = x + np.log(-np.expm1(-x))
    for a in range(2, len(unsampled) + 2):
        weights = np.cumsum(np.log((a - m[:a] + 1.0) / m[:a]) + odds) + a * math.log1p(-rate)
        terms = weights[1:] + gains[: a - 1]
        top = float(terms.max())
        total = top + math.log(float(np.exp(terms - top).sum()))
        found[a - 2] = np.logaddexp(0.0, total) / (a - 1)
    return found


def _replaced(
    added: NDArray[np.float64], moved: NDArray[np.float64], rate: float
) -> NDArray[np.float64]:
    a = ORDERS
    x = (a - 1.0) * moved
    convex = np.logaddexp(0.0, math.log(rate) + x + np.log(-np.expm1(-x))) / (a - 1.0)
    double = added[2::2][: len(a)]  # orders 4, 6, ..., 1024
    before = added[1::2][: len(a)]  # orders 3, 5, ..., 1023
    found: NDArray[np.float64] = np.minimum(convex, (a - 0.5) / (a - 1.0) * double + before)
    return found
