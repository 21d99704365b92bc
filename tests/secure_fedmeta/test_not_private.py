"""One seed instead of all secrets: bit-identical, and marked as not private wherever one looks."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from secure_fedmeta.console import render_report
from secure_fedmeta.training import RunResult, run
from secure_fedmeta.verification import verify_run
from tests.secure_fedmeta.federation import entries, tiny

PLAIN = {"secure_sum.protocol": "plain", "secure_sum.allow_insecure": True}
FAULTS = {"transport.drop": 0.08, "transport.duplicate": 0.1, "transport.tamper": 0.03}


def seeded(folder: Path, changes: dict[str, object] | None = None, seed: int = 11) -> RunResult:
    return run(tiny({"not_private.seed": seed, **(changes or {})}), out=folder)


@pytest.mark.parametrize("changes", [{}, FAULTS], ids=["clean", "faults"])
def test_two_seeded_runs_are_bit_identical(tmp_path: Path, changes: dict[str, object]) -> None:
    first, second = seeded(tmp_path, changes), seeded(tmp_path, changes)
    assert torch.equal(first.model, second.model)
    models = [(r.directory / "model.safetensors").read_bytes() for r in (first, second)]
    assert models[0] == models[1]
    kinds = [[e["kind"] for e in entries(r.directory / "audit")] for r in (first, second)]
    assert kinds[0] == kinds[1]
    scores = [r.report["held_out"] for r in (first, second)]
    assert scores[0] == scores[1]


def test_masking_and_plain_give_bit_identical_models(tmp_path: Path) -> None:
    masked, plain = seeded(tmp_path), seeded(tmp_path, PLAIN)
    assert torch.equal(masked.model, plain.model)
    digests = [
        [e["body"]["aggregate"] for e in entries(r.directory / "audit") if "aggregate" in e["body"]]
        for r in (masked, plain)
    ]
    assert digests[0] == digests[1]
    assert len(digests[0]) == 3


def test_another_seed_gives_another_model(tmp_path: Path) -> None:
    assert not torch.equal(seeded(tmp_path).model, seeded(tmp_path, seed=12).model)


def test_without_a_seed_no_two_runs_are_alike(tmp_path: Path) -> None:
    first, second = run(tiny(), out=tmp_path), run(tiny(), out=tmp_path)
    assert not torch.equal(first.model, second.model)
    roster = [entries(r.directory / "audit")[0]["body"]["roster_digest"] for r in (first, second)]
    assert roster[0] != roster[1]


def test_the_mark_is_in_log_report_console_and_verification(tmp_path: Path) -> None:
    for result, marked in ((seeded(tmp_path), True), (run(tiny(), out=tmp_path), False)):
        genesis = entries(result.directory / "audit")[0]["body"]
        assert genesis["not_private"] is marked
        assert result.report["not_private"] is marked
        assert json.loads((result.directory / "report.json").read_text())["not_private"] is marked
        outcome = verify_run(result.directory, key=None, pinned=None, unpinned=False)
        assert any("NOT PRIVATE" in line for line in outcome.lines()) is marked
        console = Console(file=io.StringIO())
        with console.capture() as shown:
            console.print(render_report(result.directory, result.report))
        assert ("NOT PRIVATE" in shown.get()) is marked


def test_the_report_says_that_no_epsilon_holds(tmp_path: Path) -> None:
    (note,) = seeded(tmp_path).report["notes"]
    assert "no epsilon holds" in note
    assert run(tiny(), out=tmp_path).report["notes"] == []
