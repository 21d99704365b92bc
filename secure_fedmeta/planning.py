"""What a setting would cost and whether anything would be left to learn from, before any data.

Either way round: epsilon of a noise, or the least noise for a target epsilon. Everything here is
computed from public constants.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from privacy.accountant import (
    BUDGETED,
    Adversary,
    Spend,
    claimed_epsilon,
    renyi_epsilon,
    spend_counted,
    spend_with_reference,
)
from privacy.calibrate import least_noise_near
from privacy.errors import EventRefused, PlanRefused
from privacy.events import Event, GaussianSteps, Mechanism
from privacy.plan import PrivacyPlan
from privacy.terms import Terms
from privacy.unit import PLAIN_WORDS, RELATION_OF, Unit
from secure_fedmeta.errors import ConfigError, in_options, unknown_name

POINTS = 16
"""Numbers of rounds at which the curve of epsilon is computed."""


@dataclass(frozen=True)
class Request:
    """What to plan for; the options of `fedmeta plan`.

    Attributes:
        mechanism, unit: names as in a config; unit None: task.
        rate: probability with which a unit takes part in a round.
        noise_multiplier, target_epsilon: exactly one is given; the other is the answer.
        rounds: rounds of the run; with Gaussian noise, steps of one client's optimiser.
        delta: of the whole run.
        clients: of the federation; with Gaussian noise it matters to the noise of the sum alone.
        min_survivors: fewest contributions that are opened; None: all clients.
        max_colluders: contributors that may pool what they know.
        dimension: coordinates of the summed vector.
        expected_units: public divisor; with Gaussian noise, tasks drawn by all clients together.
        person_units: k of the figure for a person.
        clip: L2 bound of one unit's vector.
        max_participations: unit client only: rounds in which one client takes part, at most.
        tasks_per_user: unit user only: tasks of a user that are clipped apart, at most.
    """

    mechanism: str
    unit: str
    rate: float
    noise_multiplier: float | None
    target_epsilon: float | None
    rounds: int
    delta: float
    clients: int
    min_survivors: int | None
    max_colluders: int
    dimension: int
    expected_units: int
    person_units: int
    clip: float
    max_participations: int | None
    tasks_per_user: int | None


@dataclass(frozen=True)
class Noise:
    """Noise of the average that one round releases, beside the most that it can say.

    Attributes:
        per_coordinate: standard deviation of one coordinate.
        norm: expected L2 norm over all coordinates, sqrt(d) times that.
        signal: largest L2 norm of the average without noise: all units alike, at the clip bound.
        rounds: over how many rounds noise and signal add up.
    """

    per_coordinate: float
    norm: float
    signal: float
    rounds: int

    @property
    def of_signal(self) -> float:
        """Noise over signal in one round."""
        return self.norm / self.signal

    @property
    def of_signal_in_all(self) -> float:
        """Noise over signal in the sum of all rounds, if every round said the same."""
        return self.of_signal / math.sqrt(self.rounds)


@dataclass(frozen=True)
class Outlook:
    """A planned run.

    Attributes:
        settings: what was planned for, noise included.
        unit, delta, rounds: of the claim.
        event: what each round is charged as.
        noise: see `Noise`.
        expected_units: the public divisor.
    """

    settings: dict[str, Any]
    unit: Unit
    delta: float
    rounds: int
    event: Event
    noise: Noise
    expected_units: int

    def spend(self) -> Spend:
        """Every figure against every adversary (seconds)."""
        return spend_with_reference([self.event] * self.rounds, delta=self.delta)

    def after(self, rounds: int) -> Spend:
        """The claims after fewer rounds."""
        return spend_counted({self.event: rounds}, delta=self.delta)

    def verdict(self) -> tuple[str, str]:
        """How it looks ("hopeless", "hard" or "workable"), and why in a sentence or two."""
        noise = self.noise
        if noise.of_signal_in_all > 1.0:
            return "hopeless", (
                f"Even if every unit pointed the same way in every one of {self.rounds} rounds, "
                f"the noise would be {noise.of_signal_in_all:.3g} times as long as what they say "
                "together. Take more units or clients (a larger expected_units), fewer "
                "coordinates, a larger target, or a unit that asks for less noise."
            )
        if noise.of_signal > 1.0:
            return "hard", (
                f"In one round the noise is {noise.of_signal:.3g} times as long as the longest "
                f"average that the units can give; over {self.rounds} rounds it can come down to "
                f"{noise.of_signal_in_all:.3g}. Expect slow learning: small steps, averaged "
                "iterates, fewer coordinates."
            )
        return "workable", (
            f"In one round the noise is {noise.of_signal:.3g} times as long as the longest average "
            "that the units can give."
        )


def outlook(request: Request) -> Outlook:
    """Price a setting.

    Raises:
        ConfigError: names the option, its value and what is allowed.
    """
    mechanism = _named(Mechanism, request.mechanism, "--mechanism")
    unit = _named(Unit, request.unit, "--unit")
    if (request.noise_multiplier is None) == (request.target_epsilon is None):
        raise ConfigError("give exactly one of --noise-multiplier and --target-epsilon")
    for name, least, most in _REALS:
        value = getattr(request, name)
        if value is not None and not least <= value <= most:
            raise _out_of_range(name, value, f"a number from {least:g} to {most:g}")
    for name, most in _COUNTS:
        value = getattr(request, name)
        smallest = {"max_colluders": 0, "clients": 2, "min_survivors": 2}.get(name, 1)
        if value is not None and not smallest <= value <= most:
            raise _out_of_range(name, value, f"an integer from {smallest} to {most}")
    try:
        if mechanism is Mechanism.GAUSSIAN:
            return _at_the_client(request, unit)
        return _in_the_sum(request, mechanism, unit)
    except (PlanRefused, EventRefused) as error:
        text = re.sub("^epsilon", "target_epsilon", str(error))
        raise ConfigError(in_options(text, Request.__dataclass_fields__)) from error


def outlook_of(plan: PrivacyPlan) -> Outlook:
    """The run that a plan is for: its rounds with the fewest contributors it permits."""
    std = plan.noise_std(plan.clients) / plan.divisor
    # What clients move by in a round, where they take steps of their own.
    signal = plan.clip * (plan.local_steps or 1) * (plan.local_lr or 1.0)
    fields = {name: getattr(plan, name) for name in _SHOWN}
    return Outlook(
        settings={
            "mechanism": plan.mechanism.value,
            "unit": plan.unit.value,
            "target_epsilon": plan.epsilon,
            "local_steps": plan.local_steps,
            **fields,
        },
        unit=plan.unit,
        delta=plan.delta,
        rounds=plan.rounds,
        event=plan.worst_event(),
        noise=Noise(std, std * math.sqrt(plan.width), signal, plan.rounds),
        expected_units=plan.expected_units,
    )


def to_json(planned: Outlook, *, adversary: Adversary | None = None) -> dict[str, Any]:
    """Plain data with numbers as numbers; a figure without bound is None.

    Args:
        planned: the outlook.
        adversary: the only one to list; None: all.
    """
    spent = planned.spend()
    level, reason = planned.verdict()
    return {
        **planned.settings,
        "relation": RELATION_OF[planned.unit].value,
        "unit_in_words": PLAIN_WORDS[planned.unit],
        "claim": _finite(spent.worst),
        "adversaries": {
            name.value: {
                "claim": row.claim,
                "epsilon": {key: _finite(value) for key, value in row.epsilon.items()},
                "record": _finite(row.record),
                "person": _finite(row.person),
            }
            for name, row in spent.adversaries.items()
            if adversary in (None, name)
        },
        "noise": {
            "per_coordinate": planned.noise.per_coordinate,
            "norm": planned.noise.norm,
            "signal_norm": planned.noise.signal,
            "over_signal": planned.noise.of_signal,
            "over_signal_in_all_rounds": planned.noise.of_signal_in_all,
        },
        "verdict": {"level": level, "reason": reason},
    }


def adversary_named(name: str | None) -> Adversary | None:
    """The adversary of that name; None for None.

    Raises:
        ConfigError: an unknown name.
    """
    return None if name is None else _named(Adversary, name, "--adversary")


def draw(planned: Outlook, directory: Path, *, announce: Callable[[str], None]) -> list[Path]:
    """Write the curves as SVG files: epsilon over rounds, and noise over the size of the cohort.

    Args:
        planned: the outlook.
        directory: where; it is made if missing.
        announce: told which point of the curve is computed.

    Raises:
        ConfigError: the folder cannot be made; nothing was computed.
    """
    from secure_fedmeta.plots import plot_cohort, plot_epsilon  # a second of matplotlib

    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"cannot be made ({error.strerror}): name a folder that you may write to"
        raise ConfigError(reason, key="--plots", value=str(directory)) from error
    rounds = sorted({int(n) for n in np.geomspace(1, planned.rounds, POINTS).round()})
    curves: dict[str, list[float]] = {name.value: [] for name in BUDGETED}
    for number in rounds:
        announce(f"epsilon after {number} of {planned.rounds} rounds")
        spent = planned.after(number)
        for name in BUDGETED:
            curves[name.value].append(spent.adversaries[name].claimed)
    epsilon, cohort = directory / "epsilon.svg", directory / "cohort.svg"
    target, here = planned.settings["target_epsilon"], planned.expected_units
    plot_epsilon(epsilon, rounds, curves, limit=target, limit_name="target")
    units = np.geomspace(max(1.0, here / 16), here * 64, 60)
    plot_cohort(
        cohort,
        units.tolist(),
        noise=(planned.noise.per_coordinate * here / units).tolist(),
        of_signal=(planned.noise.of_signal * here / units).tolist(),
        rounds=planned.rounds,
        here=here,
    )
    return [epsilon, cohort]


_SHOWN = (
    "rate",
    "noise_multiplier",
    "rounds",
    "delta",
    "clients",
    "min_survivors",
    "max_colluders",
    "dimension",
    "expected_units",
    "person_units",
    "clip",
    "max_participations",
    "tasks_per_user",
)
_REALS = (
    ("rate", 2.0**-20, 1.0),
    ("noise_multiplier", 2.0**-20, 2.0**40),
    ("target_epsilon", 1e-6, 1e6),
    ("delta", 1e-300, 1.0 - 2.0**-53),
    ("clip", 1e-12, 1e12),
)
_COUNTS = (
    ("rounds", 10**7),
    ("clients", 10**7),
    ("min_survivors", 10**7),
    ("max_colluders", 10**7),
    ("dimension", 10**9),
    ("expected_units", 10**9),
    ("person_units", 1000),
    ("max_participations", 10**7),
    ("tasks_per_user", 10**4),
)


def _out_of_range(name: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(f"must be {allowed}", key=f"--{name.replace('_', '-')}", value=value)


def _named(kind: Any, name: str, option: str) -> Any:
    try:
        return kind(name)
    except ValueError as error:
        raise unknown_name(
            kind.__name__.lower(), name, [member.value for member in kind], key=option
        ) from error


def _in_the_sum(request: Request, mechanism: Mechanism, unit: Unit) -> Outlook:
    terms: Terms = {
        "unit": unit,
        "mechanism": mechanism,
        "rate": request.rate,
        "delta": request.delta,
        "rounds": request.rounds,
        "clip": request.clip,
        "parameters": request.dimension,
        "expected_units": request.expected_units,
        "max_units_per_client": 1 if unit is Unit.CLIENT else request.expected_units,
        "clients": request.clients,
        "min_survivors": request.clients
        if request.min_survivors is None
        else request.min_survivors,
        "max_colluders": request.max_colluders,
        "person_units": request.person_units,
        "max_participations": request.max_participations,
        "tasks_per_user": request.tasks_per_user,
    }
    if request.noise_multiplier is not None:
        z = request.noise_multiplier
        return outlook_of(PrivacyPlan.from_noise_multiplier(noise_multiplier=z, **terms))
    return outlook_of(PrivacyPlan.calibrated(epsilon=request.target_epsilon or 0.0, **terms))


def _at_the_client(request: Request, unit: Unit) -> Outlook:
    for name in ("min_survivors", "max_participations", "tasks_per_user"):
        value = getattr(request, name)
        if value is not None:
            raise ConfigError(
                "means nothing where each client adds its own Gaussian noise; leave it out",
                key=f"--{name.replace('_', '-')}",
                value=value,
            )

    def steps(z: float) -> GaussianSteps:
        return GaussianSteps(unit, RELATION_OF[unit], request.rate, z, 1, request.person_units)

    def of(accountant: Callable[..., float]) -> Callable[[float], float]:
        return lambda z: accountant(
            {steps(z): request.rounds}, [Adversary.AGGREGATOR], delta=request.delta
        )

    z = request.noise_multiplier
    if z is None:
        z = least_noise_near(of(claimed_epsilon), of(renyi_epsilon), request.target_epsilon or 0.0)
    std = z * request.clip * math.sqrt(request.clients) / request.expected_units
    noise = Noise(std, std * math.sqrt(request.dimension), request.clip, request.rounds)
    return Outlook(
        settings=asdict(request) | {"noise_multiplier": z, "local_steps": 1},
        unit=unit,
        delta=request.delta,
        rounds=request.rounds,
        event=steps(z),
        noise=noise,
        expected_units=request.expected_units,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
