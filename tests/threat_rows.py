"""The tables of attacks in threat_model.md, and whether a test that it names always runs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = "threat_model.md"
HEADER = ("attack", "mitigation", "tests", "residual risk")
NODE = re.compile(r"`(tests/[\w/]+\.py::[\w:]+)`")
SEVERITIES = ("low", "medium", "high", "critical")
LEVEL = re.compile(rf"({'|'.join(SEVERITIES)}): \S")
# Marks and calls that keep a test from deciding anything, and the mark that `make test` leaves out.
NEVER_RUN = frozenset({"skip", "skipif", "skipIf", "skipUnless", "xfail", "importorskip", "slow"})


@dataclass(frozen=True)
class Row:
    """One attack."""

    attack: str
    mitigation: str
    tests: str
    residual: str

    @property
    def nodes(self) -> list[str]:
        """The node ids of its tests."""
        return NODE.findall(self.tests)


def cells(line: str) -> tuple[str, ...]:
    """What stands between the bars of one line of a table."""
    return tuple(cell.strip() for cell in line.strip().strip("|").split("|"))


def table(text: str, header: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The rows of all tables with this header."""
    lines = text.splitlines()
    found = []
    for start in (i for i, line in enumerate(lines) if cells(line) == header):
        for line in lines[start + 2 :]:
            if not line.startswith("|"):
                break
            found.append(cells(line))
    return found


def attacks(text: str) -> Iterator[Row]:
    """The attacks of the page."""
    for row in table(text, HEADER):
        assert len(row) == 4, row
        yield Row(*row)


@cache
def _module(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def problem(node: str, root: Path = ROOT) -> str | None:
    """Why a node id is no test that always runs, as far as its source tells, or None."""
    file, *names = node.split("::")
    path = root / file
    if not path.is_file() or not path.name.startswith("test_"):
        return f"{file} is no test file"
    tree = _module(path)
    if any(_never_runs(part) for part in tree.body if isinstance(part, ast.Assign | ast.Expr)):
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
    inner = [n for part in parts for n in ast.walk(part)]
    called = [n.func for n in inner if isinstance(n, ast.Call)]
    return any(isinstance(n, ast.Attribute) and n.attr in NEVER_RUN for n in inner) or any(
        isinstance(n, ast.Name) and n.id in NEVER_RUN for n in called
    )
