"""What is shown of a run: panel, plain lines and JSON lines, from the same few records."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from secure_fedmeta.cli_output import Show
from secure_fedmeta.console_live import View, sparkline
from secure_fedmeta.console_progress import (
    Display,
    JsonLines,
    Lines,
    Outlet,
    Panel,
    display,
)
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.progress import Progress, Silent, Started
from secure_fedmeta.seen import RECENT, Seen, lasting

FACTS = Started(Path("runs/r1"), 4, "people", 3.0, "auc")
FIRST: dict[str, Any] = {
    "round": 1, "seconds": 0.5, "bytes": {"sent": 1200, "received": 34000}, "affordable": 4,
    "status": "released", "survivors": 3, "selected": 4, "epsilon": 1.234,
    "epsilon_by_adversary": {"aggregator": 1.1, "participants": 1.234}, "granted": 3.0,
    "protected": {"query_loss": {"value": 0.41, "noise_std": 0.22}},
    "metric": "auc", "unadapted": 0.5, "adapted": 0.61,
}  # fmt: skip
LOST: dict[str, Any] = {
    "round": 2, "seconds": 0.5, "bytes": {"sent": 800, "received": 30000}, "affordable": 3,
    "status": "aborted", "reason": "2 clients answered, 3 needed", "charged": True,
}  # fmt: skip
DEAR: dict[str, Any] = {
    **FIRST, "round": 3, "affordable": 1, "epsilon": 2.9, "protected": {}, "adapted": None,
}  # fmt: skip


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def tell(progress: Progress) -> None:
    """A run of three rounds, from its first stage to the work after its last round."""
    progress.stage("reading data")
    progress.started(FACTS)
    progress.stage("training")
    for record in (FIRST, LOST, DEAR):
        progress.round_done(record)
    progress.stage("writing the report")
    progress.ended("budget")


# --- what is known --------------------------------------------------------------------------------


def test_the_time_that_is_left_is_the_mean_of_recent_rounds() -> None:
    clock = Clock()
    seen = Seen(clock=clock)
    assert seen.seconds_left() is None
    clock.now += 1000.0  # reading data is no round
    seen.start(Started(Path("r"), 40, None, None, None))
    assert seen.seconds_left() is None
    clock.now += 99.0
    seen.round_done(FIRST)
    assert seen.seconds_left() == pytest.approx(39 * 99.0)
    for seconds in [99.0] * 4 + [2.0] * RECENT:
        clock.now += seconds
        seen.round_done(FIRST)
    assert seen.seconds_left() == pytest.approx(25 * 2.0)
    clock.now += 1.5  # of the round that runs
    assert seen.seconds_left() == pytest.approx(25 * 2.0 - 1.5)
    clock.now += 60.0  # it takes longer than usual: the others still take as long
    assert seen.seconds_left() == pytest.approx(24 * 2.0)


def test_after_the_last_round_no_time_is_promised() -> None:
    clock = Clock()
    seen = Seen(clock=clock)
    seen.start(Started(Path("r"), 1, None, None, None))
    clock.now += 5.0
    seen.round_done(FIRST)
    assert (seen.left, seen.seconds_left()) == (0, None)


def test_rounds_of_before_are_counted_and_say_nothing_of_the_pace() -> None:
    clock = Clock()
    seen = Seen(clock=clock)
    seen.start(Started(Path("r"), 9, "people", 3.0, "auc", records=(FIRST, LOST)))
    assert (seen.done, seen.left, seen.seconds_left()) == (2, 7, None)
    assert (seen.sent_in_all, seen.received_in_all) == (2000, 64000)
    assert seen.aborted == [(2, "2 clients answered, 3 needed")]
    clock.now += 3.0
    seen.round_done(DEAR)
    assert seen.seconds_left() == pytest.approx(6 * 3.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"affordable": 4}, None),  # three more, and three are left
        ({"affordable": 3}, "the grants allow only 2 of the 3 rounds left"),
        ({"affordable": 1}, "the grants allow none of the 3 rounds left"),
        ({"affordable": None}, None),
        ({"affordable": 3, "charged": False}, None),  # an aborted round that cost nothing
    ],
)
def test_a_grant_that_ends_too_early_is_said_in_words(
    changes: Mapping[str, object], said: str | None
) -> None:
    seen = Seen()
    seen.start(FACTS)
    seen.round_done({**FIRST, **changes})
    assert seen.warning() == said


def test_a_stage_that_counts_on_keeps_its_time() -> None:
    clock = Clock()
    seen = Seen(clock=clock)
    seen.stage("training: encrypting: ciphertext 1 of 9")
    clock.now += 7.0
    seen.stage("training: encrypting: ciphertext 2 of 9")
    assert seen.stage_seconds == pytest.approx(7.0)
    seen.stage("training")
    assert seen.stage_seconds == 0.0


def test_times_in_words() -> None:
    assert [lasting(s) for s in (0.4, 59.4, 59.6, 200.0, 3599.7, 3900.0)] == [
        "0 s", "59 s", "1 min 0 s", "3 min 20 s", "1 h 0 min", "1 h 5 min",
    ]  # fmt: skip


# --- the panel ------------------------------------------------------------------------------------


def drawn(width: int, *, encoding: str = "utf-8") -> str:
    """The panel after the three rounds and some time, as text."""
    clock = Clock()
    seen = Seen(clock=clock)
    seen.stage("reading data")
    seen.start(FACTS)
    seen.stage("training")
    for record in ({**FIRST, "adapted": 0.5}, FIRST, LOST):
        clock.now += 100.0
        seen.round_done(record)
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    Console(file=file, width=width, no_color=True, force_terminal=True, color_system=None).print(
        View(seen)
    )
    file.flush()
    return raw.getvalue().decode(encoding)


def test_the_panel_as_it_is() -> None:
    assert drawn(80).splitlines() == [
        "╭─ runs/r1 ────────────────────────────────────────────────────────────────────╮",
        "│ rounds   ━━━━━━━━━━━━━━━      3 of 4, about 1 min 40 s left and then the     │",
        "│                               closing work                                   │",
        "│ held-out auc 0.610 adapted, 0.500 unadapted  ▁█                              │",
        "│ epsilon  ━━━━━━━━             1.23 of 3 against participants, the worst that │",
        "│                               the grant limits                               │",
        "│ clients  3 of 4 in the last sum                                              │",
        "│ aborted  1 so far; the last was round 2: 2 clients answered, 3 needed        │",
        "│ bytes    sent 800 bytes, received 30.0 kB per client in the last round; 3.2  │",
        "│          kB and 98.0 kB so far                                               │",
        "│ now      training (5 min 0 s)                                                │",
        "╰──────────────────────────────────────────────────────────────────────────────╯",
    ]


def test_forty_columns_without_unicode_lose_nothing() -> None:
    wide, narrow = drawn(100), drawn(40, encoding="ascii")
    assert max(map(len, narrow.splitlines())) <= 40
    told = " ".join(narrow.split())
    for part in (
        "runs/r1", "3 of 4, about 1 min 40 s left", "auc 0.610 adapted, 0.500 unadapted, from 0.5",
        "1.23 of 3 against participants", "3 of 4 in the last sum",
        "1 so far; the last was round 2: 2 clients answered, 3 needed",
        "sent 800 bytes, received 30.0 kB per client", "training (5 min 0 s)",
    ):  # fmt: skip
        assert part in told
    assert "▁█" in wide


def test_before_the_start_the_stage_is_shown() -> None:
    clock = Clock()
    seen = Seen(clock=clock)
    file = io.StringIO()
    console = Console(file=file, width=80)
    console.print(View(seen))
    seen.stage("reading data")
    clock.now += 65.0
    console.print(View(seen))
    assert file.getvalue().split("\n") == ["reading data (1 min 5 s)", ""]


def test_a_grant_that_ends_too_early_and_a_model_that_diverged_are_in_the_panel() -> None:
    seen = Seen()
    seen.start(FACTS)
    seen.round_done(DEAR)
    file = io.StringIO()
    Console(file=file, width=100).print(View(seen))
    assert "warning  the grants allow none of the 3 rounds left" in file.getvalue()
    assert "auc diverged adapted, 0.500 unadapted" in file.getvalue()


def test_a_trend_goes_from_its_lowest_to_its_highest() -> None:
    assert sparkline([0.0, 7.0, 3.5, 1.0]) == "▁█▅▂"
    assert sparkline([2.0, 2.0]) == "▁▁"


def test_rounds_that_abort_stay_above_the_panel() -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True, color_system=None)
    with Panel(console) as panel:
        tell(panel)
    shown = file.getvalue()
    assert "round 2: aborted: 2 clients answered, 3 needed\n" in shown
    assert "round 1" not in shown
    assert (shown.count("\x1b[?25l"), shown.count("\x1b[?25h")) == (1, 1)


def test_words_of_others_send_no_commands() -> None:
    """A reason can quote a client's message."""
    lost = {**LOST, "reason": "no \x1b[2Jscreen\u202e"}
    for kind in (Panel, Lines):
        file = io.StringIO()
        console = Console(file=file, width=80, force_terminal=True, color_system=None)
        with kind(console) as shown:
            shown.started(FACTS)
            shown.round_done(lost)
        assert "\x1b[2J" not in file.getvalue()
        assert "\u202e" not in file.getvalue()
        assert "no \\u{1b}[2Jscreen\\u{202e}" in file.getvalue()


