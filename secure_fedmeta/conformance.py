"""Does a pipeline do what its plan says? Tests of what comes out, on the copy that is assessed.

Every check compares something measured with what the ledger is charged for: the event of the plan
of the config. Each states its false-alarm rate, the bug that it looks for, and the probability of
noticing that bug. Noise, norms and draws are taken from whole contributions and opened sums.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from privacy.charged import sum_event_of
from privacy.empirical import (
    most_alike,
    variance_limits,
    variance_power,
)
from privacy.events import DiscreteGaussianRound, SkellamRound
from privacy.local import LOCAL, message_of
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from privacy.unit import Unit
from secure_fedmeta.aggregator import Abort
from secure_fedmeta.assessed import Ints, Signal, Subject, displacement, nothing_like
from secure_fedmeta.checks import ALPHA, Announce, Check
from secure_fedmeta.client import contribution
from secure_fedmeta.coin_checks import DRAWS, UNITS, coin_checks, rate_of_copy
from secure_fedmeta.rig import Opened, Rig

_SAMPLES: Final = 160  # times the clients squared: 110 are the least to see one share missing
_WIDEST: Final = 1 << 16


def conformance(subject: Subject, announce: Announce) -> Iterator[Check]:
    """Yield every check of a pipeline.

    Args:
        subject: what is assessed.
        announce: told what begins.
    """
    announce("how far one unit moves the sum")
    yield norms(subject)
    announce("the draws")
    yield from draws(subject)
    announce("rounds as configured")
    rounds = run_rounds(subject, 1, lost=None)
    rounds += run_rounds(subject, 1, lost=one_to_lose(subject))
    yield sums(rounds)
    yield divisor(subject, rounds)
    announce("rounds of a wide copy")
    yield from noise(subject, announce)


# --- what one unit can change -------------------------------------------------------------------


def hostile(plan: PrivacyPlan) -> Iterator[tuple[str, NDArray[np.float64], int]]:
    """What a unit may hold: a name, rows as float64 [rows, d], and how many units they are."""
    d = plan.parameters
    first = np.zeros((1, d))
    first[0, 0] = 1e300
    step = np.where(np.arange(d) % 3 == 0, -1.0, 1.0)[None]  # signs that do not cancel in pairs
    yield "huge", np.full((1, d), 1e300), 1
    yield "the largest float32", np.full((1, d), float(np.finfo(np.float32).max)), 1
    yield "one huge coordinate", first, 1
    yield "at the clip bound, between two steps", step * plan.clip / math.sqrt(d), 1
    yield "NaN", np.full((1, d), math.nan), 1
    yield "infinite", np.full((1, d), math.inf), 1
    yield "infinite with both signs", step * math.inf, 1
    several = max(2, plan.tasks_per_user or 2)
    if plan.unit in (Unit.USER, Unit.CLIENT):
        yield "duplicated", np.repeat(step * 1e6, several, axis=0), 1
    elif plan.max_units_per_client >= 2:
        yield "duplicated", np.repeat(step * 1e6, 2, axis=0), 2


def norms(subject: Subject) -> Check:
    """No unit, whatever it holds, moves the sum before noise by more than is charged for."""
    plan, event = subject.every_unit(), _charged(subject)
    worst, name, passed = 0.0, "", True
    for kind, rows, units in hostile(plan):
        found = _moved(plan, rows)
        moved = math.isqrt(sum(int(x) ** 2 for x in found)) / units
        within = sum(int(x) ** 2 for x in found) <= (units * event.l2) ** 2
        within &= sum(abs(int(x)) for x in found) <= units * event.l1
        if moved >= worst:
            worst, name = moved, kind
        passed &= within
    return Check(
        "norm of one unit before noise",
        passed,
        f"moves the sum by {worst:.0f} steps at most ({name}); charged for {event.l2}",
        0.0,
        "double sensitivity, no clip",
        1.0,
    )


def _charged(subject: Subject) -> SkellamRound | DiscreteGaussianRound:
    """What the ledger is charged for, of the config's own plan."""
    return sum_event_of(subject.parts.plan, subject.parts.plan.min_survivors)


def _moved(plan: PrivacyPlan, rows: NDArray[np.float64]) -> Ints:
    """What a unit's rows add to a client's sum that other units are in as well."""
    others = 0 if plan.unit is Unit.CLIENT else min(3, plan.max_units_per_client - len(rows))
    other = np.full((max(others, 0), plan.parameters), 0.3 * plan.clip)
    users = np.concatenate([np.arange(len(other)), np.full(len(rows), len(other))])
    key = secrets.token_bytes(32)
    with_it = Signal(np.concatenate([other, rows]), users)
    without = Signal(np.concatenate([other, nothing_like(rows)]), users)
    both = displacement(plan, with_it, key, round_index=1)
    return both - displacement(plan, without, key, round_index=1)


