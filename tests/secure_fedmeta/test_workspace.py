"""Run directories: made once, never over another, `latest` moves in one step."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from secure_fedmeta.errors import RunDirectoryError
from secure_fedmeta.workspace import Workspace, name_run

MOMENT = datetime(2026, 1, 31, 12, 5, 9, tzinfo=UTC)


def test_a_run_is_named_by_moment_config_and_suffix() -> None:
    assert name_run("credit", moment=MOMENT, suffix="ab12cd") == "20260131-120509-credit-ab12cd"


def test_layout(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "a" / "runs", "one")
    assert workspace.path == tmp_path / "a" / "runs" / "one"
    assert workspace.path.is_dir()
    assert workspace.audit == workspace.path / "audit"
    assert workspace.plots == workspace.path / "plots"


def test_a_directory_is_never_used_twice(tmp_path: Path) -> None:
    Workspace.create(tmp_path, "one")
    with pytest.raises(RunDirectoryError, match=r"cannot make .*one: File exists"):
        Workspace.create(tmp_path, "one")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match="cannot make"):
        Workspace.create(tmp_path / "file", "one")


def test_a_folder_that_cannot_be_made_is_told_beforehand_and_nothing_is_made(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("gone")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("file", "file/below", "dangling", "dangling/below", "loop/x", "x" * 300 + "/y"):
        with pytest.raises(RunDirectoryError, match="cannot make a run directory in"):
            Workspace.check(tmp_path / name)
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("", "new", "new/below", "link/new"):
        Workspace.check(tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "dangling", "loop", "link"}


def test_latest_points_at_the_newest(tmp_path: Path) -> None:
    for name in ("one", "two"):
        Workspace.create(tmp_path, name).point_latest()
        assert (tmp_path / "latest").resolve() == (tmp_path / name).resolve()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "one", "two"]


def test_a_dangling_latest_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to("gone")
    Workspace.create(tmp_path, "one").point_latest()
    assert (tmp_path / "latest").resolve() == (tmp_path / "one").resolve()


def test_what_is_no_link_is_left_alone_and_told_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    with pytest.raises(RunDirectoryError, match="is not a link: move it away"):
        Workspace.create(tmp_path, "one")
    assert not (tmp_path / "one").exists()


def test_openings_are_added_line_by_line_outside_the_run(tmp_path: Path, state_dir: Path) -> None:
    state_dir.mkdir()
    workspace = Workspace.create(tmp_path / "runs", "one")
    for index in (1, 2):
        workspace.keep_opening({"round": index, "salts": {"a": "00"}})
    path = state_dir / "openings" / "one.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(workspace.path.iterdir()) == []
