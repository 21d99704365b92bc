"""Commands in a real terminal and in real pipes: how they look, and how they end."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tomli_w

from secure_fedmeta.cli_output import GRACE_SECONDS, READER_GONE, show, stopped_once
from secure_fedmeta.verification import verify_run
from tests.secure_fedmeta.federation import default_ledger, settings
from tests.secure_fedmeta.terminal import FEDMETA, LIMIT, InTerminal, Screen

Start = Callable[..., InTerminal]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `fedmeta` in a terminal, in the test's folder."""
    begun: list[InTerminal] = []

    def starting(*arguments: str, **how: object) -> InTerminal:
        begun.append(InTerminal(list(arguments), tmp_path, **how))  # type: ignore[arg-type]
        return begun[-1]

    yield starting
    for one in begun:
        one.kill()


def config(folder: Path, changes: dict[str, object]) -> str:
    (folder / "c.toml").write_text(tomli_w.dumps(settings(changes)))
    return "c.toml"


def only_run(folder: Path) -> Path:
    (found,) = (path for path in (folder / "runs").iterdir() if not path.is_symlink())
    return found


def check_kept(run: Path) -> None:
    """The log is sound up to its end, pinned, and the ledger has at least what it says."""
    outcome = verify_run(run, key=None, pinned=None, unpinned=False)
    assert outcome.accepted, outcome.failure
    assert outcome.verified is not None
    assert outcome.verified.released >= 1
    assert len(default_ledger().events(f"run/{run.name}")) >= outcome.verified.released


def test_a_run_in_a_narrow_terminal_without_colour(tmp_path: Path, start: Start) -> None:
    found = start(
        "run", config(tmp_path, {"training.rounds": 4}), columns=40, environment={"NO_COLOR": "1"}
    )
    assert found.end() == 0
    assert "4 of 4" in found.shown  # the panel was there,
    screen = Screen(found.shown)
    assert screen.cursor
    assert "closing work" not in screen.text  # and is gone:
    assert screen.text.startswith("Held-out clients (2)")
    assert max(len(line) for line in screen.text.splitlines() if "┃" in line) <= 40
    assert re.search(r"\x1b\[[\d;]*[34]\d", found.shown) is None  # bold, but no colour


def test_a_refusal_leaves_one_line(start: Start) -> None:
    found = start("plan", "--clients", "1", "--noise-multiplier", "1")
    assert found.end() == 2
    assert "pricing the plan" in found.shown  # was there, and is gone
    screen = Screen(found.shown)
    assert screen.cursor
    assert screen.text == "fedmeta: --clients = 1: must be an integer from 2 to 10000000"


def test_ctrl_c_twice(tmp_path: Path, start: Start) -> None:
    """The second one comes while the first is answered, and changes nothing."""
    found = start("run", config(tmp_path, {"training.rounds": 300}))
    found.until(lambda shown: "2 of 300" in shown)
    found.type(b"\x03")
    found.type(b"\x03")
    found.process.terminate()
    assert found.end() == 3
    screen = Screen(found.shown)
    assert screen.cursor
    # The terminal's own echo of the keys may stand in front.
    assert screen.text.replace("^C", "").startswith("fedmeta: interrupted; what the log")
    assert "Traceback" not in found.shown
    run = only_run(tmp_path)
    assert f"fedmeta run --resume runs/{run.name}" in screen.text
    check_kept(run)


def test_a_lost_connection(tmp_path: Path, start: Start) -> None:
    found = start("run", config(tmp_path, {"training.rounds": 300}))
    found.until(lambda shown: "2 of 300" in shown)
    found.hang_up()
    assert found.end() == 3
    check_kept(only_run(tmp_path))


def piped(folder: Path, *arguments: str, lines: int) -> tuple[list[str], str, int]:
    """Read so many lines of stdout and close it: the lines, stderr and the exit code."""
    with subprocess.Popen(
        [str(FEDMETA), *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        read = [process.stdout.readline() for _ in range(lines)]
        process.stdout.close()
        told = process.stderr.read()
        return read, told, process.wait(LIMIT)


def test_json_lines_whose_reader_goes_away_stop_the_run(tmp_path: Path) -> None:
    """A reader of two lines gets them at once, long before the run's end."""
    path = config(tmp_path, {"training.rounds": 300})
    read, told, code = piped(tmp_path, "run", path, "--progress", "json", lines=4)
    run = only_run(tmp_path)
    kinds = [json.loads(line)["kind"] for line in read]
    assert kinds == ["started", "stage", "stage", "stage"]
    assert json.loads(read[0])["directory"] == f"runs/{run.name}"
    assert code == 3
    (line,) = told.splitlines()
    assert line.startswith(
        "fedmeta: interrupted (the progress cannot be written: Broken pipe); what"
    )
    assert line.endswith(f"fedmeta run --resume runs/{run.name}")
    assert verify_run(run, key=None, pinned=None, unpinned=False).accepted


def test_a_result_whose_reader_goes_away_ends_quietly(tmp_path: Path) -> None:
    _, told, code = piped(tmp_path, "init", "credit", lines=0)
    assert (told, code) == ("", READER_GONE)


def test_a_table_whose_reader_goes_away_says_no_failed_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rich alone would exit with 1."""

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("sys.stdout", Closed())
    with pytest.raises(BrokenPipeError):
        show("text")


# --- signals --------------------------------------------------------------------------------------


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_interrupts_and_others_shortly_after_do_not(
    number: signal.Signals,
) -> None:
    before, now = [signal.getsignal(one) for one in SIGNALS], 0.0
    with stopped_once(lambda: now):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        now += GRACE_SECONDS - 0.1
        for one in SIGNALS:
            signal.raise_signal(one)
        assert not logging.getLogger().isEnabledFor(logging.CRITICAL)
        now += 0.2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert [signal.getsignal(one) for one in SIGNALS] == before
    assert logging.getLogger().isEnabledFor(logging.CRITICAL)


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopped_once():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
