"""Attacks on a copy of the pipeline: what adversaries get out of it, beside what is claimed.

All of this corroborates and proves nothing: an attack that fails says only that this attack
failed. So each says what it could have caught. The copies have one round that carries the claim of
the whole run, with every unit drawn: for the same epsilon one round shows most.

- Canaries: 10,000 units with one extra coordinate each, half of them in the sum, and a lower
  bound on epsilon from guessing which (Steinke, Nasr and Jagielski 2023, white box, one run).
- Membership: was this task in the sum? The adversary knows the task and all others. Sums are read
  by the likelihood ratio, the final model by the loss on the task (Yeom et al. 2018).
- Gradient matching: whose of 20 known tasks is in the sum? The candidate whose outer vector comes
  closest in angle (Geiping et al. 2020) is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from privacy.accountant import Adversary, claimed_epsilon
from privacy.empirical import (
    audit_p_value,
    epsilon_lower_bound,
    expected_guesses,
    proportion_interval,
)
from privacy.errors import PlanRefused
from privacy.extras import Extras
from privacy.local import LOCAL
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from privacy.unit import Unit
from secure_fedmeta.assessed import Ints, Signal, Subject, displacement, terms_of
from secure_fedmeta.checks import ALPHA, Announce, Check
from secure_fedmeta.client import Work, contribution
from secure_fedmeta.losses import LOSSES
from secure_fedmeta.outcome import Abort
from secure_fedmeta.rig import Rig
from secure_fedmeta.simulation import CohortWork

CANARIES: Final = 10_000
CONFIDENCE: Final = 0.95
STRICT_DELTA: Final = 1e-10
"""Delta of the claim that the canaries may refute; see `canaries`."""
TRIALS: Final = 2000
FALSE_POSITIVES: Final = 0.01
CANDIDATES, MATCHES = 20, 200
_GUESSES: Final = (20, 50, 100, 200, 500, 1000, 2000)
_FACTORS: Final = tuple(k / 20 for k in range(20, 0, -1))
VIEWS: Final = (Adversary.AGGREGATOR, Adversary.BROKEN_SUM, Adversary.RECIPIENTS)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Attack:
    """An attack: the check that its result is within the claim, and its figures."""

    check: Check
    figures: dict[str, Any]


def one_round(subject: Subject, *, extra: int, units: int) -> Subject:
    """The copy in which one round carries the claim of the whole run.

    Raises:
        PlanRefused: no noise gives one round that claim.
    """
    plan = subject.parts.plan
    terms = terms_of(plan)
    terms |= {
        "parameters": plan.parameters + extra,
        "rounds": 1,
        "rate": 1.0,
        "extras": Extras(),
        "max_units_per_client": plan.max_units_per_client + units,
    }
    if plan.noise == LOCAL:
        terms |= {"local_steps": 1, "local_lr": 1.0}
    claim = plan.worst_epsilon()
    return subject.with_plan(PrivacyPlan.calibrated(epsilon=claim, **terms), extra=extra)


# --- canaries -------------------------------------------------------------------------------------


class _Canaries:
    """A client's own tasks, and canaries behind them, each a user of its own."""

    def __init__(self, inner: Work, rows: NDArray[np.float32]) -> None:
        self._inner = inner
        self._rows = rows

    def outer_vectors(
        self, client: str, model: torch.Tensor, *, round_index: int
    ) -> NDArray[np.float32]:
        """The tasks' vectors, then the canaries'."""
        own = self._inner.outer_vectors(client, model, round_index=round_index)
        return np.concatenate([own, self._rows])

    def measured(
        self, client: str, model: torch.Tensor, *, round_index: int, names: tuple[str, ...]
    ) -> Floats:
        """The tasks' metrics, then zeros for the canaries."""
        own = self._inner.measured(client, model, round_index=round_index, names=names)
        return np.concatenate([own, np.zeros((len(self._rows), len(names)))])

    def users(self, client: str) -> Ints:
        """The tasks' users, then one for each canary."""
        own = self._inner.users(client)
        return np.concatenate([own, own.max() + 1 + np.arange(len(self._rows))])


