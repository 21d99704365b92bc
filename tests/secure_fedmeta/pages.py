"""A small run's report to look at, and a reader of its page."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from secure_fedmeta.reporting import HTML, render
from secure_fedmeta.training import RunResult, run
from tests.secure_fedmeta.federation import tiny

Report = dict[str, Any]
Records = list[dict[str, Any]]
VOID = {"meta", "link", "br", "hr", "img", "input"}


def finished(folder: Path) -> RunResult:
    """A run of two rounds with a protected loss; its state and its directory lie in `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDMETA_STATE_DIR", str(folder / "state"))
        changes = {"privacy.metrics": ["query_loss"], "privacy.largest_loss": 4.0}
        return run(tiny({"training.rounds": 2, **changes}), out=folder / "runs")


class Page(HTMLParser):
    """Tags with their attributes in order, and the text that a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.text += data

    @property
    def shape(self) -> list[tuple[str, tuple[str, ...]]]:
        """Tags and names of attributes, without drawings, whose paths follow the figures."""
        drawn = {"svg", "g", "path", "use", "text", "defs", "clippath", "rect", "title", "desc"}
        return [(tag, tuple(attributes)) for tag, attributes in self.tags if tag not in drawn]


def page(report: Report, records: Records) -> Page:
    return Page(render(report, records)[HTML])
