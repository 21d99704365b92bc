"""One browser for all tests of a process, and where its pictures are kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.browser.chromium import REQUIRED, Chromium, Look, Page, running
from tests.browser.inspection import LOOKS, QUESTIONS, Inspection, axe_source, inspect
from tests.browser.screenshots import folder, keep

Inspect = Callable[..., Inspection]


@dataclass(frozen=True)
class Equipment:
    """What a page is opened with.

    Attributes:
        browser: the browser.
        page: the tab in which pages are inspected, one after the other.
        axe: the source of axe-core.
    """

    browser: Chromium
    page: Page
    axe: str


@pytest.fixture(scope="session")
def _found() -> Iterator[Equipment | str]:
    """The equipment, or why there is none."""
    try:
        axe = axe_source()
        with running() as browser:
            yield Equipment(browser, browser.page(), axe)
    except FileNotFoundError as error:
        if REQUIRED in os.environ:
            raise
        yield f"{error} (an error where {REQUIRED} is set)"


@pytest.fixture
def equipment(_found: Equipment | str) -> Equipment:
    if isinstance(_found, str):
        pytest.skip(_found)
    return _found


@pytest.fixture
def browser(equipment: Equipment) -> Chromium:
    return equipment.browser


@pytest.fixture
def inspected(equipment: Equipment) -> Inspect:
    """Inspects a file in these looks; pictures of them are kept under a name, if one is given."""

    def ask(
        path: Path,
        looks: Sequence[Look] = LOOKS,
        questions: Container[str] = QUESTIONS,
        name: str | None = None,
    ) -> Inspection:
        page, axe = equipment.page, equipment.axe
        found = inspect(page, path, axe, looks=looks, questions=questions)
        if name is not None:
            keep(page, looks, found, folder() / name)
        return found

    return ask
