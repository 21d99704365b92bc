"""Whose budget a run spends, and the grant that limits it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from crypto.secure_sum import SECURE_SUMS
from privacy.events import Event
from privacy.ledger import Ledger
from privacy.plan import PrivacyPlan
from secure_fedmeta import state
from secure_fedmeta.config import Config
from secure_fedmeta.errors import ConfigError


@dataclass(frozen=True)
class Budget:
    """An open ledger and the population that the run charges.

    Attributes:
        ledger: where charges are kept.
        population: the people whose data train; their charges add up over runs.
        epsilon: granted to the population, at `delta`.
        delta: of the grant.
        approver: who granted it.
        expires: ISO 8601 moment after which the grant is void, or None.
        prior: what earlier runs have charged the population.
    """

    ledger: Ledger
    population: str
    epsilon: float
    delta: float
    approver: str
    expires: str | None
    prior: tuple[Event, ...]


def open_budget(config: Config, plan: PrivacyPlan, *, run_id: str, public: bool) -> Budget:
    """Open the ledger and find the grant, or grant a per-run population what its plan claims.

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
    url = config.ledger.url or state.ledger_url()
    ledger = Ledger(url)
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
    grant = ledger.grant_of(population)
    if grant is None:
        raise ConfigError(
            f"no budget was granted to it in {url}: grant one with privacy.ledger.Ledger.grant",
            key="ledger.population",
            value=population,
        )
    if (grant.unit, grant.delta) != (plan.unit, plan.delta):
        raise ConfigError(
            f"its budget is for unit {grant.unit} at delta {grant.delta!r}; the run asks for "
            f"{plan.unit} at {plan.delta!r}: set privacy.unit and privacy.delta to match",
            key="ledger.population",
            value=population,
        )
    if grant.expires is not None and grant.expires <= datetime.now(UTC):
        raise ConfigError(
            f"its budget expired at {grant.expires.isoformat()}; grant a new one",
            key="ledger.population",
            value=population,
        )
    expires = None if grant.expires is None else grant.expires.isoformat()
    return Budget(
        ledger,
        population,
        grant.epsilon,
        grant.delta,
        grant.approver,
        expires,
        ledger.events(population),
    )


def _unprotected_by(config: Config) -> str | None:
    """The setting under which somebody sees single updates, or knows their noise; else None."""
    if config.not_private is not None:
        return "not_private.seed"
    if not SECURE_SUMS[config.secure_sum.protocol].capabilities().hides_updates:
        return "secure_sum.protocol"
    return None
