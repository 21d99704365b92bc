"""Opacus' optimiser over integers: its accounting, clipping, noise. Keys are fixed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from opacus.accountants import PRVAccountant, RDPAccountant
from opacus.optimizers import DPOptimizer
from torch import nn

from privacy.accountant import Adversary, spend, spend_with_reference
from privacy.empirical import count_limits, variance_limits, variance_power
from privacy.errors import PlanRefused
from privacy.gaussian import _opacus_warnings
from privacy.local import batch_of, message_of
from privacy.noise import rounded_gaussian
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from secure_fedmeta.local_noise import IntegerDPOptimizer, train_locally
from tests.privacy.plans import with_noise
from tests.privacy.test_local import local

KEY = bytes(range(32))
ALPHA = 1e-6
Rows = NDArray[np.floating[Any]]


def optimiser(plan: PrivacyPlan, key: bytes = KEY) -> tuple[IntegerDPOptimizer, nn.Parameter]:
    params = nn.Parameter(torch.zeros(plan.parameters, dtype=torch.float64))
    return IntegerDPOptimizer(params, plan=plan, noise=SecureRandom.from_key(key)), params


def constant(rows: Rows) -> Callable[[torch.Tensor, int], Rows]:
    return lambda params, step: rows


def zeros(plan: PrivacyPlan, tasks: int = 3) -> Rows:
    return np.zeros((tasks, plan.parameters), dtype=np.float32)


def silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PrivacyPlan, "noise_share", lambda plan, rng: np.zeros(plan.dimension, int))


# --- accounting -----------------------------------------------------------------------------------


def epsilon(accountant: PRVAccountant | RDPAccountant, plan: PrivacyPlan) -> float:
    with _opacus_warnings():
        return float(accountant.get_epsilon(plan.delta))


@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_opacus_epsilon_is_ours_step_by_step_over_all_rounds(rate: float) -> None:
    """One PRV and one RDP accountant of Opacus, stepped by DPOptimizer's own hook."""
    plan = local(rate=rate, rounds=3, local_steps=2)
    prv, rdp = PRVAccountant(), RDPAccountant()
    hooks = [one.get_optimizer_hook_fn(sample_rate=plan.rate) for one in (prv, rdp)]
    noise, seen = SecureRandom.from_key(KEY), []

    def note(done: DPOptimizer) -> None:
        seen.append((done.noise_multiplier, done.expected_batch_size))
        course = local(rate=rate, rounds=len(seen), local_steps=1)
        row = spend_with_reference([course.worst_event()] * len(seen), delta=plan.delta)
        figures = row.adversaries[Adversary.AGGREGATOR].epsilon
        # The order in which terms are added is the only difference.
        assert epsilon(prv, plan) == pytest.approx(figures["prv"], rel=1e-9)
        assert epsilon(rdp, plan) == pytest.approx(figures["rdp"], rel=1e-9)

    for round_index in (1, 2, 3):
        train_locally(
            constant(zeros(plan)),
            torch.zeros(plan.parameters),
            plan=plan,
            round_index=round_index,
            noise=noise,
            hooks=[*hooks, note],
        )
        events = [plan.event(9)] * round_index
        row = spend(events, delta=plan.delta).adversaries[Adversary.AGGREGATOR]
        if rate < 1.0:
            assert row.claimed == pytest.approx(epsilon(prv, plan), rel=1e-9)
        else:  # the claim is the exact figure, and prv's is above it
            assert row.claimed <= epsilon(prv, plan) < row.claimed + 0.02
    assert prv.history == rdp.history == [(1.5, rate, 6)]
    assert set(seen) == {(1.5, batch_of(plan))}


