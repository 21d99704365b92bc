"""Words of others on a terminal: names in reports, logs, configs and agents send it no command."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from secure_fedmeta.cli_output import show, visible
from tests.secure_fedmeta.commands import Call, write

HOSTILE = "\x1b[2J\x1b]0;title\x07\x9b31m\u202eevil\u2066"
SHOWN = "\\u{1b}[2J\\u{1b}]0;title"


def everywhere(value: Any) -> Any:
    """The same tree with the hostile text in every text; keys stay."""
    if isinstance(value, dict):
        return {key: everywhere(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [everywhere(inner) for inner in value]
    return value + HOSTILE if isinstance(value, str) else value


def unseen(text: str) -> set[str]:
    return {one for one in text if unicodedata.category(one)[0] == "C" and one != "\n"}


@given(st.text())
def test_what_is_shown_can_be_seen_and_the_rest_is_as_it_was(text: str) -> None:
    shown = visible(text)
    assert {c for c in unseen(shown) if unicodedata.category(c) != "Cn"} == set()
    if not unseen(text) and not {"\u2028", "\u2029"} & set(text):
        assert shown == text


def test_a_table_keeps_its_lines_and_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name", "é")
    table.add_row("ü\u200bx", HOSTILE)
    show(table)
    out = capsys.readouterr().out
    assert unseen(out) == set()
    assert "ü\\u{200b}x" in out
    assert "┏" in out


def test_the_report_of_somebody_else(folder: Path, call: Call) -> None:
    assert call("run", write(folder, {"training.rounds": 1})).code == 0
    latest = folder / "runs" / "latest"
    own = call("report", str(latest)).out
    assert (unseen(own), len(own.splitlines()) > 20) == (set(), True)
    path = shutil.copytree(latest, folder / "theirs") / "report.json"
    report = everywhere(json.loads(path.read_text()))
    report["notes"] = [HOSTILE]
    report["privacy"] |= {"relation": "add_remove", "unit": "task"}
    report["held_out"]["metric"], report["budget"]["limited_by"] = "mse", "grants"
    for found in report["adversaries"].values():
        found["claim"] = "rdp"
    path.write_text(json.dumps(report))
    shown = call("report", str(path.parent))
    assert shown.code == 0
    assert unseen(shown.out) == set()
    assert SHOWN in shown.out
    report["adversaries"] = {HOSTILE: {}}
    path.write_text(json.dumps(report))
    refused = call("report", str(path.parent))
    assert (refused.code, unseen(refused.out + refused.err)) == (2, set())
    assert "holds a report that this version cannot show" in refused.message
    log = path.parent / "audit" / "log.jsonl"
    log.write_text(log.read_text().replace("genesis", HOSTILE, 1))
    told = call("verify", str(path.parent))
    assert (told.code, unseen(told.out + told.err)) == (1, set())


def test_the_config_of_somebody_else(folder: Path, call: Call) -> None:
    path = Path(write(folder))
    escaped = HOSTILE.encode("unicode_escape").decode().replace("\\x", "\\u00")
    path.write_text(path.read_text() + f'\n["a{escaped}"]\n"b{escaped}" = 1\n')
    refused = call("run", str(path))
    assert refused.code == 2
    assert unseen(refused.out + refused.err) == set()
    assert "evil" in refused.message
