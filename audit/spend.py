"""Recompute a log's privacy spend from its events, sharing no code with the accountant that ran.

What one event shows is in divergence.py. Events add up order by order; Canonne, Kamath and Steinke
2020, Proposition 12, turns the sum into

    epsilon = rdp + log((a - 1) / a) - (log delta + log a) / (a - 1),

smallest over a = 2..512, or, where the grant declares one order for settings chosen from earlier
results (Feldman and Zrnic 2021, Theorem 3.1), at that order alone. Of the noise counts what the
adversary cannot subtract: every survivor's share for the aggregator and for recipients; those of
all but max_colluders survivors for the aggregator with its colluders; those of all but
max(max_colluders, 1) for participants, each of whom knows its own; one share where the secure sum
is broken.

Recomputed are sums with Skellam or discrete Gaussian noise, for units task, record, user and
client, with secret coins and with turns (max_participations: of those events the dearest at each
order count, as many as one client may be in), and Gaussian noise that clients add to their own
steps. Where nothing but such steps was charged, claims may be by an accountant that is tight, and
are recomputed in losses.py.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.canonical import parse_decimal
from audit.divergence import FIELDS, KINDS, ORDERS, STEPS, STEPS_FIELDS, Charge, read_charge
from audit.entry import (
    BudgetGranted,
    BudgetSpent,
    Entry,
    Genesis,
    RoundAbort,
    RoundIntent,
    RoundRelease,
)
from audit.errors import EntryRefused
from audit.losses import ABOVE_TIGHT, WRAPPED, Tight, tight_epsilon

ACCOUNTANT = "rdp"
BUDGETED = ("aggregator", "aggregator_and_colluders", "participants", "recipients")
ADVERSARIES = (*BUDGETED, "broken_sum")
WORST = "worst"
BELOW = 1e-9
"""How far, relative, a figure may lie below the recomputation: the order of float additions."""
ABOVE = 1e-6
"""How far it may lie above."""
EXACT = "exact"
TIGHT = (EXACT, "prv", "pld")
"""Accountants of Gaussian steps whose figures are recomputed as one."""
_OF_THE_PLAN = (FIELDS | STEPS_FIELDS) - {"kind", "survivors"}


class SpendChecker:
    """Checks every release's cumulative figures, and every intent against plan and grant.

    Pass it to `verify_log`. It starts over at each genesis, so one checker may serve many logs.
    Recomputed are `rdp` and, of Gaussian steps, `exact`, `prv` and `pld`; figures by other names
    are references.
    """

    def __init__(self) -> None:
        self._limits: dict[str, float] = {}
        self._order: int | None = None
        self._population: str | None = None
        self._family: tuple[str, str] | None = None
        self._start({}, math.nan)

    def observe(self, entry: Entry) -> None:
        """Take the next entry.

        Raises:
            EntryRefused: an event that is malformed, unknown or not the plan's; a grant to another
                population, for another unit or delta than the plan's, or at another order than the
                one before; a charge beyond a grant, without one for the worst adversary, or of more
                rounds than planned; a release whose figures are too small, or larger than the
                events explain.
        """
        body = entry.body
        if isinstance(body, Genesis):
            self._start(body.plan, _delta(body.plan.get("delta")))
        elif isinstance(body, BudgetGranted):
            self._read_grant(body)
        elif isinstance(body, BudgetSpent):
            self._check_population(body.population)
            for item in body.prior:
                self._charge(item.event, item.count, of_plan=False)
        elif isinstance(body, RoundIntent | RoundAbort):
            if body.event is not None:
                self._charge(body.event, 1, of_plan=True)
        elif isinstance(body, RoundRelease):
            self._compare(body.spend)

    def epsilon(self, adversary: str, delta: float) -> float:
        """Spend of everything charged so far against this adversary; 0 of nothing.

        The least that is proved: by Renyi divergence, or tightly where that can be told.

        Raises:
            EntryRefused: a delta outside (0, 1).
        """
        loose, tight = self._by_rdp(adversary, delta), self._tight(adversary, delta)
        return loose if tight is None else min(loose, tight.epsilon)

    def _tight(self, adversary: str, delta: float) -> Tight | None:
        """Of Gaussian steps alone, fixed beforehand; None of anything else."""
        if self._order is not None or self._steps is None or self._family is None:
            return None
        bound = self._total(adversary) + math.log(2.0 / (WRAPPED * delta)) / (ORDERS - 1.0)
        course = tuple((z, rate, count) for (z, rate), count in sorted(self._steps.items()))
        return tight_epsilon(course, self._family[1], delta, float(bound.min()))

    def _by_rdp(self, adversary: str, delta: float) -> float:
        if not 0.0 < delta < 1.0:
            raise EntryRefused(f"delta {delta!r} is not within (0, 1)")
        if self._family is None:
            return 0.0
        if not self._private:
            return math.inf
        by_order = _to_epsilon(self._total(adversary), delta)
        best = by_order.min() if self._order is None else by_order[self._order - int(ORDERS[0])]
        return max(0.0, float(best))

    def _start(self, plan: Mapping[str, Any], delta: float) -> None:
        self._plan = plan
        self._plan_delta = delta
        self._limits = {}
        self._order = None
        self._population = None
        self._family = None
        self._private = True
        self._rounds = 0
        self._rdp = {adversary: np.zeros_like(ORDERS) for adversary in ADVERSARIES}
        self._turns: dict[Charge, int] = {}
        self._steps: Counter[tuple[float, float]] | None = Counter()

    def _charge(self, event: Mapping[str, Any], count: int, *, of_plan: bool) -> None:
        charge = read_charge(event)
        if of_plan:
            self._check_plan(event, charge)
        if self._family not in (None, (charge.unit, charge.relation)):
            raise EntryRefused("events of different units or relations do not compose")
        self._family = (charge.unit, charge.relation)
        self._private = self._private and charge.bounded
        if charge.kind != STEPS:
            self._steps = None
        elif self._steps is not None:
            self._steps[charge.noise_multiplier, charge.rate] += count * charge.steps
        if charge.max_participations is not None:
            self._turns[charge] = self._turns.get(charge, 0) + count
        elif charge.bounded:
            for adversary in ADVERSARIES:
                self._rdp[adversary] += count * charge.divergence(adversary)
        if of_plan:
            self._check_limits()

    def _check_plan(self, event: Mapping[str, Any], charge: Charge) -> None:
        """What the plan fixes is the same in every event of it."""
        for name in sorted(_OF_THE_PLAN & set(self._plan) & set(event)):
            if event[name] != self._plan[name]:
                raise EntryRefused(f"event {name} {event[name]!r}; plan has {self._plan[name]!r}")
        steps = self._plan.get("local_steps")
        if charge.kind == STEPS and steps is not None and charge.steps != steps:
            raise EntryRefused(f"event steps {charge.steps}; plan has local_steps {steps!r}")
        mechanism = self._plan.get("mechanism")
        if charge.bounded and mechanism is not None and KINDS.get(mechanism) != charge.kind:
            raise EntryRefused(f"event kind {charge.kind!r}; plan has mechanism {mechanism!r}")

    def _total(self, adversary: str) -> NDArray[np.float64]:
        """Everything charged so far, at ORDERS; of events with turns the dearest at each order."""
        if not self._turns:
            return self._rdp[adversary]
        left = max(charge.max_participations or 0 for charge in self._turns)
        rows = [
            charge.divergence(adversary)
            for charge, count in self._turns.items()
            for _ in range(min(count, left))
        ]
        dearest = np.sort(np.stack(rows), axis=0)[::-1][:left]
        total: NDArray[np.float64] = self._rdp[adversary] + dearest.sum(axis=0)
        return total

    def _check_limits(self) -> None:
        """One more round of the plan was charged: it must be planned and granted."""
        self._rounds += 1
        planned = self._plan.get("rounds")
        if type(planned) is int and self._rounds > planned:
            raise EntryRefused(f"{self._rounds} charged rounds; the plan is for {planned}")
        if WORST not in self._limits:
            if self._private:
                raise EntryRefused("no budget was granted before this charge")
            return
        for limited, granted in self._limits.items():
            for adversary in BUDGETED if limited == WORST else (limited,):
                limit = granted * (1.0 + BELOW)
                if self._by_rdp(adversary, self._plan_delta) <= limit:
                    continue
                spent = self.epsilon(adversary, self._plan_delta)
                tight = self._tight(adversary, self._plan_delta)
                # The grids of the ledger's accountant and of this one differ.
                if spent > limit + (0.0 if tight is None else tight.excess):
                    raise EntryRefused(
                        f"{adversary}: epsilon {spent:.6g} exceeds granted {granted:g}"
                    )

    def _read_grant(self, body: BudgetGranted) -> None:
        """A grant means something for the plan's own unit and delta, and for one order, alone."""
        if _delta(body.delta) != self._plan_delta:
            raise EntryRefused(f"grant at delta {body.delta}; the plan's is {self._plan_delta!r}")
        unit = self._plan.get("unit", body.unit)
        if body.unit != unit:
            raise EntryRefused(f"grant for unit {body.unit!r}; the plan's is {unit!r}")
        if body.adversary not in (WORST, *ADVERSARIES):
            raise EntryRefused(f"grant against {body.adversary!r}, who is not known")
        if body.order is not None and body.order > ORDERS[-1]:
            raise EntryRefused(f"grant at order {body.order}, which is not accounted for")
        if self._limits and body.order != self._order:
            raise EntryRefused(f"grant at order {body.order}; the one before has {self._order}")
        self._check_population(body.population)
        self._order = body.order
        self._limits[body.adversary] = parse_decimal(body.epsilon)

    def _check_population(self, population: str) -> None:
        if self._population not in (None, population):
            raise EntryRefused(f"grant to {population!r}; the run charges {self._population!r}")
        self._population = population

    def _compare(self, spend: Mapping[str, Mapping[str, str]]) -> None:
        if set(spend) != set(ADVERSARIES):
            raise EntryRefused(f"spend names {sorted(spend)}; it must name {sorted(ADVERSARIES)}")
        for adversary in ADVERSARIES:
            text = spend[adversary].get(ACCOUNTANT)
            if text is None:
                raise EntryRefused(f"{adversary}: no figure by {ACCOUNTANT!r}")
            loose = self._by_rdp(adversary, self._plan_delta)
            size = max(1.0, loose)
            _check_figure(adversary, text, loose, BELOW * size, ABOVE * size)
            for name in TIGHT:
                claimed = spend[adversary].get(name)
                if claimed is None:
                    continue
                tight = self._tight(adversary, self._plan_delta)
                if tight is None:
                    raise EntryRefused(f"{adversary}: a figure by {name!r}, which has none here")
                above = tight.excess if name == EXACT else ABOVE_TIGHT
                _check_figure(adversary, claimed, tight.epsilon, tight.excess, above)


def _check_figure(adversary: str, text: str, exact: float, below: float, above: float) -> None:
    """Raises EntryRefused for a figure that the events do not give."""
    stated = math.inf if text == "inf" else parse_decimal(text)
    if math.isinf(exact) or math.isinf(stated):
        agrees = exact == stated
    else:
        agrees = exact - below <= stated <= exact + above
    if not agrees:
        raise EntryRefused(f"{adversary}: states epsilon {text}, events give {exact!r}")


def _to_epsilon(rdp: NDArray[np.float64], delta: float) -> NDArray[np.float64]:
    """Proposition 12 at every order: float64 [511]."""
    return rdp + np.log1p(-1.0 / ORDERS) - (math.log(delta) + np.log(ORDERS)) / (ORDERS - 1.0)


def _delta(text: object) -> float:
    delta = parse_decimal(text) if isinstance(text, str) else math.nan
    if not 0.0 < delta < 1.0:
        raise EntryRefused(f"delta {text!r} is not a decimal within (0, 1)")
    return delta
