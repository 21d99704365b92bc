"""The live panel of a run. It is drawn anew at every look, in the width that the terminal has then.

Every figure stands there in words: bars, colours and the trend only repeat them, so that nothing is
lost without colour, without Unicode or in 40 columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.filesize import decimal
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from secure_fedmeta.seen import Score, Seen, Spent, lasting

_NARROW: Final = 60
"""Columns below which there is no border, and bars stand below their words."""
_BAR: Final = 20
_STEPS: Final = "▁▂▃▄▅▆▇█"


class View:
    """Draws what has been seen.

    Args:
        seen: changed by others between two looks.
    """

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        seen = self._seen
        if seen.facts is None:
            if seen.doing:
                yield Text(f"{seen.doing} ({lasting(seen.seconds)})")
            return
        narrow = options.max_width < _NARROW
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(ratio=1)
        for name, shown in _rows(seen, narrow=narrow, plain=options.ascii_only):
            table.add_row(Text(name, "bold"), shown)
        if narrow:
            yield table
        else:
            title = escape(str(seen.facts.directory))
            yield Panel(table, title=title, title_align="left", width=min(100, options.max_width))


def _rows(seen: Seen, *, narrow: bool, plain: bool) -> Iterator[tuple[str, RenderableType]]:
    if narrow and seen.directory is not None:
        yield "run", Text(str(seen.directory), overflow="fold")
    yield "rounds", _rounds(seen, narrow=narrow)
    if seen.score is not None:
        yield "held-out", _score(seen.score, seen.trend, plain=plain)
    if seen.spent is not None:
        yield "epsilon", _spent(seen.spent, narrow=narrow)
    if (warning := seen.warning()) is not None:
        yield "warning", Text(warning, "bold yellow")
    if seen.survivors is not None:
        found, asked = seen.survivors
        yield "clients", Text(f"{found} of {asked} in the last sum")
    if seen.aborted:
        number, reason = seen.aborted[-1]
        count = len(seen.aborted)
        yield "aborted", Text(f"{count} so far; the last was round {number}: {reason}")
    if seen.sent_in_all or seen.received_in_all:
        sent, received = decimal(seen.sent), decimal(seen.received)
        so_far = f"{decimal(seen.sent_in_all)} and {decimal(seen.received_in_all)} so far"
        text = f"sent {sent}, received {received} per client in the last round; {so_far}"
        yield "bytes", Text(text)
    yield "now", Text(f"{seen.doing} ({lasting(seen.stage_seconds)})")


def _rounds(seen: Seen, *, narrow: bool) -> RenderableType:
    total = seen.done + seen.left
    text, left = f"{seen.done} of {total}", seen.seconds_left()
    if left is not None:
        text += f", about {lasting(left)} left and then the closing work"
    return _barred(text, done=seen.done, total=total, narrow=narrow)


def _spent(spent: Spent, *, narrow: bool) -> RenderableType:
    text = (
        f"{spent.epsilon:.2f} of {spent.granted:g} against {spent.adversary.replace('_', ' ')}, "
        "the worst that the grant limits"
    )
    done = min(spent.epsilon, spent.granted)
    return _barred(text, done=done, total=spent.granted, narrow=narrow)


def _barred(text: str, *, done: float, total: float, narrow: bool) -> RenderableType:
    bar = ProgressBar(total=total, completed=done, width=None if narrow else _BAR)
    if narrow:
        return Group(Text(text), bar)
    row = Table.grid(padding=(0, 1))
    row.add_row(bar, Text(text))
    return row


def _score(score: Score, trend: Sequence[float], *, plain: bool) -> Text:
    text = f"{score.metric} {_figure(score.adapted)} adapted, {_figure(score.unadapted)} unadapted"
    if len(trend) > 1:
        text += f", from {trend[0]:.3f}" if plain else f"  {sparkline(trend)}"
    return Text(text)


def _figure(value: float | None) -> str:
    return "diverged" if value is None else f"{value:.3f}"


def sparkline(values: Sequence[float]) -> str:
    """One character per value, from the lowest to the highest of them."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(_STEPS[round((value - low) / span * (len(_STEPS) - 1))] for value in values)
