"""Searches whose number of trials is secret: what recipients see, and when no figure is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privacy.errors import BudgetExceeded
from privacy.tuning import Family, RandomStopping, selected_epsilon, uniform_below
from secure_fedmeta.config import load_config
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.pipeline import assemble
from secure_fedmeta.progress import Silent
from secure_fedmeta.tuning import tune
from tests.secure_fedmeta.federation import default_ledger
from tests.secure_fedmeta.searches import (
    ABSENT,
    ALGORITHMS,
    CHARGED,
    explained,
    fields,
    grant,
    needed,
    searched,
)

STOPPING = {**CHARGED, "tune.search": "random-stopping", "tune.mean_trials": 3.0}


def drawing(trials: int) -> Callable[[int], bytes]:
    """A source under which a search of mean 3 draws this many trials."""
    for seed in range(100):
        stopping = RandomStopping.with_mean(Family.LOGARITHMIC, 3.0)
        if stopping.draw(np.random.default_rng(seed).bytes) == trials:
            return np.random.default_rng(seed).bytes
    raise AssertionError(trials)


def test_the_best_of_a_secret_number_of_trials(tmp_path: Path) -> None:
    """Candidates are drawn anew for each trial; all are charged, recipients alone pay less."""
    grant(100.0)
    config = searched(STOPPING)
    found: dict[str, Any] = {}
    for seed in range(3, 40):
        rand = np.random.default_rng(seed).bytes
        trials = RandomStopping.with_mean(Family.LOGARITHMIC, 3.0).draw(rand)
        drawn = [uniform_below(2, rand) for _ in range(trials)]
        if trials in (3, 4) and len(set(drawn)) == 2:
            result = tune(config, out=tmp_path, rand=np.random.default_rng(seed).bytes)
            found = result.found
            break
    algorithms = [row["settings"]["learner.algorithm"] for row in found["candidates"]]
    assert algorithms == [ALGORITHMS["learner"]["algorithm"][i] for i in drawn]
    assert len(default_ledger().events("people")) == 2 * trials == found["charge"]["rounds"]
    selection = found["selection"]
    assert fields(found) - explained() == set()
    plan = assemble(searched(ABSENT)).plan
    worst = Counter({plan.worst_event(): 2})
    stopping = RandomStopping.with_mean(Family.LOGARITHMIC, 3.0)
    assert selection["epsilon"] == selected_epsilon([worst], stopping, delta=1e-5)
    assert (result.directory / selection["model"]).is_file()
    # What recipients get must not tell the number of trials.
    text = (result.directory / "chosen.toml").read_text()
    assert "andidate" not in text
    assert load_config(result.directory / "chosen.toml").tune is None


@pytest.mark.parametrize(
    "changes",
    [{"ledger.population": None}, {"not_private.seed": 1}],
    ids=["free", "seeded"],
)
def test_a_secret_number_that_protects_nobody_is_refused(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    with pytest.raises(ConfigError, match="protects nobody") as caught:
        tune(searched({**STOPPING, **changes}), out=tmp_path)
    assert caught.value.key == "tune.search"


def test_a_search_that_was_cut_short_has_no_figure_for_recipients(tmp_path: Path) -> None:
    grant(needed(3) * 1.01)
    ledger, plan = default_ledger(), assemble(searched()).plan

    class Rival(Silent):
        def round_done(self, record: Mapping[str, Any]) -> None:
            while ledger.affordable("people", plan.worst_event()) > 1:
                number = len(ledger.events("people"))
                ledger.reserve("people", "rival", number, 1, plan.worst_event(), bytes(32))

    result = tune(searched(STOPPING), out=tmp_path, progress=Rival(), rand=drawing(3))
    assert result.status == "budget"
    assert result.found["chosen"] == 1
    assert result.found["selection"] is None


def test_a_grant_for_fewer_trials_than_drawn(tmp_path: Path) -> None:
    grant(needed(1) * 1.01)
    with pytest.raises(BudgetExceeded, match="drawing again until it fits would void"):
        tune(searched(STOPPING), out=tmp_path / "runs", rand=drawing(2))
    assert default_ledger().events("people") == ()
