"""One browser for all tests of a process, and where its pictures are kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.browser.chromium import REQUIRED, Chromium, Look, running
from tests.browser.inspection import LOOKS, Inspection, axe_source, inspect
from tests.browser.screenshots import folder, keep

Inspect = Callable[..., Inspection]


@pytest.fixture(scope="session")
def _browser() -> Iterator[tuple[Chromium, str] | str]:
    """The browser and the source of axe-core, or why there is none."""
    try:
        axe = axe_source()
        with running() as browser:
            yield browser, axe
    except FileNotFoundError as error:
        if REQUIRED in os.environ:
            raise
        yield f"{error} (an error where {REQUIRED} is set)"


@pytest.fixture
def equipped(_browser: tuple[Chromium, str] | str) -> tuple[Chromium, str]:
    if isinstance(_browser, str):
        pytest.skip(_browser)
    return _browser


@pytest.fixture
def browser(equipped: tuple[Chromium, str]) -> Chromium:
    return equipped[0]


@pytest.fixture
def inspected(equipped: tuple[Chromium, str]) -> Inspect:
    """Inspects a file in these looks; its pictures are kept if they are given a name."""
    browser, axe = equipped

    def ask(path: Path, looks: Sequence[Look] = LOOKS, *, name: str | None = None) -> Inspection:
        found = inspect(browser, path, axe, looks=looks)
        if name is not None:
            keep(found, folder() / name)
        return found

    return ask
