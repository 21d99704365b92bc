"""What an agent says of its confidence and of drift holds as often as it says, and bugs show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import log_softmax

from secure_fedmeta.agent import choice
from secure_fedmeta.agent.confidence import (
    FEWEST_FOR_TEMPERATURE,
    LEVEL,
    as_answered,
    at_temperature,
    calibrated,
    cv_plus,
    fit_temperature,
    guaranteed,
    temperature_of,
)
from secure_fedmeta.agent.drift import FALSE_ALARM, LONGEST, Drift
from secure_fedmeta.agent.predict import Array
from tests.secure_fedmeta.agents import agent_of, examples

ALPHA = 1e-4
"""Probability that one test fails though all is right."""


# --- intervals ------------------------------------------------------------------------------------


def by_definition(centres: Array, residuals: Array, level: float) -> tuple[float, float]:
    """Barber et al. 2021, equation 3: one point, one output, with ranks counted from 1."""
    n = len(residuals)
    low = sorted(m - r for m, r in zip(centres, residuals, strict=True))
    high = sorted(m + r for m, r in zip(centres, residuals, strict=True))
    upper = next(k for k in range(1, n + 2) if k >= level * (n + 1) - 1e-9)
    return low[n + 1 - upper - 1], high[upper - 1]


@given(n=st.integers(9, 60), seed=st.integers(0, 10**6), level=st.sampled_from([0.5, 0.8, 0.9]))
def test_the_interval_is_that_of_the_paper(n: int, seed: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    centres, residuals = rng.normal(size=(n, 3, 1)), rng.exponential(size=(n, 1))
    lower, upper = cv_plus(centres, residuals, level=level)
    for point in range(3):
        expected = by_definition(centres[:, point, 0], residuals[:, 0], level)
        assert (lower[point, 0], upper[point, 0]) == expected


def covered(*, scale: float, runs: int = 700, count: int = 19) -> int:
    """How often a leave-one-out interval for the mean of heavy-tailed numbers holds the next."""
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(runs):
        y = rng.standard_t(2, size=count + 1)
        rest = np.array([np.mean(np.delete(y[:-1], i)) for i in range(count)])
        residuals = scale * np.abs(y[:-1] - rest)[:, None]
        lower, upper = cv_plus(rest[:, None, None], residuals)
        found += bool(lower[0, 0] <= y[-1] <= upper[0, 0])
    return found


def test_intervals_hold_as_often_as_they_say_and_half_as_wide_ones_do_not() -> None:
    """Binomial tests at ALPHA: of the guarantee, and, for this smooth case, of the level."""
    runs = 700
    fewest = int(stats.binom.ppf(ALPHA, runs, LEVEL))
    most = int(stats.binom.ppf(1 - ALPHA, runs, LEVEL + 0.05))
    assert fewest <= covered(scale=1.0) <= most
    assert covered(scale=0.5) < int(stats.binom.ppf(ALPHA, runs, LEVEL))
    assert covered(scale=3.0) > most


def test_the_agent_s_intervals_hold_for_feedback_that_comes_alike() -> None:
    """Mode global, whose guarantee is LEVEL; each agent sees other examples."""
    agent, runs, found = agent_of("number"), 150, 0
    for seed in range(runs):
        agent.reset()
        x, y = examples("number", 20, seed=seed, noise=1.0)
        agent.observe(x[:19], y[:19])
        agent.learn("global")
        interval = agent.act(x[19:]).interval
        assert interval is not None
        found += bool(interval[0][0, 0] <= y[19] <= interval[1][0, 0])
    assert found >= int(stats.binom.ppf(ALPHA, runs, LEVEL))
    assert found < runs  # an interval that always holds says nothing


@pytest.mark.parametrize("mode", ["global", "adapted", "local", "mixture"])
@pytest.mark.parametrize("count", [12, 27])
def test_the_agent_s_interval_is_made_of_models_that_did_not_see_an_example(
    mode: choice.Mode, count: int
) -> None:
    agent = agent_of("number")
    x, y = examples("number", count)
    agent.observe(x, y)
    agent.learn(mode)
    assert agent.learned is not None
    weights = agent.learned.choice.weights
    new = examples("number", 1, seed=7)[0]
    held = choice.cross_validate(agent.network, agent.model, x, y, classes=None)
    centres, residuals = [], []
    for i in range(count):
        said = 0.0
        for name, weight in weights.items():
            if name == "global":
                said += weight * float(agent.unadapted(new).outputs[0, 0])
                continue
            learner = agent.network.local if name == "local" else agent.network.personal
            own = held.vectors[name][held.folds[i]].clone()
            said += weight * float(learner.predict(own, torch.tensor(new))[0, 0])
        centres.append(said)
        residuals.append(abs(float(held.of(weights, log=False)[i, 0]) - float(y[i])))
    lower, upper = by_definition(np.array(centres), np.array(residuals), LEVEL)
    found = agent.act(new).interval
    assert found is not None
    np.testing.assert_allclose((found[0][0, 0], found[1][0, 0]), (lower, upper), atol=1e-5)
    note = agent.act(new).note
    least = LEVEL if mode == "global" else guaranteed(count, int(held.folds.max()) + 1)
    assert f"level 90% by CV+ on {count} own examples; at least {least:.0%}" in note


def test_the_guarantee_is_that_of_the_theorem() -> None:
    assert guaranteed(20, 20) == pytest.approx(0.8)  # jackknife+: 1 - 2 alpha
    assert guaranteed(100, 10) == pytest.approx(0.8 - min(1.8 / 11, 0.9 / 11))
    assert guaranteed(10_000, 10) == pytest.approx(0.8 - 1.8 / 1001)


def test_with_few_examples_there_is_no_interval_and_that_is_said() -> None:
    agent = agent_of("number")
    agent.observe(*examples("number", 9))
    agent.learn()
    found = agent.act(examples("number", 3, seed=1)[0])
    assert found.interval is None
    assert found.note == "9 own examples are fewer than the 10 that can judge: no interval"


# --- probabilities --------------------------------------------------------------------------------


def drawn(true: float, count: int, seed: int) -> tuple[Array, Array]:
    """Log-probabilities of a model that is too sure by the factor `true`, and labels."""
    rng = np.random.default_rng(seed)
    logits = 3.0 * rng.normal(size=(count, 3))
    chances = at_temperature(logits, true)
    labels = (rng.random((count, 1)) > np.cumsum(chances, axis=1)).sum(axis=1)
    return log_softmax(logits, axis=-1), labels.astype(np.float64)


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_is_found(true: float) -> None:
    """Within five standard errors by the information of the sample."""
    logits, labels = drawn(true, 4000, seed=5)
    p = at_temperature(logits, true)
    information = ((p * logits**2).sum(axis=1) - (p * logits).sum(axis=1) ** 2).sum()
    found = fit_temperature(logits, labels)
    assert abs(1 / found - 1 / true) < 5 / np.sqrt(information)
    assert abs(1 / found - 1 / (1.3 * true)) > 5 / np.sqrt(information)


def test_a_temperature_that_does_not_stand_out_is_not_taken() -> None:
    """Of models that are right some get one by chance; of those too sure nearly all."""
    taken = [
        temperature_of(*drawn(true, 40, seed)) != 1 for true in (1.0, 4.0) for seed in range(40)
    ]
    assert sum(taken[:40]) <= 20
    assert sum(taken[40:]) >= 38
    logits, labels = drawn(4.0, 40, seed=0)
    found = temperature_of(logits, labels)
    assert found == fit_temperature(logits, labels)
    note = calibrated(*drawn(1.0, 40, seed=1)).note
    assert "no correction stands out" in note


def test_an_example_is_not_calibrated_by_itself() -> None:
    logits, labels = drawn(4.0, 40, seed=0)
    folds = np.arange(40) % 10
    found = as_answered(logits, labels, folds)
    changed = labels.copy()
    changed[folds == 3] = (labels[folds == 3] + 1) % 3
    again = as_answered(logits, changed, folds)
    np.testing.assert_array_equal(found[folds == 3], again[folds == 3])
    assert not np.array_equal(found[folds == 4], again[folds == 4])
    rest = folds != 3
    by_hand = at_temperature(logits[~rest], temperature_of(logits[rest], labels[rest]))
    np.testing.assert_allclose(np.exp(found[folds == 3]), by_hand)
    few = logits[: FEWEST_FOR_TEMPERATURE - 1]
    assert as_answered(few, labels[: len(few)], folds[: len(few)]) is few


def test_temperature_is_kept_in_its_bounds() -> None:
    sure = np.log(np.array([[0.9, 0.1]] * 20))
    assert fit_temperature(sure, np.zeros(20)) == pytest.approx(1 / 16, rel=0.02)
    assert fit_temperature(sure, np.ones(20)) == pytest.approx(16, rel=0.02)


def test_calibrated_probabilities_of_new_rows_are_better_than_those_of_a_model_too_sure() -> None:
    agent = agent_of("binary", local_steps=2000, local_lr=2.0, name="mlp", hidden=(16,))
    x, y = examples("binary", 460, noise=1.5)
    agent.observe(x[:60], y[:60])
    agent.learn("local")
    assert agent.learned is not None
    temperature = agent.learned.calibration.temperature
    assert temperature > 2  # a network that was trained on few noisy labels for long
    chances = agent.act(x[60:]).probabilities
    assert chances is not None
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    raw = np.stack([1 - (s := 1 / (1 + np.exp(-agent.act(x[60:]).outputs.numpy()[:, 0]))), s], 1)
    rows = np.arange(400)
    labels = y[60:].astype(int)
    loss = [-np.log(np.maximum(p[rows, labels], 1e-12)).mean() for p in (chances, raw)]
    assert loss[0] < 0.7 * loss[1]
    assert "calibrated on 60 own examples that their models did not see" in agent.act(x).note


def test_with_few_examples_probabilities_are_the_model_s_own_and_that_is_said() -> None:
    prediction = np.log(np.full((FEWEST_FOR_TEMPERATURE - 1, 2), 0.5))
    found = calibrated(prediction, np.zeros(FEWEST_FOR_TEMPERATURE - 1))
    assert found.temperature == 1.0
    assert "fewer than the 20 that can calibrate: the probability is the model's own" in found.note


# --- drift ----------------------------------------------------------------------------------------


def capital_by_definition(losses: list[float]) -> float:
    """The mixture over bets and over the time at which they begin, written out."""
    p = [np.mean([a >= losses[i] for a in losses[: i + 1]]) for i in range(len(losses))]
    bets = (0.1, 0.2, 0.3, 0.5, 0.7)
    total = 0.0
    for start in range(len(losses)):
        share = 1 / ((start + 1) * (start + 2))
        total += share * np.mean([np.prod([e * q ** (e - 1) for q in p[start:]]) for e in bets])
    return total + 1 / (len(losses) + 1)


@given(st.lists(st.floats(0, 10), max_size=25))
def test_the_capital_is_that_of_the_definition(losses: list[float]) -> None:
    drift = Drift(losses)
    assert drift.capital == pytest.approx(capital_by_definition(losses))
    assert drift.losses == losses


def alarms(runs: int, change: float, *, at: int = 60, length: int = 160) -> tuple[int, list[int]]:
    """How many tests raise an alarm when losses are multiplied from some place on, and where."""
    rng = np.random.default_rng(3)
    found, began = 0, []
    for _ in range(runs):
        losses = rng.exponential(size=length)
        losses[at:] *= change
        drift = Drift()
        for loss in losses.tolist():
            drift.observe(loss)
            if drift.alarm:
                found += 1
                began.append(drift.began)
                break
    return found, began


def test_unchanged_feedback_seldom_raises_an_alarm_and_changed_feedback_mostly_does() -> None:
    runs = 300
    most = int(stats.binom.ppf(1 - ALPHA, runs, FALSE_ALARM))
    assert alarms(runs, 1.0)[0] <= most
    found, began = alarms(60, 4.0)
    assert found >= 45  # three in four of losses that are four times as large
    assert abs(float(np.median(began)) - 60) <= 3
    assert found > most


def test_a_test_that_bets_too_much_raises_more_alarms_than_it_may() -> None:
    """Power: bets of mean 1.3 instead of 1 would be noticed."""

    class Greedy(Drift):
        def observe(self, loss: float) -> None:
            super().observe(loss)
            self._running *= 1.3

    rng = np.random.default_rng(3)
    found = 0
    for _ in range(100):
        drift = Greedy()
        for loss in rng.exponential(size=160).tolist():
            drift.observe(loss)
            if drift.alarm:
                found += 1
                break
    assert found > int(stats.binom.ppf(1 - ALPHA, 100, FALSE_ALARM))


def test_equal_losses_never_raise_an_alarm_and_broken_ones_do() -> None:
    assert Drift([1.0] * 200).capital < 1
    broken = Drift([*np.linspace(0, 1, 60).tolist()][::-1])
    assert not broken.alarm
    for _ in range(20):
        broken.observe(float("nan"))
        broken.observe(float("inf"))
    assert broken.losses[-1] == float("inf")


def test_a_test_ends_and_the_next_begins() -> None:
    agent = agent_of("number")
    agent.observe(*examples("number", 30))
    agent.learn("global")
    agent.observe(*examples("number", LONGEST + 3, seed=1))
    assert len(agent.drift.losses) == 3
