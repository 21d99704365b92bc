"""A run that dies at any durable step: what was acknowledged stands, and it can be gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from secure_fedmeta.config import Config
from secure_fedmeta.errors import NothingBegun, RunEnded
from secure_fedmeta.training import RunResult, resume, run
from tests.secure_fedmeta.cuts import (
    Mortal,
    check_resumed,
    cut,
    model_digest,
    mortal,
    short,
)

__all__ = ["mortal"]
FIGURES = ("status", "survivors", "selected", "rejected", "clip", "protected")
SEEDED = {
    "not_private.seed": 5,
    "server.optimiser": "adam",
    "server.average_from": 2,
    "privacy.clip_quantile": 0.5,
    "privacy.metrics": ["query_loss"],
    "privacy.largest_loss": 50.0,
    "training.rounds": 3,
    "transport.duplicate": 0.3,
    "transport.tamper": 0.01,
}


def steps_of(mortal: Mortal, config: Config, out: Path) -> tuple[RunResult, list[str]]:
    mortal.born()
    whole = run(config, out=out)
    steps = mortal.steps
    mortal.acknowledged.clear()
    return whole, steps


def test_death_before_every_durable_step(tmp_path: Path, mortal: Mortal) -> None:
    config = short({"server.optimiser": "momentum"})
    _, steps = steps_of(mortal, config, tmp_path / "whole")
    assert set(steps) >= {
        "Kept.begin", "Ledger.reserve", "Ledger.commit", "AuditLog.append", "Checkpoints.put",
        "Checkpoints.confirm", "Metrics.append", "PinStore.save", "Workspace.keep_opening",
    }  # fmt: skip
    begun = steps.index("Kept.ready") + 1
    ended = len(steps) - steps[::-1].index("AuditLog.append")
    for dies_at in range(1, len(steps) + 1):
        mortal.acknowledged.clear()
        directory = cut(mortal, config, tmp_path / str(dies_at), dies_at=dies_at)
        if dies_at <= begun:
            with pytest.raises(NothingBegun, match="charged nothing"):
                resume(directory)
            continue
        if dies_at > ended:
            with pytest.raises(RunEnded):
                resume(directory)
            continue
        result = resume(directory)
        assert result.status == "completed", (steps[dies_at - 1], result.report["notes"])
        found = check_resumed(result, mortal)
        assert found.last_release is not None
        _, latest = found.last_release
        assert model_digest(config, result.model) == latest.model_after, steps[dies_at - 1]
        cut_off = result.report["notes"]
        assert (len(found.released) == 2) == (not cut_off), (steps[dies_at - 1], cut_off)
        assert all(one == 1 for _, one in found.released) or cut_off


def test_a_seeded_run_goes_on_bit_for_bit(tmp_path: Path, mortal: Mortal) -> None:
    """Every round that is released; all of them where the cut left no charge behind."""
    config = short(SEEDED)
    whole, steps = steps_of(mortal, config, tmp_path / "whole")
    assert [record["status"] for record in whole.records].count("released") >= 2
    first, same = steps.index("Kept.ready") + 2, 0
    for dies_at in range(first, len(steps) - 3, 2):
        directory = cut(mortal, config, tmp_path / str(dies_at), dies_at=dies_at)
        result = resume(directory)
        check_resumed(result, mortal)
        whole_again = len(result.records) == len(whole.records)
        figures = (*FIGURES, "epsilon", "adapted") if whole_again else FIGURES
        for mine, theirs in zip(result.records, whole.records, strict=False):
            assert {key: mine.get(key) for key in figures} == {k: theirs.get(k) for k in figures}
        if whole_again:
            assert torch.equal(result.model, whole.model), steps[dies_at - 1]
            same += 1
        mortal.acknowledged.clear()
    assert same > 5
