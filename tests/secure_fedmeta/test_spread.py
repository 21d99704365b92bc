"""Tails and harm: the few clients that a mean hides."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_fedmeta.evaluation import Interval
from secure_fedmeta.spread import harm, spread

NAMES = st.sampled_from([f"c{number}" for number in range(25)])
SCORES = st.dictionaries(NAMES, st.floats(0, 9), min_size=1)


def test_the_worst_tenth_is_where_scores_are_worst() -> None:
    scores = {f"c{number}": number / 10 for number in range(11)}
    assert spread("auc", scores)["worst_decile"] == {"mean": pytest.approx(0.05), "clients": 2}
    assert spread("mse", scores)["worst_decile"] == {"mean": pytest.approx(0.95), "clients": 2}
    ten = dict(list(scores.items())[:10])
    assert spread("auc", ten)["worst_decile"] == {"mean": 0.0, "clients": 1}
    assert spread("auc", scores)["quantiles"] == {
        "lowest": 0.0, "tenth": 0.1, "median": 0.5, "ninetieth": 0.9, "highest": 1.0,
    }  # fmt: skip


def test_one_client_that_diverged_spoils_its_own_figures_alone() -> None:
    found = spread("mse", {"a": 1.0, "b": 2.0, "c": math.inf})
    assert found["worst_decile"] == {"mean": None, "clients": 1}
    assert found["quantiles"]["median"] == 2.0
    assert found["quantiles"]["highest"] is None


@given(SCORES)
def test_quantiles_are_scores_of_clients_in_order(scores: dict[str, float]) -> None:
    found = list(spread("auc", scores)["quantiles"].values())
    assert found == sorted(found)
    assert set(found) <= set(scores.values())
    assert (found[0], found[-1]) == (min(scores.values()), max(scores.values()))


def test_harm_is_counted_client_by_client() -> None:
    joined = {"a": 0.9, "b": 0.5, "c": 0.7, "only joined": 0.1}
    alone = {"a": 0.6, "b": 0.7, "c": 0.7, "only alone": 0.9}
    found = harm("auc", joined, alone)
    assert (found["compared"], found["harmed"], found["share"]) == (3, 1, pytest.approx(1 / 3))
    assert found["gain"] == pytest.approx(0.1 / 3)
    assert found["largest_shortfall"] == pytest.approx(0.2)
    interval = Interval.over({"a": 0.3, "b": -0.2, "c": 0.0})
    assert found["gain_ci95"] == pytest.approx(interval.ci95)


def test_with_less_is_better_the_signs_turn() -> None:
    found = harm("mse", {"a": 0.9, "b": 0.5}, {"a": 0.6, "b": 0.7})
    assert (found["harmed"], found["largest_shortfall"]) == (1, pytest.approx(0.3))
    assert found["gain"] == pytest.approx(-0.05)


@pytest.mark.parametrize(
    ("joined", "alone", "harmed", "largest"),
    [
        (math.inf, 1.0, 1, None),
        (1.0, math.inf, 0, 0.0),
        (math.inf, math.inf, 0, 0.0),
        (1.0, 1.0, 0, 0.0),
    ],
)
def test_a_model_that_diverged_harms(
    joined: float, alone: float, harmed: int, largest: float | None
) -> None:
    found = harm("mse", {"a": joined}, {"a": alone})
    assert (found["compared"], found["harmed"], found["largest_shortfall"]) == (1, harmed, largest)


def test_nobody_to_compare_is_no_number() -> None:
    found = harm("auc", {"a": 0.5}, {})
    assert (found["compared"], found["harmed"]) == (0, 0)
    assert (found["share"], found["gain"], found["largest_shortfall"]) == (None, None, None)


@given(SCORES, SCORES)
def test_nobody_is_harmed_both_ways(one: dict[str, float], other: dict[str, float]) -> None:
    here, there = harm("auc", one, other), harm("auc", other, one)
    ties = sum(one[name] == other[name] for name in one.keys() & other.keys())
    assert here["harmed"] + there["harmed"] + ties == here["compared"] == there["compared"]
    assert harm("mse", one, other)["harmed"] == there["harmed"]
