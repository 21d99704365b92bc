"""Whose budget a run spends, and the grants that limit it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from audit.canonical import decimal
from crypto.secure_sum import SECURE_SUMS
from privacy.events import Event
from privacy.ledger import Ledger
from privacy.ledger_limits import MAX_AFFORDABLE, spent_of, turns_left
from privacy.ledger_rows import WORST, Grant
from privacy.plan import PrivacyPlan
from secure_fedmeta import state
from secure_fedmeta.charge import Charge, OwnLedger
from secure_fedmeta.config import Config
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.pipeline import Parts

ENTRY_BYTES = 48 * 1024
"""Most bytes of earlier charges in one entry of the log, well below what an entry may have."""


@dataclass(frozen=True)
class Budget:
    """An open ledger and the population that the run charges.

    Attributes:
        ledger: where charges are kept.
        population: the people whose data train; their charges add up over runs.
        grants: what limits them, the grant for the worst adversary first.
        prior: what earlier runs have charged the population.
    """

    ledger: Ledger
    population: str
    grants: tuple[Grant, ...]
    prior: tuple[Event, ...]

    @property
    def epsilon(self) -> float:
        """Granted against the worst adversary."""
        return self.grants[0].epsilon

    @property
    def order(self) -> int | None:
        """The declared Renyi order of a filter; None for fixed plans."""
        return self.grants[0].order

    def entries(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Kind and body of what the log says of it: the grants, then all that was spent before."""
        for grant in self.grants:
            yield "budget-granted", grant_body(grant)
        part: list[dict[str, Any]] = []
        size = 0
        for event, count in Counter(self.prior).items():
            item = {"event": event.to_json(), "count": count}
            length = len(json.dumps(item))
            if part and size + length > ENTRY_BYTES:
                yield "budget-spent", {"population": self.population, "prior": part}
                part, size = [], 0
            part.append(item)
            size += length
        if part:
            yield "budget-spent", {"population": self.population, "prior": part}

    def standing(
        self, events: Sequence[Event], *, dearest: Event, affordable: int | None
    ) -> dict[str, Any]:
        """Where the population stands after these events, for a report.

        Args:
            events: everything that it was ever charged.
            dearest: what a round of the run is charged as, with the least noise that it may have.
            affordable: how many more of these fit all grants; None: not known.
        """
        counts = Counter(events)
        return {
            "population": self.population,
            "filter": filter_name(self.order),
            "charged": len(events),
            **room(affordable, turns_left(counts, dearest)),
            "grants": [grant_row(grant, spent_of(grant, counts)) for grant in self.grants],
        }


def grant_body(grant: Grant) -> dict[str, Any]:
    """What the log says of a grant."""
    return {
        "population": grant.population,
        "unit": grant.unit,
        "adversary": WORST if grant.adversary is None else grant.adversary,
        "epsilon": decimal(grant.epsilon),
        "delta": decimal(grant.delta),
        "order": grant.order,
        "approver": grant.approver,
        "expires": None if grant.expires is None else grant.expires.isoformat(),
    }


def grant_row(grant: Grant, spent: float) -> dict[str, Any]:
    """A grant and what was spent of it, as plain data; None where JSON has no number."""
    known = spent < float("inf")
    return {
        "adversary": WORST if grant.adversary is None else grant.adversary.value,
        "granted": grant.epsilon,
        "spent": spent if known else None,
        "remaining": max(0.0, grant.epsilon - spent),
        "approver": grant.approver,
        "expires": None if grant.expires is None else grant.expires.isoformat(),
    }


def room(affordable: int | None, turns: int | None) -> dict[str, Any]:
    """How many more rounds fit, and what limits them, as plain data.

    Args:
        affordable: how many fit all grants, MAX_AFFORDABLE for that many or more; None: not known.
        turns: how many clients have turns for; None: without limit, or not known.

    Returns:
        `limited_by`: "grants", "turns", "nothing", or None where it is not known; and
        `affordable_rounds`, None for the last two.
    """
    if affordable is None:
        return {"affordable_rounds": None, "limited_by": None}
    if turns is not None and turns <= affordable:
        return {"affordable_rounds": turns, "limited_by": "turns"}
    if affordable >= MAX_AFFORDABLE:
        return {"affordable_rounds": None, "limited_by": "nothing"}
    return {"affordable_rounds": affordable, "limited_by": "grants"}


def filter_name(order: int | None) -> str:
    """How charges add up, in the words of reports."""
    return "fixed plan" if order is None else f"order {order}"


def open_ledger(url: str | None) -> Ledger:
    """The ledger at `url`, or the default one in the state directory.

    Raises:
        LedgerError: it cannot be opened.
    """
    return Ledger(url or state.ledger_url(), marks=state.state_directory())


