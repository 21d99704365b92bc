"""What both kinds of conformance tests measure with: hostile units, rounds of a copy, noise.

conformance_shares.py and conformance_local.py say what is measured and what it is compared with.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from privacy.empirical import most_alike, variance_limits, variance_power
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from privacy.unit import Unit
from secure_fedmeta.assessed import Ints, Signal, Subject, displacement, nothing_like
from secure_fedmeta.checks import ALPHA, Announce, Check
from secure_fedmeta.client import contribution
from secure_fedmeta.coin_checks import DRAWS
from secure_fedmeta.outcome import Abort
from secure_fedmeta.rig import Opened, Rig

# --- units --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moved:
    """How far one hostile unit, or several alike, moved a client's contribution.

    Attributes:
        name: what the unit holds.
        units: how many units moved it.
        by: int64 [dimension].
    """

    name: str
    units: int
    by: Ints

    @property
    def length(self) -> float:
        """L2 norm in integer steps, for each unit."""
        return math.sqrt(sum(int(x) ** 2 for x in self.by)) / self.units


def moved_by_hostile_units(plan: PrivacyPlan) -> list[Moved]:
    """What each hostile unit adds to a client's contribution that other units are in as well."""
    return [Moved(name, units, _moved(plan, rows)) for name, rows, units in _hostile(plan)]


def _hostile(plan: PrivacyPlan) -> Iterator[tuple[str, NDArray[np.float64], int]]:
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


def _moved(plan: PrivacyPlan, rows: NDArray[np.float64]) -> Ints:
    others = 0 if plan.unit is Unit.CLIENT else min(3, plan.max_units_per_client - len(rows))
    other = np.full((max(others, 0), plan.parameters), 0.3 * plan.clip)
    users = np.concatenate([np.arange(len(other)), np.full(len(rows), len(other))])
    key = secrets.token_bytes(32)
    with_it = Signal(np.concatenate([other, rows]), users)
    without = Signal(np.concatenate([other, nothing_like(rows)]), users)
    both = displacement(plan, with_it, key, round_index=1)
    return both - displacement(plan, without, key, round_index=1)


def drawn_rows(plan: PrivacyPlan) -> Ints:
    """What the drawn units add to a client's contribution, round by round: int64 [DRAWS, units].

    Unit i has coordinate i alone, at half the clip bound. Two generators in step give every
    contribution twice, with the units and with nothing in their place: what differs is the units
    that were drawn.
    """
    rows = np.eye(plan.parameters) * plan.clip / 2.0
    users = np.arange(len(rows))
    key, model = secrets.token_bytes(32), torch.zeros(plan.parameters)
    one, other = SecureRandom.from_key(key), SecureRandom.from_key(key)
    found = np.empty((DRAWS, len(rows)), dtype=np.int64)
    for index in range(DRAWS):
        drawn, empty = (
            contribution(
                Signal(held, users), "client", model, plan=plan, round_index=index + 1, noise=noise
            )
            for held, noise in ((rows, one), (nothing_like(rows), other))
        )
        found[index] = drawn - empty
    return found


# --- rounds -------------------------------------------------------------------------------------


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


def check_of_opened(
    name: str, bug: str, rounds: Sequence[Opened | Abort], check: Callable[[list[Opened]], Check]
) -> Check:
    """The check of these rounds; a failed one where a round could not complete."""
    opened = [one for one in rounds if isinstance(one, Opened)]
    for one in rounds:
        if isinstance(one, Abort):
            reason = f"a round could not complete: {one.reason}"
            return Check(name, False, reason, 0.0, bug, None)
    return check(opened)


# --- noise --------------------------------------------------------------------------------------


def variance(
    name: str,
    bug: str,
    samples: Mapping[str, Ints],
    claimed: float,
    *,
    wrong: float,
    rounding: float = 0.0,
) -> Check:
    """Is the variance of every sample the claimed one?

    Args:
        name: of the check.
        bug: that it looks for.
        samples: whose noise -> int64, all of one length.
        claimed: the variance that is charged for.
        wrong: what the bug makes of the variance of one sample, as a part of the claimed one.
        rounding: variance that rounding may add, as a part of the claimed one.
    """
    ratios = {
        who: float(np.square(sample.astype(np.float64)).mean()) / claimed
        for who, sample in samples.items()
    }
    size, part = len(next(iter(samples.values()))), ALPHA / len(samples)
    limits = variance_limits(size, part)
    high = limits.high + rounding
    off = {who: ratio for who, ratio in ratios.items() if not limits.low <= ratio <= high}
    least, most = f"{min(ratios.values()):.4f}", f"{max(ratios.values()):.4f}"
    found = "; ".join(f"{who}: {ratio:.4f}" for who, ratio in list(off.items())[:3])
    found = found or (least if len(ratios) == 1 else f"{least} to {most}")
    return Check(
        name,
        not off,
        f"variance is {found} of the claimed one over {size:,} samples; "
        f"allowed {limits.low:.4f} to {high:.4f}",
        ALPHA,
        bug,
        variance_power(size, part, wrong),
    )


def fresh(
    name: str, bug: str, opened: Sequence[Opened], noise_of: Callable[[Opened, int], Ints]
) -> Check:
    """No noise comes twice: two rounds of one run, and the first round after a restart.

    Args:
        name: of the check.
        bug: that it looks for.
        opened: the three rounds.
        noise_of: a round and a client in it -> this client's noise, int64, all of one length.
    """
    moments = ("round 1", "round 2", "round 1 of another run")
    labels, rows = [], []
    for moment, one in zip(moments, opened, strict=True):
        for client in one.contributors:
            labels.append(f"client {client} in {moment}")
            rows.append(noise_of(one, client))
    pair = most_alike(np.stack(rows))
    return Check(
        name,
        pair.p_value > ALPHA,
        f"least independent: {labels[pair.one]} and {labels[pair.other]}, p = {pair.p_value:.2g}",
        ALPHA,
        bug,
        1.0,
    )
