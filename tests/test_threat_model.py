"""Every attack in the threat model names tests that exist and that can fail."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODEL = (ROOT / "threat_model.md").read_text()
HEADER = ("attack", "mitigation", "tests", "residual risk")
SEVERITIES = {"low", "medium", "high", "critical", "critical for private data"}
NODE = re.compile(r"`(tests/[\w/]+\.py::[\w:]+)`")
NEVER_RUN = {"skip", "skipif", "xfail", "importorskip", "slow"}


@dataclass(frozen=True)
class Row:
    """One attack of the table."""

    attack: str
    mitigation: str
    tests: str
    residual: str

    @property
    def nodes(self) -> list[str]:
        return NODE.findall(self.tests)


def cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip().strip("|").split("|"))


def table(text: str, header: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The rows of the one table with this header."""
    lines = text.splitlines()
    (start,) = (i for i, line in enumerate(lines) if cells(line) == header)
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        found.append(cells(line))
    return found


def attacks(text: str) -> Iterator[Row]:
    for row in table(text, HEADER):
        if row[0].startswith("**") and not any(row[1:]):
            continue  # a heading inside the table
        assert len(row) == 4, row
        yield Row(*row)


@cache
def module(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def problem(node: str, root: Path = ROOT) -> str | None:
    """Why a node id is no test that always runs, or None."""
    file, *names = node.split("::")
    path = root / file
    if not path.is_file() or not path.name.startswith("test_"):
        return f"{file} is no test file"
    tree = module(path)
    marks = [n for n in tree.body if isinstance(n, ast.Assign) and "pytestmark" in ast.unparse(n)]
    if any(_never_runs(mark) for mark in marks):
        return f"{file} is marked as a whole"
    body: list[ast.stmt] = tree.body
    for depth, name in enumerate(names):
        last = depth == len(names) - 1
        kinds = ast.FunctionDef | ast.AsyncFunctionDef if last else ast.ClassDef
        found = [n for n in body if isinstance(n, kinds) and n.name == name]
        if len(found) != 1 or not name.startswith("test_" if last else "Test"):
            return f"{len(found)} definitions of test {name}"
        if any(_never_runs(decorator) for decorator in found[0].decorator_list):
            return f"{name} is marked {ast.unparse(found[0].decorator_list[0])}"
        if last and _never_runs(*found[0].body):
            return f"{name} may skip itself"
        body = found[0].body
    return None if names else "no test is named"


def _never_runs(*parts: ast.AST) -> bool:
    """Whether a mark or a call among these keeps a test from deciding anything."""
    return any(
        isinstance(n, ast.Attribute) and n.attr in NEVER_RUN for p in parts for n in ast.walk(p)
    )


ROWS = list(attacks(MODEL))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.attack)
def test_an_attack_has_tests_that_exist_and_run(row: Row) -> None:
    assert row.mitigation
    assert row.residual
    assert row.nodes
    assert NODE.sub("", row.tests).strip() == "", "something in this cell is no node id"
    assert [found for node in row.nodes if (found := problem(node))] == []


def test_no_attack_is_told_twice() -> None:
    assert len({row.attack for row in ROWS}) == len(ROWS)


def test_node_ids_elsewhere_in_the_text_exist() -> None:
    assert {node: problem(node) for node in NODE.findall(MODEL) if problem(node)} == {}


def test_what_is_not_defended_has_a_severity_and_an_advice() -> None:
    section = MODEL.split("\n## Not defended\n")[1]
    found = table(section, ("situation", "what is lost", "severity", "what to do"))
    assert found
    for situation, lost, severity, advice in found:
        assert situation
        assert lost
        assert advice
        assert severity in SEVERITIES, situation


def test_the_limits_that_the_product_declares_are_told() -> None:
    section = " ".join(MODEL.split("\n## Not defended\n")[1].lower().split())
    for word in (
        "whose vectors are in a sum",
        "sybil",
        "poisoning",
        "timing",
        "taken over",
        "key is stolen",
        "participation",
        "cut off or set back",
        "one process",
        "floating point",
        "grows faster than k",
        "quantum",
        "state directory",
    ):
        assert word in section, word


PLANTED = {
    "tests/test_gone.py::test_it": "is no test file",
    "tests/helper.py::test_it": "is no test file",
    "tests/test_it.py::test_gone": "0 definitions",
    "tests/test_it.py::helper": "1 definitions",
    "tests/test_it.py::test_skipped": "is marked",
    "tests/test_it.py::test_sometimes": "is marked",
    "tests/test_it.py::test_expected": "is marked",
    "tests/test_it.py::test_gives_up": "may skip itself",
    "tests/test_it.py::TestSkipped::test_inside": "is marked",
    "tests/test_it.py::TestRuns::test_gone": "0 definitions",
    "tests/test_marked.py::test_good": "marked as a whole",
}
SOURCE = """
import pytest
def helper(): ...
def test_good(): ...
@pytest.mark.skip
def test_skipped(): ...
@pytest.mark.skipif(True, reason="")
def test_sometimes(): ...
@pytest.mark.parametrize("x", [1])
@pytest.mark.xfail
def test_expected(x): ...
def test_gives_up():
    pytest.skip("no")
@pytest.mark.skip
class TestSkipped:
    def test_inside(self): ...
class TestRuns:
    def test_good(self): ...
"""


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_it.py").write_text(SOURCE)
    (tests / "helper.py").write_text(SOURCE)
    (tests / "test_marked.py").write_text("pytestmark = pytest.mark.skip\ndef test_good(): ...\n")
    return tmp_path


@pytest.mark.parametrize(("node", "reason"), PLANTED.items())
def test_a_node_that_decides_nothing_is_noticed(planted: Path, node: str, reason: str) -> None:
    assert reason in (problem(node, planted) or "nothing")


@pytest.mark.parametrize("node", ["test_good", "TestRuns::test_good"])
def test_a_node_that_runs_is_taken(planted: Path, node: str) -> None:
    assert problem(f"tests/test_it.py::{node}", planted) is None


def test_a_row_without_tests_is_noticed() -> None:
    text = "| attack | mitigation | tests | residual risk |\n|---|---|---|---|\n| a | b | | d |\n"
    assert [row.nodes for row in attacks(text)] == [[]]
