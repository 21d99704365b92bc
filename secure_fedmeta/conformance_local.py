"""Does a client with noise of its own do what its plan says? Tests of the messages that come out.

The counterpart of conformance.py for noise "local". What the ledger is charged for is one event of
Gaussian steps per round; a client's message of all these steps is compared with it. Norms and draws
are looked at where a message is fine enough to tell single tasks: on copies with little noise.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from privacy.empirical import most_alike, variance_limits, variance_power
from privacy.events import GaussianSteps
from privacy.local import batch_of, message_of
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from secure_fedmeta.aggregator import Abort
from secure_fedmeta.assessed import Ints, Signal, Subject, displacement
from secure_fedmeta.checks import ALPHA, Announce, Check
from secure_fedmeta.client import contribution
from secure_fedmeta.coin_checks import DRAWS, UNITS, coin_checks, rate_of_copy
from secure_fedmeta.conformance import (
    aborted,
    divisor,
    hostile,
    one_to_lose,
    run_rounds,
    sums,
)
from secure_fedmeta.rig import Opened

_LITTLE: Final = 1.0 / 64.0
"""Noise multiplier of copies in which single tasks are looked at."""
_WIDTH: Final = 20_000
_MOST_STEPS: Final = 8


def conformance_local(subject: Subject, announce: Announce) -> Iterator[Check]:
    """Yield every check of a pipeline whose clients add noise to steps of their own.

    Args:
        subject: what is assessed.
        announce: told what begins.
    """
    announce("how far one task moves a message")
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


def charged(plan: PrivacyPlan) -> GaussianSteps:
    """What a round is charged as.

    Raises:
        TypeError: a plan whose noise is in shares of a sum.
    """
    event = plan.worst_event()
    if not isinstance(event, GaussianSteps):
        raise TypeError(f"a {event.kind} is not charged for steps of clients")
    return event


# --- what one task can change ---------------------------------------------------------------------


def norms(subject: Subject) -> Check:
    """No task, whatever it holds, moves a message by more than its steps are charged for."""
    steps = min(charged(subject.parts.plan).steps, _MOST_STEPS)
    plan = subject.little_noise(_LITTLE, local_steps=steps)
    one = plan.l2 / plan.scale / batch_of(plan) * message_of(plan).scale
    # Two messages are rounded, each coordinate of each by half a step at most.
    allowed = steps * one + math.sqrt(plan.dimension)
    worst, name = 0.0, ""
    for kind, rows, units in hostile(plan):
        found = _moved(plan, rows) / units
        moved = math.sqrt(float(np.dot(found, found)))
        if moved >= worst:
            worst, name = moved, kind
    return Check(
        "norm of one unit before noise",
        worst <= allowed,
        f"moves a message by {worst / (steps * one):.4f} of what {steps} steps are charged for "
        f"({name}); allowed {allowed / (steps * one):.4f}",
        0.0,
        "double sensitivity, no clip",
        1.0,
    )


def _moved(plan: PrivacyPlan, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a task's rows add to a message that other tasks are in as well."""
    others = min(3, plan.max_units_per_client - len(rows))
    other = np.full((max(others, 0), plan.parameters), 0.3 * plan.clip)
    key = secrets.token_bytes(32)
    both = displacement(plan, Signal(np.concatenate([other, rows])), key, round_index=1)
    without = Signal(np.concatenate([other, np.zeros_like(rows)]))
    return (both - displacement(plan, without, key, round_index=1)).astype(np.float64)


# --- draws ----------------------------------------------------------------------------------------


def draws(subject: Subject) -> Iterator[Check]:
    """Is each task drawn for each step by a coin of its own?"""
    plan = subject.parts.plan
    steps = min(charged(plan).steps, _MOST_STEPS)
    rate = rate_of_copy(plan.rate)
    copy = subject.little_noise(
        _LITTLE,
        local_steps=steps,
        parameters=UNITS,
        rate=rate,
        max_units_per_client=max(UNITS, plan.max_units_per_client),
    )
    bug = "batches of fixed size, or one draw for all steps of a round"
    yield from coin_checks(_counts(copy), steps=steps, rate=rate, planned=plan.rate, bug=bug)


