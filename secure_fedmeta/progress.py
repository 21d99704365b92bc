"""What a run tells while it goes on. The library is silent; the command line shows a bar."""

from __future__ import annotations

from typing import Protocol


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
