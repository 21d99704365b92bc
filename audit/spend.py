"""Recompute a log's privacy spend from its events, sharing no code with the accountant that ran.

Integer (Skellam) noise, Agarwal, Kairouz and Liu 2021, Corollary 3.6: a sum in which one unit moves
at most D2 in L2 norm and D1 in L1 norm, with noise of variance mu per coordinate, has Renyi
divergence of integer order a of at most

    a D2^2 / (2 mu) + min( ((2a - 1) D2^2 + 6 D1) / (4 mu^2),  3 D1 / (2 mu) ).

Rounds add up order by order; Canonne, Kamath and Steinke 2020, Proposition 12, turns the sum into

    epsilon = rdp + log((a - 1) / a) - (log delta + log a) / (a - 1),

smallest over a = 2..512. mu is what the adversary cannot subtract: every survivor's share for the
aggregator and for recipients; those of all but max_colluders survivors for the aggregator with its
colluders; those of all but max(max_colluders, 1) for participants, each of whom knows its own; one
share where the secure sum is broken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.canonical import parse_decimal
from audit.entry import BudgetGranted, Entry, Genesis, RoundAbort, RoundIntent, RoundRelease
from audit.errors import EntryRefused

ORDERS: NDArray[np.float64] = np.arange(2.0, 513.0)
ACCOUNTANT = "rdp"
BUDGETED = ("aggregator", "aggregator_and_colluders", "participants", "recipients")
ADVERSARIES = (*BUDGETED, "broken_sum")
BELOW = 1e-9
"""How far, relative, a figure may lie below the recomputation: the order of float additions."""
ABOVE = 1e-6
"""How far it may lie above."""
MIN_VARIANCE, MAX_VARIANCE = 1e-60, 1e60
"""Shares outside would overflow the formulas rather than mean anything."""

_INTEGERS = ("l2", "l1", "survivors", "max_colluders", "clients", "dimension", "person_units")
_FIELDS = {"kind", "unit", "relation", "rate", "share_variance", *_INTEGERS}
_OF_THE_PLAN = _FIELDS - {"kind", "survivors"}


@dataclass(frozen=True)
class _Round:
    """What the formulas need of one event; not private means no bound at all."""

    unit: str
    relation: str
    l2: int
    l1: int
    share_variance: float
    survivors: int
    max_colluders: int
    private: bool = True

    def variance(self, adversary: str) -> float:
        """Noise variance per coordinate, in squared integer steps, against this adversary."""
        if adversary in ("aggregator", "recipients"):
            return self.survivors * self.share_variance
        if adversary == "aggregator_and_colluders":
            return (self.survivors - self.max_colluders) * self.share_variance
        if adversary == "participants":
            return (self.survivors - max(self.max_colluders, 1)) * self.share_variance
        return self.share_variance


class SpendChecker:
    """Checks every release's cumulative figures, and every intent against plan and grant.

    Pass it to `verify_log`. It starts over at each genesis, so one checker may serve many logs.
    Only the accountant `rdp` is recomputed; figures by other accountants are references.
    """

    def __init__(self) -> None:
        self._grant: float | None = None
        self._population: str | None = None
        self._family: tuple[str, str] | None = None
        self._start({}, math.nan)

    def observe(self, entry: Entry) -> None:
        """Take the next entry.

        Raises:
            EntryRefused: an event that is malformed, unknown or not the plan's; a grant to another
                population, or for another unit or delta than the plan's; a charge beyond the grant,
                without any, or of more rounds than planned; a release whose figures are too small,
                or larger than the events explain.
        """
        body = entry.body
        if isinstance(body, Genesis):
            self._start(body.plan, _delta(body.plan.get("delta")))
        elif isinstance(body, BudgetGranted):
            self._grant = self._read_grant(body)
            for item in body.prior:
                self._charge(item.event, item.count, of_plan=False)
        elif isinstance(body, RoundIntent | RoundAbort):
            if body.event is not None:
                self._charge(body.event, 1, of_plan=True)
        elif isinstance(body, RoundRelease):
            self._compare(body.spend)

    def epsilon(self, adversary: str, delta: float) -> float:
        """Spend of everything charged so far against this adversary; 0 of nothing.

        Raises:
            EntryRefused: a delta outside (0, 1).
        """
        if not 0.0 < delta < 1.0:
            raise EntryRefused(f"delta {delta!r} is not within (0, 1)")
        if self._family is None:
            return 0.0
        if not self._private:
            return math.inf
        best = _to_epsilon(self._rdp[adversary], delta).min()
        return max(0.0, float(best))

    def _start(self, plan: Mapping[str, Any], delta: float) -> None:
        self._plan = plan
        self._plan_delta = delta
        self._grant = None
        self._population = None
        self._family = None
        self._private = True
        self._rounds = 0
        self._rdp = {adversary: np.zeros_like(ORDERS) for adversary in ADVERSARIES}

    def _charge(self, event: Mapping[str, Any], count: int, *, of_plan: bool) -> None:
        round_ = _read_event(event)
        for name in sorted(_OF_THE_PLAN & set(self._plan) & set(event)) if of_plan else ():
            if event[name] != self._plan[name]:
                raise EntryRefused(f"event {name} {event[name]!r}; plan has {self._plan[name]!r}")
        if self._family not in (None, (round_.unit, round_.relation)):
            raise EntryRefused("events of different units or relations do not compose")
        self._family = (round_.unit, round_.relation)
        self._private = self._private and round_.private
        for adversary in ADVERSARIES if round_.private else ():
            variance = round_.variance(adversary)
            self._rdp[adversary] += count * _divergence(round_.l2, round_.l1, variance)
        if of_plan:
            self._check_limits()

    def _check_limits(self) -> None:
        """One more round of the plan was charged: it must be planned and granted."""
        self._rounds += 1
        planned = self._plan.get("rounds")
        if type(planned) is int and self._rounds > planned:
            raise EntryRefused(f"{self._rounds} charged rounds; the plan is for {planned}")
        if self._grant is None:
            if self._private:
                raise EntryRefused("no budget was granted before this charge")
            return
        for adversary in BUDGETED:
            spent = self.epsilon(adversary, self._plan_delta)
            if spent > self._grant * (1.0 + BELOW):
                raise EntryRefused(
                    f"{adversary}: epsilon {spent:.6g} exceeds granted {self._grant:g}"
                )

    def _read_grant(self, body: BudgetGranted) -> float:
        """The granted epsilon, which means something for the plan's own unit and delta alone."""
        if _delta(body.delta) != self._plan_delta:
            raise EntryRefused(f"grant at delta {body.delta}; the plan's is {self._plan_delta!r}")
        unit = self._plan.get("unit", body.unit)
        if body.unit != unit:
            raise EntryRefused(f"grant for unit {body.unit!r}; the plan's is {unit!r}")
        if self._population not in (None, body.population):
            raise EntryRefused(
                f"grant to {body.population!r}; the run charges {self._population!r}"
            )
        self._population = body.population
        return parse_decimal(body.epsilon)

    def _compare(self, spend: Mapping[str, Mapping[str, str]]) -> None:
        if set(spend) != set(ADVERSARIES):
            raise EntryRefused(f"spend names {sorted(spend)}; it must name {sorted(ADVERSARIES)}")
        for adversary in ADVERSARIES:
            text = spend[adversary].get(ACCOUNTANT)
            if text is None:
                raise EntryRefused(f"{adversary}: no figure by {ACCOUNTANT!r}")
            stated = math.inf if text == "inf" else parse_decimal(text)
            exact = self.epsilon(adversary, self._plan_delta)
            if math.isinf(exact) or math.isinf(stated):
                agrees = exact == stated
            else:
                size = max(1.0, exact)
                agrees = exact - BELOW * size <= stated <= exact + ABOVE * size
            if not agrees:
                raise EntryRefused(f"{adversary}: states epsilon {text}, events give {exact!r}")


