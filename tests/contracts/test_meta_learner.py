"""What every learner in the registry guarantees, on the closed form and on the general engine."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secure_fedmeta.errors import ConfigError
from secure_fedmeta.losses import LOSSES
from secure_fedmeta.meta import LEARNERS, TaskBatch, build_learner
from secure_fedmeta.meta.engine import engine_for
from secure_fedmeta.meta.functional import FunctionalEngine
from secure_fedmeta.meta.stack import StackEngine
from secure_fedmeta.models import build_model
from tests.contracts.learners import CASES, ENGINES, GENERAL, LR, STEPS, TASKS, at_rest, make
from tests.secure_fedmeta import reference


@pytest.mark.parametrize("steps", [1, STEPS])
@pytest.mark.parametrize(("case", "kind"), ENGINES)
@pytest.mark.parametrize("algorithm", LEARNERS.names())
def test_outer_vectors_equal_a_plain_autograd_loop(
    algorithm: str, case: str, kind: str, steps: int
) -> None:
    learner, module = make(algorithm, case, kind, steps=steps)
    params, batch = at_rest(learner, module), CASES[case].batch()
    expected = reference.outer_vectors(
        algorithm, module, LOSSES.get(CASES[case].loss), params, batch, steps, LR
    )
    found = learner.outer_vectors(params, batch)
    assert learner.name == algorithm
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert found.shape == (TASKS, learner.spec.size)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("case", "kind"), ENGINES)
@pytest.mark.parametrize("algorithm", LEARNERS.names())
def test_adaptation_equals_a_plain_autograd_loop(algorithm: str, case: str, kind: str) -> None:
    learner, module = make(algorithm, case, kind)
    params, batch = at_rest(learner, module), CASES[case].batch()
    for steps in (None, 1, 7):
        many = learner.adapt_many(params, batch.support_x, batch.support_y, steps)
        for index in range(TASKS):
            x, y = batch.support_x[index], batch.support_y[index]
            expected = reference.adapt(
                algorithm,
                module,
                LOSSES.get(CASES[case].loss),
                params,
                x,
                y,
                STEPS if steps is None else steps,
                LR,
            )
            torch.testing.assert_close(many[index], expected, atol=1e-5, rtol=1e-5)
            alone = learner.adapt(params, x, y, steps)
            torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("case", "kind"), ENGINES)
def test_predictions_are_those_of_the_module(case: str, kind: str) -> None:
    learner, module = make("maml", case, kind)
    params, x = at_rest(learner, module), CASES[case].batch().query_x
    with torch.no_grad():
        expected = module(x[0])
    torch.testing.assert_close(learner.predict(params, x[0]), expected, atol=1e-6, rtol=1e-5)
    shifted = params + torch.linspace(-1, 1, TASKS).unsqueeze(1)
    many = learner.predict_many(shifted, x)
    one_for_all = learner.predict_many(params, x)
    for index in range(TASKS):
        alone = learner.predict(shifted[index], x[index])
        torch.testing.assert_close(many[index], alone, atol=1e-5, rtol=1e-5)
        alone = learner.predict(params, x[index])
        torch.testing.assert_close(one_for_all[index], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("algorithm", LEARNERS.names())
def test_a_row_depends_on_its_own_task_alone(algorithm: str, case: str) -> None:
    """Sensitivity rests on this: one unit's rows, even infinite ones, move one vector."""
    learner, module = make(algorithm, case, "chosen")
    params, batch = at_rest(learner, module), CASES[case].batch()
    before = learner.outer_vectors(params, batch)
    batch.support_x[2] = float("inf")
    batch.query_x[2] = float("nan")
    after = learner.outer_vectors(params, batch)
    others = [0, 1, 3, 4]
    assert torch.equal(before[others], after[others])
    assert not torch.isfinite(after[2]).all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("algorithm", LEARNERS.names())
