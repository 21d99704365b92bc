"""The browser of the tests: nothing of it is left, and a missing one is told or an error."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.browser import inspection
from tests.browser.chromium import BrowserError, Chromium, running
from tests.browser.inspection import LOOKS
from tests.browser.planted import PAGE

ROOT = Path(__file__).resolve().parents[2]

STARTED = """
import sys, time
from pathlib import Path
from tests.browser.chromium import running
with running() as browser:
    browser.page()
    print(browser.process, flush=True)
    time.sleep(60)
"""


def words(process: int) -> list[str]:
    """The command line of a process; empty where it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def home_of(process: int) -> Path:
    (named,) = (word for word in words(process) if word.startswith("--user-data-dir="))
    return Path(named.partition("=")[2]).parent


def processes(home: Path) -> set[int]:
    """Every process that was started with this folder as its home."""
    found = set()
    for one in Path("/proc").glob("[0-9]*"):
        try:
            environment = (one / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"HOME={home}".encode() in environment:
            found.add(int(one.name))
    return found


def gone(home: Path) -> bool:
    """Whether the processes of this home end within some seconds."""
    deadline = time.monotonic() + 10
    while processes(home) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not processes(home)


@pytest.mark.usefixtures("browser")
def test_nothing_is_left_of_a_browser() -> None:
    with running() as browser:
        browser.page()
        home = home_of(browser.process)
        assert browser.process in processes(home)
        assert home.is_dir()
        assert ("--no-sandbox" in words(browser.process)) == (os.geteuid() == 0)
    assert not home.exists()
    assert gone(home)


@pytest.mark.usefixtures("browser")
def test_a_browser_ends_with_the_tests_that_are_killed() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", STARTED],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    with child:
        process = int(child.stdout.readline())
        home = home_of(process)
        child.send_signal(signal.SIGKILL)
    ended = gone(home)
    shutil.rmtree(home)
    assert ended


def test_what_the_browser_refuses_is_an_error(browser: Chromium) -> None:
    page = browser.page()
    with pytest.raises(BrowserError, match=r"Page\.nothing"):
        page.call("Page.nothing")
    with pytest.raises(BrowserError, match="planted"):
        page.evaluate("(() => { throw new Error('planted') })()")
    with pytest.raises(BrowserError, match="ERR_FILE_NOT_FOUND"):
        page.open("file:///nowhere/report.html")
    page.close()


def test_a_look_changes_what_is_seen(browser: Chromium, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(PAGE)
    page = browser.page()
    page.open(path.as_uri())
    seen = set()
    for look in LOOKS:
        page.look(look)
        seen.add(page.screenshot())
    page.close()
    assert len(seen) == len(LOOKS) - 1  # paper is white for everybody


def test_a_missing_browser_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FileNotFoundError, match="make browser"), running():
        pass


def test_only_the_locked_axe_core_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(inspection.sys, "prefix", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="not installed: make browser"):
        inspection.axe_source()
    package = tmp_path / "browser" / "node_modules" / "axe-core"
    package.mkdir(parents=True)
    (package / "package.json").write_text(json.dumps({"version": "1.0.0"}))
    with pytest.raises(FileNotFoundError, match=r"axe-core 1\.0\.0 is installed, not 4"):
        inspection.axe_source()
