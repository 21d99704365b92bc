"""The engines on their own: exact derivatives, kept memory, and modules that they refuse."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from secure_fedmeta.errors import ConfigError
from secure_fedmeta.losses import LOSSES, Loss
from secure_fedmeta.meta import (
    LEARNERS,
    Learner,
    TaskBatch,
    build_learner,
    functional,
    resolve_device,
)
from secure_fedmeta.meta.buffers import Buffers
from secure_fedmeta.meta.engine import Engine, engine_for
from secure_fedmeta.meta.functional import Each, FunctionalEngine, one_by_one, vectorised
from secure_fedmeta.meta.inner import InnerLoop
from secure_fedmeta.meta.stack import StackEngine
from secure_fedmeta.meta.threads import WORTH_THREADS, threads_for
from secure_fedmeta.models import build_model

CPU = torch.device("cpu")
MSE, CROSS_ENTROPY = LOSSES.get("mse"), LOSSES.get("cross_entropy")


def check_against_hessian(engine: Engine, net: nn.Module, loss: Loss, y: Tensor) -> None:
    """Compare gradient and pull-back in float64 with the whole Hessian, at 1e-10."""
    g = torch.Generator().manual_seed(0)
    tasks, size = y.shape[0], engine.spec.size
    x = torch.randn(*y.shape[:2], 3, generator=g, dtype=torch.float64)
    params = 0.7 * torch.randn(tasks, size, generator=g, dtype=torch.float64)
    v = torch.randn(tasks, size, generator=g, dtype=torch.float64)
    for at in (params, params[0]):
        gradient, pull_back = engine.linearise(at, x, y)
        torch.testing.assert_close(engine.gradient(at, x, y), gradient, atol=1e-12, rtol=1e-10)
        outer, same = v.clone(), v.clone()
        pull_back(outer, v, 0.3)
        engine.linearise(at, x, y)[1](same, same, 0.3)
        assert torch.equal(outer, same)
        for task in range(tasks):

            def risk(p: Tensor, task: int = task) -> Tensor:
                return loss.value(
                    functional_call(net, engine.spec.unflatten(p), (x[task],)), y[task]
                )

            here = at[task] if at.ndim == 2 else at
            expected = torch.autograd.functional.jacobian(risk, here)
            torch.testing.assert_close(gradient[task], expected, atol=1e-10, rtol=1e-8)
            hessian = torch.autograd.functional.hessian(risk, here)
            expected = v[task] - 0.3 * hessian @ v[task]
            torch.testing.assert_close(outer[task], expected, atol=1e-10, rtol=1e-8)


@given(
    hidden=st.lists(st.integers(1, 4), max_size=3),
    activations=st.lists(st.sampled_from([nn.ReLU, nn.Tanh, None]), min_size=3, max_size=3),
    biases=st.lists(st.booleans(), min_size=4, max_size=4),
    outputs=st.integers(1, 3),
    loss=st.sampled_from([MSE, CROSS_ENTROPY]),
)
@settings(max_examples=25)
def test_closed_form_equals_the_whole_hessian(
    hidden: list[int],
    activations: list[type[nn.Module] | None],
    biases: list[bool],
    outputs: int,
    loss: Loss,
) -> None:
    parts: list[nn.Module] = []
    width = 3
    for size, activation, bias in zip(hidden, activations, biases, strict=False):
        parts.append(nn.Linear(width, size, bias=bias))
        parts += [activation()] if activation is not None else []
        width = size
    net = nn.Sequential(*parts, nn.Linear(width, outputs, bias=biases[3]))
    engine = StackEngine.of(net, loss)
    assert engine is not None
    g = torch.Generator().manual_seed(1)
    y = torch.randint(0, max(outputs, 2), (2, 4), generator=g)
    if loss is MSE:
        y = torch.randn(2, 4, outputs, generator=g, dtype=torch.float64)
    check_against_hessian(engine, net, loss, y)


def test_the_general_engine_equals_the_whole_hessian() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.SiLU(), nn.Linear(4, 2))
    y = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    check_against_hessian(FunctionalEngine(net, MSE), net, MSE, y)


def test_an_affine_loss_has_no_hessian() -> None:
    net = nn.Linear(3, 1)
    total = Loss("total", lambda outputs, targets: (outputs - targets).mean())
    check_against_hessian(engine_for(net, total), net, total, torch.zeros(2, 4, 1).double())


def shared() -> nn.Module:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.ReLU(), layer)


def frozen() -> nn.Module:
    net = build_model("mlp", 3, 3, (4,), seed=0)
    net[0].requires_grad_(False)
    return net


def hooked() -> nn.Module:
    net = nn.Sequential(nn.Linear(3, 3))
    net[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    return net


class Halved(nn.Module):
    """A parametrisation: the layer works with half of its stored weight."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def parametrised() -> nn.Module:
    net = nn.Sequential(nn.Linear(3, 3))
    nn.utils.parametrize.register_parametrization(net[0], "weight", Halved())
    return net


