"""Private metrics and the clip's indicator: inside one norm bound, under one noise, read right."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from privacy.accountant import Adversary, noise_variance
from privacy.adaptive_clip import MAX_RATIO, AdaptiveClip
from privacy.compression import Compression, Kind
from privacy.errors import PlanRefused
from privacy.extras import UNCLIPPED, Extras, Metric
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from privacy.unit import Unit
from tests.privacy.plans import calibrated, with_noise

KEY = bytes(range(32))
RULE = AdaptiveClip(quantile=0.25, speed=0.2, weight=0.5)
LOSS = Metric("loss", 2.0, 1.0)
EXTRAS = Extras((LOSS, Metric(UNCLIPPED, 1.0, 0.5)), RULE)
PARAMETERS = 64
HOSTILE = (0.0, -0.0, 1.0, -1.0, 1e-320, 1e300, math.inf, -math.inf, math.nan)
KINDS: dict[str, dict[str, Any]] = {
    "task": {},
    "record": {"unit": Unit.RECORD},
    "user": {"unit": Unit.USER},
    "apart": {"unit": Unit.USER, "tasks_per_user": 3},
    "client": {"unit": Unit.CLIENT, "max_units_per_client": 1},
    "sampled": {"rate": 0.5},
    "bits": {"value_bits": 8, "compression": Compression(rotate=True)},
    "subset": {"compression": Compression(kind=Kind.SUBSET, keep=0.5)},
    "low-rank": {"compression": Compression(kind=Kind.LOW_RANK, rotate=True, keep=0.5)},
}


def plan_of(kind: str = "task", extras: Extras = EXTRAS, **changes: Any) -> PrivacyPlan:
    return with_noise(**{"parameters": PARAMETERS, "extras": extras, **KINDS[kind], **changes})


def grouping(plan: PrivacyPlan, rows: int) -> NDArray[np.int64] | None:
    """All rows of one user."""
    return np.zeros(rows, dtype=np.int64) if plan.unit is Unit.USER else None


def moved(
    plan: PrivacyPlan,
    rows: NDArray[np.float64],
    measured: NDArray[np.float64],
    clip: float | None = None,
) -> NDArray[np.int64]:
    """What one unit adds: with it, and without it, under the same key."""
    drawn = np.ones(1, dtype=np.bool_)
    named: dict[str, Any] = {"round_index": 1, "clip": clip, "drawn": drawn}
    full = plan.encode(
        rows,
        SecureRandom.from_key(KEY),
        measured=measured,
        users=grouping(plan, len(rows)),
        **named,
    )
    none = plan.encode(
        np.full_like(rows, math.nan),
        SecureRandom.from_key(KEY),
        measured=measured,
        users=grouping(plan, len(rows)),
        **named,
    )
    return full - none


def squared(vector: NDArray[np.int64]) -> int:
    return sum(int(x) ** 2 for x in vector)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clip", [None, 1.0, 1 / MAX_RATIO, 3.7, MAX_RATIO])
def test_no_unit_moves_the_sum_beyond_delta_whatever_the_clip(
    kind: str, clip: float | None
) -> None:
    """Vectors and metrics at their worst together; the bound is exact and holds in integers."""
    plan = plan_of(kind)
    rows = 3 if plan.unit is Unit.USER else 1
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=PARAMETERS)
    vectors = [np.full(PARAMETERS, value) for value in HOSTILE]
    # A vector that the public map turns into a longer one than the image's usual bound.
    vectors.append(plan.basis(1).backward(np.ones(plan.width)) * 1e6)
    vectors += [signs * 1e9, signs * (clip or 1.0) / 8.0, np.eye(PARAMETERS)[0] * 1e300]
    for vector, loss in product(vectors, HOSTILE):
        unit = np.repeat(vector[None], rows, axis=0)
        found = moved(plan, unit, np.full((rows, 1), loss), clip)
        assert squared(found) <= plan.l2**2
        assert int(np.abs(found).sum()) <= plan.l1


@pytest.mark.parametrize("clipped", [True, False])
def test_a_unit_made_for_the_map_is_clipped_with_its_coordinates(
    clipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its image is longer than usual ones: the integer clip holds it, and without that it passes.

    A vector within the subspace of a low-rank map keeps all of its length there.
    """
    plan = plan_of(
        parameters=4096, compression=Compression(kind=Kind.LOW_RANK, rotate=True, keep=0.05)
    )
    if not clipped:
        monkeypatch.setattr("privacy.clip.clip_integers", lambda rows, delta: rows)
    aligned = plan.basis(1).backward(np.ones(plan.width))
    row = aligned[None] / np.linalg.norm(aligned) * 0.999 * plan.clip
    found = moved(plan, row, np.full((1, 1), math.inf))
    assert (squared(found) <= plan.l2**2) is clipped


