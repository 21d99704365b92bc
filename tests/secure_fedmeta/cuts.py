"""A process that dies at its n-th durable step, for the tests of runs that are resumed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

import secure_fedmeta.course as course
import secure_fedmeta.training as training
from audit.log import Appended, AuditLog
from audit.pin import PinStore
from privacy.events import Event
from privacy.ledger import Ledger
from secure_fedmeta import state
from secure_fedmeta.checkpoint import Checkpoints
from secure_fedmeta.config import Config, parse_config
from secure_fedmeta.kept import Kept
from secure_fedmeta.metrics import Metrics
from secure_fedmeta.pipeline import Parts, assemble
from secure_fedmeta.scoring import _ARMS
from secure_fedmeta.told import Told
from secure_fedmeta.training import RunResult, run
from secure_fedmeta.verification import verify_run
from secure_fedmeta.workspace import Workspace
from tests.secure_fedmeta.federation import settings

STEPS = [
    (Kept, "create"),
    (Kept, "ready"),
    (Kept, "begin"),
    (Kept, "forget"),
    (Ledger, "reserve"),
    (Ledger, "commit"),
    (Workspace, "keep_opening"),
    (Workspace, "point_latest"),
    (AuditLog, "append"),
    (PinStore, "save"),
    (Checkpoints, "put"),
    (Checkpoints, "confirm"),
    (Checkpoints, "discard"),
    (Checkpoints, "forget"),
    (Metrics, "create"),
    (Metrics, "take_up"),
    (Metrics, "append"),
]
"""Everything that a run makes durable, but for its reports."""


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Mortal:
    """Counts durable steps, and dies before the one that it is told.

    Attributes:
        dies_at: number of the step that is not made, from 1; None: lives on.
        dies_before: name of the step that is not made, and which of that name, from 1.
        steps: names of the steps so far.
        acknowledged: log entries whose append returned.
    """

    dies_at: int | None = None
    dies_before: tuple[str, int] | None = None
    steps: list[str] = field(default_factory=list)
    acknowledged: list[Appended] = field(default_factory=list)

    def step(self, name: str) -> None:
        """Raises Killed at the step, and ever after: the dead write nothing."""
        if (name, self.steps.count(name) + 1) == self.dies_before:
            self.dies_at = 0
        if self.dies_at is not None and len(self.steps) + 1 >= self.dies_at:
            raise Killed(name)
        self.steps.append(name)

    def born(self, dies_at: int | None = None, dies_before: tuple[str, int] | None = None) -> None:
        """A new process."""
        self.dies_at, self.dies_before, self.steps = dies_at, dies_before, []


@pytest.fixture
def mortal(monkeypatch: pytest.MonkeyPatch) -> Mortal:
    """Every durable step asks this one; parts are built once, no arm is trained, nothing drawn."""
    found = Mortal()
    for owner, name in STEPS:
        _watch(monkeypatch, found, owner, name)
    monkeypatch.setattr(training, "assemble", _assembled)
    monkeypatch.setattr(training, "draw_curves", lambda *_: None)
    monkeypatch.setattr(training, "write_reports", lambda *_: ())
    monkeypatch.setattr(course, "closing_arms", lambda *_, **__: (dict.fromkeys(_ARMS), {}))
    return found


def _watch(monkeypatch: pytest.MonkeyPatch, mortal: Mortal, owner: Any, name: str) -> None:
    inner = getattr(owner, name)
    held = owner.__dict__[name]
    bound = isinstance(held, classmethod | staticmethod)

    def watched(*args: Any, **named: Any) -> Any:
        mortal.step(f"{owner.__name__}.{name}")
        made = inner(*args[bound and isinstance(held, classmethod) :], **named)
        if isinstance(made, Appended):
            mortal.acknowledged.append(made)
        return made

    kind = type(held) if bound else lambda function: function
    monkeypatch.setattr(owner, name, kind(watched))


@lru_cache(maxsize=16)
def _parts(tree: str) -> Parts:
    return assemble(parse_config(json.loads(tree)))


def _assembled(config: Config, **own: Any) -> Parts:
    if any(own[name] is not None for name in ("module", "loss")):
        return assemble(config, **own)
    return _parts(json.dumps(config.model_dump(mode="json", exclude_none=True), sort_keys=True))


def short(changes: Mapping[str, object] | None = None) -> Config:
    """The tiny config with two rounds and one held-out client."""
    small = {"training.rounds": 2, "data.options.held_out_clients": 1}
    return parse_config(settings({**small, **(changes or {})}))


def cut(mortal: Mortal, config: Config, out: Path, *, dies_at: int) -> Path:
    """The directory of a run that dies before its n-th durable step."""
    mortal.born(dies_at)
    return _dying(mortal, config, out)


def cut_before(mortal: Mortal, config: Config, out: Path, step: str, *, nth: int = 1) -> Path:
    """The directory of a run that dies before the n-th step of this name."""
    mortal.born(dies_before=(step, nth))
    return _dying(mortal, config, out / "cut")


def _dying(mortal: Mortal, config: Config, out: Path) -> Path:
    with pytest.raises(Killed):
        run(config, out=out)
    mortal.born()
    (directory,) = [path for path in out.iterdir() if not path.is_symlink()]
    return directory


def told(directory: Path) -> Told:
    """What the log of a run tells."""
    path = directory / "audit" / "log.jsonl"
    return Told.by(path, size=len(path.read_bytes().splitlines()))


def charged(directory: Path) -> Counter[Event]:
    """What the default ledger was charged for a run's own population."""
    return Ledger(state.ledger_url()).counts(f"run/{directory.name}")


def check_resumed(result: RunResult, mortal: Mortal) -> Told:
    """Nothing acknowledged is lost, and all that is left agrees."""
    directory = result.directory
    lines = (directory / "audit" / "log.jsonl").read_bytes().splitlines()
    for entry in mortal.acknowledged:
        assert lines[entry.index] == entry.raw
    outcome = verify_run(directory, key=None, pinned=None, unpinned=False)
    assert outcome.accepted, outcome.failure
    found = told(directory)
    assert found.charged == charged(directory) == result.charged
    assert len(found.released) <= found.charged.total()
    records = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert records == list(result.records)
    ended = [(record["round"], record["status"]) for record in records]
    assert [index for index, status in ended if status == "released"] == sorted(
        index for index, _ in found.released
    )
    rounds = [index for index, _ in ended]
    assert rounds == sorted(set(rounds))
    left = {path.name for path in directory.iterdir()}
    assert not {name for name in left if name.startswith("checkpoint")}
    assert not state.runs_path(directory.name).exists()
    assert (directory.parent / "latest").resolve() == directory.resolve()
    return found


def model_digest(config: Config, model: torch.Tensor) -> str:
    """Digest of a model of this config, as the log states it."""
    return _assembled(config, module=None, loss=None).learner.spec.digest(model).hex()
