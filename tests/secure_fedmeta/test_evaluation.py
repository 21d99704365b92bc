"""Scores of held-out clients: the same draws for every arm, exact metrics, honest intervals."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

import secure_fedmeta.scoring
from secure_fedmeta.baseline import train_in_clear
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.evaluation import (
    Evaluation,
    Interval,
    Scores,
    _order,
    auc,
    average_precision,
    score,
)
from secure_fedmeta.pipeline import Parts, assemble
from secure_fedmeta.randomness import Randomness
from secure_fedmeta.scoring import (
    averager,
    closing_arms,
    fine_tuner,
    personaliser,
    train_in_clear_as_planned,
)
from secure_fedmeta.simulation import CohortWork
from secure_fedmeta.tasks import Site, build_source
from secure_fedmeta.unprotected import UNPROTECTED
from tests.secure_fedmeta.federation import PrivateSource, tiny

Rows = NDArray[np.generic]
HELD_OUT = ("held-out-000", "held-out-001")


@pytest.fixture(scope="module")
def parts() -> Parts:
    return assemble(tiny({"evaluation.repeats": 3}))


def evaluation(parts: Parts, repeats: int = 3, support: int = 3) -> Evaluation:
    return Evaluation(parts.source, parts.held_out, support=support, repeats=repeats)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=30))
def test_auc_is_the_chance_that_a_positive_ranks_higher(rows: list[tuple[int, bool]]) -> None:
    logits, targets = np.array([row[0] for row in rows], float), np.array([r[1] for r in rows])
    positive, negative = logits[targets], logits[~targets]
    found = auc(logits, targets)
    if not len(positive) or not len(negative):
        assert math.isnan(found)
        return
    higher = np.sign(positive[:, None] - negative[None, :])
    assert found == pytest.approx(float((higher + 1).mean() / 2))


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=30))
def test_average_precision_is_the_mean_precision_where_a_positive_is_found(
    rows: list[tuple[int, bool]],
) -> None:
    logits, targets = np.array([row[0] for row in rows], float), np.array([r[1] for r in rows])
    found = average_precision(logits, targets)
    if not targets.any():
        assert math.isnan(found)
        return
    precisions = [targets[logits >= threshold].mean() for threshold in logits[targets]]
    assert found == pytest.approx(np.mean(precisions))


def test_metrics() -> None:
    out = torch.tensor([[0.0], [2.0]])
    assert score("mse", out, np.array([1.0, 4.0])) == pytest.approx(2.5)
    assert score("auc", out, np.array([0, 1])) == 1.0
    assert score("average_precision", out, np.array([1, 0])) == 0.5
    two = torch.tensor([[3.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert score("auc", two, np.array([0, 1, 0])) == 1.0
    assert score("accuracy", two, np.array([0, 1, 1])) == pytest.approx(2 / 3)
    with pytest.raises(ConfigError, match="auc, average_precision, mse or accuracy"):
        score("f1", out, np.array([0, 1]))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_model_that_diverged_scores_as_badly_as_can_be(bad: float) -> None:
    out = torch.tensor([[0.0], [bad]])
    assert score("mse", out, np.array([0.0, 1.0])) == math.inf
    assert score("auc", out, np.array([0, 1])) == 0.0
    assert score("accuracy", torch.tensor([[0.0, bad]]), np.array([1])) == 0.0


def test_the_interval_is_students_over_clients() -> None:
    found = Interval.over({"a": 1.0, "b": 2.0, "c": 6.0})
    assert found.mean == pytest.approx(3.0)
    low, high = stats.t.interval(0.95, 2, loc=3.0, scale=stats.sem([1.0, 2.0, 6.0]))
    assert found.ci95 == pytest.approx((high - low) / 2)
    assert Interval.over({"a": 1.0}).mean == 1.0
    assert math.isnan(Interval.over({"a": 1.0}).ci95)
    assert math.isnan(Interval.over({}).mean)
    assert Interval.over({"a": math.inf, "b": 1.0}).mean == math.inf
    assert math.isnan(Interval.over({"a": math.inf, "b": 1.0}).ci95)


def test_support_is_even_over_the_labels_where_the_source_s_draws_are() -> None:
    """One example of each of five labels, for each made-up user: random draws would miss some."""
    source = build_source("vowels", {"ways": 5, "permuted": True})
    found = Evaluation(source, ("speaker-00", "speaker-01"), support=5, repeats=2)
    assert len(found.splits) == 2 * 6 * 2  # speakers, users, repeats
    for split in found.splits:
        assert sorted(split.support_y) == sorted(split.test_y) == list(range(5))


def test_support_and_test_are_all_of_a_subject_and_disjoint(parts: Parts) -> None:
    found = evaluation(parts)
    assert len(found.splits) == 2 * 5 * 3  # clients, persons, repeats
    for split in found.splits:
        assert split.support_x.shape == (3, 1)
        assert split.test_x.shape == (5, 1)
        together = np.concatenate([split.support_x, split.test_x]).ravel()
        assert len(set(together.tolist())) == 8
        data = parts.source.client(split.client)
        assert any(set(block.x.ravel()) == set(together.tolist()) for block in data.blocks)


def test_the_draws_are_the_same_in_every_run(parts: Parts) -> None:
    first, second = evaluation(parts), evaluation(assemble(tiny()))
    for one, other in zip(first.splits, second.splits, strict=True):
        np.testing.assert_array_equal(one.support_x, other.support_x)
        np.testing.assert_array_equal(one.test_y, other.test_y)
    supports = {split.support_x.tobytes() for split in first.splits[:3]}
    assert len(supports) > 1  # repeats are draws of their own


def test_a_client_without_users_is_one_subject() -> None:
    source = build_source("credit", {})
    (name,) = ("fixed-other",)
    found = Evaluation(source, (name,), support=5, repeats=2)
    rows = len(source.client(name).y)
    assert [len(split.test_y) for split in found.splits] == [rows - 5] * 2


def test_subjects_too_small_are_left_out(parts: Parts) -> None:
    assert len(evaluation(parts, support=7).splits) == 30
    with pytest.raises(ConfigError, match="no held-out client has more than 8 examples") as caught:
        evaluation(parts, support=8)
    assert caught.value.key == "data.held_out"


def test_nobody_held_out_is_no_score(parts: Parts) -> None:
    found = Evaluation(parts.source, (), support=3, repeats=1)
    assert found.unadapted(personaliser(parts), parts.initial()) == {}
    assert found.adapted(personaliser(parts), parts.initial()) == {}
    assert found.local_all(personaliser(parts), parts.initial()) == {}


def test_the_adapted_score_is_that_of_one_model_per_split(parts: Parts) -> None:
    found, learner, model = evaluation(parts), personaliser(parts), parts.initial()
    scores = found.adapted(learner, model)
    assert tuple(scores) == HELD_OUT
    expected = []
    for split in found.splits[:15]:
        own = learner.adapt(
            model, torch.as_tensor(split.support_x), torch.as_tensor(split.support_y)
        )
        out = learner.predict(own, torch.as_tensor(split.test_x)).numpy()[:, 0]
        expected.append(np.mean((out - split.test_y) ** 2))
    assert scores["held-out-000"] == pytest.approx(np.mean(expected), rel=1e-4)


def test_the_unadapted_score_is_that_of_the_model(parts: Parts) -> None:
    found, learner, model = evaluation(parts), personaliser(parts), parts.initial()
    expected = np.mean(
        [
            np.mean(
                (learner.predict(model, torch.as_tensor(s.test_x)).numpy()[:, 0] - s.test_y) ** 2
            )
            for s in found.splits[:15]
        ]
    )
    assert found.unadapted(learner, model)["held-out-000"] == pytest.approx(expected, rel=1e-4)


def test_cross_validation_never_trains_on_what_it_scores(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, learner = evaluation(parts), personaliser(parts)
    trained: list[set[float]] = []
    scored: list[set[float]] = []
    adapt, predict = type(learner).adapt_many, type(learner).predict

    def watching_adapt(self, params, x, y, steps=None):  # type: ignore[no-untyped-def]
        trained.extend(set(rows.ravel().tolist()) for rows in x)
        return adapt(self, params, x, y, steps)

    def watching_predict(self, params, x):  # type: ignore[no-untyped-def]
        scored.append(set(x.ravel().tolist()))
        return predict(self, params, x)

    monkeypatch.setattr(type(learner), "adapt_many", watching_adapt)
    monkeypatch.setattr(type(learner), "predict", watching_predict)
    scores = found.local_all(learner, parts.initial(), folds=4)
    assert tuple(scores) == HELD_OUT
    assert len(trained) == len(scored) == 2 * 5 * 4
    for train, test in zip(trained, scored, strict=True):
        assert not train & test
        assert len(train | test) == 8


def test_clients_without_a_defined_score_are_left_out() -> None:
    found = Scores({"a": [1.0, math.nan, 2.0], "b": [math.nan], "c": [3.0], "d": []})
    assert found == {"a": 1.5, "c": 3.0}
    assert found.per_draw.keys() == found.keys()
    np.testing.assert_array_equal(found.per_draw["a"], [1.0, math.nan, 2.0])


def test_draws_are_told_in_their_order(parts: Parts) -> None:
    """Split by split, fold by fold, each scored alone; folds of two sizes train in two passes."""
    found, learner, model = evaluation(parts), personaliser(parts), parts.initial()

    def alone(x: Rows, y: Rows, test_x: Rows, test_y: Rows) -> float:
        own = learner.adapt_many(model, torch.as_tensor(x)[None], torch.as_tensor(y)[None])[0]
        return score(found.metric, learner.predict(own, torch.as_tensor(test_x)), test_y)

    adapted = found.adapted(learner, model).per_draw
    assert [value for own in adapted.values() for value in own] == pytest.approx(
        [alone(s.support_x, s.support_y, s.test_x, s.test_y) for s in found.splits]
    )
    expected: dict[str, list[float]] = {name: [] for name in HELD_OUT}
    for number, (name, x, y) in enumerate(found._subjects):
        for test in np.array_split(_order(f"{name}/{number}/folds", len(x)), 3):
            train = np.setdiff1d(np.arange(len(x)), test)
            expected[name].append(alone(x[train], y[train], x[test], y[test]))
    folds = found.local_all(learner, model, folds=3).per_draw
    assert len(folds[HELD_OUT[0]]) == 3 * 5
    assert {name: pytest.approx(own) for name, own in expected.items()} == folds


def test_nothing_trains_for_nobody(parts: Parts) -> None:
    nobody = Evaluation(parts.source, (), support=3, repeats=1)
    told: list[str] = []
    arms, not_run = closing_arms(
        parts, nobody, parts.initial(), Randomness(1), announce=told.append
    )
    scored, _ = closing_arms(parts, evaluation(parts), parts.initial(), Randomness(1))
    assert (arms, not_run, told) == (dict.fromkeys(scored), {}, [])


def test_the_closing_arms(parts: Parts) -> None:
    found = evaluation(parts)
    arms, not_run = closing_arms(parts, found, parts.initial() + 0.5, Randomness(1))
    assert set(arms) == {"no_adaptation", "local_k", "local_all", "fedavg_ft", "meta"}
    assert not_run == {}
    assert all(scores is not None and tuple(scores) == HELD_OUT for scores in arms.values())
    assert arms["no_adaptation"] == found.unadapted(personaliser(parts), parts.initial() + 0.5)
    assert arms["no_adaptation"] != found.unadapted(personaliser(parts), parts.initial())


def _never(*_: object, **__: object) -> None:
    pytest.fail("trained in clear on private data")


def test_private_data_are_not_trained_on_a_second_time(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FedAvg would be a second, uncharged use: it is neither run nor scored."""
    options = PrivateSource.Options.model_validate(tiny().data.options)
    private = parts.__class__(**{**parts.__dict__, "source": PrivateSource(options, site=Site())})
    monkeypatch.setattr(secure_fedmeta.scoring, "train_in_clear", _never)
    arms, not_run = closing_arms(private, evaluation(private), parts.initial(), Randomness(1))
    assert arms["fedavg_ft"] is None
    assert "second budget" in not_run["fedavg_ft"]
    assert arms["meta"] is not None