def _counts(plan: PrivacyPlan) -> Ints:
    """How often each task was drawn for the steps of a round: int64 [rounds, tasks].

    Task i has coordinate i alone. Two generators in step give every message twice, with the tasks
    and with zeros in their place: what differs is the tasks that were drawn.
    """
    rows = np.eye(plan.parameters) * plan.clip / 2.0
    one = plan.clip / 2.0 / batch_of(plan) * message_of(plan).scale
    key, model = secrets.token_bytes(32), torch.zeros(plan.parameters)
    real, empty = SecureRandom.from_key(key), SecureRandom.from_key(key)
    found = np.empty((DRAWS, len(rows)), dtype=np.int64)
    for index in range(len(found)):
        with_it, without = (
            contribution(
                Signal(held), "client", model, plan=plan, round_index=index + 1, noise=noise
            )
            for held, noise in ((rows, real), (np.zeros_like(rows), empty))
        )
        found[index] = np.rint((with_it - without) / one)
    return found


# --- noise ----------------------------------------------------------------------------------------


def noise(subject: Subject, announce: Announce) -> Iterator[Check]:
    """Variance of sums and of each message where no task is, and whether any noise comes twice."""
    copy = subject.wide(max(_WIDTH - subject.parts.plan.parameters, 1), 2)
    complete = run_rounds(copy, 2, lost=None, announce=announce)
    restarted = run_rounds(copy, 1, lost=None, announce=announce)
    names = ("noise of the opened sum", "noise of each client alone", "fresh noise")
    bugs = (
        "half the noise, one seed for all",
        "half the noise, a client or a step without it, one noise for all steps",
        "a seed used twice: by two clients, in two rounds, after a restart",
    )
    opened = [one for one in (*complete, *restarted) if isinstance(one, Opened)]
    if len(opened) < 3:
        broken = next(one for one in (*complete, *restarted) if isinstance(one, Abort))
        for name, bug in zip(names, bugs, strict=True):
            yield aborted(name, broken, bug)
        return
    first = subject.parts.plan.parameters
    claimed = _claimed(copy.parts.plan)
    clients = opened[0].contributors
    total = np.concatenate([one.total[first:] for one in opened[:2]])
    yield _variance(names[0], {"sum": total}, len(clients) * claimed, bugs[0])
    alone = {
        f"client {k}": np.concatenate([one.vectors[k][first:] for one in opened[:2]])
        for k in clients
    }
    yield _variance(names[1], alone, claimed, bugs[1])
    yield _fresh(names[2], opened, first, bugs[2])


def _claimed(plan: PrivacyPlan) -> float:
    """Variance of a message's coordinate that the round is charged for, in its own steps^2."""
    event, message = charged(plan), message_of(plan)
    unit = (plan.local_lr or 0.0) / (plan.scale * batch_of(plan)) * message.scale
    return event.steps * (unit * event.noise_multiplier * plan.l2) ** 2


def _variance(name: str, samples: dict[str, Ints], claimed: float, bug: str) -> Check:
    """Is the variance of every sample the claimed one? The smallest and largest are shown."""
    ratios = {
        who: float(np.square(sample.astype(np.float64)).mean()) / claimed
        for who, sample in samples.items()
    }
    size, part = len(next(iter(samples.values()))), ALPHA / len(samples)
    limits = variance_limits(size, part)
    wrong = {who: ratio for who, ratio in ratios.items() if not limits.hold(ratio)}
    shown = wrong or {who: ratios[who] for who in (min(ratios, key=lambda w: ratios[w]),)}
    found = "; ".join(f"{who}: {ratio:.4f}" for who, ratio in list(shown.items())[:3])
    return Check(
        name,
        not wrong,
        f"variance is {found} of the claimed one over {size:,} samples; "
        f"allowed {limits.low:.4f} to {limits.high:.4f}",
        ALPHA,
        bug,
        variance_power(size, part, 0.25),
    )


def _fresh(name: str, opened: list[Opened], first: int, bug: str) -> Check:
    """No noise comes twice: two rounds of one run, and the first round after a restart."""
    moments = ("round 1", "round 2", "round 1 of another run")
    labels, rows = [], []
    for moment, one in zip(moments, opened, strict=True):
        for client in one.contributors:
            labels.append(f"client {client} in {moment}")
            rows.append(one.vectors[client][first:])
    pair = most_alike(np.stack(rows))
    return Check(
        name,
        pair.p_value > ALPHA,
        f"least independent: {labels[pair.one]} and {labels[pair.other]}, p = {pair.p_value:.2g}",
        ALPHA,
        bug,
        1.0,
    )
