"""Private metrics and the adaptive clip in a federation: what is asked, sent, shown and refused."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from crypto.errors import MessageRefused
from privacy.adaptive_clip import MAX_RATIO
from privacy.extras import UNCLIPPED
from privacy.rng import SecureRandom
from secure_fedmeta.assessed import Signal
from secure_fedmeta.client import contribution
from secure_fedmeta.config import Config
from secure_fedmeta.console import render_report
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.losses import LOSSES
from secure_fedmeta.messages import RoundOpen, decode, encode
from secure_fedmeta.outcome import Release
from secure_fedmeta.pipeline import assemble
from secure_fedmeta.simulation import CohortWork
from secure_fedmeta.training import RunResult, run
from secure_fedmeta.vault import MemoryVault
from secure_fedmeta.verification import verify_run
from tests.secure_fedmeta.federation import CLIENTS, Federation, entries, tiny
from tests.secure_fedmeta.restarts import endpoint, reborn

ALL = ("query_loss", "query_loss_unadapted", "unclipped")
METRICS: dict[str, object] = {
    "privacy.metrics": list(ALL),
    "privacy.largest_loss": 50.0,
    "privacy.metric_weight": 1.0,
    "privacy.epsilon": None,
    "privacy.noise_multiplier": 1e-4,
}
MOVING: dict[str, object] = {**METRICS, "privacy.clip_quantile": 0.5, "privacy.clip_speed": 1.0}


def config(**changes: object) -> Config:
    return tiny({**METRICS, **changes})


def work_of(federation: Federation) -> CohortWork:
    found = federation.parties.clients[1]._work
    assert isinstance(found, CohortWork)
    return found


@pytest.mark.parametrize("unit", ["task", "record", "user", "client"])
def test_what_is_read_is_the_sum_of_the_cut_losses_over_the_public_constant(
    tmp_path: Path, unit: str
) -> None:
    """With next to no noise: against losses that are computed one task at a time."""
    largest = 3.0
    changes = {**METRICS, "privacy.unit": unit, "privacy.largest_loss": largest,
               "privacy.expected_units": 7}  # fmt: skip
    federation = Federation(tmp_path, changes, granted=1e12)
    model = federation.parts.initial()
    work, learner, source = work_of(federation), federation.parts.learner, federation.parts.source
    after: list[float] = []
    before: list[float] = []
    for name in federation.parts.training:
        batch = work._batch([name], work._rows([name], 1), 1)
        one = []
        for k in range(batch.tasks):
            x, y = batch.query_x[k], batch.query_y[k]
            mse = LOSSES.get(source.info.loss).value
            adapted = learner.adapt(model, batch.support_x[k], batch.support_y[k])
            one.append(
                [min(largest, float(mse(learner.predict(p, x), y))) for p in (adapted, model)]
            )
        rows = np.array(one)
        rows = rows.mean(axis=0, keepdims=True) if unit == "client" else rows
        after += rows[:, 0].tolist()
        before += rows[:, 1].tolist()
    assert min(after) < largest
    outcome = federation.round(1)
    assert isinstance(outcome, Release)
    found = outcome.protected
    near = 6.0 * found["query_loss"].std + 1e-3
    assert found["query_loss"].value == pytest.approx(sum(after) / 7, abs=near)
    assert found["query_loss_unadapted"].value == pytest.approx(sum(before) / 7, abs=near)
    assert abs(sum(after) - sum(before)) / 7 > 2.0 * near
    assert found[UNCLIPPED].value <= len(after) / 7 + 1e-2
    assert all(0.0 < one.std < 0.05 * largest for one in found.values())


class Forbidding(CohortWork):
    """Work that must not be asked for losses."""

    def measured(self, *_: object, **__: object) -> np.ndarray:  # type: ignore[type-arg,override]
        raise AssertionError("losses were computed that nobody asked for")


def test_without_metrics_no_loss_is_computed_and_nothing_is_shown(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    for client in federation.parties.clients.values():
        client._work.__class__ = Forbidding
    outcome = federation.round(1)
    assert isinstance(outcome, Release)
    assert outcome.protected == {}
    (body,) = (e["body"] for e in federation.entries() if e["kind"] == "round-release")
    assert {"protected", "clip_error"} & set(body) == set()


def test_an_upload_is_longer_by_its_coordinates_and_by_nothing_else(tmp_path: Path) -> None:
    plain, with_metrics = (assemble(tiny(c)).plan for c in ({}, MOVING))
    assert with_metrics.dimension == plain.dimension + len(ALL) + 1
    federation = Federation(tmp_path, MOVING, granted=1e12)
    federation.round(1)
    lengths = {len(vector) for vector in federation.spy.vectors.values()}
    assert lengths == {with_metrics.dimension}


def test_a_unit_is_clipped_with_its_metrics_in_one_norm() -> None:
    plan = assemble(tiny(MOVING)).plan
    rows = np.zeros((1, plan.parameters), dtype=np.float32)
    rows[0, 0] = 0.999 * plan.clip
    found = [
        contribution(
            Signal(values),
            "a",
            torch.zeros(plan.parameters),
            plan=plan,
            round_index=1,
            noise=SecureRandom.from_key(bytes(32)),
        )
        for values in (rows, np.full_like(rows, np.nan))
    ]
    moved = found[0] - found[1]
    assert sum(int(x) ** 2 for x in moved) <= plan.l2**2
    assert math.sqrt(sum(int(x) ** 2 for x in moved)) > 0.99 * plan.l2


# --- the clip that moves --------------------------------------------------------------------------


STEPS = 50
"""Integer steps that rounding and next to no noise move a coordinate by, at most."""


def own_contribution(
    federation: Federation, model: torch.Tensor, index: int, clip: float
) -> np.ndarray:  # type: ignore[type-arg]
    """What the first client adds to a round at this bound, with noise of its own."""
    return contribution(
        federation.parties.clients[1]._work,
        federation.parts.training[0],
        model,
        plan=federation.plan,
        round_index=index,
        noise=SecureRandom.from_os(),
        clip=clip,
    )


def test_everybody_gets_the_bound_that_the_release_before_gave(tmp_path: Path) -> None:
    changes = {**MOVING, "privacy.expected_units": 20}
    federation = Federation(tmp_path, changes, granted=1e12)
    clips, errors, models = [], [], []
    for index in (1, 2, 3):
        models.append(federation.aggregator.model)
        assert isinstance(federation.round(index), Release)
        clips.append(float(entries(federation.audit)[-2]["body"]["clip"]))
        errors.append(float(entries(federation.audit)[-1]["body"]["clip_error"]))
    assert clips[0] == federation.plan.clip == 1.0
    assert clips[1] == pytest.approx(math.exp(-errors[0]))
    assert clips[2] == pytest.approx(clips[1] * math.exp(-errors[1]))
    assert len(set(clips)) == 3
    assert {event.l2 for event in federation.events()} == {federation.plan.l2}
    for index, clip in enumerate(clips, start=1):
        assert own_contribution(federation, models[index - 1], index, clip) == pytest.approx(
            federation.spy.vectors[index, 1, 1], abs=STEPS
        )
    assert own_contribution(federation, models[1], 2, clips[0]) != pytest.approx(
        federation.spy.vectors[2, 1, 1], abs=STEPS
    )
    federation.spy.check_sums()


def rewritten(message: bytes, clip: float) -> bytes:
    envelope = decode(message)
    assert isinstance(envelope, RoundOpen)
    return encode(replace(envelope, clip=clip))


HOSTILE = [0.0, -1.0, math.nan, math.inf, -math.inf, 1e300, 5e-324, 2 * MAX_RATIO]


@pytest.mark.parametrize("clip", HOSTILE, ids=repr)
@pytest.mark.parametrize("changes", [METRICS, MOVING], ids=["fixed", "moving"])
def test_a_client_refuses_a_hostile_bound_and_computes_nothing(
    tmp_path: Path, clip: float, changes: dict[str, object]
) -> None:
    federation = Federation(tmp_path, changes, granted=1e12)
    message = federation.aggregator.open_round(1, 1).begin()[1]
    client = federation.parties.clients[1]
    with pytest.raises(MessageRefused, match="clip"):
        client.handle(rewritten(message, clip))
    assert not federation.spy.vectors
    assert client.handle(message)


def test_a_bound_that_does_not_move_is_the_plan_s_alone(tmp_path: Path) -> None:
    federation = Federation(tmp_path, METRICS, granted=1e12)
    message = federation.aggregator.open_round(1, 1).begin()[1]
    with pytest.raises(MessageRefused, match="does not move"):
        federation.parties.clients[1].handle(rewritten(message, 0.5))


def test_clients_of_one_sum_have_one_bound(tmp_path: Path) -> None:
    """One client is told another bound, within the range: it never gets into the sum."""
    federation = Federation(tmp_path, MOVING, granted=1e12)
    inner = federation.parties.clients[1]

    class Lied:
        def handle(self, message: bytes) -> bytes:
            envelope = decode(message)
            if isinstance(envelope, RoundOpen):
                message = rewritten(message, 2.0 * envelope.clip)
            return inner.handle(message)

    endpoint(federation, 1, Lied())
    outcome = federation.round(1)
    assert isinstance(outcome, Release)
    assert outcome.survivors == CLIENTS - 1
    assert all(1 not in done.contributors for _, done in federation.spy.sums)
    federation.spy.check_sums()


def test_a_client_refuses_to_open_a_sum_that_the_log_states_with_another_bound(
    tmp_path: Path,
) -> None:
    federation = Federation(tmp_path, MOVING, granted=1e12)
    for client in federation.parties.clients.values():
        checked = client._watch.check
        client._watch.check = lambda terms, clip, inner=checked: inner(terms, 2.0 * clip)  # type: ignore[method-assign]
    outcome = federation.round(1)
    assert not isinstance(outcome, Release)
    assert any("clip is another one" in str(error) for _, error in federation.refused)


def test_a_restarted_client_goes_on_at_the_bound_that_it_was_handed(tmp_path: Path) -> None:
    federation = Federation(tmp_path, MOVING, granted=1e12)
    assert isinstance(federation.round(1), Release)
    vault = MemoryVault()
    seen: list[float] = []

    class Restarting:
        def handle(self, message: bytes) -> bytes:
            party = reborn(federation.parties.clients[1], vault)
            party._last = max(party._last, (1, 1))
            reply = party.handle(message)
            if party._attempt is not None:
                seen.append(party._attempt.model.clip)
            return reply

    clip = federation.aggregator.clip
    assert clip != 1.0
    endpoint(federation, 1, Restarting())
    outcome = federation.round(2)
    assert isinstance(outcome, Release)
    assert outcome.survivors == CLIENTS
    assert set(seen) == {clip}
    assert len(seen) > 2


# --- config, report, console, log -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"privacy.metrics": ["query_los"]}, "privacy.metrics"),
        ({"privacy.metrics": ["query_loss", "query_loss"]}, "comes twice"),
        ({"privacy.largest_loss": None}, "set largest_loss"),
        ({"privacy.metrics": ["unclipped"]}, "set largest_loss"),
        ({"privacy.metric_weight": 0.0}, "metric_weight"),
        ({"privacy.metric_weight": 1.5}, "metric_weight"),
        ({"privacy.clip_quantile": 0.0}, "clip_quantile"),
        ({"privacy.clip_quantile": 1.0}, "clip_quantile"),
        ({"privacy.clip_speed": 0.0}, "clip_speed"),
        ({"privacy.clip_speed": math.nan}, "clip_speed"),
        ({"privacy.clip_weight": 2.0}, "clip_weight"),
        ({"privacy.largest_loss": -1.0}, "largest_loss"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_key(
    changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        assemble(tiny({**METRICS, **changes}))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("protected")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDMETA_STATE_DIR", str(folder / "state"))
        return run(tiny({**MOVING, "privacy.noise_multiplier": 3.0}), out=folder)


def test_a_run_says_what_was_measured_with_its_noise(finished: RunResult) -> None:
    lines = [json.loads(t) for t in (finished.directory / "metrics.jsonl").read_text().splitlines()]
    assert [set(line["protected"]) for line in lines] == [set(ALL)] * 3
    found = finished.report["protected"]
    for name in ALL:
        rounds = [line["protected"][name] for line in lines]
        assert found[name]["last"] == rounds[-1]["value"]
        assert found[name]["last_noise_std"] == rounds[-1]["noise_std"] > 0.0
        assert found[name]["mean"] == pytest.approx(np.mean([one["value"] for one in rounds]))
        spread = math.sqrt(sum(one["noise_std"] ** 2 for one in rounds)) / 3
        assert found[name]["mean_noise_std"] == pytest.approx(spread)
    clip = finished.report["clip"]
    assert (clip["quantile"], clip["first"]) == (0.5, 1.0)
    assert clip["last"] == lines[-1]["clip"] != 1.0


def test_the_log_states_the_same_and_verifies(finished: RunResult) -> None:
    released = [e["body"] for e in entries(finished.directory / "audit")
                if e["kind"] == "round-release"]  # fmt: skip
    assert len(released) == 3
    assert (
        float(released[-1]["protected"]["query_loss"])
        == (finished.report["protected"]["query_loss"]["last"])
    )
    assert all("clip_error" in body for body in released)
    key = finished.report["audit"]["vkey"]
    assert verify_run(finished.directory, key=key, pinned=None, unpinned=False).accepted


def test_the_console_shows_value_and_noise(finished: RunResult) -> None:
    console = Console(width=300, file=io.StringIO())
    with console.capture() as shown:
        console.print(render_report(finished.directory, finished.report))
    text = shown.get()
    loss = finished.report["protected"]["query_loss"]
    assert f"Protected training loss: {loss['last']:.3g} ± {loss['last_noise_std']:.2g}" in text
    assert "Clip bound: from 1 to" in text


def test_no_training_loss_is_left_anywhere_else(finished: RunResult) -> None:
    """Every number of metrics line and report that is named after a loss is a protected one."""

    def losses(value: object, path: str = "") -> list[str]:
        if isinstance(value, dict):
            return [
                found for key, inner in value.items() for found in losses(inner, f"{path}/{key}")
            ]
        if isinstance(value, list):
            return [found for inner in value for found in losses(inner, path)]
        return [path] if "loss" in path.lower() and isinstance(value, float) else []

    lines = [json.loads(t) for t in (finished.directory / "metrics.jsonl").read_text().splitlines()]
    for tree in (finished.report, *lines):
        stray = [p for p in losses(tree) if not p.startswith(("/protected/", "/privacy/plan/"))]
        assert stray == []