# --- lines ----------------------------------------------------------------------------------------


def test_the_plain_lines_as_they_are() -> None:
    file = io.StringIO()
    with Lines(Console(file=file, width=40)) as lines:
        tell(lines)
    assert file.getvalue().splitlines() == [
        "reading data",
        "run directory: runs/r1; 4 rounds",
        "training",
        (
            "round 1: 3/4 clients, epsilon 1.23 of 3, protected training loss 0.41 ± 0.22, "
            "held-out auc 0.610"
        ),
        "round 2: aborted: 2 clients answered, 3 needed",
        "round 3: 3/4 clients, epsilon 2.90 of 3",
        "warning: the grants allow none of the 1 round left",
        "writing the report",
    ]


def test_plain_lines_of_a_run_that_goes_on_and_of_public_trials() -> None:
    file = io.StringIO()
    with Lines(Console(file=file)) as lines:
        lines.started(Started(Path("r"), 9, None, None, None, records=(FIRST, LOST)))
        lines.round_done({"round": 3, "status": "in clear"})
    assert file.getvalue().splitlines() == [
        "run directory: r; 9 rounds, 2 of them done before",
        "round 3: public data, without the secure sum",
    ]


def test_the_json_lines_as_they_are() -> None:
    file = io.StringIO()
    with JsonLines(file) as lines:
        tell(lines)
    from secure_fedmeta import __version__

    assert [json.loads(line) for line in file.getvalue().splitlines()] == [
        {
            "kind": "started", "product_version": __version__, "directory": "runs/r1",
            "rounds": 4, "rounds_before": 0, "population": "people", "granted": 3.0,
            "metric": "auc",
        },
        {"kind": "stage", "text": "reading data"},
        {"kind": "stage", "text": "training"},
        {"kind": "round", **FIRST},
        {"kind": "round", **LOST},
        {"kind": "round", **DEAR},
        {"kind": "stage", "text": "writing the report"},
        {"kind": "ended", "status": "budget"},
    ]  # fmt: skip
    assert all(line.startswith('{"kind": "') for line in file.getvalue().splitlines())


