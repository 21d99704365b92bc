"""How a run is shown while it goes on: a live panel, plain lines, JSON lines, or not at all.

Panel and plain lines go to stderr, so that stdout holds results alone. JSON lines are what was
asked for: they go to stdout. docs/first-run.md says what they hold.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TextIO

from rich.console import Console
from rich.live import Live

from secure_fedmeta import __version__
from secure_fedmeta.cli_output import Show, Visible, visible
from secure_fedmeta.console import LABELS
from secure_fedmeta.console_live import View
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.progress import Started
from secure_fedmeta.seen import Seen


class Display:
    """A Progress that is shown inside its `with` block; this one shows nothing.

    All of them remember what they were told, and leave the terminal as it was.
    """

    def __init__(self) -> None:
        self._seen = Seen()

    @property
    def directory(self) -> Path | None:
        """Where the run leaves its files; None before it has begun."""
        return self._seen.directory

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing was changed."""

    def started(self, facts: Started) -> None:
        """The run begins."""
        self._seen.start(facts)

    def stage(self, text: str) -> None:
        """A stage begins."""
        self._seen.stage(text)

    def round_done(self, record: Mapping[str, Any]) -> None:
        """A round ended."""
        self._seen.round_done(record)

    def ended(self, status: str) -> None:
        """The report says how."""


class Panel(Display):
    """A panel that changes in place, and is gone when the block ends.

    Rounds that abort stay on the screen, above it.

    Args:
        console: a terminal that can move its cursor.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._live = Live(
            Visible(View(self._seen)),
            console=console,
            transient=True,
            redirect_stdout=False,
            vertical_overflow="crop",
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *error: object) -> None:
        """Take the panel off the screen, and show the cursor again."""
        self._live.stop()

    def round_done(self, record: Mapping[str, Any]) -> None:
        """Keep what went wrong on the screen."""
        super().round_done(record)
        if record["status"] == "aborted":
            self._live.console.print(visible(line_of(record)), markup=False, highlight=False)


class Lines(Display):
    """One line per stage and per round.

    Args:
        console: where they go.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._warned = False

    def started(self, facts: Started) -> None:
        """Name the directory."""
        super().started(facts)
        before = f", {len(facts.records)} of them done before" if facts.records else ""
        self._say(f"run directory: {facts.directory}; {facts.rounds} rounds{before}")

    def stage(self, text: str) -> None:
        """Name the stage."""
        super().stage(text)
        self._say(text)

    def round_done(self, record: Mapping[str, Any]) -> None:
        """Say the round's figures; where the grants end too early, say so once."""
        super().round_done(record)
        self._say(line_of(record))
        warning = self._seen.warning()
        if warning is not None and not self._warned:  # later it would only count down
            self._say(f"warning: {warning}")
        self._warned = warning is not None

    def _say(self, text: str) -> None:
        self._console.print(visible(text), markup=False, highlight=False, soft_wrap=True)


class JsonLines(Display):
    """One JSON object per line: `started`, then `stage` and `round`, then `ended`.

    Stages before the start are told after it: where a config is refused there is no line at all.

    Args:
        file: where they go, each at once.
    """

    def __init__(self, file: TextIO) -> None:
        super().__init__()
        self._file = file
        self._before: list[str] = []
        self._open = False

    def __exit__(self, *error: object) -> None:
        """Say how a run ended that an exception ended."""
        if self._open:
            self.ended("interrupted" if isinstance(error[1], KeyboardInterrupt) else "failed")

    def started(self, facts: Started) -> None:
        """The first line, and the stages before it."""
        super().started(facts)
        self._open = True
        self._line(
            "started",
            {
                "product_version": __version__,
                "directory": str(facts.directory),
                "rounds": facts.rounds,
                "rounds_before": len(facts.records),
                "population": facts.population,
                "granted": facts.granted,
                "metric": facts.metric,
            },
        )
        for text in self._before:
            self._line("stage", {"text": text})

    def stage(self, text: str) -> None:
        """A line, as soon as there may be one."""
        super().stage(text)
        if self._open:
            self._line("stage", {"text": text})
        else:
            self._before.append(text)

    def round_done(self, record: Mapping[str, Any]) -> None:
        """The round's line of metrics.jsonl, with its kind."""
        super().round_done(record)
        self._line("round", record)

    def ended(self, status: str) -> None:
        """The last line but the report's."""
        self._open = False
        self._line("ended", {"status": status})

    def _line(self, kind: str, body: Mapping[str, Any]) -> None:
        self._file.write(json_line(kind, body) + "\n")
        self._file.flush()


class Outlet:
    """A stream that somebody reads who may go away, or whose terminal may.

    The first write that fails interrupts, as Ctrl-C would: a run that nobody can follow any more
    stops where it can go on. What is written after that is lost.

    Args:
        stream: a text stream.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._gone = False

    def __getattr__(self, name: str) -> Any:
        """Everything else is the stream's own."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or interrupt."""
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush, or interrupt."""
        self._attempt(self._stream.flush)

    def _attempt(self, action: Callable[..., object], *given: str) -> None:
        if self._gone:
            return
        try:
            action(*given)
        except OSError as error:
            self._gone = True
            raise KeyboardInterrupt(f"the progress cannot be written: {error.strerror}") from error


def json_line(kind: str, body: Mapping[str, Any]) -> str:
    """One line of JSON progress: its kind comes first."""
    return json.dumps({"kind": kind, **body}, allow_nan=False)


def display(show: Show, *, as_json: bool) -> Display:
    """The display that was asked for.

    Args:
        show: as on the command line; AUTO is a panel on a terminal, and lines elsewhere.
        as_json: one JSON object is the result; AUTO is quiet then.

    Raises:
        ConfigError: a panel where nothing can move a cursor, or two kinds of JSON on stdout.
    """
    console = Console(file=Outlet(sys.stderr))  # type: ignore[arg-type]
    able = sys.stderr.isatty() and not console.is_dumb_terminal
    if show is Show.JSON:
        if as_json:
            raise ConfigError(
                "stands beside --json, which is one object on stdout and nothing else: leave out "
                "one of them",
                key="--progress json",
            )
        return JsonLines(Outlet(sys.stdout))  # type: ignore[arg-type]
    if show is Show.QUIET or (show is Show.AUTO and as_json):
        return Display()
    if show is Show.LIVE and not able:
        raise ConfigError(
            "stderr is no terminal that can move its cursor; take plain", key="--progress live"
        )
    return Panel(console) if able and show is not Show.PLAIN else Lines(console)


def line_of(record: Mapping[str, Any]) -> str:
    """A round in one line."""
    return f"round {record['round']}: {_facts(record)}"


def _facts(record: Mapping[str, Any]) -> str:
    if record["status"] == "in clear":
        return "public data, without the secure sum"
    if record["status"] == "aborted":
        return f"aborted: {record['reason']}"
    parts = [
        f"{record['survivors']}/{record['selected']} clients",
        f"epsilon {record['epsilon']:.2f} of {record['granted']:g}",
    ]
    parts += [
        f"{LABELS[name]} {found['value']:.3g} ± {found['noise_std']:.2g}"
        for name, found in record["protected"].items()
    ]
    if record.get("adapted") is not None:
        parts.append(f"held-out {record['metric']} {record['adapted']:.3f}")
    return ", ".join(parts)
