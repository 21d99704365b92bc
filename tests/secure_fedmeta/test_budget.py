"""Whose budget is spent: a population with a grant that fits, or public data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from privacy.errors import LedgerError
from privacy.ledger import Ledger
from privacy.plan import PrivacyPlan
from privacy.unit import Unit
from secure_fedmeta import state
from secure_fedmeta.budget import open_budget
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.pipeline import assemble
from tests.secure_fedmeta.federation import default_ledger, tiny


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    return assemble(tiny()).plan


def grant(epsilon: float = 2.0, delta: float = 1e-5, unit: Unit = Unit.TASK) -> Ledger:
    ledger = default_ledger()
    ledger.grant("people", unit=unit, epsilon=epsilon, delta=delta, approver="the board")
    return ledger


NAMED = {"ledger.population": "people"}


def test_public_data_get_a_population_of_their_own(plan: PrivacyPlan, state_dir: Path) -> None:
    first = open_budget(tiny(), plan, run_id="one", public=True)
    second = open_budget(tiny(), plan, run_id="two", public=True)
    assert (first.population, second.population) == ("run/one", "run/two")
    (grant,) = first.grants
    assert (first.epsilon, grant.delta, grant.expires, first.order) == (3.0, 1e-5, None, None)
    assert first.prior == ()
    assert (state_dir / "ledger.sqlite").is_file()


def test_given_noise_is_granted_what_it_claims() -> None:
    changes = {"privacy.epsilon": None, "privacy.noise_multiplier": 2.0}
    plan = assemble(tiny(changes)).plan
    found = open_budget(tiny(changes), plan, run_id="one", public=True)
    assert found.epsilon == plan.worst_epsilon()


def test_private_data_need_a_population(plan: PrivacyPlan) -> None:
    with pytest.raises(ConfigError, match="name the population") as caught:
        open_budget(tiny(), plan, run_id="one", public=False)
    assert caught.value.key == "ledger.population"


@pytest.mark.parametrize("public", [True, False])
def test_a_population_needs_a_grant(plan: PrivacyPlan, public: bool) -> None:
    with pytest.raises(ConfigError, match="no budget was granted") as caught:
        open_budget(tiny(NAMED), plan, run_id="one", public=public)
    assert (caught.value.key, caught.value.value) == ("ledger.population", "people")


def test_the_grant_is_taken_as_it_is(plan: PrivacyPlan) -> None:
    ledger = grant()
    event = plan.event(4)
    ledger.reserve("people", "earlier", 1, 1, event, plan.digest())
    found = open_budget(tiny(NAMED), plan, run_id="one", public=False)
    assert (found.population, found.epsilon) == ("people", 2.0)
    assert [made.approver for made in found.grants] == ["the board"]
    assert found.prior == (event,)


@pytest.mark.parametrize(("delta", "unit"), [(1e-6, Unit.TASK), (1e-5, Unit.RECORD)])
def test_a_grant_of_another_kind_is_refused(plan: PrivacyPlan, delta: float, unit: Unit) -> None:
    """Its epsilon says nothing about this run's."""
    grant(delta=delta, unit=unit)
    with pytest.raises(ConfigError, match=r"set privacy\.unit and privacy\.delta"):
        open_budget(tiny(NAMED), plan, run_id="one", public=False)


def test_an_expired_grant_is_refused_before_anything_is_computed(plan: PrivacyPlan) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=9)
    ledger = Ledger(state.ledger_url(), clock=lambda: long_ago)
    end = long_ago + timedelta(days=1)
    ledger.grant("people", unit=Unit.TASK, epsilon=2.0, delta=1e-5, approver="b", expires=end)
    with pytest.raises(ConfigError, match=f"expired at {end.isoformat()}".replace("+", r"\+")):
        open_budget(tiny(NAMED), plan, run_id="one", public=False)


def test_a_grant_that_will_expire_is_stated(plan: PrivacyPlan) -> None:
    end = datetime.now(UTC) + timedelta(days=1)
    default_ledger().grant(
        "people", unit=Unit.TASK, epsilon=2.0, delta=1e-5, approver="b", expires=end
    )
    found = open_budget(tiny(NAMED), plan, run_id="one", public=False)
    assert [body["expires"] for _, body in found.entries()] == [end.isoformat()]


BARE: list[dict[str, object]] = [
    {"not_private.seed": 7},
    {"secure_sum.protocol": "plain", "secure_sum.allow_insecure": True},
]


@pytest.mark.parametrize("changes", BARE, ids=["seed", "plain"])
@pytest.mark.parametrize("named", [NAMED, {}], ids=["named", "unnamed"])
def test_private_data_are_never_trained_on_where_the_claim_does_not_hold(
    plan: PrivacyPlan, changes: dict[str, object], named: dict[str, object]
) -> None:
    """Whoever knows the seed, or reads single updates, learns more than any charge would say."""
    ledger = grant(epsilon=9.0)
    with pytest.raises(ConfigError, match="only for data declared public") as caught:
        open_budget(tiny({**changes, **named}), plan, run_id="one", public=False)
    assert caught.value.key in changes
    assert ledger.events("people") == ()


@pytest.mark.parametrize("changes", BARE, ids=["seed", "plain"])
def test_public_data_may_be_shown(plan: PrivacyPlan, changes: dict[str, object]) -> None:
    assert open_budget(tiny(changes), plan, run_id="one", public=True).population == "run/one"


def test_the_ledger_may_lie_elsewhere(plan: PrivacyPlan, tmp_path: Path) -> None:
    file = tmp_path / "shared.sqlite"
    open_budget(tiny({"ledger.url": f"sqlite:///{file}"}), plan, run_id="one", public=True)
    assert file.is_file()
    with pytest.raises(LedgerError, match="allowed is sqlite"):
        open_budget(tiny({"ledger.url": "sqlite://"}), plan, run_id="one", public=True)
