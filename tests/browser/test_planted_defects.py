"""The inspection finds nothing in a good page, and every defect that is put into it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.conftest import Inspect
from tests.browser.planted import DEFECTS, PAGE


def test_a_good_page_has_no_finding(inspected: Inspect, tmp_path: Path) -> None:
    path = tmp_path / "good.html"
    path.write_text(PAGE)
    found = inspected(path)
    assert found.findings == {}
    assert found.advice == set()


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_found(name: str, inspected: Inspect, tmp_path: Path) -> None:
    defect = DEFECTS[name]
    path = tmp_path / "planted.html"
    path.write_text(defect.planted())
    found = inspected(path, [defect.look], {defect.question}).findings
    asked = {defect.question, f"{defect.question} {defect.look}"}
    lines = [line for key in found.keys() & asked for line in found[key]]
    assert any(defect.words in line for line in lines), found
