"""What is asked of a page: how it loads, reads, is used by keyboard, and prints.

Each question gives a list of findings in words, empty where all is well. `inspect` asks them all,
for every look, and is what both the report's tests and the planted defects use.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.browser.chromium import Look, Page

HERE = Path(__file__).parent
WIDE, NARROW, REFLOW, PAPER = 1280, 380, 320, 718
"""Widths in CSS pixels: a desk, a phone, what WCAG 1.4.10 asks for, A4 between its margins."""

LOOKS = (
    Look("light", WIDE),
    Look("dark", WIDE),
    Look("light", NARROW),
    Look("dark", NARROW),
    Look("light", PAPER, "print"),
    Look("dark", PAPER, "print"),
)

QUESTIONS = frozenset({"without scripts", "axe", "drawings", "overflow", "keyboard", "sheets"})
"""What costs time to ask; size, headings, scripts, console and requests are always asked."""

RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")
"""The tags of axe-core's rules whose violations are findings."""

ADVICE = "best-practice"
"""The tag of the rules that are reported and no more."""

MAX_BYTES = 2_000_000
MAX_PAGES = 12
MAX_STOPS = 300


@dataclass
class Inspection:
    """What was found.

    Attributes:
        findings: question, with the look where there is one -> what is wrong; nothing else.
        advice: violations of axe-core's best practices, which no standard asks for.
        pdf: the printed page.
    """

    findings: dict[str, list[str]] = field(default_factory=dict)
    advice: set[str] = field(default_factory=set)
    pdf: bytes = b""

    def add(self, question: str, found: Sequence[str]) -> None:
        """Keep what was found, if anything."""
        if found:
            self.findings[question] = [*self.findings.get(question, []), *found]


def axe_source() -> str:
    """The locked axe-core that `make browser` put beside the interpreter.

    Raises FileNotFoundError where there is none, or another version.
    """
    package = Path(sys.prefix) / "browser" / "node_modules" / "axe-core"
    lock = json.loads((HERE / "package-lock.json").read_text())
    wanted = lock["packages"]["node_modules/axe-core"]["version"]
    try:
        found = json.loads((package / "package.json").read_text())["version"]
    except FileNotFoundError as error:
        raise FileNotFoundError("axe-core is not installed: make browser") from error
    if found != wanted:
        raise FileNotFoundError(f"axe-core {found} is installed, not {wanted}: make browser")
    return (package / "axe.min.js").read_text()


def inspect(
    page: Page,
    path: Path,
    axe: str,
    *,
    looks: Sequence[Look] = LOOKS,
    questions: Container[str] = QUESTIONS,
) -> Inspection:
    """Ask everything of the page in a file.

    Args:
        page: the tab that opens it, and keeps it open. One tab for all files costs a third of one
            for each: axe-core stays compiled.
        path: the HTML file.
        axe: the source of axe-core.
        looks: the looks that the page is shown in.
        questions: some of QUESTIONS.
    """
    found = Inspection()
    if "without scripts" in questions:
        found.add("without scripts", _without_scripts(page, path))
    page.open(path.as_uri())
    page.evaluate((HERE / "checks.js").read_text())
    if "axe" in questions:
        page.evaluate(f"{axe};null")
    if "sheets" in questions:
        found.pdf = page.pdf()
        sheets = sheets_of(found.pdf)
        found.add("sheets", [] if 1 <= sheets <= MAX_PAGES else [f"{sheets} sheets of paper"])
    for look in looks:
        page.look(look)
        _look(page, look, questions, found)
    if "overflow" in questions:
        page.look(Look("light", REFLOW))
        found.add("overflow light-320-screen", page.evaluate("checks.overflow(false)"))
    size = path.stat().st_size
    found.add("size", [f"{size} bytes"] if size > MAX_BYTES else [])
    found.add("headings", page.evaluate("checks.headings()"))
    found.add("scripts", page.evaluate("checks.scripts()"))
    found.add("console", list(_console(page)))
    found.add("requests", list(_requests(page, path.as_uri())))
    return found