def test_the_schedules_of_the_arms() -> None:
    changed = assemble(
        tiny(
            {
                "evaluation.adapt_steps": 4,
                "evaluation.adapt_lr": 0.5,
                "evaluation.fedavg_adapt_steps": 7,
                "evaluation.fedavg_adapt_lr": 0.25,
                "evaluation.fedavg_inner_steps": 3,
                "evaluation.fedavg_inner_lr": 0.125,
            }
        )
    )
    meta, averaged = personaliser(changed), fine_tuner(changed)
    assert (meta.name, meta._loop.steps, meta._loop.lr) == ("fomaml", 4, 0.5)
    assert (averaged.name, averaged._loop.steps, averaged._loop.lr) == ("fedavg", 7, 0.25)
    trained = averager(changed)
    assert (trained.name, trained._loop.steps, trained._loop.lr) == ("fedavg", 3, 0.125)
    default = assemble(tiny())
    assert averager(default)._loop.lr == 0.1
    assert (personaliser(default)._loop.steps, personaliser(default)._loop.lr) == (1, 0.1)
    assert (fine_tuner(default)._loop.steps, fine_tuner(default)._loop.lr) == (1, 0.1)


def test_the_baseline_is_the_run_without_the_secure_sum(parts: Parts) -> None:
    """Same clip, integers, noise and divisor: by hand, round by round."""
    keys = {n: bytes(32) for n in parts.training}
    work = CohortWork(parts.learner, parts.source, keys, loss=parts.loss)

    def noise(name: str) -> object:
        return Randomness(9).generator(name)

    found = train_in_clear(
        work,
        parts.training,
        plan=parts.plan,
        optimiser=parts.optimiser,
        initial=parts.initial(),
        noise=noise,  # type: ignore[arg-type]
    )
    state = parts.optimiser.init(parts.initial())
    streams = {name: Randomness(9).generator(name) for name in parts.training}
    for index in range(1, parts.plan.rounds + 1):
        model = state.params.to(torch.float32)
        total = sum(
            parts.plan.encode(
                work.outer_vectors(name, model, round_index=index), streams[name], round_index=index
            )
            for name in parts.training
        )
        state = parts.optimiser.update(
            state, torch.from_numpy(parts.plan.decode(total, round_index=index))
        )
    assert torch.equal(found, state.average.to(torch.float32))
    assert not torch.equal(found, parts.initial())


def test_the_averaging_baseline_is_repeatable_under_a_seed_only(parts: Parts) -> None:
    def train(randomness: Randomness) -> torch.Tensor:
        return train_in_clear_as_planned(parts, averager(parts), randomness)

    assert torch.equal(train(Randomness(3)), train(Randomness(3)))
    assert not torch.equal(train(Randomness()), train(Randomness()))


def test_exact_scores_tell_how_many_examples_there_are_of_each_class() -> None:
    """Why the report names it among what is not protected: three arms are enough."""
    rng = np.random.default_rng(7)
    targets = np.repeat([0.0, 1.0], [47, 13]).astype(np.float32)
    found = [score("auc", torch.from_numpy(rng.normal(size=(60, 1))), targets) for _ in range(3)]
    shown = [Fraction(one).limit_denominator(5_000).denominator for one in found]
    assert math.lcm(*shown) == 47 * 13
    assert any("examples they have of each class" in one for one in UNPROTECTED)
