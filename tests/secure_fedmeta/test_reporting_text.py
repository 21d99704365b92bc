"""Names, notes and reasons in a report are text, whatever they contain."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from secure_fedmeta.reporting import HTML, MARKDOWN, render
from secure_fedmeta.reporting.figures import drawable
from secure_fedmeta.reporting.files import escaped
from secure_fedmeta.reporting.text import ARMS, plain
from secure_fedmeta.training import RunResult
from tests.secure_fedmeta.pages import Page, Records, Report, finished, page


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return finished(tmp_path_factory.mktemp("report"))


HOSTILE = [
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "</style><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}", "[x](javascript:alert(1)) ![y](http://e/x.png) <http://e>",
    "| a | b |\n|---|---|\n# head\n```\n</details>", "`` ` ``` ~~~", "$\\frac{", "\x00\x1b[31m\x07",
    "a\u202egnp.exe\u2066", "\ud800", "中文 😀 ﷽", "&lt;b&gt;", "]]><!--", "-->", "www.example.com",
    "x" * 5000, "* _ *", "1. one", "- [ ] x", "", " ", "@all #1 :+1:", "'; rm -rf ~ #", "://",
]  # fmt: skip


def poisoned(report: Report, records: Records, text: str) -> tuple[Report, Records]:
    """A report in which everybody who can name something named it so."""
    report, records = copy.deepcopy(report), copy.deepcopy(records)
    held_out = report["held_out"]
    first = held_out["clients"][0]
    held_out["clients"] = [text if name == first else name for name in held_out["clients"]]
    for arm in ARMS:
        scores = held_out[arm]["per_client"]
        held_out[arm]["per_client"] = {text if n == first else n: v for n, v in scores.items()}
    report["data"]["training_clients"] = [text, *report["data"]["training_clients"]]
    report["data"]["source"] = report["trained"]["provenance"] = text
    report["trained"]["licence"] = report["trained"]["loss"] = text
    report["trained"]["network"] = {text: [1, 2]}
    report["name"] = report["product_version"] = text
    report["notes"] = [text]
    report["rounds"]["abort_reasons"] = [text, text]
    report["rounds"]["aborted"] = 2
    report["budget"]["population"] = text
    report["budget"]["grants"][0]["approver"] = report["budget"]["grants"][0]["expires"] = text
    report["audit"] = dict.fromkeys(report["audit"], text) | {"size": 3}
    report["environment"] = dict.fromkeys(report["environment"], text)
    report["secure_sum"]["capabilities"]["notes"] = [text]
    report["secure_sum"]["capabilities"]["collusion"] = report["secure_sum"]["protocol"] = text
    report["privacy"]["unprotected"] = report["privacy"]["caveats"] = [text]
    report["privacy"]["mechanism"] = report["privacy"]["sampler"] = text
    records[0]["rejected"] = {text: 1}
    check = {"name": text, "passed": False, "found": text, "catches": text, "power": None}
    report["assessment"] = {
        "passed": False, "planted": text, "false_alarm": 0.1, "checks": [check], "failed": [text],
    }  # fmt: skip
    return report, records


@pytest.fixture(scope="module")
def harmless(result: RunResult) -> dict[str, str]:
    return dict(render(*poisoned(result.report, list(result.records), "name")))


_FEW = settings(max_examples=8, deadline=None)


def all_examples(test: Callable[..., None]) -> Callable[..., None]:
    for text in ("<p>&\"'", "a\u202e|", "# $x$\n- [ ] `", *HOSTILE[:3]):
        test = example(text)(test)
    return test


@all_examples
@given(text=st.text(alphabet=st.characters(exclude_categories=()), max_size=60))
@_FEW
def test_text_of_others_adds_no_markup(
    result: RunResult, harmless: dict[str, str], text: str
) -> None:
    """The page has the tags that it has with a harmless name, and the Markdown its tokens."""
    named = render(*poisoned(result.report, list(result.records), text))
    named[HTML].encode()
    assert Page(named[HTML]).shape == Page(harmless[HTML]).shape
    assert tokens(named[MARKDOWN]) == tokens(harmless[MARKDOWN])


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_as_it_is(text: str) -> None:
    """Through Markdown and back, in a sentence, a cell and at the beginning of a line."""
    shown = plain(text)
    for before, after in (("", ""), ("x ", " y"), ("- **a:** ", "")):
        lines = MarkdownIt("commonmark").enable("table").render(escaped(before + shown + after))
        if not before:
            read = Page(lines).text.strip()
            assert re.sub(r"\s+", " ", read) == re.sub(r"\s+", " ", shown.strip())
            assert {tag for tag, _ in Page(lines).tags} <= {"p"}
    assert not any(ord(one) < 32 or one in "\u202e\u2066" for one in shown)
    shown.encode()
    drawable(text).encode("latin-1", "replace")


def tokens(markdown: str) -> list[str]:
    """Types of all tokens but plain text: an escaped name adds none."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    found = []
    for token in parser.parse(markdown):
        found.append(token.type)
        found += [one.type for one in token.children or () if one.type not in ("text",)]
    assert not {"html_block", "html_inline", "link_open", "image"} & set(found)
    return found


def test_commands_are_quoted_for_the_shell(result: RunResult) -> None:
    report = copy.deepcopy(result.report)
    report["audit"]["vkey"] = "k'; rm -rf ~ #"
    assert "--key 'k'\"'\"'; rm -rf ~ #'" in page(report, list(result.records)).text
