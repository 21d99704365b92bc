"""The table of results comes from runs, and a log that does not verify does not pass unseen."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from secure_fedmeta import verification
from secure_fedmeta.meta import LEARNERS
from secure_fedmeta.verification import Outcome

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("results_script", ROOT / "scripts" / "results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDMETA_STATE_DIR", str(tmp_path))  # the script sets it: put it back


def rows(page: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith("| `")
    ]


def test_a_row_is_what_a_run_reports(script: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    chosen = ["--examples", "credit", "--algorithms", "meta_sgd_layer", "--noise", "distributed"]
    assert script.main([*chosen, "--rounds", "1", "--page", str(page)]) == 0
    ((algorithm, noise, rounds, coordinates, *_, verifies),) = rows(page.read_text())
    assert (algorithm, noise, rounds) == ("`meta_sgd_layer`", "distributed", "1")
    assert coordinates == "20"  # 18 weights, a bias, a rate
    assert verifies == "yes"


def test_a_log_that_does_not_verify_is_shown_and_fails(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rejected = Outcome(accepted=False, failure="entry 3 is bad", entry=3, verified=None)
    monkeypatch.setattr(verification, "verify_run", lambda *_, **__: rejected)
    page = tmp_path / "page.md"
    chosen = ["--examples", "credit", "--algorithms", "fomaml", "--noise", "distributed"]
    assert script.main([*chosen, "--rounds", "1", "--page", str(page)]) == 1
    assert rows(page.read_text())[0][-1] == "NO: entry 3 is bad"


def test_what_is_refused_is_listed_with_the_reason(script: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    chosen = ["--examples", "credit", "--algorithms", "mmal", "--noise", "distributed"]
    assert script.main([*chosen, "--page", str(page)]) == 0
    assert rows(page.read_text()) == []
    assert "Refused:\n\n- mmal, distributed: learner.algorithm" in page.read_text()


def test_every_learner_is_run_and_described(script: ModuleType) -> None:
    assert set(script.ALGORITHMS) == set(LEARNERS.names())
    described = {row[0].strip("`") for row in rows((ROOT / "docs" / "learners.md").read_text())}
    assert described == set(LEARNERS.names())


def test_the_page_has_a_verified_row_for_every_algorithm_and_noise(script: ModuleType) -> None:
    for section in (ROOT / "docs" / "results.md").read_text().split("\n## ")[1:]:
        found = {(row[0].strip("`"), row[1]): row[-1] for row in rows(section)}
        assert set(found) == {(a, n) for a in script.ALGORITHMS for n in script.NOISE}
        assert set(found.values()) == {"yes"}