@pytest.mark.parametrize("make", [shared, frozen, hooked, parametrised])
def test_what_only_looks_like_a_stack_is_left_to_autograd(make: Callable[[], nn.Module]) -> None:
    net = make()
    engine = engine_for(net, MSE)
    assert isinstance(engine, FunctionalEngine)
    x = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    params = engine.spec.flatten(net)
    with torch.no_grad():
        torch.testing.assert_close(engine.outputs(params, x)[1], net(x[1]))
    net_gradient = torch.autograd.grad(
        MSE.value(net(x[0]), torch.zeros(4, 3)), [p for p in net.parameters() if p.requires_grad]
    )
    flat = torch.cat([part.reshape(-1) for part in net_gradient])
    found = engine.gradient(params, x, torch.zeros(2, 4, 3))[0]
    torch.testing.assert_close(found, flat, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "net",
    [
        nn.ReLU(),
        nn.Sequential(nn.Linear(3, 2), nn.ReLU()),
        nn.Sequential(nn.ReLU(), nn.Linear(3, 2)),
    ],
)
def test_other_shapes_of_stacks_have_no_closed_form(net: nn.Module) -> None:
    if any(True for _ in net.parameters()):
        assert StackEngine.of(net, MSE) is None
    else:
        with pytest.raises(ConfigError, match="no trainable"):
            StackEngine.of(net, MSE)


def test_a_loss_without_derivatives_has_no_closed_form() -> None:
    net = nn.Linear(3, 2)
    absolute = Loss("absolute", lambda outputs, targets: (outputs - targets).abs().mean())
    assert StackEngine.of(net, absolute) is None
    engine = StackEngine.of(net, MSE)
    assert engine is not None
    with pytest.raises(ConfigError, match="closed form"):
        StackEngine(engine.spec, engine._layers, absolute)
    learner = build_learner("maml", net, absolute, device="cpu")
    batch = TaskBatch(*(torch.ones(2, 4, n) for n in (3, 2, 3, 2)))
    assert learner.outer_vectors(learner.spec.flatten(net), batch).shape == (2, 8)


class Counting(nn.Module):
    """Counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(x)


class Averaging(nn.Module):
    """Keeps a running mean of its inputs: what BatchNorm does, under another name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.mean.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
        return self.layer(x - self.mean)


