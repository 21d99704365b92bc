"""Which candidates a search has, and which of their trials is best."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

from secure_fedmeta.config_tune import TuneConfig
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.evaluation import Interval
from secure_fedmeta.trial_scores import Score
from secure_fedmeta.trials import Trial, best, lead, settings_of


def choices(**named: Any) -> TuneConfig:
    return TuneConfig.model_validate({"validation": ["a"], **named})


# --- candidates ---------------------------------------------------------------------------------

PROTECTED: dict[str, Any] = {"scores": "protected", "validation": []}
GRID = {"learner": {"algorithm": ["maml", "anil"]}, "server": {"lr": [0.1, 0.2, 0.3]}}


def test_a_grid_holds_every_combination_once() -> None:
    found = settings_of(choices(settings=GRID))
    assert found[:4] == (
        {"learner.algorithm": "maml", "server.lr": 0.1},
        {"learner.algorithm": "maml", "server.lr": 0.2},
        {"learner.algorithm": "maml", "server.lr": 0.3},
        {"learner.algorithm": "anil", "server.lr": 0.1},
    )
    assert len({tuple(one.values()) for one in found}) == len(found) == 6


def test_a_random_search_draws_different_candidates_by_its_seed() -> None:
    def drawn(seed: int, count: int = 4) -> list[tuple[Any, ...]]:
        tune = choices(settings=GRID, search="random", candidates=count, seed=seed)
        return [tuple(one.values()) for one in settings_of(tune)]

    assert drawn(0) == drawn(0)
    assert all(len(set(drawn(seed))) == 4 for seed in range(20))
    assert len({frozenset(drawn(seed)) for seed in range(20)}) > 5
    grid = {tuple(one.values()) for one in settings_of(choices(settings=GRID))}
    assert set(drawn(1, count=6)) == grid


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"settings": {"training": {"rounds": [1, 2]}}}, "training.rounds is the same for every"),
        ({"settings": {"privacy": {"epsilon": [1.0, 8.0]}}}, "privacy.epsilon is the same"),
        ({"settings": {"evaluation": {"repeats": [1]}}}, "evaluation.repeats is the same"),
        ({"settings": {"model": {"init_seed": [1, 2]}}}, "model.init_seed is the same"),
        ({"settings": {"server": {"lr": [0.1, 0.1]}}}, "server.lr names a value twice"),
        ({"settings": {"server": {"lr": []}}}, "at least 1 item"),
        ({"settings": {}}, "at least 1 item"),
        ({"settings": GRID, "validation": []}, "set validation with"),
        (PROTECTED | {"settings": GRID, "validation": ["a"]}, "set validation with"),
        ({"settings": GRID, "score_rounds": 2}, "set score_rounds with"),
        (PROTECTED | {"settings": GRID, "public_validation": True}, "set public_validation with"),
        (
            PROTECTED | {"settings": {"learner": {"inner_steps": [1, 2]}}},
            "inner_steps is the same for every",
        ),
        ({"settings": GRID, "search": "random"}, "set candidates with"),
        ({"settings": GRID, "candidates": 2}, "set candidates with"),
        ({"settings": GRID, "search": "random-stopping"}, "set mean_trials with"),
        ({"settings": GRID, "mean_trials": 2.0}, "set mean_trials with"),
        ({"settings": GRID, "search": "random-stopping", "mean_trials": 1.0}, "greater than 1"),
    ],
)
def test_what_a_search_may_not_say(named: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choices(**named)


def test_too_many_candidates_are_refused() -> None:
    many = choices(settings={"server": {"lr": [i / 10 for i in range(1, 1002)]}})
    with pytest.raises(ConfigError, match=r"1001 candidates.*at most 1000"):
        settings_of(many)


# --- the choice ---------------------------------------------------------------------------------


def trial(number: int, *scores: float, status: str = "completed") -> Trial:
    named = {f"c{i}": value for i, value in enumerate(scores)}
    score = Score(Interval.over(named), named) if named else None
    return Trial(number, status, score, 1.0, None, Counter())


@pytest.mark.parametrize(
    ("trials", "lower", "chosen"),
    [
        ([trial(1, 0.5), trial(2, 0.7), trial(3, 0.6)], False, 2),
        ([trial(1, 0.5), trial(2, 0.7), trial(3, 0.4)], True, 3),
        ([trial(1, 0.5, 0.7), trial(2, 0.6, 0.6)], False, 1),  # equals: the first
        ([trial(1, math.inf), trial(2, 9e9)], True, 2),
        ([trial(1, 0.9, status="budget"), trial(2, 0.1)], False, 2),
        ([trial(1), trial(2, 0.1)], False, 2),
        ([trial(1, 0.9, status="aborted"), trial(2)], False, None),
        ([], False, None),
    ],
)
def test_the_best_of_the_completed(trials: list[Trial], lower: bool, chosen: int | None) -> None:
    found = best(trials, lower=lower)
    assert (None if found is None else found.candidate) == chosen


def test_the_lead_is_paired_by_client() -> None:
    """Two clients that differ much, and candidates that differ by the same on both."""
    trials = [trial(1, 0.5, 0.9), trial(2, 0.6, 1.0), trial(3, 0.1, 0.2)]
    found = lead(trials[1], trials, lower=False)
    assert found is not None
    assert found["over"] == 1
    assert found["mean"] == pytest.approx(0.1)
    assert found["ci95"] == pytest.approx(0.0, abs=1e-9)
    found = lead(trials[2], trials, lower=True)
    assert found is not None
    assert (found["over"], found["mean"]) == (1, pytest.approx(0.55))
    assert lead(trials[0], trials[:1], lower=True) is None
