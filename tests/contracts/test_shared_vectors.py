"""What every learner shares: its layout, where it starts, and what is made of a released one."""

from __future__ import annotations

import pytest
import torch

from secure_fedmeta.errors import ConfigError
from secure_fedmeta.losses import LOSSES
from secure_fedmeta.meta import LEARNERS, build_learner
from secure_fedmeta.vector import ParameterVector
from tests.contracts.learners import CASES, LR, TASKS, at_rest, make
from tests.secure_fedmeta import reference


@pytest.mark.parametrize("case", ["relu", "residual", "gru"])
def test_anil_head_shares_the_head_alone(case: str) -> None:
    learner, frozen = make("anil_head", case, "chosen")
    whole = CASES[case].model()
    names = [name for name, _ in whole.named_parameters()]
    assert set(names) - set(learner.spec.names) != set()
    assert tuple(names[-2:]) == learner.spec.names  # weight and bias of the last layer
    assert torch.equal(
        learner.initial(whole), torch.cat([p.detach().ravel() for p in (*whole.parameters(),)[-2:]])
    )
    batch = CASES[case].batch()
    moved = learner.initial(whole) + 1
    learner.load_into(whole, learner.adapt_many(moved, batch.support_x, batch.support_y)[0])
    for (name, before), after in zip(frozen.named_parameters(), whole.parameters(), strict=True):
        assert torch.equal(before, after) == (name not in learner.spec.names)


def test_parties_with_different_frozen_bodies_have_different_models() -> None:
    net = CASES["relu"].model()
    learner = build_learner("anil_head", net, "mse", device="cpu")
    start = learner.initial(net)
    with torch.no_grad():
        net[0].weight[0, 0] += 1
    other = build_learner("anil_head", net, "mse", device="cpu")
    assert torch.equal(start, other.initial(net))
    assert learner.spec.digest(start) != other.spec.digest(start)


@pytest.mark.parametrize("algorithm", LEARNERS.names())
def test_the_network_comes_first_and_what_is_learned_beside_it_starts_at_zero(
    algorithm: str,
) -> None:
    learner, module = make(algorithm, "relu", "chosen")
    model = ParameterVector.of(module)
    initial = learner.initial(module)
    assert initial.shape == (learner.spec.size,)
    assert torch.equal(initial[: model.size], model.flatten(module))
    assert not initial[model.size :].any()
    batch, params = CASES["relu"].batch(), at_rest(learner, module)
    adapted = learner.adapt_many(params, batch.support_x, batch.support_y)
    assert torch.equal(adapted[:, model.size :], params[model.size :].expand(TASKS, -1))
    torch.testing.assert_close(
        learner.predict(params, batch.query_x[0]),
        learner.predict(torch.cat([params[: model.size], initial[model.size :]]), batch.query_x[0]),
    )


@pytest.mark.parametrize("algorithm", LEARNERS.names())
def test_a_released_vector_can_be_stored_and_put_into_the_module(algorithm: str) -> None:
    learner, module = make(algorithm, "relu", "chosen")
    params = at_rest(learner, module) + 0.25
    assert torch.equal(learner.spec.load(learner.spec.save(params)), params)
    learner.load_into(module, params)
    x = CASES["relu"].batch().query_x[0]
    with torch.no_grad():
        torch.testing.assert_close(module(x), learner.predict(params, x))


@pytest.mark.parametrize("algorithm", LEARNERS.names())
def test_another_schedule_keeps_the_layout(algorithm: str) -> None:
    learner, module = make(algorithm, "relu", "chosen")
    other, params = learner.scheduled(steps=7, lr=LR / 2), at_rest(learner, module)
    assert other.spec == learner.spec
    x, y = CASES["relu"].batch().support_x, CASES["relu"].batch().support_y
    expected = reference.adapt(algorithm, module, LOSSES.get("mse"), params, x[0], y[0], 7, LR / 2)
    found = other.adapt_many(params, x, y)
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError):
        learner.scheduled(steps=0, lr=LR)
