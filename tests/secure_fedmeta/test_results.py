"""Reports, curves, templates, tables: what is shown is what happened."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest
import tomli_w
from rich.console import Console

from secure_fedmeta import provenance
from secure_fedmeta.config import load_config
from secure_fedmeta.console import render_report
from secure_fedmeta.errors import ConfigError, RunDirectoryError
from secure_fedmeta.plots import plot_epsilon, plot_held_out
from secure_fedmeta.results import draw_curves, finite, read_report, write_json
from secure_fedmeta.templates import template_names, write_template
from secure_fedmeta.training import RunResult, run
from tests.secure_fedmeta.federation import tiny


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDMETA_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        return run(tiny({"training.rounds": 1}), out=tmp_path_factory.mktemp("runs"))


def shown(report: dict[str, object], width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(render_report(Path("runs/one"), report))
    return capture.get()


def svg(path: Path) -> ElementTree.Element:
    return ElementTree.fromstring(path.read_bytes())  # noqa: S314  written a moment ago


def test_the_tables_hold_the_figures(result: RunResult) -> None:
    text = shown(result.report, width=400)
    report = result.report
    for arm in ("no_adaptation", "local_k", "local_all", "fedavg_ft", "meta"):
        assert f"{report['held_out'][arm]['mean']:.3f}" in text
    for name, found in report["adversaries"].items():
        line = next(line for line in text.splitlines() if name.replace("_", " ") in line)
        assert f"{found['epsilon'][found['claim']]:.3f}" in line
        assert f"{found['record']:.3f}" in line
        assert f"{found['person']:.3f}" in line
    assert "Status: completed; 1 of 1 rounds released, 0 aborted" in text
    assert f"protected vector takes {report['bytes_per_client']['upload']} in each round" in text
    assert f"Distortion without noise: {report['distortion']['relative']:.2%}" in text
    assert "Rounding is 0.0% of the noise" in text
    assert "Files: runs/one" in text
    assert "NOT PRIVATE" not in text


def test_no_figure_is_claimed_against_an_aggregator_that_sees_updates(
    tmp_path: Path, result: RunResult
) -> None:
    """The sum's noise is no protection from whoever reads what is summed."""
    changes = {"secure_sum.protocol": "plain", "secure_sum.allow_insecure": True}
    report = run(tiny({"training.rounds": 1, **changes}), out=tmp_path).report
    for name, found in report["adversaries"].items():
        sees = name in ("aggregator", "aggregator_and_colluders")
        assert (found["epsilon"][found["claim"]] is None) is sees
        assert (found["record"] is None) is (found["person"] is None) is sees
    assert any("showed the aggregator every update" in note for note in report["notes"])
    assert "infinite" in shown(report)
    assert not any("showed the aggregator" in note for note in result.report["notes"])


def test_every_figure_has_a_place_however_it_ended(result: RunResult) -> None:
    report = json.loads(json.dumps(result.report))
    table = report["held_out"]
    table["fedavg_ft"] = None
    table["not_run"] = {"fedavg_ft": "no budget for it"}
    table["meta"] = {"mean": None, "ci95": None, "per_client": {"a": None, "b": 1.0}}
    table["local_k"] = {"mean": 1.5, "ci95": None, "per_client": {"a": 1.5}}
    report["adversaries"]["broken_sum"]["record"] = None
    report["notes"] = ["stopped before round 2"]
    report["not_private"] = True
    text = shown(report)
    for words in (
        "no budget for it", "the model diverged", "one client", "infinite",
        "Note: stopped before round 2", "NOT PRIVATE",
    ):  # fmt: skip
        assert words in text


def test_what_is_infinite_is_null_in_json(tmp_path: Path) -> None:
    assert (finite(1.5), finite(math.inf), finite(math.nan)) == (1.5, None, None)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", {"x": math.nan})


