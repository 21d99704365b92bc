"""The report of a run, opened in a browser as whoever gets it opens it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.chromium import Look
from tests.browser.conftest import Inspect
from tests.browser.inspection import LOOKS, NARROW, PAPER, WIDE
from tests.browser.states import STATES

LIGHT, DARK = Look("light", WIDE), Look("dark", WIDE)
PHONE, DARK_PHONE = Look("light", NARROW), Look("dark", NARROW)
PRINT, DARK_PRINT = Look("light", PAPER, "print"), Look("dark", PAPER, "print")
LOOKED_AT = {
    "demo": LOOKS,
    "aborted": (LIGHT, DARK_PRINT),
    "no_budget": (DARK_PHONE, PRINT),
    "not_private": (PHONE, DARK_PRINT),
    "assessed": (DARK, PRINT),
    "names_of_html": (DARK_PHONE, PRINT),
}
"""The others differ from the demo in what they say: banners, tables and notes in each look once."""


@pytest.mark.parametrize("name", STATES)
def test_nothing_is_wrong_with_the_page(name: str, inspected: Inspect, tmp_path: Path) -> None:
    page = STATES[name](tmp_path)
    found = inspected(page, LOOKED_AT[name], name=name)
    assert found.findings == {}