# --- draws --------------------------------------------------------------------------------------


def draws(subject: Subject) -> Iterator[Check]:
    """Are units drawn by coins of their own? Counts over rounds, and over units, must vary so."""
    name, bug = "draws over rounds", "batches of fixed size sold as coins"
    plan = subject.parts.plan
    if plan.unit is Unit.CLIENT:
        yield Check(name, None, "unit client has no coins: who takes part is seen", 0.0, bug, None)
        return
    rate = rate_of_copy(plan.rate)
    coins = _coins(subject.sampled(UNITS, rate))
    yield from coin_checks(coins, steps=1, rate=rate, planned=plan.rate, bug=bug)


def _coins(plan: PrivacyPlan) -> Ints:
    """Who is in a client's contribution, round by round: int64 [rounds, units], 0 or 1.

    Unit i has coordinate i alone. Two generators in step give every contribution twice, with the
    units and with zeros in their place: what differs is the units that were drawn.
    """
    rows = np.eye(plan.parameters) * plan.clip / 2.0
    users = np.arange(len(rows))
    key, model = secrets.token_bytes(32), torch.zeros(plan.parameters)
    one, other = SecureRandom.from_key(key), SecureRandom.from_key(key)
    found = np.empty((DRAWS, len(rows)), dtype=np.int64)
    for index in range(DRAWS):
        drawn, empty = (
            contribution(work, "client", model, plan=plan, round_index=index + 1, noise=noise)
            for work, noise in (
                (Signal(rows, users), one),
                (Signal(nothing_like(rows), users), other),
            )
        )
        found[index] = drawn - empty > plan.clip * plan.scale / 4.0
    return found


# --- sums as they are opened --------------------------------------------------------------------


def sums(rounds: list[Opened | Abort]) -> Check:
    """The opened sum is that of its contributors' integers, no more and no less."""
    wrong = ""
    for one in rounds:
        if isinstance(one, Abort):
            wrong = f"round {one.round} could not complete: {one.reason}"
        elif not np.array_equal(one.total, sum(one.vectors[k] for k in one.contributors)):
            wrong = f"round {one.round} opened another sum than that of its contributors"
    return Check(
        "opened sums",
        not wrong,
        wrong or f"{len(rounds)} rounds, each the sum of its contributors to the last bit",
        0.0,
        "a vector lost, counted twice or changed",
        1.0,
    )


def divisor(subject: Subject, rounds: list[Opened | Abort]) -> Check:
    """The model moves by the sum over scale and the public constant, whoever contributed."""
    plan, worst = subject.parts.plan, 0.0
    if plan.noise == LOCAL:
        constant = message_of(plan).scale * len(subject.parts.training)
    else:
        constant = plan.scale * subject.parts.config.privacy.expected_units
    for one in rounds:
        if isinstance(one, Abort):
            continue
        total = np.sum([one.vectors[k] for k in one.contributors], axis=0)
        image = total[: plan.width] / constant
        expected = subject.plan.basis(one.round).backward(image)
        size = float(np.abs(expected).max()) + float(subject.parts.initial().abs().max())
        worst = max(worst, float(np.abs(one.decoded - expected).max()) / size)
    allowed = 1e-5 * len(rounds)
    seen = any(isinstance(one, Opened) for one in rounds)
    return Check(
        "divisor of the average",
        worst <= allowed if seen else False,
        f"the model's step is off by {worst:.1g} of its size; allowed {allowed:.1g} (float32)",
        0.0,
        "a divisor that counts units or survivors",
        1.0,
    )


