"""The report as Markdown, read by a parser of CommonMark with tables."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from secure_fedmeta.reporting.blocks import Figure, Grid
from secure_fedmeta.reporting.files import MARKDOWN, escaped, read_records, render
from secure_fedmeta.reporting.view import view
from secure_fedmeta.training import run
from tests.secure_fedmeta.federation import tiny

PARSER = MarkdownIt("commonmark").enable("table")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("run")
        patch.setenv("FEDMETA_STATE_DIR", str(folder / "state"))
        return run(tiny({"training.rounds": 2}), out=folder / "runs").directory


def test_every_table_is_one_and_no_backslash_is_seen(finished: Path) -> None:
    report, records = json.loads((finished / "report.json").read_text()), read_records(finished)
    text = (finished / MARKDOWN).read_text()
    assert text == render(report, records)[MARKDOWN]
    tokens = PARSER.parse(text)
    seen = view(report, records)
    blocks = [block for section in seen.sections for block in section.blocks]
    grids = [b.data if isinstance(b, Figure) else b for b in blocks if isinstance(b, Figure | Grid)]
    assert len(grids) > 5
    assert sum(token.type == "table_open" for token in tokens) == len(grids)
    cells = sum(token.type in ("td_open", "th_open") for token in tokens)
    assert cells == sum(len(grid.head) * (len(grid.rows) + 1) for grid in grids)
    prose = re.sub(r"<pre>.*?</pre>", "", PARSER.render(text), flags=re.DOTALL)
    assert "\\" not in prose


@pytest.mark.parametrize(
    "text",
    ["2.453", "2. of two", "1) x", "- x", "+0.185", "# x", "| a |", "<b>", "[a](b)", "![a](b)",
     "`x`", "a_b_c", "*a*", "~~a~~", "&amp;", "= x", "12.", "10", "a\\b"],
)  # fmt: skip
def test_text_is_shown_as_it_is(text: str) -> None:
    shown = PARSER.render(escaped(text))
    plain = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert shown == f"<p>{plain}</p>\n"
