"""The report of a run, opened in a browser as whoever gets it opens it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.chromium import Look
from tests.browser.conftest import Inspect
from tests.browser.inspection import LOOKS, NARROW, PAPER, WIDE
from tests.browser.states import STATES

FEW = (Look("light", WIDE), Look("dark", NARROW), Look("dark", PAPER, "print"))
"""Each colour, each width and paper once: the other states differ in what they say, not in how."""


@pytest.mark.parametrize("name", STATES)
def test_nothing_is_wrong_with_the_page(name: str, inspected: Inspect, tmp_path: Path) -> None:
    page = STATES[name](tmp_path)
    found = inspected(page, LOOKS if name == "demo" else FEW, name=name)
    assert found.findings == {}
