"""Record what a terminal shows during the demo, as text, and put it into README.md.

The commands are run for real, in a pseudo-terminal of 100 columns, in a folder of their own with a
state directory of its own. What they print is drawn on a screen in memory (pyte), as a terminal
would draw it. The page gets the screen in the middle of the training, what stood there at the end,
and the beginning of the run's report and its curves as pictures.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyte

from tests.browser.screenshots import for_documentation

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
IMAGES = ROOT / "docs" / "images"
COLUMNS, LINES, HISTORY = 100, 50, 2000
_ELSEWHERE = ("COLUMNS", "LINES", "CI")
"""What an environment says of a terminal, which is not this one."""
BEGIN, END = "<!-- recorded by `make recording` -->", "<!-- end of the recording -->"
EXAMPLE = "examples/credit.toml"
CURVES = ("loss.svg", "epsilon.svg")
COMMANDS: tuple[tuple[tuple[str, ...], str | None], ...] = (
    (("run", EXAMPLE), r"2\d of 40"),
    (("verify", "runs/latest"), None),
)


@dataclass(frozen=True)
class Recording:
    """What one command showed.

    Attributes:
        command: the words as a user types them.
        middle: the screen when `halfway` was first on it; None if it never was.
        final: everything that stood there at the end, lines scrolled away included.
        code: exit status.
    """

    command: str
    middle: str | None
    final: str
    code: int


def record(
    words: Sequence[str],
    *,
    command: str,
    folder: Path,
    environment: dict[str, str],
    halfway: str | None = None,
) -> Recording:
    """Run a program in a terminal.

    Args:
        words: program and arguments.
        command: the same as a user types it.
        folder: where it runs.
        environment: its environment, but for what describes the terminal.
        halfway: a regular expression; the first screen on which it is found is kept.
    """
    terminal = {"TERM": "xterm-256color"}
    elsewhere = {name: value for name, value in environment.items() if name not in _ELSEWHERE}
    screen = pyte.HistoryScreen(COLUMNS, LINES, history=HISTORY, ratio=0.5)
    stream = pyte.ByteStream(screen)
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    process = subprocess.Popen(
        words,
        cwd=folder,
        env=elsewhere | terminal,
        stdin=inner,
        stdout=inner,
        stderr=inner,
    )
    os.close(inner)
    middle = None
    while (data := _read(outer)) is not None:
        stream.feed(data)
        shown = "\n".join(screen.display)
        if middle is None and halfway is not None and re.search(halfway, shown):
            middle = _trimmed(screen.display)
    os.close(outer)
    above = ["".join(line[x].data for x in range(COLUMNS)) for line in screen.history.top]
    final = _trimmed([*above, *screen.display])
    return Recording(command, middle, final, process.wait())


def _read(terminal: int) -> bytes | None:
    """What the program wrote; None when it has ended."""
    try:
        return os.read(terminal, 65_536) or None
    except OSError:  # Linux reports the end of a pseudo-terminal as an input error
        return None


def _trimmed(lines: Sequence[str]) -> str:
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def block(recordings: Sequence[Recording]) -> str:
    """The recordings as Markdown."""
    parts = [BEGIN]
    for one in recordings:
        body = one.final
        if one.middle is not None:
            body = f"{one.middle}\n\n... and at its end:\n\n{one.final}"
        parts.append(f"\n```console\n$ {one.command}\n```\n\n```text\n{body}\n```")
    return "\n".join([*parts, "", END])


def replaced(page: str, recorded: str) -> str:
    """The page with another block between the two marks."""
    before, rest = page.split(BEGIN)
    return before + recorded + rest.split(END)[1]


def main() -> None:
    """Record, and write page and pictures."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "examples").mkdir()
        shutil.copy(ROOT / EXAMPLE, folder / EXAMPLE)
        environment = os.environ | {
            "FEDMETA_STATE_DIR": str(folder / "state"),
            "PYTHONPATH": str(ROOT),
        }
        recordings = [
            record(
                [sys.executable, "-m", "secure_fedmeta.cli", *words],
                command=" ".join(["fedmeta", *words]),
                folder=folder,
                environment=environment,
                halfway=halfway,
            )
            for words, halfway in COMMANDS
        ]
        for one in recordings:
            if one.code != 0:
                raise SystemExit(f"{one.command} ended with exit code {one.code}:\n{one.final}")
        IMAGES.mkdir(exist_ok=True)
        for name in CURVES:
            shutil.copy(folder / "runs" / "latest" / "plots" / name, IMAGES / f"credit-{name}")
        for_documentation(folder / "runs" / "latest" / "report.html", IMAGES)
    README.write_text(replaced(README.read_text(), block(recordings)))
    for one in recordings:
        print(one.command, len(one.final.splitlines()), "lines")


if __name__ == "__main__":
    main()
