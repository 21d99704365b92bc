"""The synthetic source: the published distribution, public bounds, and what grows alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from secure_fedmeta.errors import ConfigError
from secure_fedmeta.tasks import build_source
from secure_fedmeta.tasks.synthetic import (
    BOUND,
    SyntheticOptions,
    User,
    generate,
    size_of,
)

OPTIONS = SyntheticOptions(max_rows=100_000)
NAMES = [f"user-{number:03d}" for number in range(400)]


def users(count: int, **options: float) -> list[User]:
    chosen = SyntheticOptions.model_validate({"max_rows": 400, **options})
    return [generate(name, chosen) for name in NAMES[:count]]


def test_sizes_are_50_and_a_log_normal_number_cut_to_the_bound() -> None:
    """400 fixed draws of ln L: mean 4 and standard deviation 2, each within 4 standard errors.

    Those are 2 / sqrt(400) and 2 / sqrt(800); L below 1 counts as 1, which moves either by less
    than 0.03. A deviation of 1.5 would be seen.
    """
    sizes = np.array([size_of(name, OPTIONS) for name in NAMES])
    assert sizes.min() >= 50
    logs = np.log(np.maximum(sizes - 50, 1))
    assert logs.mean() == pytest.approx(4.0, abs=4 * 2 / np.sqrt(400) + 0.03)
    assert logs.std() == pytest.approx(2.0, abs=4 * 2 / np.sqrt(800) + 0.03)
    cut = [size_of(name, SyntheticOptions(max_rows=70)) for name in NAMES]
    assert cut == np.minimum(sizes, 70).tolist()


def test_inputs_spread_by_the_published_powers() -> None:
    """Inside a user the variance of input j is j^-1.2: 4 standard errors of a pooled variance."""
    found = users(30)
    rows = sum(len(user.y) - 1 for user in found)
    pooled = sum(((user.x - user.x.mean(axis=0)) ** 2).sum(axis=0) for user in found) / rows
    expected = np.arange(1, 61) ** -1.2
    assert np.abs(pooled / expected - 1).max() < 4 * np.sqrt(2 / rows)


@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0])
def test_centres_spread_by_beta_between_users_and_by_one_inside(beta: float) -> None:
    """Means over inputs have variance beta^2 + 1/60; 200 users, 4 standard errors of a variance."""
    chosen = SyntheticOptions(beta=beta, max_rows=50)
    centres = np.array([generate(name, chosen).x.mean(axis=0) for name in NAMES[:200]])
    between = centres.mean(axis=1).var()
    assert between == pytest.approx(beta**2 + 1 / 60, rel=4 * np.sqrt(2 / 200) + 0.02)
    assert centres.var(axis=1).mean() == pytest.approx(1.0, rel=0.05)


def test_labels_are_the_best_class_of_the_user_s_own_classifier() -> None:
    one, two = users(2)
    for user in (one, two):
        for x, y in zip(user.x[:40], user.y[:40], strict=True):
            values = [
                sum(float(x[j] * user.weights[j, c]) for j in range(60))
                + float(user.weights[60, c])
                for c in range(10)
            ]
            assert values.index(max(values)) == y
    # 610 standard normal weights each: mean within 4 / sqrt(610), variance within 4 sqrt(2 / 610).
    for user in (one, two):
        assert abs(user.weights.mean()) < 4 / np.sqrt(610)
        assert user.weights.var() == pytest.approx(1.0, abs=4 * np.sqrt(2 / 610))
    assert abs(np.corrcoef(one.weights.ravel(), two.weights.ravel())[0, 1]) < 4 / np.sqrt(610)


def test_inputs_beyond_the_bound_are_set_to_it_counted_and_keep_their_label() -> None:
    options = {"clients": 6, "held_out_clients": 0, "beta": 4.0, "max_rows": 80}
    source = build_source("synthetic", options)
    chosen = SyntheticOptions.model_validate(options)
    found = [generate(name, chosen) for name in source.clients()]
    beyond: Mapping[str, int] = source.info.clipped
    assert sum(beyond.values()) == sum(int((np.abs(user.x) > BOUND).sum()) for user in found) > 0
    held = sorted((record.id, record.x.tolist(), record.y) for record in source.records())
    expected = [
        (f"{name}/{row:05d}", np.clip(x, -5, 5).astype(np.float32).tolist(), float(y))
        for name, user in zip(source.clients(), found, strict=True)
        for row, (x, y) in enumerate(zip(user.x, user.y, strict=True))
    ]
    assert held == expected


def test_a_larger_federation_leaves_the_users_as_they_are() -> None:
    small = build_source("synthetic", {"clients": 2, "held_out_clients": 1, "max_rows": 60})
    large = build_source("synthetic", {"clients": 3, "held_out_clients": 2, "max_rows": 60})
    assert set(small.clients()) < set(large.clients())
    for name in small.clients():
        assert np.array_equal(small.client(name).x, large.client(name).x)
    other = build_source(
        "synthetic", {"clients": 2, "held_out_clients": 1, "max_rows": 60, "data_seed": 1}
    )
    assert not np.array_equal(small.client("user-000").x[:50], other.client("user-000").x[:50])


def test_defaults_are_a_hundred_users_with_a_task_each_at_least() -> None:
    info = build_source("synthetic", {}).info
    assert (info.clients, len(info.held_out), info.input_dim, info.output_dim) == (120, 20, 60, 10)
    assert info.tasks >= 120
    assert max(info.task_bounds.values()) == 500 // 28
    assert (info.loss, info.metric) == ("cross_entropy", "accuracy")
    assert info.units == {"record", "task", "user", "client"}


def test_the_generated_data_are_pinned() -> None:
    """Independent of machine and library versions up to float rounding."""
    user = generate("user-000", OPTIONS)
    assert len(user.y) == 434
    assert user.x[0, :3] == pytest.approx(
        [1.689273315990, -0.632564036812, 0.171022136464], abs=1e-9
    )
    assert user.y[:8].tolist() == [0, 0, 0, 2, 0, 0, 0, 0]


def test_draws_that_a_block_or_a_user_cannot_fill_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"k_support 20 . k_query 10 exceed 28"):
        build_source("synthetic", {"k_support": 20})
    with pytest.raises(ConfigError, match="exceed 50"):
        build_source("synthetic", {"k_support": 41, "records_per_block": 100})
