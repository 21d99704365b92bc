"""Pictures of a page: kept by the tests for whoever looks, and made for the documentation."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image

from tests.browser.chromium import Look, Page, running
from tests.browser.inspection import Inspection

FOLDER = "FEDMETA_SCREENSHOTS"
"""Names the folder that the tests keep their pictures in."""

PICTURES = {
    "report-light": (Look("light", 1000), "header", "#trained"),
    "report-dark": (Look("dark", 1000), "header", "#trained"),
    "report-scores": (Look("light", 1000), "#held-out", "#curves figure"),
    "report-epsilon": (Look("light", 1000), "#epsilon", "#epsilon figure"),
}
"""Pictures for the documentation: how the page is looked at, its first and its last part shown."""

EDGES = """[
    document.querySelector(%s).getBoundingClientRect().top + scrollY,
    document.querySelector(%s).getBoundingClientRect().bottom + scrollY,
].map(Math.round)"""

COLOURS = 128


def folder() -> Path:
    """Where the tests keep their pictures: one folder for all runs, replaced by the next."""
    named = os.environ.get(FOLDER)
    return Path(named or Path(tempfile.gettempdir()) / f"fedmeta-screenshots-{os.getuid()}")


def keep(page: Page, looks: Sequence[Look], found: Inspection, into: Path) -> None:
    """Write an inspected page in these looks as PNG, on paper as PDF, and the advice on it."""
    into.mkdir(parents=True, exist_ok=True, mode=0o700)
    for look in looks:
        page.look(look)
        (into / f"{look}.png").write_bytes(page.screenshot())
    (into / "paper.pdf").write_bytes(found.pdf)
    (into / "advice.txt").write_text("\n".join(sorted(found.advice)))


def for_documentation(report: Path, into: Path) -> None:
    """Write PICTURES of the page, in few colours."""
    into.mkdir(parents=True, exist_ok=True)
    with running() as browser:
        page = browser.page()
        page.open(report.resolve().as_uri())
        for name, (look, first, last) in PICTURES.items():
            page.look(look)
            top, bottom = page.evaluate(EDGES % (json.dumps(first), json.dumps(last)))
            picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
            picture = picture.crop((0, top, picture.width, bottom))
            path = into / f"{name}.png"
            picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