def test_a_fresh_accountant_per_round_is_caught() -> None:
    """Its figure never grows: after three rounds it is below ours, and below the truth."""
    plan = local(rate=0.1, rounds=3, local_steps=2)
    fresh = []
    for round_index in (1, 2, 3):
        accountant = PRVAccountant()
        train_locally(
            constant(zeros(plan)),
            torch.zeros(plan.parameters),
            plan=plan,
            round_index=round_index,
            noise=SecureRandom.from_os(),
            hooks=[accountant.get_optimizer_hook_fn(sample_rate=0.1)],
        )
        fresh.append(accountant.get_epsilon(plan.delta))
    ours = [spend([plan.event(9)] * n, delta=plan.delta).worst for n in (1, 2, 3)]
    assert fresh[0] == fresh[1] == fresh[2] == pytest.approx(ours[0], rel=1e-9)
    assert ours[0] < ours[1] < ours[2]


# --- clipping -------------------------------------------------------------------------------------


def hostile(d: int) -> dict[str, Rows]:
    one = np.zeros((1, d), dtype=np.float32)
    one[0, 0] = np.finfo(np.float32).max
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(1, d))
    return {
        "NaN": np.full((1, d), math.nan),
        "one NaN": np.where(one > 0, math.nan, 0.5),
        "infinite": np.full((1, d), math.inf),
        "infinite with both signs": signs * math.inf,
        "huge": np.full((1, d), 1e300),
        "the largest float32": one,
        "all the largest float32": np.full((1, d), np.finfo(np.float32).max, dtype=np.float32),
        "a little too long": signs * 1.000001 / math.sqrt(d),
        "subnormal": np.full((1, d), 1e-310),
        "zero": np.zeros((1, d)),
    }


def pushed(made: DPOptimizer, params: nn.Parameter, rows: Rows, scale: float) -> float:
    """L2 norm of the sum before noise, in units of the clip bound's scale."""
    params.grad_sample = torch.from_numpy(rows)  # type: ignore[attr-defined]
    made.clip_and_accumulate()
    return float(params.summed_grad.to(torch.float64).norm()) / scale  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", hostile(4))
def test_no_unit_passes_the_bound_that_is_charged_for(name: str) -> None:
    plan = local(parameters=50)
    made, params = optimiser(plan)
    norm = pushed(made, params, hostile(50)[name], plan.scale)
    assert norm <= made.max_grad_norm
    assert made.max_grad_norm == plan.l2 / plan.scale < 1.002 * plan.clip


def test_opacus_own_clipping_lets_some_of_them_through() -> None:
    """The planted bug: the same assertion fails for the optimiser as it comes."""
    failed = set()
    for name, rows in hostile(50).items():
        params = nn.Parameter(torch.zeros(50, dtype=torch.float64))
        stock = DPOptimizer(
            torch.optim.SGD([params], lr=1.0),
            noise_multiplier=1.5,
            max_grad_norm=1.0,
            expected_batch_size=4,
        )
        if not pushed(stock, params, rows, 1.0) <= 1.0:
            failed.add(name)
    assert failed >= {"NaN", "one NaN", "infinite", "infinite with both signs"}


def test_a_bad_unit_leaves_the_others_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    silence(monkeypatch)
    plan = local(parameters=8)
    good = np.linspace(-0.1, 0.1, 8, dtype=np.float32)[None]
    found = {}
    for name, rows in (("alone", good), ("beside", np.vstack([good, np.full((1, 8), np.nan)]))):
        made, params = optimiser(plan)
        made.take(rows)
        found[name] = params.detach().numpy().copy()
    np.testing.assert_allclose(found["alone"], found["beside"], atol=2.0 / plan.scale)
    assert np.isfinite(found["beside"]).all()