def _divergence(l2: int, l1: int, variance: float) -> NDArray[np.float64]:
    """Corollary 3.6 at every order: float64 [511]."""
    square = float(l2) * l2
    tail = ((2.0 * ORDERS - 1.0) * square + 6.0 * l1) / (4.0 * variance * variance)
    return ORDERS * square / (2.0 * variance) + np.minimum(tail, 3.0 * l1 / (2.0 * variance))


def _to_epsilon(rdp: NDArray[np.float64], delta: float) -> NDArray[np.float64]:
    """Proposition 12 at every order: float64 [511]."""
    return rdp + np.log1p(-1.0 / ORDERS) - (math.log(delta) + np.log(ORDERS)) / (ORDERS - 1.0)


def _delta(text: object) -> float:
    delta = parse_decimal(text) if isinstance(text, str) else math.nan
    if not 0.0 < delta < 1.0:
        raise EntryRefused(f"delta {text!r} is not a decimal within (0, 1)")
    return delta


def _read_event(event: Mapping[str, Any]) -> _Round:
    """The numbers of an event, each checked; an unknown kind is refused, never taken for free."""
    kind, unit, relation = event.get("kind"), event.get("unit"), event.get("relation")
    if not isinstance(unit, str) or not isinstance(relation, str):
        raise EntryRefused("an event states its unit and relation")
    if kind == "non_private":
        return _Round(unit, relation, 0, 0, 0.0, 0, 0, private=False)
    if kind != "skellam_round":
        raise EntryRefused(f"event kind {kind!r} is not known; its spend cannot be recomputed")
    if set(event) != _FIELDS:
        raise EntryRefused(f"event fields {sorted(set(event) ^ _FIELDS)} are missing or unknown")
    for name in _INTEGERS:
        if type(event[name]) is not int or event[name] < (0 if name == "max_colluders" else 1):
            raise EntryRefused(f"event {name} {event[name]!r} is out of range")
    if not isinstance(event["rate"], str) or parse_decimal(event["rate"]) != 1.0:
        raise EntryRefused(f"event rate {event['rate']!r}: only 1.0 can be recomputed")
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
    variance = event["share_variance"]
    share = parse_decimal(variance) if isinstance(variance, str) else math.nan
    if not MIN_VARIANCE <= share <= MAX_VARIANCE:
        raise EntryRefused(f"event share_variance {variance!r} is no decimal of a sane size")
    return _Round(unit, relation, l2, l1, share, survivors, colluders)