def test_a_report_is_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "report.json", {"held_out": {}, "x": 1})
    assert read_report(tmp_path) == {"held_out": {}, "x": 1}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "name the directory of a finished run"),
        ("{", "is not JSON"),
        ("[]", "not a report of this product"),
        ('{"x": 1}', "not a report of this product"),
    ],
)
def test_what_is_no_report(tmp_path: Path, content: str | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(RunDirectoryError, match=reason):
        read_report(tmp_path)


def test_the_curves_are_svg_and_repeatable(tmp_path: Path) -> None:
    for name in ("a", "b"):
        plot_held_out(
            tmp_path / name / "loss.svg", [(1, 2.0, 1.0), (5, 1.5, 0.5)], metric="mse", clients=3
        )
        curves = {"aggregator": [0.5, 0.7], "participants": [0.6, 0.9]}
        plot_epsilon(tmp_path / name / "epsilon.svg", [1, 2], curves, limit=3.0)
    for name in ("loss.svg", "epsilon.svg"):
        first, second = ((tmp_path / folder / name).read_bytes() for folder in ("a", "b"))
        assert first == second
        assert svg(tmp_path / "a" / name).tag.endswith("svg")
        assert b"http://" not in first.replace(b"http://www.w3.org", b"").replace(
            b"http://purl.org", b""
        ).replace(b"http://creativecommons.org", b"")


def test_rounds_without_a_score_or_a_release_are_not_drawn(tmp_path: Path) -> None:
    held_out = {"held_out": {"metric": "mse", "clients": ["a"]}}
    aborted = {"round": 1, "status": "aborted", "adapted": None, "unadapted": 1.0}
    draw_curves(tmp_path / "none", [aborted], held_out)
    assert not (tmp_path / "none").exists()
    released = {
        "round": 2, "status": "released", "adapted": 1.0, "unadapted": 2.0, "granted": 3.0,
        "epsilon_by_adversary": {"aggregator": 0.5},
    }  # fmt: skip
    draw_curves(tmp_path / "some", [aborted, released], held_out)
    assert {path.name for path in (tmp_path / "some").iterdir()} == {"loss.svg", "epsilon.svg"}
    diverged = {**released, "adapted": 1.0, "unadapted": None}
    draw_curves(tmp_path / "bad", [diverged], held_out)
    assert {path.name for path in (tmp_path / "bad").iterdir()} == {"epsilon.svg"}


def test_templates(tmp_path: Path) -> None:
    assert {"credit", "sinusoid"} < set(template_names())
    for name in template_names():
        path = write_template(name, tmp_path)
        assert path == tmp_path / f"{name}.toml"
        assert load_config(path).name == name
    with pytest.raises(ConfigError, match="exists; move it away"):
        write_template("credit", tmp_path)
    with pytest.raises(ConfigError, match="Did you mean 'credit'"):
        write_template("credits", tmp_path)
    with pytest.raises(ConfigError, match="no such example"):
        write_template("../credit", tmp_path)


def test_the_code_digest_covers_every_source_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "pack"
    (package / "sub").mkdir(parents=True)
    for name in ("__init__.py", "sub/a.py"):
        (package / name).write_text("x = 1\n")
    (package / "notes.txt").write_text("no code")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(provenance, "_PACKAGES", ("pack",))
    digests = [provenance.code_digest()]
    (package / "notes.txt").write_text("still no code")
    assert provenance.code_digest() == digests[0]
    (package / "sub" / "a.py").write_text("x = 2\n")
    digests.append(provenance.code_digest())
    (package / "sub" / "a.py").rename(package / "sub" / "b.py")
    digests.append(provenance.code_digest())
    assert len(set(digests)) == 3
    assert all(len(digest) == 32 for digest in digests)


def test_the_environment_digest_is_that_of_the_installed_versions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = provenance.environment_digest()
    provenance.environment_digest.cache_clear()
    assert before == provenance.environment_digest()
    provenance.environment_digest.cache_clear()
    monkeypatch.setattr(provenance, "distributions", lambda: iter(()))
    assert provenance.environment_digest() != before
    provenance.environment_digest.cache_clear()


def test_the_config_in_the_run_directory_is_complete(result: RunResult) -> None:
    """Defaults are written out, so that a later default changes nothing."""
    text = (result.directory / "config.toml").read_text()
    assert "evaluate_every" in text
    assert "repeats" in text
    assert tomli_w.dumps({"name": "tiny"}).strip() in text
