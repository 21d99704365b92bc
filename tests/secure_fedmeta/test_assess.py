"""`fedmeta assess`: right pipelines pass, bugs fail by name, wherever they sit.

No check knows what was planted: conformance and plants do not import each other (a rule that
lint-imports keeps), and half of the bugs here are put into the product's own functions.
Over all tests of this file right pipelines fail by chance with probability below 1e-3.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import tomli_w
from typer.testing import CliRunner

from crypto.masking import Masking
from crypto.secure_sum import ClientSeat, SumClient, Terms
from privacy.noise import SAMPLERS
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom
from secure_fedmeta import cli
from secure_fedmeta.assessed import Subject
from secure_fedmeta.checks import ALPHA, FALSE_ALARM, TESTS, Check
from secure_fedmeta.config import parse_config
from secure_fedmeta.conformance import conformance
from secure_fedmeta.pipeline import Parts, assemble
from secure_fedmeta.plants import PLANTS, planted
from secure_fedmeta.randomness import Randomness
from secure_fedmeta.rig import Opened, Rig
from tests.secure_fedmeta.federation import settings

NORM = "norm of one unit before noise"
SUM, LOST = "noise of the opened sum", "noise of the opened sum, one client lost"
SHARES, FRESH = "noise of each client alone", "fresh noise"
DRAWS = "draws over rounds"
EXAMPLES = Path(__file__).parents[2] / "examples"


def changed(**changes: object) -> dict[str, object]:
    return {key.replace("__", "."): value for key, value in changes.items()}


@lru_cache(maxsize=32)
def _assembled(tree: str) -> Parts:
    return assemble(parse_config(json.loads(tree)))


def checks(
    changes: Mapping[str, object] = MappingProxyType({}), plant: str | None = None
) -> dict[str, Check]:
    parts = _assembled(json.dumps(settings(changes), sort_keys=True))
    found = conformance(Subject(parts, planted(plant)), lambda text: None)
    return {check.name: check for check in found}


def failed(found: Mapping[str, Check]) -> set[str]:
    return {name for name, check in found.items() if check.passed is False}


# --- right pipelines pass -------------------------------------------------------------------------


def test_a_right_pipeline_passes() -> None:
    found = checks()
    assert failed(found) == set()
    assert all(check.passed for check in found.values())
    assert len(found) == 10
    total = sum(check.false_alarm for check in found.values())
    assert 0.0 < total <= FALSE_ALARM == TESTS * ALPHA
    assert all(check.power is not None and check.power > 0.99 for check in found.values())


@pytest.mark.parametrize(
    "changes",
    [
        changed(privacy__unit="record"),
        changed(privacy__unit="user"),
        changed(privacy__unit="client"),
        changed(privacy__rate=0.3),
        changed(privacy__rate=0.3, privacy__unit="user"),
        changed(privacy__mechanism="discrete-gaussian"),
        changed(privacy__min_survivors=4),
        changed(compression__value_bits=12),
        changed(
            privacy__unit="client",
            privacy__max_participations=2,
            training__rounds=4,
            data__options__clients=8,
        ),
        changed(
            privacy__metrics=["query_loss", "query_loss_unadapted", "unclipped"],
            privacy__largest_loss=2.0,
            privacy__clip_quantile=0.5,
        ),
        changed(model__name="mlp", model__hidden=[16], compression__rotate=True),
        changed(
            model__name="mlp",
            model__hidden=[16],
            compression__kind="subset",
            compression__keep=0.5,
        ),
        changed(secure_sum__protocol="plain", secure_sum__allow_insecure=True),
    ],
    ids=str,
)
def test_right_pipelines_of_every_kind_pass(changes: dict[str, object]) -> None:
    found = checks(changes)
    assert failed(found) == set()
    skipped = {name for name, check in found.items() if check.passed is None}
    expected = set()
    if changes.get("privacy.unit") == "client":
        expected = {DRAWS}
    if changes.get("privacy.min_survivors") == 4:
        expected = {LOST}
    assert skipped == expected


def test_what_is_subtracted_as_signal_has_the_clients_own_metrics_and_bound() -> None:
    """With next to no noise nothing is left of a share, in the coordinates of metrics neither."""
    changes = changed(
        privacy__metrics=["query_loss", "unclipped"],
        privacy__largest_loss=50.0,
        privacy__clip_quantile=0.5,
        privacy__clip=100.0,  # above all norms: the bound comes down, and no vector is cut
        privacy__clip_speed=1.0,
        privacy__metric_weight=1.0,
        privacy__epsilon=None,
        privacy__noise_multiplier=1e-4,
    )
    parts = _assembled(json.dumps(settings(changes), sort_keys=True))
    with Rig(Subject(parts, planted(None))) as rig:
        for index in (1, 2):
            opened = rig.round(index)
            assert isinstance(opened, Opened)
            for client in opened.contributors:
                assert int(np.abs(opened.share(client)).max()) < 60


# --- planted bugs fail ----------------------------------------------------------------------------

EXPECTED = {
    "half-noise": {SUM, LOST, SHARES},
    "double-sensitivity": {NORM},
    "no-clip": {NORM},
    "reused-seed": {FRESH, SUM, LOST},
    "missing-share": {SUM, LOST, SHARES},
    "shuffle": {DRAWS},
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_bug_fails_the_checks_that_look_for_it(plant: str) -> None:
    found = failed(checks(plant=plant))
    assert EXPECTED[plant] & found
    # Vectors of any length may leave the ring, so that rounds abort.
    assert found <= EXPECTED[plant] or plant == "no-clip"


@pytest.mark.parametrize("plant", ["half-noise", "double-sensitivity", "no-clip", "shuffle"])
def test_planted_bugs_fail_under_coins_and_compression_too(plant: str) -> None:
    changes = changed(privacy__rate=0.3, privacy__unit="user", compression__value_bits=12)
    assert EXPECTED[plant] & failed(checks(changes, plant))


def test_a_forged_plan_says_the_same_as_the_right_one() -> None:
    parts = _assembled(json.dumps(settings(), sort_keys=True))
    for plant in PLANTS:
        plan = planted(plant).plan(parts.plan)
        assert plan.digest() == parts.plan.digest()
        assert plan.event(4) == parts.plan.event(4)


# --- bugs in the product's own functions ----------------------------------------------------------


def test_a_weaker_sampler_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    weak = {
        name: lambda variance, size, rng, draw=draw: draw(0.8 * variance, size, rng)
        for name, draw in SAMPLERS.items()
    }
    monkeypatch.setattr("privacy.plan.SAMPLERS", weak)
    assert {SUM, LOST, SHARES} <= failed(checks())


def test_a_clip_that_misses_its_bound_by_two_percent_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from privacy.clip import bounded_sum

    def loose(units: Any, **terms: Any) -> Any:
        terms |= {"clip": 1.02 * terms["clip"], "delta": 2 * terms["delta"], "cap": 2**30}
        return bounded_sum(units, **terms)

    monkeypatch.setattr("privacy.plan.bounded_sum", loose)
    assert failed(checks()) == {NORM}


def test_a_clip_by_coordinate_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(units: Any, bound: float) -> Any:
        return np.clip(np.nan_to_num(units, nan=1e9), -bound, bound).astype(np.float64)

    monkeypatch.setattr("privacy.clip.clip_l2", careless)
    monkeypatch.setattr("privacy.clip.clip_integers", lambda rows, delta: rows)
    assert NORM in failed(checks())


def test_a_sampler_with_batches_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def batch(units: int, rate: float, rng: SecureRandom) -> Any:
        return np.arange(units) < round(rate * units)

    monkeypatch.setattr("privacy.plan.throw_coins", batch)
    assert {DRAWS, "draws of one unit"} <= failed(checks(changed(privacy__rate=0.25)))


def test_a_rate_that_is_too_high_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from privacy.draw import throw_coins

    monkeypatch.setattr(
        "privacy.plan.throw_coins", lambda n, rate, rng: throw_coins(n, 1.25 * rate, rng)
    )
    assert failed(checks(changed(privacy__rate=0.25))) >= {"rate of the draws"}


def test_a_divisor_of_survivors_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = PrivacyPlan.decode
    monkeypatch.setattr(
        PrivacyPlan, "decode", lambda self, total, **rest: right(self, total, **rest) * 4 / 3
    )
    assert failed(checks()) == {"divisor of the average"}


def test_a_sum_that_loses_a_vector_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Masking.client

    def forgetful(self: Masking, terms: Terms, seat: ClientSeat) -> SumClient:
        source = (lambda: 0 * seat.vector()) if seat.index == 2 else seat.vector
        return right(self, terms, replace(seat, vector=source))

    monkeypatch.setattr(Masking, "client", forgetful)
    assert {"opened sums", "divisor of the average", SUM} <= failed(checks())


def test_noise_that_follows_the_name_of_the_client_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def by_name(self: Randomness, label: str) -> SecureRandom:
        return SecureRandom.from_key(label.encode().ljust(32, b".")[:32])

    monkeypatch.setattr(Randomness, "generator", by_name)
    found = checks()
    assert failed(found) == {FRESH}
    assert "of another run" in found[FRESH].found


def test_a_run_that_is_marked_as_not_private_fails() -> None:
    """Its noise comes again after a restart, which is what the mark says."""
    assert failed(checks(changed(not_private__seed=7))) == {FRESH}


# --- the command ----------------------------------------------------------------------------------


def config_file(folder: Path) -> Path:
    path = folder / "tiny.toml"
    path.write_text(tomli_w.dumps(settings()))
    return path


def invoke(*words: str) -> Any:
    return CliRunner().invoke(cli.app, ["assess", *words])


@pytest.fixture(scope="module")
def assessed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the whole command finds and leaves."""
    folder = tmp_path_factory.mktemp("assessed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secure_fedmeta.attacks.TRIALS", 400)
        result = invoke(str(config_file(folder)), "--out", str(folder), "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    assert found == json.loads((folder / "assess.json").read_text())
    return found


def test_the_command_passes_and_leaves_its_findings(assessed: dict[str, Any]) -> None:
    found = assessed
    assert found["passed"] is True
    assert found["failed"] == []
    assert found["planted"] is None
    assert found["false_alarm"] <= FALSE_ALARM


def test_the_command_fails_and_names_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secure_fedmeta.assess.membership", lambda *rest: ())
    file, out = str(config_file(tmp_path)), str(tmp_path)
    result = invoke(file, "--out", out, "--plant", "missing-share")
    assert result.exit_code == 1
    assert "PLANTED BUG" in result.stdout
    assert SHARES in result.stdout.rpartition("FAILED: ")[2].replace("\n", " ")


@pytest.mark.slow
@pytest.mark.parametrize("plant", [None, *PLANTS])
def test_the_credit_example(plant: str | None, tmp_path: Path) -> None:
    words = [str(EXAMPLES / "credit.toml"), "--out", str(tmp_path)]
    result = invoke(*words, *(() if plant is None else ("--plant", plant)))
    assert result.exit_code == (0 if plant is None else 1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("{config}", "--plant", "half-nose"), "half-noise"),
        (("{config}", "--plant", ""), "no such planted bug"),
        (("{folder}/none.toml",), "cannot be read"),
        (("{config}", "--out", "{folder}/none"), "name one that exists"),
        (("{folder}/bad.toml",), "privacy.epsilon"),
        (("{folder}/many.toml",), "privacy.min_survivors"),
    ],
)
def test_bad_input_exits_2_and_says_what_to_change(
    words: tuple[str, ...],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = config_file(tmp_path)
    for name, changes in (
        ("bad", {"privacy.epsilon": -1.0}),
        ("many", {"privacy.min_survivors": 9}),
    ):
        (tmp_path / f"{name}.toml").write_text(tomli_w.dumps(settings(changes)))
    filled = [word.format(config=file, folder=tmp_path) for word in words]
    monkeypatch.setattr("sys.argv", ["fedmeta", "assess", *filled])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "assess.json").exists()


def test_the_report_of_a_run_shows_its_assessment(tmp_path: Path, assessed: dict[str, Any]) -> None:
    runner, file = CliRunner(), config_file(tmp_path)
    run = runner.invoke(cli.app, ["run", str(file), "--out", str(tmp_path / "runs")])
    assert run.exit_code == 0
    latest = tmp_path / "runs" / "latest"
    before = runner.invoke(cli.app, ["report", str(latest)])
    assert "Assessment" not in before.stdout
    (latest / "assess.json").write_text(json.dumps(assessed))
    assert "Assessment: passed" in runner.invoke(cli.app, ["report", str(latest)]).stdout
    shown = json.loads(runner.invoke(cli.app, ["report", str(latest), "--json"]).stdout)
    assert shown["assessment"]["checks"] == assessed["checks"]
    for broken in ("{", "[]", json.dumps(assessed | {"config_digest": "00"})):
        (latest / "assess.json").write_text(broken)
        refused = runner.invoke(cli.app, ["report", str(latest)])
        assert "assess.json" in str(refused.exception)
