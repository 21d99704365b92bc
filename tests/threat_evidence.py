"""What a session of tests showed of the attacks in threat_model.md, and its failure where not.

A test that a row names is evidence only if it ran and passed, with all its parameters. So a session
fails, whatever else passed, where such a test failed, was expected to fail, or was skipped by a
mark. A session over the whole suite (`make test`) fails too where one did not run at all: gone,
deselected, or in a file that could not be collected.

A test may skip itself where a tool is missing, such as PostgreSQL. On a machine of one's own the
summary then says what was not shown; where FEDMETA_REQUIRE_TOOLS is set the session fails.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest

from tests.threat_rows import NODE, PAGE

TITLE = "threat model: rows without their evidence"
MARKS = {"skip", "skipif"}
REQUIRED = "FEDMETA_REQUIRE_TOOLS"


class Evidence:
    """Outcomes of the tests that the threat model names.

    Args:
        nodes: their node ids, without parameters.
        strict: whether a test that skipped itself fails the session.
    """

    def __init__(self, nodes: Iterable[str], *, strict: bool) -> None:
        self._wanted = frozenset(nodes)
        self._strict = strict
        self._shown: set[str] = set()
        self._bad: dict[str, str] = {}
        self._skipped: dict[str, str] = {}

    def note(self, report: pytest.TestReport) -> None:
        """Take in one phase of one test."""
        node = report.nodeid.partition("[")[0]
        if node not in self._wanted:
            return
        if report.failed:
            self._bad[node] = "failed"
        elif hasattr(report, "wasxfail"):
            self._bad[node] = "is expected to fail"
        elif report.skipped:
            reason = _reason(report)
            if MARKS & report.keywords.keys():
                self._bad[node] = f"is skipped by a mark: {reason}"
            else:
                self._skipped[node] = f"skipped itself: {reason}"
        elif report.when == "call":
            self._shown.add(node)

    def failures(self, *, whole: bool) -> dict[str, str]:
        """Node id -> why the session must fail.

        Args:
            whole: whether every test was to run, so that one that did not is missing.
        """
        found = dict(self._bad)
        if self._strict:
            found = self._skipped | found
        if whole:
            absent = self._wanted - self._shown - self._bad.keys() - self._skipped.keys()
            found |= dict.fromkeys(absent, "did not run: it is missing or deselected")
        return dict(sorted(found.items()))

    def remarks(self) -> dict[str, str]:
        """Node id -> why this machine shows nothing of it, where that is no failure."""
        return {} if self._strict else dict(sorted(self._skipped.items()))


def _reason(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


class Plugin:
    """Puts the evidence of a session into its exit status and its summary."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._failures: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called for every phase of every test, of all workers."""
        self._evidence.note(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the session where a row has lost its evidence."""
        config = session.config
        if config.option.collectonly:
            return
        complete = not (session.shouldstop or session.shouldfail)
        self._failures = self._evidence.failures(whole=complete and _is_whole(config))
        if self._failures and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name what is missing."""
        remarks = self._evidence.remarks()
        if self._failures or remarks:
            terminalreporter.section(TITLE)
        for node, why in self._failures.items():
            terminalreporter.line(f"FAILED {node} {why}")
        for node, why in remarks.items():
            terminalreporter.line(f"not shown on this machine: {node} {why}")


def _is_whole(config: pytest.Config) -> bool:
    """Whether the session was asked for every test of the default run."""
    option = config.option
    narrowed = option.keyword or option.deselect or option.ignore or option.ignore_glob
    cached = option.lf or option.stepwise if config.pluginmanager.has_plugin("cacheprovider") else 0
    default = option.markexpr in ("", "not slow")
    return default and not narrowed and not cached and config.args == config.getini("testpaths")


def pytest_configure(config: pytest.Config) -> None:
    """Watch the session, in the process that decides its exit status."""
    if hasattr(config, "workerinput"):  # a worker of xdist
        return
    nodes = NODE.findall((config.rootpath / PAGE).read_text())
    evidence = Evidence(nodes, strict=REQUIRED in os.environ)
    config.pluginmanager.register(Plugin(evidence), "threat-evidence")
