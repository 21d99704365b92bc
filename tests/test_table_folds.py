"""What benchmarks.table_folds trains and holds out."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.table_folds import FOLDS, fold_config
from secure_fedmeta.config import load_config
from secure_fedmeta.tasks import build_source

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.mark.parametrize("name", ["heart", "migraine"])
def test_every_client_is_held_out_once_and_nothing_else_is_chosen(name: str) -> None:
    base = load_config(EXAMPLES / f"{name}.toml")
    source = build_source(name, base.data.options)
    folds = [fold_config(base, source, fold, FOLDS[name], 7) for fold in range(FOLDS[name])]
    held_out = [client for config in folds for client in config.data.held_out]
    assert sorted(held_out) == list(source.clients())
    spare = source.info.clients - len(base.data.held_out) - base.privacy.min_survivors
    whole = sum(source.info.task_bounds.values())
    for config in folds:
        training = source.info.clients - len(config.data.held_out)
        assert config.privacy.min_survivors == training - spare
        share = 1 - sum(source.info.task_bounds[name] for name in config.data.held_out) / whole
        example = 1 - sum(source.info.task_bounds[name] for name in base.data.held_out) / whole
        assert config.privacy.expected_units == pytest.approx(
            base.privacy.expected_units * share / example, abs=0.5
        )
        assert config.model.init_seed == 7
        same = {"data": base.data, "model": base.model, "privacy": base.privacy}
        assert config.model_copy(update=same) == base
        kept = {"expected_units", "min_survivors"}
        assert config.privacy.model_dump(exclude=kept) == base.privacy.model_dump(exclude=kept)