def noise(subject: Subject, announce: Announce) -> Iterator[Check]:
    """Variance of opened sums and of each share, and whether any noise comes twice."""
    clients = subject.parts.plan.clients
    needed = _SAMPLES * clients**2
    width = max(10_000, min(needed // 2, _WIDEST), subject.parts.plan.parameters + 1)
    extra = width - subject.parts.plan.parameters
    rounds = max(2, math.ceil(needed / subject.wide(extra, 1).plan.dimension))
    wide = subject.wide(extra, rounds)
    complete = run_rounds(wide, rounds, lost=None, announce=announce)
    yield _noise_of_sums("noise of the opened sum", wide, complete)
    lost = one_to_lose(subject)
    name = "noise of the opened sum, one client lost"
    if lost is None:
        found = "the config opens complete sums only"
        yield Check(name, None, found, 0.0, "missing share", None)
    else:
        again = run_rounds(wide, rounds, lost=lost, announce=announce)
        yield _noise_of_sums(name, wide, again)
    yield _noise_of_shares(wide, complete)
    restarted = run_rounds(wide, 1, lost=None, announce=announce)
    yield _fresh(wide, [*complete[:2], *restarted])


def _noise_of_sums(name: str, subject: Subject, rounds: list[Opened | Abort]) -> Check:
    bug = "half the noise, a missing share, one seed for all"
    opened = [one for one in rounds if isinstance(one, Opened)]
    if len(opened) < len(rounds):
        return _aborted(name, rounds, bug)
    shares = len(opened[0].contributors)
    claimed = _charged(subject).share_variance * shares
    sample = np.concatenate([one.noise() for one in opened]).astype(np.float64)
    return _variance(name, sample, claimed, subject, bug, (shares - 1) / shares)


def _noise_of_shares(subject: Subject, rounds: list[Opened | Abort]) -> Check:
    name, bug = "noise of each client alone", "one client without its share"
    opened = [one for one in rounds if isinstance(one, Opened)]
    if len(opened) < len(rounds):
        return _aborted(name, rounds, bug)
    claimed = _charged(subject).share_variance
    checks = []
    for client in opened[0].contributors:
        sample = np.concatenate([one.share(client) for one in opened]).astype(np.float64)
        part = ALPHA / subject.parts.plan.clients
        checks.append(_variance(f"client {client}", sample, claimed, subject, bug, 0.5, part))
    wrong = [f"{check.name}: {check.found}" for check in checks if not check.passed]
    power = min(check.power or 0.0 for check in checks)
    found = "; ".join(wrong[:3]) or f"{len(checks)} clients, each within its limits"
    return Check(name, not wrong, found, ALPHA, bug, power)


def _variance(
    name: str,
    sample: NDArray[np.float64],
    claimed: float,
    subject: Subject,
    bug: str,
    wrong: float,
    alpha: float = ALPHA,
) -> Check:
    """Is the sample's variance the claimed one? `wrong`: what the bug would make of it."""
    plan = subject.parts.plan
    ratio = float(np.square(sample).mean()) / claimed
    limits = variance_limits(len(sample), alpha)
    # Units are rounded when they are summed, and anew when they are subtracted: 1/4 step^2 each.
    rounding = plan.clients * plan.max_units_per_client / 2.0 / claimed
    return Check(
        name,
        limits.low <= ratio <= limits.high + rounding,
        f"variance is {ratio:.4f} of the claimed one over {len(sample):,} samples; "
        f"allowed {limits.low:.4f} to {limits.high + rounding:.4f}",
        alpha,
        bug,
        variance_power(len(sample), alpha, wrong),
    )


def _fresh(subject: Subject, rounds: list[Opened | Abort]) -> Check:
    """No noise comes twice: two rounds of one run, and the first round after a restart."""
    name, bug = "fresh noise", "a seed used twice: by two clients, in two rounds, after a restart"
    opened = [one for one in rounds if isinstance(one, Opened)]
    if len(opened) < len(rounds):
        return _aborted(name, rounds, bug)
    moments = ("round 1", "round 2", "round 1 of another run")
    labels, rows = [], []
    for moment, one in zip(moments, opened, strict=True):
        for client in one.contributors:
            labels.append(f"client {client} in {moment}")
            rows.append(one.share(client))
    pair = most_alike(np.stack(rows))
    return Check(
        name,
        pair.p_value > ALPHA,
        f"least independent: {labels[pair.one]} and {labels[pair.other]}, p = {pair.p_value:.2g}",
        ALPHA,
        bug,
        1.0,
    )


def _aborted(name: str, rounds: list[Opened | Abort], bug: str) -> Check:
    return aborted(name, next(one for one in rounds if isinstance(one, Abort)), bug)


def aborted(name: str, broken: Abort, bug: str) -> Check:
    """The failed check of rounds of which one could not complete."""
    return Check(name, False, f"a round could not complete: {broken.reason}", 0.0, bug, None)


def run_rounds(
    subject: Subject, rounds: int, *, lost: int | None, announce: Announce = lambda text: None
) -> list[Opened | Abort]:
    """The rounds of one new run of the subject."""
    found: list[Opened | Abort] = []
    with Rig(subject) as rig:
        for index in range(1, rounds + 1):
            announce(f"round {index} of {rounds}, {subject.plan.dimension:,} coordinates")
            found.append(rig.round(index, lost=lost))
    return found


def one_to_lose(subject: Subject) -> int | None:
    """A client that may fall silent; None where every sum must be complete."""
    plan = subject.parts.plan
    spare = plan.cohort_size > plan.min_survivors and subject.parts.protocol.capabilities().drops
    return plan.cohort(1)[-1] if spare else None
