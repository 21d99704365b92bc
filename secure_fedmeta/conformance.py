"""Does a pipeline do what its plan says? Tests of what comes out, on the copy that is assessed.

Every check compares something measured with what the ledger is charged for: the event of the plan
of the config. Each states its false-alarm rate, the bug that it looks for, and the probability of
noticing that bug. Which kind of noise a plan has decides how norms, draws and noise are measured;
what is measured, and in which order, is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from privacy.local import LOCAL
from secure_fedmeta.assessed import Subject
from secure_fedmeta.checks import Announce, Check
from secure_fedmeta.conformance_local import NoiseAtClients
from secure_fedmeta.conformance_parts import one_to_lose, run_rounds
from secure_fedmeta.conformance_shares import NoiseInShares
from secure_fedmeta.outcome import Abort
from secure_fedmeta.rig import Opened


class Measured(Protocol):
    """What depends on where the noise comes from."""

    @property
    def bounded(self) -> str:
        """What `norms` looks at, in words."""
        ...

    def norms(self) -> Check:
        """No unit, whatever it holds, shows before noise by more than is charged for."""
        ...

    def draws(self) -> Iterator[Check]:
        """Units are drawn by coins of their own."""
        ...

    def divisor(self) -> float:
        """How many integers of the opened sum are 1.0 of the model's step."""
        ...

    def noise(self, announce: Announce) -> Iterator[Check]:
        """Each client's noise, and that of the sum, is as large as claimed, and never the same."""
        ...


def conformance(subject: Subject, announce: Announce) -> Iterator[Check]:
    """Yield every check of a pipeline.

    Args:
        subject: what is assessed.
        announce: told what begins.
    """
    local = subject.parts.plan.noise == LOCAL
    measured: Measured = NoiseAtClients(subject) if local else NoiseInShares(subject)
    announce(measured.bounded)
    yield measured.norms()
    announce("the draws")
    yield from measured.draws()
    announce("rounds as configured")
    rounds = run_rounds(subject, 1, lost=None)
    rounds += run_rounds(subject, 1, lost=one_to_lose(subject))
    yield _sums(rounds)
    yield _divisor(subject, rounds, measured.divisor())
    announce("rounds of a wide copy")
    yield from measured.noise(announce)


def _sums(rounds: Sequence[Opened | Abort]) -> Check:
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


def _divisor(subject: Subject, rounds: Sequence[Opened | Abort], constant: float) -> Check:
    """The model moves by the sum over scale and the public constant, whoever contributed."""
    plan, worst = subject.parts.plan, 0.0
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
