"""A run's directory, and what is kept of the run outside of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from audit.files import make_directories, naming, sync_directory
from secure_fedmeta import state
from secure_fedmeta.errors import NothingBegun, RunDirectoryError

LATEST = "latest"


@dataclass(frozen=True)
class Workspace:
    """The directory of one run.

    Attributes:
        path: the directory.
        run_id: its name, which is also the name of its log, pin and default population.
    """

    path: Path
    run_id: str

    @classmethod
    def create(cls, out: Path, run_id: str) -> Workspace:
        """Make a new directory under `out`.

        Args:
            out: folder of run directories; made if missing.
            run_id: see `name_run`.

        Raises:
            RunDirectoryError: the directory cannot be made, or exists, or something that is no
                link stands where `latest` belongs.
        """
        path = out / run_id
        _latest(out)
        try:
            make_directories(out)
            path.mkdir()
            sync_directory(out)
        except OSError as error:
            raise RunDirectoryError(
                f"cannot make {path}: {error.strerror}; make room there, or name another folder "
                "with --out"
            ) from error
        return cls(path, run_id)

    @staticmethod
    def check(out: Path) -> None:
        """Refuse a folder in which no run directory can be made; makes nothing.

        Raises:
            RunDirectoryError: it is no folder or below none, or cannot be written, or something
                that is no link stands where `latest` belongs.
        """
        for place in (out, *out.absolute().parents):
            try:
                place.lstat()
                usable = place.is_dir()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise _cannot_make(out, f"{place}: {error.strerror}") from error
            if not usable:
                raise _cannot_make(out, f"{place} is no folder")
            if not os.access(place, os.W_OK | os.X_OK):
                raise _cannot_make(out, f"{place} cannot be written")
            break
        _latest(out)

    @classmethod
    def of(cls, directory: Path) -> Workspace:
        """The directory of a run that exists; a link such as `latest` is followed.

        Raises:
            RunDirectoryError: it is none.
            NothingBegun: the run was cut off before it had a log.
        """
        path = directory.resolve()
        empty = path.is_dir() and not any(path.iterdir())
        if not empty and not (path / "config.toml").is_file():
            raise RunDirectoryError(
                f"{directory} holds no config.toml: name the directory of a run"
            )
        if not (path / "audit" / "log.jsonl").is_file():
            raise NothingBegun(
                f"{directory} has no log: the run was cut off before it began, and charged "
                "nothing. Start it again with fedmeta run"
            )
        return cls(path, path.name)

    @property
    def audit(self) -> Path:
        """Where the log lies."""
        return self.path / "audit"

    @property
    def plots(self) -> Path:
        """Where the curves lie."""
        return self.path / "plots"

    def keep_opening(self, opening: Mapping[str, object]) -> None:
        """Store a round's salts in the state directory, durably; never in the run directory."""
        path = state.openings_path(self.run_id)
        made = not path.exists()
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with naming(path), os.fdopen(handle, "a", encoding="utf-8") as file:
            file.write(json.dumps(opening) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if made:
            sync_directory(path.parent)

    def point_latest(self) -> None:
        """Let `latest` beside the directory point at it; replaces an older link atomically.

        Raises:
            RunDirectoryError: something that is no link stands in its place.
        """
        link = _latest(self.path.parent)
        draft = self.path.parent / f".{self.run_id}"
        draft.unlink(missing_ok=True)
        draft.symlink_to(self.run_id, target_is_directory=True)
        draft.replace(link)


def name_run(name: str, *, moment: datetime, suffix: str) -> str:
    """The id of a run: when it starts, the config's name, and what makes it unique."""
    return f"{moment:%Y%m%d-%H%M%S}-{name}-{suffix}"


def _cannot_make(out: Path, why: str) -> RunDirectoryError:
    return RunDirectoryError(f"cannot make a run directory in {out}: {why}")


def _latest(out: Path) -> Path:
    link = out / LATEST
    if link.exists() and not link.is_symlink():
        raise RunDirectoryError(f"{link} is not a link: move it away")
    return link


def log_origin(run_id: str) -> str:
    """The name that the log of a run signs."""
    return f"secure-fedmeta/{run_id}"
