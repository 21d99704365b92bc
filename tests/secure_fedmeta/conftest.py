"""The command line through its real entry point, in a folder of the test's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from secure_fedmeta import cli
from tests.secure_fedmeta.commands import Call, Ended


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run `fedmeta` in this process, through the real entry point."""

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["fedmeta", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    return run
