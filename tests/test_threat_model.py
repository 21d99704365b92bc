"""Every attack in the threat model names tests that exist, that can fail, and that ran and passed.

Whether they exist and always run is read from their source here. Whether they ran and passed is
seen at the end of a session by `tests/threat_evidence.py`, which is tried on planted tests below.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.threat_evidence import REQUIRED
from tests.threat_rows import LEVEL, NODE, PAGE, ROOT, SEVERITIES, Row, attacks, problem, table

MODEL = (ROOT / PAGE).read_text()
ROWS = list(attacks(MODEL))
SECTIONS = MODEL.split("\n## Attacks, mitigations, tests\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.attack)
def test_an_attack_has_tests_that_exist_and_run(row: Row) -> None:
    assert row.mitigation
    assert LEVEL.match(row.residual) or row.residual.startswith("none"), "no severity"
    assert row.nodes
    assert NODE.sub("", row.tests).strip() == "", "something in this cell is no node id"
    assert [found for node in row.nodes if (found := problem(node))] == []


def test_every_line_of_the_section_s_tables_is_read() -> None:
    lines = [line for line in SECTIONS.splitlines() if line.startswith("|")]
    tables = SECTIONS.count("\n### ")
    assert len(ROWS) == len(lines) - 2 * tables > 100


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
        assert severity.removesuffix(" for private data") in SEVERITIES, situation


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
    "tests/test_it.py::test_calls_skip": "may skip itself",
    "tests/test_marked.py::test_good": "marked as a whole",
    "tests/test_needs.py::test_good": "marked as a whole",
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
def test_calls_skip():
    skip("no")
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
    (tests / "test_needs.py").write_text("pytest.importorskip('x')\ndef test_good(): ...\n")
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


# --- what a session shows, on planted tests -------------------------------------------------------

SESSION = {
    "test_pass.py::test_passes": None,
    "test_pass.py::test_of_two": None,
    "test_fail.py::test_fails": "failed",
    "test_fail.py::test_one_of_two_fails": "failed",
    "test_fail.py::test_broken_fixture": "failed",
    "test_skip.py::test_marked": "is skipped by a mark: why",
    "test_skip.py::test_conditional": "is skipped by a mark: why not",
    "test_skip.py::test_expected": "is expected to fail",
    "test_skip.py::test_expects_itself": "is expected to fail",
    "test_slow.py::test_deselected": "did not run",
    "test_gone.py::test_it": "did not run",
    "test_needs.py::test_good": "did not run",
    "test_tool.py::test_of_a_tool": "skipped itself: no such tool",
    "test_tool.py::test_of_tools": "skipped itself: no such tool",
}
FILES = {
    "conftest.py": "from tests.threat_evidence import pytest_configure\n",
    "pyproject.toml": """
        [tool.pytest.ini_options]
        testpaths = ["tests"]
        addopts = "--import-mode=importlib -m 'not slow' -p no:cacheprovider"
        markers = ["slow: left out"]
    """,
    "tests/test_pass.py": """
        import pytest
        def test_passes(): ...
        @pytest.mark.parametrize("x", [1, 2])
        def test_of_two(x): ...
    """,
    "tests/test_fail.py": """
        import pytest
        def test_fails(): assert False
        @pytest.mark.parametrize("x", [1, 2])
        def test_one_of_two_fails(x): assert x == 1
        @pytest.fixture
        def broken(): raise OSError
        def test_broken_fixture(broken): ...
    """,
    "tests/test_skip.py": """
        import pytest
        @pytest.mark.skip(reason="why")
        def test_marked(): ...
        @pytest.mark.skipif(True, reason="why not")
        def test_conditional(): ...
        @pytest.mark.xfail
        def test_expected(): assert False
        def test_expects_itself(): pytest.xfail("so")
    """,
    "tests/test_slow.py": """
        import pytest
        @pytest.mark.slow
        def test_deselected(): ...
    """,
    "tests/test_needs.py": """
        import pytest
        pytest.importorskip("no_such_module")
        def test_good(): ...
    """,
    "tests/test_tool.py": """
        import pytest
        @pytest.fixture
        def tool(): pytest.skip("no such tool")
        def test_of_a_tool(tool): ...
        @pytest.mark.parametrize("which", ["there", "tool"])
        def test_of_tools(which, request):
            if which == "tool": request.getfixturevalue(which)
    """,
}


def session(folder: Path, nodes: list[str], *words: str, strict: bool = False) -> tuple[int, str]:
    """Exit status and output of pytest over the planted tests, of which these stand in rows."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    (folder / PAGE).write_text("".join(f"`tests/{node}`\n" for node in nodes))
    environment = {k: v for k, v in os.environ.items() if k != REQUIRED and "PYTEST" not in k}
    environment |= {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment |= {REQUIRED: "1"} if strict else {}
    program = [sys.executable, "-m", "pytest", "-q", *words]
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    "workers", [(), ("-p", "xdist", "-n", "1")], ids=["one process", "workers"]
)
def test_a_session_names_every_row_that_has_lost_its_evidence(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    code, out = session(tmp_path, list(SESSION), *workers, strict=True)
    assert code == 1
    summary = out.partition("threat model: rows without their evidence")[2].partition("\n===")[0]
    for node, why in SESSION.items():
        start = f"FAILED tests/{node} "
        told = [line for line in summary.splitlines() if line.startswith(start)]
        assert len(told) == (why is not None), node
        assert all(why in line for line in told), (node, told)


@pytest.mark.parametrize(
    ("nodes", "words", "strict", "expected", "told"),
    [
        (["test_pass.py::test_of_two"], ["tests/test_pass.py"], True, 0, ""),
        # Only a run of everything can miss what it did not run.
        (["test_slow.py::test_deselected"], ["tests/test_pass.py"], True, 0, ""),
        # Each of these passes in pytest's own eyes.
        (["test_skip.py::test_expected"], ["tests/test_skip.py"], False, 1, "expected to fail"),
        (["test_tool.py::test_of_a_tool"], ["tests/test_tool.py"], True, 1, "skipped itself"),
        (["test_tool.py::test_of_a_tool"], ["tests/test_tool.py"], False, 0, "not shown on this"),
    ],
)
def test_a_session_fails_for_the_rows_alone(
    tmp_path: Path, nodes: list[str], words: list[str], strict: bool, expected: int, told: str
) -> None:
    code, out = session(tmp_path, nodes, *words, strict=strict)
    assert code == expected, out
    assert " failed" not in out.splitlines()[-1]
    assert ("rows without their evidence" in out) == bool(told)
    assert told in out