def sheets_of(pdf: bytes) -> int:
    """How many pages a PDF of Chromium's has; its page objects are not compressed."""
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def _look(page: Page, look: Look, questions: Container[str], found: Inspection) -> None:
    """What depends on the look."""
    if "axe" in questions:
        broken, advice = _axe(page, narrow=look.width == NARROW)
        found.add(f"axe {look}", broken)
        found.advice.update(advice)
    if "drawings" in questions:
        found.add(f"drawings {look}", page.evaluate("checks.drawn()"))
    paper = look.media == "print"
    if "overflow" in questions:
        found.add(f"overflow {look}", page.evaluate(f"checks.overflow({json.dumps(paper)})"))
    if "keyboard" in questions and not paper:
        found.add(f"keyboard {look}", list(_keyboard(page)))


def _without_scripts(page: Page, path: Path) -> list[str]:
    """A page that holds no script is the same where none may run."""
    text = "document.documentElement.innerText"
    page.look(Look("light", WIDE))
    page.open(path.as_uri(), scripts=False)
    off = page.evaluate(text)
    page.open(path.as_uri())
    return [] if page.evaluate(text) == off else ["reads otherwise where scripts are off"]


def _console(page: Page) -> Iterator[str]:
    for event in page.events:
        told = event["params"]
        match event["method"]:
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "warning", "assert"):
                yield f"{told['type']}: {told['args'][0].get('value', '')}"
            case "Runtime.exceptionThrown":
                yield f"error: {told['exceptionDetails']['text']}"
            case "Log.entryAdded" if told["entry"]["level"] in ("error", "warning"):
                yield f"{told['entry']['level']}: {told['entry']['text']}"


def _requests(page: Page, own: str) -> Iterator[str]:
    """Everything asked for but the file itself and what it holds."""
    for event in page.events:
        match event["method"]:
            case "Network.requestWillBeSent":
                url = event["params"]["request"]["url"]
                if url != own and not url.startswith("data:"):
                    yield url
            case "Network.webSocketCreated":
                yield event["params"]["url"]


def _axe(page: Page, *, narrow: bool) -> tuple[list[str], set[str]]:
    """Violations of the standard and what axe could not decide; violations of best practices."""
    options = {
        "runOnly": {"type": "tag", "values": [*RULES, ADVICE]},
        "resultTypes": ["violations", "incomplete"],
        "preload": False,  # nothing is fetched
        "iframes": False,  # a page that asks for a frame is found by the request
    }
    found = page.evaluate(f"axe.run(document, {json.dumps(options)})")
    advice = {line for rule in found["violations"] if ADVICE in rule["tags"] for line in _of(rule)}
    broken = [one for one in found["violations"] if ADVICE not in one["tags"]]
    open_ = [one for one in found["incomplete"] if ADVICE not in one["tags"]]
    lines = [line for rule in broken for line in _of(rule)]
    for rule in open_:
        rule["nodes"] = [one for one in rule["nodes"] if not _decided_elsewhere(one, narrow)]
    return lines + [f"undecided: {line}" for rule in open_ for line in _of(rule)], advice


def _of(rule: dict[str, Any]) -> list[str]:
    return [f"{rule['id']}: {node['target']}: {node['failureSummary']}" for node in rule["nodes"]]


def _decided_elsewhere(node: dict[str, Any], narrow: bool) -> bool:
    """Text in a drawing by checks.js; what a narrow window scrolls out of sight by the wide one."""
    reasons = {(one["data"] or {}).get("messageKey") for one in node["any"]}
    scrolled = reasons <= {"elmPartiallyObscured", "shortTextContent"}
    return node["html"].startswith("<text") or (narrow and scrolled)


def _keyboard(page: Page) -> Iterator[str]:
    """Go through the page by Tab, opening what Enter opens."""
    page.evaluate("checks.begin()")
    for _ in range(MAX_STOPS):
        page.press("Tab")
        stop = page.evaluate("checks.arrived()")
        if stop is None:
            break
        if stop["again"]:
            yield f"Tab goes round in circles at {stop['name']}"
            return
        if not stop["seen"]:
            yield f"the focus is not seen: {stop['name']}"
        if not stop["inside"]:
            yield f"the focus is outside of the window: {stop['name']}"
        if stop["open"] is not None:
            yield from _toggle(page, stop)
    else:
        yield f"more than {MAX_STOPS} stops"
    yield from page.evaluate("checks.passed()")


def _toggle(page: Page, stop: dict[str, Any]) -> Iterator[str]:
    """Enter opens and closes; left open, so that Tab finds what is inside."""
    page.press("Enter")
    if page.evaluate("checks.open()") == stop["open"]:
        yield f"Enter does nothing: {stop['name']}"
    elif stop["open"]:
        page.press("Enter")