def test_a_small_memory_limit_changes_nothing_but_the_number_of_passes(
    algorithm: str, case: str
) -> None:
    whole, module = make(algorithm, case, "chosen")
    split, _ = make(algorithm, case, "chosen", memory_bytes=1)
    params, batch = at_rest(whole, module), CASES[case].batch(tasks=7)
    expected = whole.outer_vectors(params, batch)
    torch.testing.assert_close(split.outer_vectors(params, batch), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("algorithm", LEARNERS.names())
def test_results_are_memory_of_their_own_and_inputs_are_left_alone(
    algorithm: str, case: str
) -> None:
    learner, module = make(algorithm, case, "chosen")
    params, batch = at_rest(learner, module), CASES[case].batch()
    kept = params.clone(), batch.support_x.clone(), batch.query_y.clone()
    first = learner.outer_vectors(params, batch)
    copy = first.clone()
    adapted = learner.adapt_many(params, batch.support_x, batch.support_y)
    adapted_copy = adapted.clone()
    learner.outer_vectors(params * 2, CASES[case].batch(seed=9))
    learner.adapt_many(params * 2, batch.query_x, batch.query_y)
    assert torch.equal(first, copy)
    assert torch.equal(adapted, adapted_copy)
    assert torch.equal(params, kept[0])
    assert torch.equal(batch.support_x, kept[1])
    assert torch.equal(batch.query_y, kept[2])


@pytest.mark.parametrize("algorithm", LEARNERS.names())
def test_an_empty_cohort_gives_no_rows(algorithm: str) -> None:
    learner, module = make(algorithm, "relu", "chosen")
    params, batch = at_rest(learner, module), CASES["relu"].batch()
    assert learner.outer_vectors(params, batch[0:0]).shape == (0, learner.spec.size)


@pytest.mark.parametrize("algorithm", LEARNERS.names())
def test_the_server_descends_when_it_subtracts(algorithm: str) -> None:
    """The sign: a small step against the mean outer vector lowers the learner's own objective."""
    learner, module = make(algorithm, "tanh", "chosen", steps=1)
    params, batch = at_rest(learner, module), CASES["tanh"].batch()

    def objective(at: Tensor) -> float:
        adapted = at.expand(TASKS, -1)
        x, y = batch.query_x, batch.query_y
        if algorithm == "reptile":  # one step is joint training on the support rows
            x, y = batch.support_x, batch.support_y
        elif algorithm != "fedavg":
            adapted = learner.adapt_many(at, batch.support_x, batch.support_y)
        return float((learner.predict_many(adapted, x) - y).square().mean())

    step = learner.outer_vectors(params, batch).mean(0)
    assert objective(params - 0.01 * step) < objective(params)


@pytest.mark.parametrize("algorithm", LEARNERS.names())
def test_float64_models_and_inputs_are_computed_in_float32(algorithm: str) -> None:
    learner, module = make(algorithm, "relu", "chosen")
    params, batch = at_rest(learner, module), CASES["relu"].batch()
    double = TaskBatch(
        batch.support_x.double(), batch.support_y.double(), batch.query_x.double(), batch.query_y
    )
    found = learner.outer_vectors(params.double(), double)
    assert found.dtype == torch.float32
    assert torch.equal(found, learner.outer_vectors(params, batch))


@pytest.mark.parametrize("algorithm", LEARNERS.names())
def test_shapes_that_do_not_fit_are_refused(algorithm: str) -> None:
    for case in ("relu", "residual"):
        learner, module = make(algorithm, case, "chosen")
        params, batch = at_rest(learner, module), CASES[case].batch()
        with pytest.raises(ConfigError, match="params of shape"):
            learner.outer_vectors(params[:-1], batch)
        with pytest.raises(ConfigError, match="params of shape"):
            learner.predict_many(params.expand(2, -1), batch.query_x)
        wide = TaskBatch(
            torch.zeros(TASKS, 6, 5), batch.support_y, torch.zeros(TASKS, 9, 5), batch.query_y
        )
        with pytest.raises(ConfigError):
            learner.outer_vectors(params, wide)


def test_zero_adaptation_steps_give_the_model_back() -> None:
    learner, module = make("maml", "relu", "chosen")
    params, batch = at_rest(learner, module), CASES["relu"].batch()
    many = learner.adapt_many(params, batch.support_x, batch.support_y, 0)
    assert torch.equal(many, params.expand(TASKS, -1))


def test_anil_moves_the_head_alone_but_learns_the_body() -> None:
    learner, module = make("anil", "relu", "chosen")
    params, batch = at_rest(learner, module), CASES["relu"].batch()
    body = learner.spec.head.start
    assert 0 < body < learner.spec.size
    adapted = learner.adapt_many(params, batch.support_x, batch.support_y)
    assert torch.equal(adapted[:, :body], params[:body].expand(TASKS, -1))
    assert bool((learner.outer_vectors(params, batch)[:, :body] != 0).any())


def test_second_order_terms_are_there() -> None:
    exact, module = make("maml", "tanh", "chosen")
    first, _ = make("fomaml", "tanh", "chosen")
    params, batch = at_rest(exact, module), CASES["tanh"].batch()
    gap = exact.outer_vectors(params, batch) - first.outer_vectors(params, batch)
    assert float(gap.abs().max()) > 1e-2


def test_stacks_get_the_closed_form_and_other_modules_the_general_engine() -> None:
    kinds = {
        name: type(engine_for(case.model(), LOSSES.get(case.loss))) for name, case in CASES.items()
    }
    general = {name for name, kind in kinds.items() if kind is FunctionalEngine}
    assert general == GENERAL
    assert set(kinds.values()) == {FunctionalEngine, StackEngine}


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ({"inner_steps": 0}, "learner.inner_steps"),
        ({"inner_lr": 0.0}, "learner.inner_lr"),
        ({"inner_lr": float("inf")}, "learner.inner_lr"),
        ({"rate_scale": 0.0}, "learner.rate_scale"),
        ({"memory_mb": 0}, "memory_mb"),
        ({"device": "tpu"}, "device"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_learner("maml", build_model("linear", 2, 1, seed=0), "mse", **setting)
    assert caught.value.key == key


def test_an_unknown_learner_or_loss_is_refused_with_the_nearest_name() -> None:
    module = build_model("linear", 2, 1, seed=0)
    with pytest.raises(ConfigError, match="'maml'"):
        build_learner("mmal", module, "mse")
    with pytest.raises(ConfigError, match="'mse'"):
        build_learner("maml", module, "msse")
