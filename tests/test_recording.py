"""The recording of the demo in the README: made as a terminal would draw it, and still true."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from privacy.accountant import spend
from scripts.recording import BEGIN, COLUMNS, END, EXAMPLE, Recording, block, record, replaced
from secure_fedmeta.config import load_config
from secure_fedmeta.pipeline import assemble

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
RECORDED = README.partition(BEGIN)[2].partition(END)[0]
ROW = re.compile(r"^│ ([a-z ]+?) +│ +([\d.]+) │ +([\d.]+) │ +([\d.]+) │$", re.MULTILINE)

REDRAWN = r"""
import shutil, sys
assert sys.stdout.isatty()
print("line", *["."] * 60)
for k in range(3):
    sys.stdout.write(f"round {k}\nbar {k}\r\x1b[2K\x1b[1A\x1b[2K")
    sys.stdout.flush()
print(shutil.get_terminal_size().columns)
sys.exit(3)
"""


def played(program: str, tmp_path: Path, halfway: str | None = None) -> Recording:
    words = [sys.executable, "-c", program]
    return record(
        words, command="x", folder=tmp_path, environment=dict(os.environ), halfway=halfway
    )


def test_what_is_drawn_over_is_gone_and_what_scrolled_away_is_kept(tmp_path: Path) -> None:
    one = played(REDRAWN, tmp_path)
    wide, last = one.final.splitlines()[:-1], one.final.splitlines()[-1]
    assert last == str(COLUMNS)
    assert "".join(wide) == "line" + " ." * 48 + " ." * 12
    assert (one.middle, one.code) == (None, 3)
    many = played("for k in range(300): print(k)", tmp_path)
    assert many.final.splitlines() == [str(k) for k in range(300)]


def test_a_screen_in_between_is_kept_as_it_was(tmp_path: Path) -> None:
    program = (
        "import time\nprint('begins', flush=True)\ntime.sleep(0.3)\nprint('\x1b[2J\x1b[Hends')"
    )
    one = played(program, tmp_path, halfway="begi")
    assert (one.middle, one.final) == ("begins", "ends")


def test_only_the_block_of_a_page_is_replaced() -> None:
    one = Recording("fedmeta x", "half", "all", 0)
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    new = replaced(page, block([one]))
    assert new.startswith(f"before\n{BEGIN}\n")
    assert new.endswith(f"{END}\nafter\n")
    assert "old" not in new
    assert "```console\n$ fedmeta x\n```" in new
    assert replaced(new, block([one])) == new


@pytest.fixture(scope="module")
def figures() -> dict[str, tuple[float, float, float]]:
    """Adversary, as the table calls it, and the figures of a run in which nobody drops out."""
    plan = assemble(load_config(ROOT / EXAMPLE)).plan
    spent = spend([plan.event(plan.clients)] * plan.rounds, delta=plan.delta)
    return {
        str(one).replace("_", " "): (row.claimed, row.record, row.person)
        for one, row in spent.adversaries.items()
    }


def test_the_recorded_figures_are_those_of_the_example(
    figures: dict[str, tuple[float, float, float]],
) -> None:
    shown = {name: tuple(map(float, rest)) for name, *rest in ROW.findall(RECORDED)}
    assert shown.keys() == figures.keys()
    for name, exact in figures.items():
        assert shown[name] == pytest.approx(exact, abs=0.0006), name


def test_the_recording_is_of_a_whole_run_that_verifies() -> None:
    assert f"$ fedmeta run {EXAMPLE}\n" in RECORDED
    assert "Status: completed; 40 of 40 rounds released" in RECORDED
    assert "\nverified\n" in RECORDED
    (run,) = set(re.findall(r"\b\d{8}-\d{6}-credit-[0-9a-f]{6}\b", RECORDED))
    assert run
    assert max(map(len, RECORDED.splitlines())) <= COLUMNS
