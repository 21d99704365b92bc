"""Runs side by side: only verified ones, by their own files, with warnings where they differ."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from secure_fedmeta import comparison
from secure_fedmeta.comparison import NotVerified, Run, compare, draw, open_run
from secure_fedmeta.console_compare import render_comparison
from secure_fedmeta.errors import RunDirectoryError
from secure_fedmeta.training import run
from tests.secure_fedmeta.federation import tiny

State = tuple[Path, Path, Path]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> State:
    """State directory and two runs that differ in learner and target."""
    state, out = tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("runs")
    changes = ({}, {"learner.algorithm": "reptile", "privacy.epsilon": 2.0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDMETA_STATE_DIR", str(state))
        one, two = (run(tiny({"training.rounds": 1, **c}), out=out).directory for c in changes)
    return state, one, two


@pytest.fixture
def runs(ran: State, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setenv("FEDMETA_STATE_DIR", str(ran[0]))
    return ran[1:]


def report_of(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "report.json").read_text())
    return found


def test_differences_are_the_settings_that_differ(runs: tuple[Path, Path]) -> None:
    found = compare(runs)
    assert found["differences"] == {
        "learner.algorithm": ["fomaml", "reptile"],
        "privacy.epsilon": [3.0, 2.0],
    }
    assert found["warnings"] == []


def test_the_figures_are_those_of_the_reports(runs: tuple[Path, Path]) -> None:
    for row, directory in zip(compare(runs)["runs"], runs, strict=True):
        report = report_of(directory)
        for arm in comparison.ARMS:
            assert row["scores"][arm]["mean"] == report["held_out"][arm]["mean"]
            scores = report["held_out"][arm]["per_client"].values()
            assert row["scores"][arm]["lowest"] == min(scores)
            assert row["scores"][arm]["highest"] == max(scores)
        adversaries = report["adversaries"]
        assert row["epsilon"] == {k: v["epsilon"]["rdp"] for k, v in adversaries.items()}
        assert row["epsilon_worst"] == report["privacy"]["spent_epsilon"]
        assert row["noise_multiplier"] == float(report["privacy"]["plan"]["noise_multiplier"])
        assert row["bytes_per_client"] == report["bytes_per_client"]
        assert row["seconds"] == report["seconds"]["training"]


def test_the_gain_over_the_first_run_is_taken_client_by_client(runs: tuple[Path, Path]) -> None:
    first, second = compare(runs)["runs"]
    scores = [report_of(d)["held_out"]["meta"]["per_client"] for d in runs]
    gains = [scores[1][client] - scores[0][client] for client in scores[0]]
    assert first["adapted_beyond_first"] is None
    assert second["adapted_beyond_first"]["mean"] == pytest.approx(sum(gains) / 2)
    half = 12.7062 * abs(gains[0] - gains[1]) / 2  # t of 0.975 with one degree of freedom
    assert second["adapted_beyond_first"]["ci95"] == pytest.approx(half, rel=1e-4)


# --- refusals -----------------------------------------------------------------------------------


def copied(directory: Path, folder: Path) -> Path:
    return Path(shutil.copytree(directory, folder / directory.name))


@pytest.mark.parametrize("name", ["report.json", "config.toml", "audit/log.jsonl"])
def test_a_run_whose_log_does_not_verify_is_refused(
    runs: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    changed = copied(runs[1], tmp_path)
    path = changed / name
    path.write_bytes(path.read_bytes().replace(b"reptile", b"reptil3").replace(b"0", b"1", 1))
    with pytest.raises(NotVerified, match="its log does not verify") as caught:
        compare([runs[0], changed])
    assert str(changed) in str(caught.value)


def test_a_report_that_the_log_does_not_vouch_for_is_refused(
    runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "exported", lambda directory: frozenset({"config.toml"}))
    with pytest.raises(NotVerified, match=r"does not vouch for report\.json"):
        compare(runs)


def test_a_log_that_no_pin_vouches_for_is_refused_unless_accepted(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDMETA_STATE_DIR", str(tmp_path))
    with pytest.raises(NotVerified, match="nobody vouches"):
        compare(runs)
    warnings = compare(runs, unpinned=True)["warnings"]
    assert [w.split(": ")[1] for w in warnings] == ["nobody vouches for the key of its log"] * 2


@pytest.mark.parametrize("which", [(0,), (0, 0), (0, 1, 0)])
def test_fewer_than_two_different_runs_are_refused(
    runs: tuple[Path, Path], which: tuple[int, ...]
) -> None:
    with pytest.raises(RunDirectoryError, match="two different runs or more"):
        compare([runs[i] for i in which])


# --- warnings -----------------------------------------------------------------------------------


def with_report(run: Run, *path: str, value: object) -> Run:
    report = json.loads(json.dumps(run.report))
    table = report
    for key in path[:-1]:
        table = table[key]
    table[path[-1]] = value
    return replace(run, report=report)


def with_setting(run: Run, key: str, value: object) -> Run:
    return replace(run, settings={**run.settings, key: value})


@pytest.mark.parametrize(
    ("change", "warning", "pairs"),
    [
        (lambda r: with_report(r, "held_out", "clients", value=["x"]), "held-out clients are", 0),
        (lambda r: with_setting(r, "data.options.persons", 4), "data are not the same", 0),
        (lambda r: with_report(r, "data", "rows", value=3), "data are not the same", 0),
        (lambda r: with_report(r, "held_out", "metric", value="auc"), "different metrics", 0),
        (lambda r: with_report(r, "held_out", "support", value=9), "numbers of examples", 0),
        (lambda r: with_setting(r, "evaluation.repeats", 9), "different rules", 0),
        (lambda r: with_report(r, "privacy", "unit", value="user"), "different units", 1),
        (lambda r: with_report(r, "privacy", "delta", value=0.1), "different deltas", 1),
        (lambda r: with_report(r, "product_version", value="9"), "different versions", 1),
        (lambda r: with_report(r, "status", value="budget"), "ended early: status budget", 1),
        (lambda r: with_report(r, "not_private", value=True), "is NOT PRIVATE", 1),
        (lambda r: with_report(r, "budget", "charged", value=9), "includes other runs", 1),
    ],
)
def test_what_keeps_figures_from_being_compared_is_said(
    runs: tuple[Path, Path], change: Callable[[Run], Run], warning: str, pairs: int
) -> None:
    first, second = (open_run(directory, unpinned=False) for directory in runs)
    (found,) = comparison._warnings([first, change(second)])
    assert warning in found
    assert (comparison._beyond(change(second), first) is not None) == bool(pairs)


def test_a_run_without_a_bound_has_no_epsilon(runs: tuple[Path, Path]) -> None:
    run = open_run(runs[0], unpinned=False)
    path = ("secure_sum", "capabilities", "hides_updates")
    assert comparison._worst(run.report) is not None
    assert comparison._worst(with_report(run, *path, value=False).report) is None
    assert comparison._worst(with_report(run, "not_private", value=True).report) is None


# --- what is shown ------------------------------------------------------------------------------


def shown(found: Mapping[str, Any]) -> str:
    console = Console(width=160)
    with console.capture() as captured:
        console.print(render_comparison(found))
    return captured.get()


def test_the_table_shows_figures_and_warnings(runs: tuple[Path, Path]) -> None:
    found = compare(runs)
    meta = found["runs"][1]["scores"]["meta"]
    meta |= {"mean": 1.25, "ci95": 0.5, "lowest": 1.0, "highest": 1.5}
    found["runs"][0]["scores"]["fedavg_ft"] = None
    found["runs"][0]["scores"]["local_k"]["mean"] = None
    found["warnings"].append("something differs")
    text = shown(found)
    for part in (
        "1.250 ± 0.500 (1.000 to 1.500)", "epsilon, participants", "diverged", "reptile",
        "noise multiplier", "Warning: something differs",
    ):  # fmt: skip
        assert part in text
    assert "No setting differs." in shown(found | {"differences": {}})


@pytest.mark.parametrize(("suffix", "head"), [(".svg", b"<?xml"), (".png", b"\x89PNG")])
def test_a_plot(runs: tuple[Path, Path], tmp_path: Path, suffix: str, head: bytes) -> None:
    draw(compare(runs), tmp_path / f"plot{suffix}")
    assert (tmp_path / f"plot{suffix}").read_bytes().startswith(head)


def test_a_plot_that_would_say_nothing_is_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    found = compare(runs)
    with pytest.raises(RunDirectoryError, match=r"ends in \.svg or \.png"):
        draw(found, tmp_path / "plot.pdf")
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        draw(found, tmp_path / "folder.svg")
    found["runs"][1]["scores"] = dict.fromkeys(comparison.ARMS)
    found["runs"][0]["scores"] = dict.fromkeys(comparison.ARMS)
    with pytest.raises(RunDirectoryError, match="no run has held-out clients"):
        draw(found, tmp_path / "other.svg")
    found["runs"][1]["metric"] = "auc"
    with pytest.raises(RunDirectoryError, match="scored by auc and mse"):
        draw(found, tmp_path / "other.svg")
