"""What all commands have in common: how they show progress, print results, and end.

Imports nothing heavy.
"""

from __future__ import annotations

import codecs
import errno
import io
import logging
import math
import os
import signal
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Final

import click
import typer
from typer.core import TyperGroup

from secure_fedmeta.errors import FedmetaError

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

READER_GONE: Final = 141
"""Exit code where whoever reads the output has gone: what a shell shows for SIGPIPE."""
GRACE_SECONDS: Final = 10.0
"""How long signals are not heard after one that was."""
_UNSEEN: Final = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Unicode's categories of characters without a shape of their own, but for the blank."""
_STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_KEPT: Final = {
    "run": "what the log and the ledger acknowledged is kept",
    "agent": "the agent file is whole, as it was before or as it is after",
    "ledger": "what was charged or granted is whole or not there; see fedmeta ledger show",
}
_DISK: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
"""What a system says where a disk is full, broken or read only."""
_NOTHING: Final = "nothing was charged; call it again"


class Show(StrEnum):
    """What is shown while a run goes on."""

    AUTO = "auto"
    LIVE = "live"
    PLAIN = "plain"
    JSON = "json"
    QUIET = "quiet"


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
ShowOption = Annotated[
    Show,
    typer.Option(
        "--progress",
        help="Panel (live), lines (plain), JSON lines on stdout with the report as the last one "
        "(json), or errors only (quiet); auto is live on a terminal and plain elsewhere.",
    ),
]


class Interrupted(FedmetaError):
    """A signal ended the command; says what is kept and how to go on."""

    def __init__(self, kept: str, cause: BaseException | None = None) -> None:
        reason = f" ({cause})" if cause is not None and str(cause) else ""
        super().__init__(f"interrupted{reason}; {kept}")


class DiskRefused(FedmetaError):
    """A disk took no more; says which file it was, what helps, and how to go on."""

    def __init__(self, error: OSError, go_on: str) -> None:
        file = "a file" if error.filename is None else error.filename
        super().__init__(
            f"{file} is not durable ({error.strerror}): make room on its disk, or mend it; {go_on}"
        )


class Commands(TyperGroup):
    """Every command ends in one of the documented ways, whatever cuts it off."""

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command.

        Raises:
            Interrupted: a signal came.
            DiskRefused: a disk is full or broken.
        """
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except KeyboardInterrupt as stop:
            name = ctx.invoked_subcommand or ""
            raise Interrupted(_KEPT.get(name, _NOTHING), stop) from stop
        except BrokenPipeError:
            leave_quietly()
        except OSError as error:
            raise refused_by_disk(error, "then call it again") from error


def interrupted_in(directory: Path | None, stop: KeyboardInterrupt) -> Interrupted:
    """What is kept of a run that was interrupted, and how to go on."""
    if directory is None:
        return Interrupted("no round was begun; call it again", stop)
    return Interrupted(f"{_KEPT['run']}; go on with: fedmeta run --resume {directory}", stop)


def refused_by_disk(error: OSError, go_on: str) -> Exception:
    """What to raise for an error of the system: itself where no disk is to blame."""
    return DiskRefused(error, go_on) if error.errno in _DISK else error


def resuming(directory: Path | None) -> str:
    """How to go on with a run that a disk stopped."""
    if directory is None:
        return "then call it again: no round was begun"
    return f"then: fedmeta run --resume {directory}"


def show(found: RenderableType) -> None:
    """Print text or tables on stdout, as `visible` has it."""
    from rich.console import Console

    class Terminal(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # Rich would exit with 1, which says that a check failed

    Terminal(highlight=False).print(Visible(found))


def visible(text: str) -> str:
    """Text whose words may be somebody else's, for a terminal: what cannot be seen is written out.

    A name in a report, a log, a config or a table could otherwise send the terminal commands, or
    turn or hide what stands beside it.
    """
    return "".join(
        f"\\u{{{ord(one):x}}}" if unicodedata.category(one) in _UNSEEN and one != "\n" else one
        for one in text
    )


class Visible:
    """A renderable with the colours and tables of another, and its text as `visible` has it."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._inner, options):
            shown = segment.control or (segment.text.isascii() and segment.text.isprintable())
            yield segment if shown else segment._replace(text=visible(segment.text))


def leave_quietly() -> None:
    """Exit where nobody reads stdout any more."""
    # What is still buffered goes nowhere; the interpreter would complain of it at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(READER_GONE)


@contextmanager
def stopped_once(clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt, once in GRACE_SECONDS.

    So what is done after the first, such as signing the log and giving the terminal back, is done
    whole. One that comes later interrupts again: an exception can be lost in a finalizer. After the
    first nothing is logged, since libraries log that they were interrupted. A signal that is
    ignored, as under nohup, stays ignored.

    Args:
        clock: seconds that only grow.
    """
    last = -math.inf

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal last
        del number, frame
        if clock() - last < GRACE_SECONDS:
            return
        last = clock()
        logging.disable()
        raise KeyboardInterrupt

    handled = [one for one in _STOPS if signal.getsignal(one) is not signal.SIG_IGN]
    before, logged = [signal.signal(one, stop) for one in handled], logging.root.manager.disable
    try:
        yield
    finally:
        logging.disable(logged)
        for one, handler in zip(handled, before, strict=True):
            signal.signal(one, handler)


def print_anywhere() -> None:
    """Let stdout take every character: in an encoding that lacks one, something stands for it."""

    def plainer(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        lacking = error.object[error.start : error.end]
        return "".join({"±": "+-"}.get(one, "?") for one in lacking), error.end

    codecs.register_error("plainer", plainer)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="plainer")