def test_without_noise_a_step_is_that_of_opacus(monkeypatch: pytest.MonkeyPatch) -> None:
    """The differential test: float clipping and Opacus' scaling, up to the rounding to integers."""
    silence(monkeypatch)
    plan = local(parameters=20, expected_units=70)
    rows = np.random.default_rng(1).normal(size=(6, 20)).astype(np.float32)
    rows[::2] /= 20.0
    made, params = optimiser(plan)
    made.take(rows)
    theirs = nn.Parameter(torch.zeros(20, dtype=torch.float64))
    stock = DPOptimizer(
        torch.optim.SGD([theirs], lr=0.3),
        noise_multiplier=0.0,
        max_grad_norm=1.0,
        expected_batch_size=7,
    )
    theirs.grad_sample = torch.from_numpy(rows)  # type: ignore[attr-defined]
    stock.step()
    error = (params - theirs).abs().max().item()
    assert error < 6 * 0.3 / (7 * plan.scale) + 1e-6
    assert theirs.abs().max().item() > 0.01


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tasks", [1, 2, 5, 10])
def test_the_batch_is_the_constant_and_never_the_count(
    monkeypatch: pytest.MonkeyPatch, tasks: int
) -> None:
    silence(monkeypatch)
    plan = local(parameters=4, expected_units=40, local_steps=1)
    rows = np.zeros((tasks, 4), dtype=np.float32)
    rows[:, 0] = 0.5
    moved = train_locally(
        constant(rows),
        torch.zeros(4),
        plan=plan,
        round_index=1,
        noise=SecureRandom.from_key(KEY),
    )
    expected = 0.3 * tasks * 0.5 / (40 / 10)
    assert moved[0] / message_of(plan).scale == pytest.approx(expected, abs=1e-3)
    assert not moved[1:].any()


def test_an_empty_draw_is_released_with_noise() -> None:
    """At this rate no task is ever drawn; alpha 1e-6 against the noise of the claim."""
    plan = local(parameters=20_000, rate=2.0**-20, local_steps=3)
    rows = np.full((2, plan.parameters), 1e3, dtype=np.float32)
    noise, steps = SecureRandom.from_key(KEY), []
    moved = train_locally(
        constant(rows),
        torch.zeros(plan.parameters),
        plan=plan,
        round_index=1,
        noise=noise,
        hooks=[lambda done: steps.append(done.accumulated_iterations)],
    )
    assert steps == [1, 1, 1]
    ratio = float(np.square(moved / message_of(plan).spread).mean())
    assert variance_limits(plan.parameters, ALPHA).hold(ratio)


def test_a_client_without_tasks_takes_its_steps() -> None:
    plan = local(parameters=5, rate=0.5)
    made, params = optimiser(plan)
    made.take(zeros(plan, tasks=0))
    assert params.abs().min().item() > 0.0