def canaries(subject: Subject, random: SecureRandom) -> Attack:
    """Guess from the model which canaries were in the round; a lower bound on epsilon."""
    name = "canary audit"
    plan = subject.parts.plan
    if plan.unit is Unit.CLIENT:
        return _not_run(name, "a client of unit client sends one vector: no room for canaries")
    try:
        copy = one_round(subject, extra=CANARIES, units=-(-CANARIES // plan.clients))
    except PlanRefused as error:
        return _not_run(name, str(error))
    ours, event = copy.parts.plan, copy.parts.plan.event(plan.clients)
    claim = claimed_epsilon({event: 1}, (Adversary.AGGREGATOR,), delta=plan.delta)
    # A message with noise of its own is read as it is: in the sum is the noise of all others too.
    shift = _moves(ours) / ours.noise_std(1 if ours.noise == LOCAL else plan.clients)
    # At the plan's delta the bound's own term, 2 m delta, is above any small error rate; the same
    # noise has a claim at every delta.
    strict = claimed_epsilon({event: 1}, (Adversary.AGGREGATOR,), delta=STRICT_DELTA)
    guesses, refuting, caught = _best_guesses(strict, shift, STRICT_DELTA)
    included = random.fractions(CANARIES) < 0.5
    holder = np.arange(CANARIES) % plan.clients + 1

    def around(index: int, work: Work) -> Work:
        own = np.flatnonzero(included & (holder == index))
        rows = np.zeros((len(own), ours.parameters), dtype=np.float32)
        rows[np.arange(len(own)), plan.parameters + own] = ours.clip
        return _Canaries(work, rows)

    with Rig(copy, around) as rig:
        opened = rig.round(1)
    if isinstance(opened, Abort):
        failed = Check(name, False, f"could not complete: {opened.reason}", 0.0, "", None)
        return Attack(failed, {})
    seen = opened.decoded[plan.parameters :]
    if ours.noise == LOCAL:
        columns = plan.parameters + np.arange(CANARIES)
        seen = np.stack([opened.vectors[k] for k in range(1, plan.clients + 1)])[
            holder - 1, columns
        ].astype(np.float64)
    order = np.argsort(seen)
    half = guesses // 2
    right = int(included[order[-half:]].sum() + (~included[order[:half]]).sum())
    bound = epsilon_lower_bound(CANARIES, guesses, right, plan.delta, 1 - CONFIDENCE)
    check = Check(
        name,
        right < refuting,
        f"epsilon is at least {bound:.3f} ({right} of {guesses} guesses right); "
        f"claimed {claim:.3f}; {_could(caught)}",
        ALPHA,
        "half the noise",
        _audit_power(guesses, refuting, 2.0 * shift),
    )
    figures = {
        "canaries": CANARIES,
        "guesses": guesses,
        "right": right,
        "confidence": CONFIDENCE,
        "epsilon_lower_bound": bound,
        "claim": claim,
        "delta": plan.delta,
        "strict_delta": STRICT_DELTA,
        "strict_claim": strict,
        "refuted_from": refuting if refuting <= guesses else None,
        "catches_noise_below": caught,
    }
    return Attack(check, figures)


def _best_guesses(claim: float, shift: float, delta: float) -> tuple[int, int, float | None]:
    """How many guesses to make, from public numbers alone; what refutes; what would be caught."""
    found = []
    for guesses in _GUESSES:
        refuting = _refuting(guesses, claim, delta)
        caught = _caught(lambda f, r=guesses, v=refuting: _audit_power(r, v, shift / f) > 0.5)  # type: ignore[misc]
        found.append((caught or 0.0, -abs(guesses - 200), guesses, refuting, caught))
    _, _, guesses, refuting, caught = max(found)
    return guesses, refuting, caught


def _refuting(guesses: int, claim: float, delta: float) -> int:
    """Right guesses from which on the claim is refuted at ALPHA; guesses + 1: never."""
    low, high = guesses // 2, guesses + 1
    while low < high:
        middle = (low + high) // 2
        if audit_p_value(CANARIES, guesses, middle, claim, delta) < ALPHA:
            high = middle
        else:
            low = middle + 1
    return low


def _audit_power(guesses: int, refuting: int, shift: float) -> float:
    """Probability of so many right guesses when canaries differ by `shift` deviations."""
    rate = expected_guesses(CANARIES, guesses, shift) / guesses
    return float(stats.binom.sf(refuting - 1, guesses, rate))


def _caught(noticed: Callable[[float], bool]) -> float | None:
    """The largest part of the claimed noise that an attack would notice more often than not."""
    return next((factor for factor in _FACTORS if noticed(factor)), None)


def _moves(plan: PrivacyPlan) -> float:
    """How far one unit at the clip bound moves what is sent in one step: steps of the sum."""
    return plan.clip * plan.divisor / plan.expected_units


def _could(caught: float | None) -> str:
    if caught is None:
        return "could not have caught even a twentieth of the noise"
    return f"could have caught noise below {caught:g} of the claimed"


def _not_run(name: str, reason: str) -> Attack:
    return Attack(Check(name, None, reason, 0.0, "half the noise", None), {})


# --- one task among others ------------------------------------------------------------------------


class _Tasks:
    """The clients' tasks as vectors, and what adversaries see of a round with or without one."""

    def __init__(self, subject: Subject, random: SecureRandom) -> None:
        self.subject = subject
        self._random = random
        parts, self.plan = subject.parts, subject.plan
        self.model = parts.initial()
        keys = {name: self._key() for name in parts.training}
        work = CohortWork(parts.learner, parts.source, keys, loss=parts.loss)
        rows = [work.outer_vectors(name, self.model, round_index=1) for name in parts.training]
        if self.plan.unit is Unit.CLIENT:
            rows = [own.mean(axis=0, keepdims=True) for own in rows]
        self.rows = np.concatenate(rows)
        self.steps = np.stack([self._steps(row) for row in self.rows])
        self.total = self.steps.sum(axis=0)
        held = [parts.source.client(name) for name in parts.training]
        units = held if self.plan.unit is Unit.CLIENT else [b for c in held for b in c.blocks]
        self.examples = [(torch.as_tensor(u.x), torch.as_tensor(u.y)) for u in units]

    def _key(self) -> bytes:
        return self._random.words(8).tobytes()

    def _steps(self, row: NDArray[np.float32]) -> Ints:
        return displacement(self.plan, Signal(row[None]), self._key(), round_index=1)

    def view(self, adversary: Adversary, row: NDArray[np.float32]) -> Ints:
        """A sum of one row and noise: of every client, or of one where the sum is broken."""
        shares = 1 if adversary is Adversary.BROKEN_SUM else self.plan.clients
        found = np.zeros(self.plan.dimension, dtype=np.int64)
        for share in range(shares):
            found += contribution(
                Signal(row[None] if share == 0 else np.zeros_like(row[None])),
                "client",
                self.model,
                plan=self.plan,
                round_index=1,
                noise=self._random,
            )
        return found

    def score(self, adversary: Adversary, task: int, present: bool) -> float:
        """How much the adversary's view of one round speaks for the task being in it."""
        row = self.rows[task] if present else np.zeros_like(self.rows[task])
        seen, known = self.view(adversary, row), self.steps[task].astype(np.float64)
        if adversary is not Adversary.RECIPIENTS:
            return float(seen @ known) / max(float(np.linalg.norm(known)), 1.0)
        average = self.plan.decode(seen + self.total - self.steps[task], round_index=1)
        rule = self.subject.parts.optimiser
        state = rule.update(rule.init(self.model), torch.from_numpy(average))
        x, y = self.examples[task]
        return -self._loss(state.average.to(torch.float32), x, y)

    def _loss(self, model: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> float:
        loss = self.subject.parts.loss
        value = (LOSSES.get(loss) if isinstance(loss, str) else loss).value
        return float(value(self.subject.parts.learner.predict(model, x), y))


def membership(subject: Subject, random: SecureRandom, announce: Announce) -> Iterator[Attack]:
    """Yield one attack per view: true positives at few false ones, against the claim's limit."""
    try:
        tasks = _Tasks(one_round(subject, extra=0, units=0), random)
    except PlanRefused as error:
        yield _not_run("membership", str(error))
        return
    plan = tasks.subject.parts.plan
    event = plan.event(plan.clients)
    for view in VIEWS:
        announce(f"membership, {view.value}")
        epsilon = claimed_epsilon({event: 1}, (view,), delta=plan.delta)
        yield _membership(tasks, random, view, epsilon)


def _membership(tasks: _Tasks, random: SecureRandom, view: Adversary, epsilon: float) -> Attack:
    plan = tasks.subject.parts.plan
    chosen = (random.fractions(TRIALS) * len(tasks.rows)).astype(np.int64)
    scores = [tasks.score(view, int(task), index % 2 == 0) for index, task in enumerate(chosen)]
    inside, outside = np.array(scores[0::2]), np.array(scores[1::2])
    half = TRIALS // 4
    # The threshold comes from trials that are not counted.
    threshold = float(np.quantile(outside[:half], 1.0 - FALSE_POSITIVES))
    hits, alarms = int((inside[half:] > threshold).sum()), int((outside[half:] > threshold).sum())
    tpr, fpr = (proportion_interval(k, half, 1 - CONFIDENCE) for k in (hits, alarms))
    strict = [proportion_interval(k, half, ALPHA / 2) for k in (hits, alarms)]
    limit = math.exp(min(epsilon, 700.0)) * strict[1].high + plan.delta
    shares = 1 if view is Adversary.BROKEN_SUM else plan.clients
    shift = _moves(plan) / plan.noise_std(shares)
    usual = proportion_interval(round(half * FALSE_POSITIVES), half, ALPHA / 2).high
    allowed = math.exp(min(epsilon, 700.0)) * usual + plan.delta

    def noticed(factor: float) -> bool:
        rate = float(stats.norm.sf(stats.norm.isf(FALSE_POSITIVES) - shift / factor))
        return proportion_interval(round(rate * half), half, ALPHA / 2).low > allowed

    caught = None if view is Adversary.RECIPIENTS else _caught(noticed)
    could = (
        "what it could have caught is not known" if view is Adversary.RECIPIENTS else _could(caught)
    )
    check = Check(
        f"membership, {view.value.replace('_', ' ')}",
        strict[0].low <= limit,
        f"finds {hits / half:.3f} ({tpr.low:.3f} to {tpr.high:.3f}) at false positives "
        f"{alarms / half:.3f}; {could}",
        ALPHA,
        "noise far too small",
        None,
    )
    figures = {
        "view": view.value,
        "trials": 2 * half,
        "true_positives": hits / half,
        "true_positives_ci95": [tpr.low, tpr.high],
        "false_positives": alarms / half,
        "false_positives_ci95": [fpr.low, fpr.high],
        "claim": epsilon if math.isfinite(epsilon) else None,
        "catches_noise_below": caught,
    }
    return Attack(check, figures)


def matching(subject: Subject, random: SecureRandom) -> list[dict[str, Any]]:
    """Right answers to "whose of 20 tasks?" per view; the first row is a vector in clear.

    Nothing fails here: chance is one in twenty, and what is claimed allows e^epsilon times that.
    """
    try:
        tasks = _Tasks(one_round(subject, extra=0, units=0), random)
    except PlanRefused:
        return []
    count = min(CANDIDATES, len(tasks.rows))
    found = []
    for view in (None, Adversary.AGGREGATOR, Adversary.BROKEN_SUM):
        right = 0
        for _ in range(MATCHES):
            candidates = random.choice(len(tasks.rows), count)
            victim = int(candidates[0])
            seen = tasks.steps[victim] if view is None else tasks.view(view, tasks.rows[victim])
            known = tasks.steps[candidates].astype(np.float64)
            norms = np.maximum(np.linalg.norm(known, axis=1), 1.0)
            right += int(np.argmax(known @ seen / norms)) == 0
        interval = proportion_interval(right, MATCHES, 1 - CONFIDENCE)
        found.append(
            {
                "view": "unprotected" if view is None else view.value,
                "trials": MATCHES,
                "right": right / MATCHES,
                "right_ci95": [interval.low, interval.high],
                "chance": 1.0 / count,
            }
        )
    return found