@pytest.mark.parametrize("kind", ["task", "bits"])
def test_the_worst_unit_comes_close_to_delta(kind: str) -> None:
    """The bound is not loose: a vector and metrics at their bounds span most of it."""
    plan = plan_of(kind)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(1, PARAMETERS))
    found = moved(plan, signs * 1e9, np.full((1, 1), 1e9))
    assert math.sqrt(squared(found)) > 0.8 * plan.l2


def test_delta_is_that_of_vector_and_coordinates_together() -> None:
    plain, with_extras = plan_of(extras=Extras()), plan_of()
    stretch = math.sqrt(1.0 + 1.0 + 0.25 + 0.25)
    assert EXTRAS.stretch == pytest.approx(stretch)
    assert with_extras.l2 == pytest.approx(plain.l2 * stretch, rel=1e-3)
    assert (with_extras.dimension, with_extras.width) == (PARAMETERS + 3, PARAMETERS)
    event = with_extras.event(10)
    assert (event.l2, event.dimension) == (with_extras.l2, PARAMETERS + 3)
    # The same noise relative to Delta: the same claim as without.
    ratios = [
        noise_variance(plan.event(10), Adversary.AGGREGATOR) / plan.l2**2
        for plan in (plain, with_extras)
    ]
    assert ratios[0] == pytest.approx(ratios[1])


def test_one_budget_is_shared_as_andrew_et_al_prescribe() -> None:
    """z'^-2 + sum z_j^-2 = z^-2, each figure taken from the plan's integers."""
    plan = plan_of(clip=1.0)
    noise = math.sqrt(plan.share_variance * (plan.min_survivors - plan.max_colluders))
    parts = [plan.scale * plan.clip, *(w * plan.unit_steps for w in EXTRAS.weights)]
    together = sum((part / noise) ** 2 for part in parts)
    assert together == pytest.approx(plan.noise_multiplier**-2, rel=2e-3)
    assert together <= plan.noise_multiplier**-2


def test_a_plan_that_adds_up_the_coordinates_without_delta_would_be_refused() -> None:
    plan = plan_of()
    fields = {name: getattr(plan, name) for name in plan.__dataclass_fields__}
    for name, value in (("l2", plan_of(extras=Extras()).l2), ("extras", Extras())):
        with pytest.raises(PlanRefused, match="do not follow"):
            PrivacyPlan(**{**fields, name: value})


QUIET = {"expected_units": 1, "min_survivors": 2, "max_colluders": 0, "clients": 2}
"""One expected unit, and noise small enough to read off single values."""


def read(plan: PrivacyPlan, total: NDArray[np.int64], clip: float = 1.0) -> dict[str, float]:
    beside = plan.beside(total, survivors=2, clip=clip)
    error = {} if beside.clip_error is None else {"error": beside.clip_error}
    return {name: found.value for name, found in beside.metrics.items()} | error


@pytest.mark.parametrize("kind", ["task", "record", "bits", "subset", "low-rank"])
def test_metrics_come_back_as_sums_over_the_public_constant(kind: str) -> None:
    """Three units: losses 0.5, 3 (cut to 2) and NaN (2); two of them within the clip."""
    plan = plan_of(kind, noise_multiplier=2.0**-20, **QUIET)
    rows = np.zeros((3, PARAMETERS))
    rows[:, 0] = (0.5, 1.5, 0.99)
    found = plan.encode(
        rows,
        SecureRandom.from_key(KEY),
        round_index=1,
        measured=np.array([[0.5], [3.0], [math.nan]]),
    )
    near = 2e-2 if kind == "bits" else 2e-3
    values = read(plan, found)
    assert values["loss"] == pytest.approx(0.5 + 2.0 + 2.0, abs=2 * near)
    assert values[UNCLIPPED] == pytest.approx(2.0, abs=2 * near)
    assert values["error"] == pytest.approx(2.0 - 3 * 0.25, abs=2 * near)


