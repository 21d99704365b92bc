"""The mutation tester itself: what it changes, and that it tells killed from survived."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLAN = tomllib.loads((ROOT / "tests" / "mutants.toml").read_text())

SAMPLE = '''"""Text."""
from __future__ import annotations
def f(x: int | None, *, y: int = 1) -> int | None:
    """More text."""
    check(x)
    if x < y:
        raise ValueError("x | y")
    return x
'''

SITES = """
import json, sys, pathlib
sys.path.insert(0, {scripts!r})
import mutation_sites
mutation_sites.ROOT = pathlib.Path({folder!r})
found = mutation_sites.mutants_of("sample.py")
print(json.dumps([[m.where, m.operator, m.before, m.after] for m in found]))
"""

RUN = """
import sys
sys.path[:0] = [{scripts!r}, {root!r}]
import mutation_runs
from mutation_runs import Runner, Target
from mutation_sites import Mutant
mutation_runs.KEPT = mutation_runs.KEPT.with_name("no such file.json")
source = open({module!r}).read()
target = Target({module!r}, {tests!r})
changed = [source.replace({before!r}, after) for after in {after!r}]
mutants = [Mutant(target.module, "", "", 1, "", "", text) for text in changed]
told = Runner(2, say=lambda line: None, fresh=True, keep=False).run(target, mutants)
print([told[mutant] for mutant in mutants])
"""

SCORES = [(100, 40, 40), (100, 40, 36), (300, 60, 51), (40, 40, 39)]

INTERVALS = """
import sys
sys.path.insert(0, {scripts!r})
from mutants import Found
for mutants, run, killed in [(100, 40, 40), (100, 40, 36), (300, 60, 51), (40, 40, 39)]:
    outcomes = dict(enumerate(["killed"] * killed + ["survived"] * (run - killed)))
    print(Found("", mutants, outcomes).interval)
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )


@pytest.fixture(scope="module")
def changes(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    folder = tmp_path_factory.mktemp("sample")
    (folder / "sample.py").write_text(SAMPLE)
    told = python(SITES.format(scripts=str(ROOT / "scripts"), folder=str(folder)))
    assert told.returncode == 0, told.stderr
    found: list[list[str]] = json.loads(told.stdout)
    return found


def test_checks_and_refusals_are_taken_out(changes: list[list[str]]) -> None:
    assert ["f", "RemoveStatement", "check(x)", "pass"] in changes
    assert ["f", "RemoveStatement", 'raise ValueError("x | y")', "pass"] in changes


def test_comparisons_and_numbers_are_changed(changes: list[list[str]]) -> None:
    assert ["if x < y:", "if x <= y:"] in [change[2:] for change in changes]
    assert any("y: int = 0" in change[3].replace("  ", " ") for change in changes)


def test_annotations_text_and_marks_of_arguments_are_no_mutants(changes: list[list[str]]) -> None:
    heads = [after for _, _, before, after in changes if before.startswith("def")]
    assert heads
    for head in heads:
        assert "int | None, *, y: int" in head
        assert head.endswith("-> int | None:")
    assert not any("text" in before.lower() for _, _, before, _ in changes)


def outcomes(*, tests: tuple[str, ...], after: list[str]) -> subprocess.CompletedProcess[str]:
    return python(
        RUN.format(
            scripts=str(ROOT / "scripts"),
            root=str(ROOT),
            module="crypto/masking_recovery.py",
            tests=tests,
            before="if accept(secret):",
            after=after,
        )
    )


def test_a_mutant_is_killed_or_survives_and_the_tree_stays_as_it_is() -> None:
    source = (ROOT / "crypto" / "masking_recovery.py").read_text()
    told = outcomes(
        tests=("tests/crypto/test_shamir.py",),
        after=[
            "if not accept(secret):",
            "if bool(accept(secret)):",
            "raise KeyError\n        if 1:",
        ],
    )
    assert told.stdout.strip() == "['killed', 'survived', 'killed']", told.stderr
    assert (ROOT / "crypto" / "masking_recovery.py").read_text() == source


def test_tests_that_do_not_load_the_mutant_are_an_error() -> None:
    told = outcomes(tests=("tests/audit/test_merkle.py",), after=["if accept(secret):  #"])
    assert told.returncode != 0
    assert "its tests do not pass unchanged (exit 99)" in told.stderr


def test_the_plan_names_modules_and_tests_that_exist() -> None:
    modules = [target["module"] for target in PLAN["target"]]
    assert len(set(modules)) == len(modules)
    for target in PLAN["target"]:
        assert (ROOT / target["module"]).is_file()
        files = [test for test in target["tests"] if not test.startswith("-k")]
        assert files
        for test in files:
            path, _, node = test.partition("::")
            assert (ROOT / path).is_file()
            function = node.partition("[")[0]
            assert not node or f"def {function}(" in (ROOT / path).read_text(), test
    for survivor in PLAN["survivor"]:
        assert survivor["module"] in modules
        assert survivor["reason"]


@pytest.mark.parametrize("family", ["masking", "threshold"])
def test_every_module_of_a_secure_sum_and_its_building_blocks_is_in_the_plan(family: str) -> None:
    modules = {target["module"] for target in PLAN["target"]}
    wanted = {f"crypto/{path.name}" for path in (ROOT / "crypto").glob(f"{family}*.py")}
    assert wanted
    blocks = ("shamir", "ring", "residues", "channel", "sharing")
    assert wanted | {f"crypto/{name}.py" for name in blocks} <= modules


def test_a_sample_has_an_interval_and_a_whole_module_has_none() -> None:
    """Wilson's interval, by solving (share - p)^2 = z^2 p (1 - p) / n for its ends."""
    told = python(INTERVALS.format(scripts=str(ROOT / "scripts"))).stdout.split("\n")
    for line, (mutants, run, killed) in zip(told, SCORES, strict=False):
        if mutants == run:
            assert line == "all"
            continue
        ends = [int(word) / 100 for word in line.removesuffix(" %").split(" to ")]
        for end in ends:
            solved = (killed / run - end) ** 2 - 1.96**2 * end * (1 - end) / run
            slope = 2 * abs(killed / run - end) + 1.96**2 / run
            assert abs(solved) <= 0.0051 * slope
        assert ends[0] <= killed / run <= ends[1]
    assert len(told) > len(SCORES)
