"""A terminal for a command to run in: a real pty, and a screen that reads what came out of it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path

FEDMETA = Path(sys.executable).with_name("fedmeta")
LIMIT = 120.0
"""Seconds after which a command is given up."""
_ELSEWHERE = ("COLUMNS", "LINES", "CI")
_PART = re.compile(r"\x1b\[([\d;?]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Screen:
    """What a person sees in the end, and whether the cursor is there.

    Knows what Rich writes: cursor up, erase line, colours, hide and show the cursor.
    """

    def __init__(self, written: str) -> None:
        self.lines = [""]
        self.cursor = True
        row = column = 0
        for found in _PART.finditer(written):
            argument, command, move, text = found.groups()
            if text is not None:
                line = self.lines[row].ljust(column)
                self.lines[row] = line[:column] + text + line[column + len(text) :]
                column += len(text)
            elif move == "\r":
                column = 0
            elif move == "\n":
                row += 1
                if row == len(self.lines):
                    self.lines.append("")
            elif command == "A":
                row = max(0, row - int(argument or 1))
            elif command == "K":
                self.lines[row] = ""
            elif command in "hl" and argument == "?25":
                self.cursor = command == "h"
            elif command != "m":
                raise AssertionError(f"no such command: {found.group()!r}")

    @property
    def text(self) -> str:
        """The lines that are not empty."""
        return "\n".join(line.rstrip() for line in self.lines if line.strip())


class InTerminal:
    """A command in a session and a terminal of its own.

    Args:
        arguments: of `fedmeta`.
        folder: where it runs.
        columns: of the terminal.
        environment: changes to this one's.
    """

    def __init__(
        self,
        arguments: list[str],
        folder: Path,
        *,
        columns: int = 80,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

        # pytest-xdist names the width of a terminal that is not this one.
        outer = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}

        def own_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        self.process = subprocess.Popen(
            [str(FEDMETA), *arguments],
            cwd=folder,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=outer | {"OMP_NUM_THREADS": "1", "TERM": "xterm", **(environment or {})},
            start_new_session=True,
            preexec_fn=own_terminal,
        )
        os.close(slave)
        self._open = True
        self.written = b""

    @property
    def shown(self) -> str:
        """Everything that was written so far."""
        return self.written.decode()

    def until(self, reached: Callable[[str], bool]) -> None:
        """Read until it is so, or the command has ended."""
        deadline = time.monotonic() + LIMIT
        while not reached(self.shown):
            assert time.monotonic() < deadline, self.shown
            if not select.select([self._master], [], [], 1.0)[0]:
                continue
            try:
                part = os.read(self._master, 1 << 16)
            except OSError:  # EIO: nobody holds the other end any more
                return
            self.written += part

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._master, keys)

    def hang_up(self) -> None:
        """Take the terminal away, as a lost connection does."""
        os.close(self._master)
        self._open = False

    def end(self) -> int:
        """Read to the end; the exit code."""
        if self._open:
            self.until(lambda _: False)
            os.close(self._master)
            self._open = False
        return self.process.wait(LIMIT)

    def kill(self) -> None:
        """Whatever happened, leave nothing running."""
        self.process.kill()
        self.process.wait()
        if self._open:
            os.close(self._master)
