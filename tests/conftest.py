"""Shared settings: Hypothesis without time limits, and a state directory of its own per test.

A session fails where an attack of the threat model has lost its evidence. Its last line says where
pictures of the report are, if it was opened.
"""

import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.browser.screenshots import folder
from tests.threat_evidence import pytest_configure

__all__ = ["pytest_configure", "state_dir"]

settings.register_profile(
    "default", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
# For scripts/mutants.py: the same examples for every mutant, and none is made smaller.
settings.register_profile(
    "mutants",
    settings.get_profile("default"),
    phases=(Phase.explicit, Phase.generate),
    database=None,
    derandomize=True,
)
settings.load_profile("default")


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """A shell lets commands in its background ignore Ctrl-C, and what they start does, too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep keys, pins and ledgers of a test out of the user's state directory."""
    path = tmp_path / "state"
    monkeypatch.setenv("FEDMETA_STATE_DIR", str(path))
    return path


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the folder of the pictures."""
    ran = [*terminalreporter.stats.get("passed", ()), *terminalreporter.stats.get("failed", ())]
    if any("/test_report_page.py::" in one.nodeid for one in ran):
        terminalreporter.write_line(f"pictures of the report: {folder()}")
