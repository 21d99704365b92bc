"""Searches on confidential data: candidates are compared by what their own charge covers."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats

from privacy.accountant import spend
from privacy.events import SkellamRound
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from privacy.tuning import Family, RandomStopping, selected_epsilon
from secure_fedmeta.client import contribution
from secure_fedmeta.console_tune import render_tune
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.pipeline import assemble
from secure_fedmeta.randomness import Randomness
from secure_fedmeta.simulation import CohortWork
from secure_fedmeta.tasks import ClientData
from secure_fedmeta.trial_scores import ProtectedScores, Score
from secure_fedmeta.tuning import tune
from secure_fedmeta.verification import verify_run
from tests.secure_fedmeta.federation import PrivateSource, default_ledger, entries, register
from tests.secure_fedmeta.searches import CHARGED, explained, fields, grant, searched
from tests.secure_fedmeta.test_tuning_stopping import drawing

LARGEST, WEIGHT, ROUNDS = 20.0, 0.5, 4
PROTECTED: dict[str, object] = {
    **CHARGED,
    "data.source": "watched",
    "privacy.metrics": ["query_loss"],
    "privacy.largest_loss": LARGEST,
    "privacy.metric_weight": WEIGHT,
    "training.rounds": ROUNDS,
    "tune.validation": [],
    "tune.scores": "protected",
    "tune.score_rounds": 3,
}


class Watched(PrivateSource):
    """Confidential data that remember whose were asked for."""

    name = "watched"
    asked: ClassVar[Counter[str]] = Counter()

    def client(self, name: str) -> ClientData:
        self.asked[name] += 1
        return super().client(name)


@pytest.fixture(autouse=True)
def sources(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, Watched)
    Watched.asked.clear()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({"privacy.metrics": [], "privacy.largest_loss": None}, "privacy.metrics", "query_loss"),
        ({"data.source": "sinusoid", "ledger.population": None}, "tune.scores", "nothing has to"),
        ({"tune.score_rounds": ROUNDS + 1}, "tune.score_rounds", "has 4 rounds"),
        # Those whom the source holds out train here; candidates would score them in clear.
        ({"data.held_out": ["client-000"]}, "data.held_out", "held-out-000, held-out-001"),
        ({}, "ledger.population", "no budget was granted"),
    ],
)
def test_refused_before_anything_trains(
    tmp_path: Path, changes: dict[str, object], key: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        tune(searched(PROTECTED | changes), out=tmp_path / "runs")
    assert caught.value.key == key
    assert not (tmp_path / "runs").exists()


def test_a_search_shows_nothing_that_its_charge_does_not_cover(tmp_path: Path) -> None:
    grant(50.0)
    config = searched(PROTECTED)
    result = tune(config, out=tmp_path)
    found = result.found
    assert (found["status"], found["mode"], found["scores"]) == (
        "completed",
        "charged",
        "protected",
    )
    assert fields(found) - explained() == set()
    # Nobody scores, and nobody who is held out was looked at.
    base = assemble(config)
    assert set(Watched.asked) == set(base.training)
    assert found["looked_at"]["training_clients"] == list(base.training)
    assert found["looked_at"]["validation_clients"] == []
    assert found["not_looked_at"] == list(base.held_out) != []
    # The scores are those of the log, which is of rounds that were charged with the metric inside.
    rows = found["candidates"]
    for row in rows:
        run = result.directory / row["run"]
        assert verify_run(run, key=None, pinned=None, unpinned=False).accepted
        assert json.loads((run / "report.json").read_text())["held_out"]["clients"] == []
        assert all("adapted" not in line and "unadapted" not in line for line in lines(run))
        shown = [
            e["body"]["protected"] for e in entries(run / "audit") if e["kind"] == "round-release"
        ]
        values = [float(one["query_loss"]) for one in shown]
        assert row["score"] == pytest.approx(sum(values[-3:]) / 3)
        noise = [line["protected"]["query_loss"]["noise_std"] for line in lines(run)][-3:]
        assert row["ci95"] == pytest.approx(1.96 * math.hypot(*noise) / 3, rel=1e-4)
        assert row["per_client"] == {}
    assert rows[found["chosen"] - 1]["score"] == min(row["score"] for row in rows)
    gap = abs(rows[0]["score"] - rows[1]["score"])
    assert found["lead"]["mean"] == pytest.approx(gap)
    assert found["lead"]["ci95"] == pytest.approx(math.hypot(rows[0]["ci95"], rows[1]["ci95"]))
    told = io.StringIO()
    Console(file=told, width=200).print(render_tune(result.directory, found))
    for said in (
        "query_loss of training tasks over the last 3 rounds",
        "scores are theirs, protected",
        f"{rows[0]['score']:.3f}",
        f"± {rows[1]['ci95']:.3f}",
        "by the noise of both",
    ):
        assert said in " ".join(told.getvalue().split())
    text = (result.directory / "chosen.toml").read_text()
    assert text.startswith("# Chosen by `fedmeta tune` on protected losses")
    # One composition covers all of it: a round's bound holds vector and loss together.
    events = default_ledger().events("people")
    assert len(events) == 2 * ROUNDS
    assert found["charge"]["epsilon"]["participants"] == spend(events, delta=1e-5).worst
    bare = assemble(searched({"tune": None, "training.rounds": ROUNDS})).plan
    for event in events:
        assert isinstance(event, SkellamRound)
        assert event.dimension in (bare.dimension + 1, base.plan.dimension)
        assert event.l2 >= math.floor(bare.scale * bare.clip * math.hypot(1.0, WEIGHT))


def test_recipients_of_the_best_of_a_secret_number(tmp_path: Path) -> None:
    """The bound wants a private score: here it is part of what a trial is charged."""
    grant(200.0)
    stopping = {"tune.search": "random-stopping", "tune.mean_trials": 3.0}
    config = searched(PROTECTED | stopping)
    found = tune(config, out=tmp_path, rand=drawing(2)).found
    plan = assemble(config.model_copy(update={"tune": None})).plan
    (spent,) = {type(event) for event in default_ledger().events("people")}
    assert spent is SkellamRound
    expected = selected_epsilon(
        [Counter({plan.worst_event(): ROUNDS})],
        RandomStopping.with_mean(Family.LOGARITHMIC, 3.0),
        delta=1e-5,
    )
    assert found["selection"]["epsilon"] == expected
    assert found["charge"]["rounds"] == 2 * ROUNDS


def record(value: float, *, survivors: int = 4, noise_std: float = 3.0) -> dict[str, Any]:
    """A line of metrics: a released round of four clients."""
    shown = {"query_loss": {"value": value, "noise_std": noise_std}}
    return {"status": "released", "selected": 4, "survivors": survivors, "protected": shown}


# --- the noise is there -------------------------------------------------------------------------

ALPHA = 1e-6
"""Chance that noise of the stated size is called wrong."""
TRIES = 100
PLANTS = {"none": 1.0, "no noise on scores": 0.0, "half of it": 0.5}


def residuals(monkeypatch: pytest.MonkeyPatch, factor: float) -> NDArray[np.float64]:
    """Scores of single rounds of a candidate, less the true loss, over the deviation they state.

    `factor` multiplies the noise of the coordinate behind the vector: a planted bug below 1.
    """
    share = PrivacyPlan.noise_share

    def planted(self: PrivacyPlan, rng: SecureRandom) -> NDArray[np.int64]:
        noise = share(self, rng)
        noise[self.width :] = np.rint(factor * noise[self.width :]).astype(np.int64)
        return noise

    monkeypatch.setattr(PrivacyPlan, "noise_share", planted)
    asked = {key: value for key, value in PROTECTED.items() if key.startswith("privacy.")}
    parts = assemble(searched(asked | {"tune": None}))
    plan, model, names = parts.plan, parts.initial(), parts.training
    keys = {name: bytes([i]) * 32 for i, name in enumerate(names)}
    work = CohortWork(parts.learner, parts.source, keys, loss=parts.loss)
    streams = {name: Randomness().generator(name) for name in names}
    found = []
    for index in range(1, TRIES + 1):
        here: Any = {"plan": plan, "round_index": index}
        sent = [contribution(work, name, model, noise=streams[name], **here) for name in names]
        beside = plan.beside(np.sum(sent, axis=0), survivors=len(names), clip=plan.clip)
        shown = beside.metrics["query_loss"]
        line = record(shown.value, noise_std=shown.std)
        score = ProtectedScores(1).score(parts, model, [line])
        assert score is not None
        each = [
            work.measured(name, model, round_index=index, names=("query_loss",)) for name in names
        ]
        true = np.clip(np.concatenate(each), 0.0, LARGEST).sum() / plan.expected_units
        found.append((score.interval.mean - true) / (score.interval.ci95 / 1.959964))
    return np.array(found)


@pytest.mark.parametrize("plant", PLANTS)
def test_scores_have_the_noise_that_is_stated(plant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Residuals have variance 1, and that is called wrong once in 10^6 times."""
    squares = float(np.square(residuals(monkeypatch, PLANTS[plant])).sum())
    low, high = stats.chi2.ppf([ALPHA / 2.0, 1.0 - ALPHA / 2.0], TRIES)
    assert stats.chi2.cdf(low / 0.25, TRIES) > 0.999  # power against half of the noise
    assert (low < squares < high) == (plant == "none")


# --- the mean -----------------------------------------------------------------------------------


def test_the_last_released_rounds_score_as_if_nobody_had_dropped_out() -> None:
    parts: Any = None
    model: Any = None
    scorer = ProtectedScores(2)
    assert scorer.score(parts, model, [{"status": "aborted"}]) is None
    found = scorer.score(
        parts, model, [record(100.0), record(6.0, survivors=3), {"status": "aborted"}, record(4.0)]
    )
    assert found is not None
    assert found.interval.mean == pytest.approx((6.0 * 4 / 3 + 4.0) / 2)
    assert found.interval.ci95 == pytest.approx(1.959964 * math.hypot(3.0 * 4 / 3, 3.0) / 2)
    other = Score(found.interval)
    ahead = found.ahead_of(other, lower=True)
    assert (ahead.mean, ahead.ci95) == (0.0, pytest.approx(math.sqrt(2.0) * found.interval.ci95))