def open_budget(config: Config, plan: PrivacyPlan, *, run_id: str, public: bool) -> Budget:
    """Open the ledger and find the grants, or grant a per-run population what its plan claims.

    Data that are declared public get a population of their own per run: nobody's budget is at
    stake, and a second demo run is not refused. Any other data need a population with a grant.
    A run whose claim does not hold, since its secrets follow from a seed or its secure sum shows
    single updates, is for public data alone: no charge would say what it shows.

    Raises:
        ConfigError: private data without a population, or in a run whose claim does not hold; a
            population without a grant in force for the plan's unit and delta.
        LedgerError: the ledger cannot be opened.
    """
    bare = _unprotected_by(config)
    if bare is not None and not public:
        raise ConfigError(
            "it shows more than any budget covers; allowed only for data declared public", key=bare
        )
    ledger = open_ledger(config.ledger.url)
    population = config.ledger.population
    if population is None:
        if not public:
            raise ConfigError(
                "name the population whose privacy budget is spent; only data that are declared "
                "public may go without",
                key="ledger.population",
            )
        population = f"run/{run_id}"
        ledger.grant(
            population,
            unit=plan.unit,
            epsilon=config.privacy.epsilon or plan.worst_epsilon(),
            delta=plan.delta,
            approver="the run's own config (public data)",
            expires=None,
        )
    grants = granted(ledger, population, plan, key="ledger.population", where=config.ledger.url)
    return Budget(ledger, population, grants, ledger.events(population))


def reopened_budget(
    config: Config, plan: PrivacyPlan, *, population: str, prior: Sequence[Event]
) -> Budget:
    """The budget of a run that goes on: the population and the earlier charges that its log states.

    Raises:
        ConfigError: the population has no grant in force for the plan's unit and delta.
        LedgerError: the ledger cannot be opened.
    """
    ledger = open_ledger(config.ledger.url)
    grants = granted(ledger, population, plan, key="ledger.population", where=config.ledger.url)
    return Budget(ledger, population, grants, tuple(prior))


def granted(
    ledger: Ledger, population: str, plan: PrivacyPlan, *, key: str, where: str | None
) -> tuple[Grant, ...]:
    """The grants under which this plan may charge the population.

    Args:
        ledger: where they are.
        population: whose budget.
        plan: what will be charged.
        key: the setting to name in an error.
        where: the ledger's URL, if it is not the default one.

    Raises:
        ConfigError: none, for another unit or delta, or expired; tells the command that helps.
    """
    grants = ledger.grants_of(population)
    ledger_option = "" if where is None else f" --ledger {where}"
    command = (
        f"fedmeta ledger grant {population} --unit {plan.unit} --delta {plan.delta!r} "
        f"--epsilon EPSILON --approver NAME{ledger_option}"
    )
    if not grants:
        raise ConfigError(f"no budget was granted to it: {command}", key=key, value=population)
    first = grants[0]
    if (first.unit, first.relation, first.delta) != (plan.unit, plan.relation, plan.delta):
        raise ConfigError(
            f"its budget is for unit {first.unit} at delta {first.delta!r}; the run asks for "
            f"{plan.unit} at {plan.delta!r}: set privacy.unit and privacy.delta to match",
            key=key,
            value=population,
        )
    for grant in grants:
        if grant.expires is not None and grant.expires <= datetime.now(UTC):
            raise ConfigError(
                f"its budget expired at {grant.expires.isoformat()}; grant a new one: {command}",
                key=key,
                value=population,
            )
    return grants


def client_charges(config: Config, parts: Parts, run: bytes) -> dict[str, Charge] | None:
    """What each training client charges in a ledger of its own; None where clients keep none.

    A simulation has one machine for all of them, and hence one database. The population of a client
    is named after its own name and the data that it is one client of.

    Args:
        config: the settings.
        parts: the checked run.
        run: 32 bytes that name the run.

    Raises:
        ConfigError: a client's population has no grant in force for the plan's unit and delta.
        LedgerError: the ledger cannot be opened.
    """
    if config.ledger.client_url is None:
        return None
    ledger = open_ledger(config.ledger.client_url)
    data = config.ledger.population or parts.source.name
    charges: dict[str, Charge] = {}
    for name in parts.training:
        population = f"{data}/{name}"
        granted(
            ledger, population, parts.plan, key="ledger.client_url", where=config.ledger.client_url
        )
        charges[name] = OwnLedger(ledger, population, f"{run.hex()}/{name}", parts.plan)
    return charges


def _unprotected_by(config: Config) -> str | None:
    """The setting under which somebody sees single updates, or knows their noise; else None."""
    if config.not_private is not None:
        return "not_private.seed"
    if not SECURE_SUMS[config.secure_sum.protocol].capabilities().hides_updates:
        return "secure_sum.protocol"
    return None