def test_what_does_not_count_adds_nothing_behind_either() -> None:
    """Not drawn, not finite, not there: without that, its absence would move more than Delta."""
    loss = np.array([[1.0]])
    row = np.full((1, PARAMETERS), 0.01)
    plan = plan_of("sampled", noise_multiplier=2.0**-20, **QUIET)
    for rows, coin in ((row, False), (row * math.nan, True), (row * math.inf, True)):
        total = plan.encode(
            rows,
            SecureRandom.from_key(KEY),
            round_index=1,
            measured=loss,
            drawn=np.array([coin]),
        )
        assert not total[plan.width :].any()
    users = plan_of("user", noise_multiplier=2.0**-20, **QUIET)
    total = users.encode(  # users 0 and 2 have no task
        row,
        SecureRandom.from_key(KEY),
        round_index=1,
        measured=loss,
        users=np.array([1]),
        drawn=np.ones(3, dtype=np.bool_),
    )
    values = read(users, total)
    assert values[UNCLIPPED] == pytest.approx(1.0, abs=1e-2)
    assert values["loss"] == pytest.approx(1.0, abs=1e-2)


def test_a_user_has_the_mean_of_its_tasks_each_cut_by_itself() -> None:
    """Losses 1 and 9 (cut to 2) of one user, 0 of another: 1.5 + 0."""
    plan = plan_of("user", noise_multiplier=2.0**-20, **QUIET)
    total = plan.encode(
        np.full((3, PARAMETERS), 0.01),
        SecureRandom.from_key(KEY),
        round_index=1,
        measured=np.array([[1.0], [9.0], [0.0]]),
        users=np.array([0, 0, 1]),
    )
    assert read(plan, total)["loss"] == pytest.approx(1.5, abs=1e-2)
    assert EXTRAS.mean(np.array([[1.0], [math.inf], [math.nan]])).tolist() == [[5.0 / 3.0]]


def test_the_indicator_is_that_of_the_clip_at_its_edge() -> None:
    """What clipping keeps as it is counts as within, and nothing else, at any scale."""
    plan = plan_of(noise_multiplier=2.0**-20, clip=2.0**-30, **QUIET)
    row = np.zeros((1, PARAMETERS))
    for length, kept in ((1 - 1e-9, 1.0), (1 + 1e-9, 0.0), (0.0, 1.0), (2.0**600, 0.0)):
        row[0, 0] = length * plan.clip
        total = plan.encode(
            row, SecureRandom.from_key(KEY), round_index=1, measured=np.zeros((1, 1))
        )
        assert read(plan, total, plan.clip)[UNCLIPPED] == pytest.approx(kept, abs=1e-2)


# --- noise ----------------------------------------------------------------------------------------

SAMPLES = 4000
Z_ALPHA = 4.9
"""Two-sided 1e-6 of a standard normal."""


def spread(plan: PrivacyPlan, stated: float) -> float:
    """Deviations, in standard errors, of the decoded metric's variance from the stated one."""
    rngs = [SecureRandom.from_key(bytes([k] * 32)) for k in range(plan.clients)]
    nobody = np.zeros((0, plan.parameters))
    values = []
    for index in range(SAMPLES):
        total = sum(plan.encode(nobody, rng, round_index=index) for rng in rngs)
        beside = plan.beside(np.asarray(total), survivors=plan.clients, clip=plan.clip)
        values.append(beside.metrics["loss"].value)
    ratio = float(np.var(values)) / stated**2
    return (ratio - 1.0) / math.sqrt(2.0 / SAMPLES)