def test_a_figure_that_is_no_number_is_never_a_json_line() -> None:
    lines = JsonLines(io.StringIO())
    lines.started(FACTS)
    with pytest.raises(ValueError, match="not JSON compliant"):
        lines.round_done({**FIRST, "adapted": float("nan")})


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "interrupted"), (RuntimeError, "failed")]
)
def test_json_lines_say_how_a_run_was_cut_off(error: type[BaseException], status: str) -> None:
    file = io.StringIO()
    lines = JsonLines(file)
    lines.started(FACTS)
    with pytest.raises(error), lines:
        raise error
    last = json.loads(file.getvalue().splitlines()[-1])
    assert last == {"kind": "ended", "status": status}


def test_a_run_that_never_began_has_no_json_line() -> None:
    file = io.StringIO()
    lines = JsonLines(file)
    lines.stage("reading data")
    with pytest.raises(ConfigError), lines:
        raise ConfigError("no such learner")
    assert file.getvalue() == ""


# --- who is shown what ----------------------------------------------------------------------------


def test_without_a_terminal_there_are_lines_and_beside_json_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds = {show: type(display(show, as_json=False)) for show in (Show.AUTO, Show.PLAIN)}
    assert kinds == {Show.AUTO: Lines, Show.PLAIN: Lines}
    assert type(display(Show.QUIET, as_json=False)) is Display
    assert type(display(Show.AUTO, as_json=True)) is Display
    assert type(display(Show.PLAIN, as_json=True)) is Lines
    assert type(display(Show.JSON, as_json=False)) is JsonLines
    with pytest.raises(ConfigError, match="--progress live: stderr is no terminal"):
        display(Show.LIVE, as_json=False)
    with pytest.raises(ConfigError, match="--progress json: stands beside --json"):
        display(Show.JSON, as_json=True)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as CI services do: no reason to move a cursor
    assert type(display(Show.AUTO, as_json=False)) is Lines


def test_on_a_terminal_there_is_a_panel_unless_it_is_dumb(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert type(display(Show.AUTO, as_json=False)) is Panel
    assert type(display(Show.PLAIN, as_json=False)) is Lines
    monkeypatch.setenv("TERM", "dumb")
    assert type(display(Show.AUTO, as_json=False)) is Lines


def test_the_quiet_ones_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Display() as quiet:
        tell(quiet)
    assert quiet.directory == FACTS.directory
    tell(Silent())
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


class Broken(io.StringIO):
    """A pipe that nobody reads any more."""

    tries = 0

    def write(self, text: str) -> int:
        self.tries += 1
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize("kind", ["lines", "json"])
def test_a_reader_who_went_away_interrupts_once(kind: str) -> None:
    """What comes after the interruption is not written, and hides it from nobody."""
    broken = Broken()
    outlet: Any = Outlet(broken)
    shown = JsonLines(outlet) if kind == "json" else Lines(Console(file=outlet))
    with (
        pytest.raises(KeyboardInterrupt, match="the progress cannot be written: Broken pipe"),
        shown,
    ):
        shown.started(FACTS)
    shown.round_done(FIRST)
    assert broken.tries == 1