class Random(nn.Module):
    """Draws from the global generator without being a dropout layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(nn.functional.dropout(x, 0.5, training=True))


@pytest.mark.parametrize("each", [None, one_by_one])
@pytest.mark.parametrize("net", [Counting(), Averaging(), Random()])
def test_state_that_tasks_would_share_is_refused(net: nn.Module, each: Each | None) -> None:
    engine = FunctionalEngine(net, MSE, each=each)
    learner = Learner(
        LEARNERS.get("maml"), engine, InnerLoop(1, 0.1), memory_bytes=2**20, device=CPU
    )
    params = learner.spec.flatten(net)
    batch = TaskBatch(*(torch.ones(2, 4, n) for n in (3, 1, 3, 1)))
    with pytest.raises(ConfigError, match=r"forward pass|cannot run over a cohort"):
        learner.outer_vectors(params, batch)
    with pytest.raises(ConfigError, match=r"forward pass|cannot run over a cohort"):
        learner.predict(params, batch.query_x[0])


def recurrent(kind: type[nn.LSTM] | type[nn.GRU] = nn.LSTM) -> nn.Module:
    return build_model("char_lstm" if kind is nn.LSTM else "char_gru", 6, 5, (4, 3), seed=2)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_models_run_one_task_after_the_other(kind: type[nn.LSTM] | type[nn.GRU]) -> None:
    net = recurrent(kind)
    engine = engine_for(net, CROSS_ENTROPY)
    assert isinstance(engine, FunctionalEngine)
    assert engine._each is one_by_one
    x = torch.randint(0, 5, (2, 4, 6), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(engine.outputs(engine.spec.flatten(net), x)[1], net(x[1]))
    # vmap itself cannot: this is why.
    with pytest.raises(ConfigError, match="cannot run over a cohort"):
        FunctionalEngine(net, CROSS_ENTROPY, each=vectorised).gradient(
            engine.spec.flatten(net), x, x[..., 0]
        )


def test_kernels_without_second_derivative_are_off_in_a_pass_alone() -> None:
    seen: list[bool] = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            seen.append(bool(torch.backends.cudnn.enabled))
            return self.layer(x)

    net = Watching()
    engine = FunctionalEngine(net, MSE, each=one_by_one)
    engine.gradient(engine.spec.flatten(net), torch.ones(2, 4, 3), torch.ones(2, 4, 1))
    assert seen == [False, False]
    assert torch.backends.cudnn.enabled
    with pytest.raises(ConfigError):
        engine.gradient(engine.spec.flatten(net), torch.ones(2, 4, 9), torch.ones(2, 4, 1))
    assert torch.backends.cudnn.enabled


def test_the_module_is_copied() -> None:
    net = frozen()
    engine = engine_for(net, MSE)
    params, x = engine.spec.flatten(net), torch.ones(1, 2, 3)
    before = engine.outputs(params, x)
    net[0].weight.data.zero_()
    assert torch.equal(engine.outputs(params, x), before)


def test_memory_of_one_task_grows_with_its_rows() -> None:
    for net in (
        build_model("mlp", 3, 1, (50,), seed=0),
        Averaging(),
        nn.Sequential(nn.Linear(3, 1), nn.SiLU()),
    ):
        engine = engine_for(net, MSE)
        few = engine.task_bytes(torch.zeros(1, 10, 3), torch.zeros(1, 10, 1))
        many = engine.task_bytes(torch.zeros(1, 1000, 3), torch.zeros(1, 1000, 1))
        assert many > 10 * few > 0


def test_the_memory_limit_splits_the_cohort(monkeypatch: pytest.MonkeyPatch) -> None:
    net = build_model("mlp", 3, 1, (100,), seed=0)
    learner = build_learner("maml", net, "mse", memory_mb=1, device="cpu")
    seen: list[int] = []
    engine = learner._engine
    gradient = engine.gradient

    def counting(params: Tensor, x: Tensor, y: Tensor) -> Tensor:
        seen.append(x.shape[0])
        return gradient(params, x, y)

    monkeypatch.setattr(engine, "gradient", counting)
    batch = TaskBatch(*(torch.ones(200, 20, n) for n in (3, 1, 3, 1)))
    learner.outer_vectors(learner.spec.flatten(net), batch)
    assert sum(seen) == 200
    assert 1 < max(seen) < 200
    held = max(seen) * (engine.task_bytes(batch.query_x, batch.query_y) + 4 * learner.spec.size)
    assert held <= 2**20


def test_a_pass_of_the_general_engine_stays_small_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much memory there is. The closed form keeps its memory, and has no such limit."""
    monkeypatch.setattr(functional, "PASS_BYTES", 2**20)
    net = build_model("conv", 16, 1, (8,), seed=0)
    learner = build_learner("maml", net, "mse", memory_mb=4096, device="cpu")
    batch = TaskBatch(*(torch.ones(300, 6, n) for n in (16, 1, 16, 1)))
    per_task = learner._engine.task_bytes(batch.support_x, batch.support_y)
    size = learner._chunk(batch.support_x, batch.support_y, 1)
    assert 1 < size <= 2**20 / per_task
    closed = build_learner("maml", build_model("mlp", 16, 1, (8,), seed=0), "mse", device="cpu")
    assert closed._engine.pass_bytes is None


def test_buffers_hand_out_the_same_memory_in_every_block() -> None:
    buffers, like = Buffers(), torch.zeros(1)
    with buffers:
        first = buffers.empty(like, 2, 3)
        with buffers:
            inner = buffers.empty(like, 4)
        assert buffers.empty(like, 4) is inner
    with buffers:
        assert buffers.empty(like, 2, 3) is first
        assert buffers.empty(like, 5) is not inner
    with buffers:
        assert buffers.empty(like.double(), 2, 3).dtype == torch.float64
    assert buffers.empty(like, 2, 3) is not buffers.empty(like, 2, 3)


def test_buffers_are_released_when_a_pass_fails_and_belong_to_one_thread() -> None:
    buffers, like = Buffers(), torch.zeros(1)
    with buffers:
        first = buffers.empty(like, 2)
    with pytest.raises(ZeroDivisionError), buffers:
        _ = 1 / (0 * buffers.empty(like, 2).numel())
    others: list[Tensor] = []

    def elsewhere() -> None:
        with buffers:
            others.append(buffers.empty(like, 2))

    with buffers:
        assert buffers.empty(like, 2) is first
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert others[0] is not first


def test_small_passes_run_on_one_thread_and_the_setting_is_restored() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threads_for(WORTH_THREADS - 1):
            assert torch.get_num_threads() == 1
        with pytest.raises(ZeroDivisionError), threads_for(1):
            _ = 1 / 0
        assert torch.get_num_threads() == 2
        with threads_for(WORTH_THREADS):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_devices_are_resolved_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto").type == resolve_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="no CUDA"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == resolve_device("cuda").type == "cuda"
