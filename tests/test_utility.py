"""Noise over rounds as decision 0028 has it, and what benchmarks.utility trains and compares."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks._arms import (
    TAILS,
    Arm,
    Outcome,
    Trial,
    config_of,
    shaped_noise,
    strategy_of,
    trained,
)
from benchmarks._correlated import (
    Matrix,
    least_noise,
    noise_of,
    schedule,
    searched,
    sensitivity,
    square_root,
    workload,
)
from benchmarks.utility import HEAD_ONLY, SHIPPED, best_of, table_of
from secure_fedmeta.baseline import train_in_clear
from secure_fedmeta.pipeline import Parts, assemble
from secure_fedmeta.randomness import Randomness
from secure_fedmeta.server_opt import ServerOptimiser
from secure_fedmeta.simulation import CohortWork

ROUNDS = 12
ALPHA = 1e-6


def prefix_sums(rounds: int = ROUNDS) -> Matrix:
    return np.tril(np.ones((rounds, rounds)))


def unit_rows(rng: np.random.Generator, rows: int, columns: int) -> Matrix:
    drawn = rng.standard_normal((rows, columns))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def strategies(rng: np.random.Generator) -> list[Matrix]:
    """Lower triangular, of both signs, from nearly diagonal to full."""
    noise = [np.tril(rng.standard_normal((ROUNDS, ROUNDS))) * s for s in (0.01, 0.1, 1.0)]
    return [np.eye(ROUNDS) + n for n in noise] + [square_root(ROUNDS, b) for b in (1, 3, ROUNDS)]


@pytest.fixture(scope="module")
def parts() -> Parts:
    settings = {"training": {"rounds": 6}, "server": {"average_from": 4}}
    return assemble(config_of(Trial("credit", Arm("short", settings), ("fixed-rent",), (), 0, 3)))


def test_servers_as_matrices() -> None:
    sums, last = workload(ServerOptimiser("sgd", 0.3), ROUNDS)
    assert np.allclose(sums, prefix_sums())
    assert np.allclose(last, np.ones((1, ROUNDS)))
    sums, average = workload(ServerOptimiser("momentum", 2.0, average_from=5), ROUNDS)
    lag = np.subtract.outer(np.arange(ROUNDS), np.arange(ROUNDS))
    assert np.allclose(sums, np.where(lag >= 0, (1.0 - 0.9 ** (lag + 1.0)) / 0.1, 0.0))
    assert np.allclose(average, sums[4:].mean(axis=0))


def test_no_unit_moves_a_release_further_than_its_sensitivity() -> None:
    rng = np.random.default_rng(1)
    for strategy in strategies(rng):
        for every in (1, 3):
            bound = sensitivity(strategy, every=every)
            for first in range(every):
                present = np.zeros((ROUNDS, 1))
                present[first::every] = 1.0
                for _ in range(50):
                    vectors = unit_rows(rng, ROUNDS, ROUNDS) * present
                    assert np.linalg.norm(strategy @ vectors) <= bound * (1 + 1e-12)
            if (strategy >= 0).all():
                alike = np.zeros(ROUNDS)
                alike[::every] = 1.0
                assert np.linalg.norm(strategy @ alike) == pytest.approx(bound)


def test_leaving_entries_out_moves_a_release_less() -> None:
    rng = np.random.default_rng(2)
    strategy = square_root(ROUNDS, 5)
    for _ in range(50):
        assert sensitivity(strategy * rng.random(strategy.shape)) <= sensitivity(strategy)


def test_no_strategy_is_below_the_bound_and_the_schedule_is_at_it() -> None:
    """By the unit that the proof names, so that nothing rests on a bound of the sensitivity."""
    rng = np.random.default_rng(3)
    servers = [ServerOptimiser("sgd", 1.0), ServerOptimiser("momentum", 1.0, average_from=4)]
    works = [work for server in servers for work in workload(server, ROUNDS)]
    works.append(rng.standard_normal((5, ROUNDS)))
    for work in works:
        bound = least_noise(work)
        assert noise_of(work, schedule(work)) == pytest.approx(bound)
        worst = (work / np.linalg.norm(work, axis=0)).T
        for strategy in [*strategies(rng), searched(work, bands=3)]:
            rows = np.linalg.solve(strategy.T, work.T)
            moved = np.linalg.norm(strategy @ worst)
            assert np.linalg.norm(rows) * moved / np.sqrt(len(work)) >= bound * (1 - 1e-12)
            assert noise_of(work, strategy) >= bound * (1 - 1e-12)


def test_correlation_pays_where_units_are_rare() -> None:
    """The search is not blind: for units in one round alone it finds less than half the noise."""
    work = prefix_sums(40)
    once = noise_of(work, searched(work, bands=40, every=40), every=40)
    assert once < 0.5 * noise_of(work, np.eye(40), every=40)


@pytest.mark.parametrize("shape", ["independent", "scheduled", "banded"])
def test_noise_of_every_shape_costs_the_same(parts: Parts, shape: str) -> None:
    """C times the noise of all rounds is white, of the plan's variance times what C costs.

    Chi-square, two-sided; alpha 1e-6, and half the noise or noise without its cost is beyond it.
    """
    strategy = strategy_of(parts, shape)
    plan = parts.plan
    wanted = plan.noise_std(plan.clients) / (plan.scale * plan.expected_units)
    wanted *= sensitivity(strategy) / np.sqrt(plan.rounds)
    noise = np.concatenate([shaped_noise(parts, shape, Randomness(s)) for s in range(20)], axis=1)
    white = strategy @ noise / wanted

    def p_value(rows: Matrix) -> float:
        tail = stats.chi2.cdf(np.square(rows).sum(), rows.size)
        return float(2.0 * min(tail, 1.0 - tail))

    for row in white:
        assert p_value(row) > ALPHA
    assert p_value(white) > ALPHA
    assert p_value(white / 2.0) < ALPHA
    if shape == "banded":
        assert p_value(noise / wanted) < ALPHA
        assert p_value(white * sensitivity(strategy) / np.sqrt(plan.rounds)) < ALPHA


def test_planned_noise_is_what_the_product_trains_with(parts: Parts) -> None:
    randomness = Randomness(5)
    iterates = trained(parts, randomness, "planned")
    keys = randomness.stream("keys")
    secrets = {name: keys(32) for name in parts.training}
    released = train_in_clear(
        CohortWork(parts.learner, parts.source, secrets, loss=parts.loss),
        parts.training,
        plan=parts.plan,
        optimiser=parts.optimiser,
        initial=parts.initial(),
        noise=lambda name: randomness.generator(f"noise/{name}"),
    )
    assert np.allclose(iterates[3:].mean(axis=0), released.numpy(), rtol=1e-5, atol=1e-6)
    assert not np.allclose(iterates[2:].mean(axis=0), released.numpy(), rtol=1e-3)


def test_head_only_shares_the_last_layer_alone() -> None:
    whole, part = (
        assemble(config_of(Trial("sinusoid", arm, ("held-out-000",), (), 100, 1)))
        for arm in (SHIPPED, HEAD_ONLY)
    )
    assert (whole.plan.parameters, part.plan.parameters) == (1761, 41)
    assert part.plan.worst_epsilon() == pytest.approx(whole.plan.worst_epsilon(), abs=0.02)


def test_the_best_arm_is_the_lowest_or_the_highest() -> None:
    arms = [Arm("a"), Arm("b")]
    scores = {
        arm.name: {key: [value, value + 1.0] for key in (*TAILS, "configured")}
        for arm, value in zip(arms, (1.0, 2.0), strict=True)
    }
    scores["b"] = scores["b"] | {"last": [9.0, 9.0]}
    assert best_of(scores, arms, lower=True) == (arms[0], "configured")
    assert best_of(scores, arms, lower=False) == (arms[1], "last")


def test_differences_are_of_the_same_client_or_seed() -> None:
    def outcome(offset: float) -> Outcome:
        return {tail: {"x": 1.0 + offset, "y": 5.0 + offset} for tail in (*TAILS, "configured")}

    reported = [
        (label, Trial("sinusoid", Arm(label), ("x", "y"), (), seed, seed))
        for label, seeds in ((SHIPPED.name, (1, 2, 3)), ("other", (1, 2)))
        for seed in seeds
    ]
    outcomes = [outcome(x) for x in (0.0, 10.0, 20.0, 0.5, 10.7)]
    row = table_of(reported, outcomes, per="seed")["other"]["last"]
    assert row["mean"] == pytest.approx(8.6)
    assert row["minus_shipped"] == pytest.approx(0.6)
    assert row["ci95"] == pytest.approx(12.706 * 0.1, rel=1e-3)
    row = table_of(reported, outcomes, per="client")["other"]["last"]
    assert row["minus_shipped"] == pytest.approx(8.6 - 13.0)
    assert row["ci95"] == pytest.approx(0.0, abs=1e-9)
