"""Commands in this process: what a call leaves on stdout and stderr, and its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from tests.secure_fedmeta.federation import settings


class Ended(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def message(self) -> str:
        """The one line of an expected error."""
        lines = [line for line in self.err.splitlines() if line.startswith("fedmeta: ")]
        assert len(lines) == 1, self.err
        return lines[0].removeprefix("fedmeta: ")


Call = Callable[..., Ended]


def write(folder: Path, changes: Mapping[str, object] | None = None, name: str = "c.toml") -> str:
    path = folder / name
    path.write_text(tomli_w.dumps(settings({"training.rounds": 2, **(changes or {})})))
    return str(path)