def test_the_stated_noise_is_the_noise_of_the_decoded_metric() -> None:
    """False alarm 1e-6; a deviation stated too small or too large by a tenth is noticed."""
    plan = plan_of(parameters=4, clients=3, min_survivors=3)
    empty = np.zeros(plan.dimension, dtype=np.int64)
    std = plan.beside(empty, survivors=3, clip=plan.clip).metrics["loss"].std
    away = spread(plan, std)
    assert abs(away) < Z_ALPHA
    for factor in (0.9, 1.1):
        wrong = ((1.0 + away * math.sqrt(2.0 / SAMPLES)) / factor**2 - 1.0) * math.sqrt(SAMPLES / 2)
        assert abs(wrong) > Z_ALPHA


def test_fewer_contributions_have_less_noise_and_say_so() -> None:
    plan = plan_of()
    empty = np.zeros(plan.dimension, dtype=np.int64)
    found = [plan.beside(empty, survivors=n, clip=1.0).metrics["loss"].std for n in (8, 10)]
    assert found[1] / found[0] == pytest.approx(math.sqrt(10 / 8))


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, -0.1, 1.5, math.nan, math.inf, 1, "0.1", None])
def test_weights_are_bounded(weight: Any) -> None:
    with pytest.raises(PlanRefused, match="weight"):
        Extras((Metric("loss", 1.0, weight),))
    with pytest.raises(PlanRefused, match="weight"):
        Extras((), AdaptiveClip(0.5, 0.2, weight))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Metric("loss", 0.0, 0.1),
        lambda: Metric("loss", math.inf, 0.1),
        lambda: Metric("loss", math.nan, 0.1),
        lambda: Metric("", 1.0, 0.1),
        lambda: Metric(UNCLIPPED, 2.0, 0.1),
        lambda: Extras((LOSS, LOSS)),
        lambda: Extras(tuple(Metric(f"m{k}", 1.0, 0.1) for k in range(17))),
        lambda: AdaptiveClip(0.0, 0.2, 0.1),
        lambda: AdaptiveClip(1.0, 0.2, 0.1),
        lambda: AdaptiveClip(math.nan, 0.2, 0.1),
        lambda: AdaptiveClip(0.5, 0.0, 0.1),
        lambda: AdaptiveClip(0.5, 3.0, 0.1),
        lambda: AdaptiveClip(0.5, math.nan, 0.1),
        lambda: plan_of(noise="local"),
    ],
)
def test_what_cannot_be_meant_is_refused(make: Any) -> None:
    with pytest.raises(PlanRefused):
        make()


def test_noise_at_the_client_leaves_nothing_on_extra_coordinates() -> None:
    with pytest.raises(PlanRefused, match="no noise is added in the sum"):
        plan_of(noise="local")


@pytest.mark.parametrize(
    "measured",
    [None, np.zeros((2, 2)), np.zeros((1, 1)), np.zeros(2), np.zeros((2, 1), dtype=np.float32)],
    ids=["none", "columns", "rows", "flat", "float32"],
)
def test_metrics_that_do_not_fit_are_refused(measured: Any) -> None:
    rows, rng = np.zeros((2, PARAMETERS)), SecureRandom.from_os()
    with pytest.raises(PlanRefused, match="metrics"):
        plan_of().encode(rows, rng, round_index=1, measured=measured)


def test_metrics_nobody_asked_for_are_refused() -> None:
    rows, rng = np.zeros((1, PARAMETERS)), SecureRandom.from_os()
    with pytest.raises(PlanRefused, match="none are asked for"):
        plan_of(extras=Extras()).encode(rows, rng, round_index=1, measured=np.zeros((1, 1)))


def test_a_plan_states_its_extras_and_another_set_has_another_digest() -> None:
    body = plan_of().to_json()["extras"]
    assert body["metrics"][0] == {"name": "loss", "largest": "2.0", "weight": "1.0"}
    assert body["adaptive_clip"] == {"quantile": "0.25", "speed": "0.2", "weight": "0.5"}
    others = [
        plan_of(extras=Extras((LOSS,))),
        plan_of(extras=Extras(EXTRAS.metrics)),
        plan_of(extras=Extras(EXTRAS.metrics, AdaptiveClip(0.25, 0.3, 0.5))),
    ]
    assert len({plan.digest() for plan in [plan_of(), *others]}) == 4


def test_a_target_is_met_with_extras_as_without() -> None:
    plan = calibrated(3.0, parameters=PARAMETERS, extras=EXTRAS)
    assert 2.98 < plan.worst_epsilon() <= 3.0
