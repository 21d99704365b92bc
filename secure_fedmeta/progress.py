"""Who is told of a run while it goes on. The library is silent; the command line shows a bar."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from secure_fedmeta.tasks import SourceInfo


class Progress(Protocol):
    """Told about a run's stages, always from the thread that called `run`."""

    def stage(self, text: str) -> None:
        """A stage that may take longer than two seconds begins."""
        ...

    def round_done(self, record: dict[str, object]) -> None:
        """A round ended; the record is the line written to metrics.jsonl."""
        ...


class Silent:
    """Shows nothing."""

    def stage(self, text: str) -> None:
        """Ignore the stage."""

    def round_done(self, record: dict[str, object]) -> None:
        """Ignore the round."""


class Instrument(Protocol):
    """Watches a run and leaves files of its own in its directory.

    It is the operator's own: not in the config that all parties agree on, not in the log. What it
    is told is what metrics and report say.
    """

    def check(self, info: SourceInfo) -> None:
        """Refuse data that it must not watch, before anything is computed or charged.

        Raises:
            ConfigError: names the option.
        """
        ...

    def watching(self, directory: Path) -> AbstractContextManager[None]:
        """Everything from the first round to the report."""
        ...

    def round_done(self, record: Mapping[str, Any]) -> None:
        """A round ended; the record is the line written to metrics.jsonl."""
        ...

    def finished(self, report: Mapping[str, Any]) -> None:
        """The run ended with this report."""
        ...

    def lines(self) -> list[str]:
        """Where its files are, and what opens them; for whoever ran it."""
        ...