def test_each_task_has_a_coin_of_its_own_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts over steps vary like those of coins (alpha 1e-6): batches of fixed size do not."""
    silence(monkeypatch)
    rate, tasks, steps = 0.3, 24, 400
    plan = local(parameters=tasks, rate=rate, max_units_per_client=tasks, local_steps=1)
    rows = np.eye(tasks, dtype=np.float32) / 2.0
    made, params = optimiser(plan)
    drawn = np.empty((steps, tasks), dtype=np.bool_)
    for step in range(steps):
        before = params.detach().clone()
        made.take(rows)
        drawn[step] = (before - params.detach()).numpy() > 0.0
    for axis, trials in ((1, tasks), (0, steps)):
        counts = drawn.sum(axis=axis)
        ratio = float(np.square(counts - trials * rate).mean()) / (trials * rate * (1 - rate))
        limits = count_limits(trials, rate, len(counts), ALPHA)
        assert limits.hold(ratio)
        assert limits.low > 0.0  # counts that never vary fail


# --- noise ----------------------------------------------------------------------------------------


def released(plan: PrivacyPlan) -> float:
    """Variance of a message of all steps over the claimed one."""
    moved = train_locally(
        constant(zeros(plan)),
        torch.zeros(plan.parameters),
        plan=plan,
        round_index=2,
        noise=SecureRandom.from_key(KEY),
    )
    return float(np.square(moved / message_of(plan).spread).mean())


def test_the_noise_of_a_message_is_that_of_all_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """alpha 1e-6; half the deviation, a step without noise and one noise for all steps fail."""
    plan = local(parameters=50_000, local_steps=4)
    limits = variance_limits(plan.parameters, ALPHA)
    assert limits.hold(released(plan))
    assert variance_power(plan.parameters, ALPHA, 0.25) == 1.0
    assert variance_power(plan.parameters, ALPHA, 0.75) == 1.0

    real = PrivacyPlan.noise_share

    def half(plan: PrivacyPlan, rng: SecureRandom) -> Any:
        return rounded_gaussian(plan.share_variance / 4.0, plan.dimension, rng)

    calls: list[Any] = []

    def first_alone(plan: PrivacyPlan, rng: SecureRandom) -> Any:
        calls.append(real(plan, rng))
        return calls[-1] * (len(calls) % 4 != 0)

    def repeated(plan: PrivacyPlan, rng: SecureRandom) -> Any:
        return rounded_gaussian(plan.share_variance, plan.dimension, SecureRandom.from_key(KEY))

    for bug in (half, first_alone, repeated):
        monkeypatch.setattr(PrivacyPlan, "noise_share", bug)
        assert not limits.hold(released(plan)), bug.__name__


def test_no_noise_comes_from_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **named: object) -> None:
        raise AssertionError("noise from a Mersenne Twister")

    for name in ("normal", "randn", "randn_like", "rand"):
        monkeypatch.setattr(torch, name, refused)
    state = torch.random.get_rng_state()
    made, params = optimiser(local(parameters=5))
    made.take(np.ones((2, 5), dtype=np.float32))
    assert params.abs().min().item() > 0.0
    assert torch.equal(torch.random.get_rng_state(), state)
    assert made.generator is None


def test_the_noisy_sum_is_an_integer_of_the_plan_s_steps() -> None:
    """No bit of a float shows: what a step moves by is an integer times a public constant."""
    plan = local(parameters=100, local_steps=1)
    made, params = optimiser(plan)
    made.take(np.random.default_rng(0).normal(size=(4, 100)).astype(np.float32))
    assert params.grad is None or not params.grad.any()
    steps = -params.detach().numpy() / plan.local_lr * batch_of(plan) * plan.scale
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)
    assert np.abs(steps).max() > 1000


# --- steps ----------------------------------------------------------------------------------------


def test_gradients_are_asked_for_where_the_client_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of descent on |p|^2 / 2 from 1, counted over rounds, and the model left alone."""
    silence(monkeypatch)
    plan = local(parameters=2, local_steps=2, expected_units=10, clip=4.0)
    asked: list[tuple[int, float]] = []

    def gradient(params: torch.Tensor, step: int) -> Rows:
        assert params.dtype == torch.float32
        asked.append((step, float(params[0])))
        return params.numpy()[None].copy()

    model = torch.ones(2)
    moved = train_locally(
        gradient, model, plan=plan, round_index=3, noise=SecureRandom.from_key(KEY)
    )
    assert [step for step, _ in asked] == [5, 6]
    assert [at for _, at in asked] == pytest.approx([1.0, 0.7], abs=1e-3)
    assert moved / message_of(plan).scale == pytest.approx(
        [0.51, 0.51], abs=1.0 / message_of(plan).scale
    )
    assert model.tolist() == [1.0, 1.0]


def test_golden_message_of_a_fixed_key() -> None:
    """Changes of coins, rounding, noise or order of draws show here.

    The rounding of several rows is drawn in one request.
    """
    plan = local(parameters=4, rate=0.5, local_steps=2)
    rows = np.arange(12, dtype=np.float32).reshape(3, 4) / 10.0
    moved = train_locally(
        constant(rows),
        torch.zeros(4),
        plan=plan,
        round_index=1,
        noise=SecureRandom.from_key(KEY),
    )
    assert moved.tolist() == GOLDEN


GOLDEN = [64, -136, -701, 9]


def test_gradients_are_used_once() -> None:
    """Opacus' own guard: a second step without clearing is refused."""
    made, params = optimiser(local(parameters=3))
    params.grad_sample = torch.ones(1, 3)  # type: ignore[attr-defined]
    made.step()
    with pytest.raises(ValueError, match="zero_grad"):
        made.step()


def test_a_plan_of_another_place_is_refused() -> None:
    params = nn.Parameter(torch.zeros(30, dtype=torch.float64))
    with pytest.raises(PlanRefused, match="no steps of their own"):
        IntegerDPOptimizer(params, plan=with_noise(), noise=SecureRandom.from_os())
