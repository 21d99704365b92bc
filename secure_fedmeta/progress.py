"""Who is told of a run while it goes on. The library is silent; the command line shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # what shows progress starts quickly: torch comes with the tasks
    from secure_fedmeta.tasks import SourceInfo


@dataclass(frozen=True)
class Started:
    """What is known of a run, or of a search, when its first round begins.

    Attributes:
        directory: where it leaves its files; it exists.
        rounds: planned in all, those of `records` included.
        population: whose budget is charged; None where none is.
        granted: epsilon of the population's first grant; None where nothing is charged.
        metric: of the held-out scores; None where nobody is scored between rounds.
        records: metrics lines of the rounds that ended before, where a run goes on.
    """

    directory: Path
    rounds: int
    population: str | None
    granted: float | None
    metric: str | None
    records: Sequence[Mapping[str, Any]] = ()


class Progress(Protocol):
    """Told how a run goes, always from the thread that called `run`.

    Stages may come before the start: data are read before anything is made. What one of these
    raises ends the run where it is.
    """

    def started(self, facts: Started) -> None:
        """Everything was checked, and the directory is there; told once."""
        ...

    def stage(self, text: str) -> None:
        """A stage that may take longer than two seconds begins."""
        ...

    def round_done(self, record: Mapping[str, Any]) -> None:
        """A round ended; the record is the line written to metrics.jsonl."""
        ...

    def ended(self, status: str) -> None:
        """All files are written; told once, and not where an exception ends the run."""
        ...


class Silent:
    """Shows nothing."""

    def started(self, facts: Started) -> None:
        """Ignore the start."""

    def stage(self, text: str) -> None:
        """Ignore the stage."""

    def round_done(self, record: Mapping[str, Any]) -> None:
        """Ignore the round."""

    def ended(self, status: str) -> None:
        """Ignore the end."""


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

    def resumed(self, records: Sequence[Mapping[str, Any]]) -> None:
        """The run goes on behind these lines, which another process wrote."""
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
