"""Every call by which a process changes a disk, as points at which it can be stopped.

`Calls.installed()` replaces, in this process alone, the functions of the operating system that
write, sync, create and rename, Python's own files, and what SQLAlchemy asks of SQLite. Each call
under `root` is told to an observer before it happens, in its middle where it writes bytes, and
after it. It also keeps what is not yet synced: what a power cut, unlike SIGKILL, would take.
"""

from __future__ import annotations

import builtins
import io
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from unittest import mock

from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

When = Literal["before", "torn", "after"]
_MUTATING = ("INSERT", "UPDATE", "DELETE", "CREATE", "BEGIN IMMEDIATE")


@dataclass(frozen=True)
class Call:
    """One call: what it does, to which path, and whether it needs room on the disk."""

    name: str
    path: str
    needs_room: bool


Observer = Callable[[Call, When], None]


@dataclass
class Calls:
    """The calls of this process below `root`, told to `observer`.

    Attributes:
        unsynced: paths with content, or directories with names, that no fsync covers yet.
    """

    root: Path
    observer: Observer
    unsynced: set[str] = field(default_factory=set)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Inside, every call is told."""
        real_open = io.open
        with ExitStack() as stack:
            for name, replacement in {
                "write": self._written(os.write),
                "pwrite": self._written(os.pwrite),
                "fsync": self._synced(os.fsync),
                "open": self._opened(os.open),
                "replace": self._named(os.replace),
                "rename": self._named(os.rename),
                "link": self._named(os.link),
                "symlink": self._named(os.symlink),
                "mkdir": self._made(os.mkdir),
                "unlink": self._made(os.unlink, needs_room=False),
                "truncate": self._made(os.truncate, needs_room=False),
            }.items():
                stack.enter_context(mock.patch.object(os, name, replacement))
            for module in (io, builtins):
                replaced = self._file(real_open)
                stack.enter_context(mock.patch.object(module, "open", replaced))
            for name in ("do_execute", "do_commit"):
                real = getattr(SQLiteDialect_pysqlite, name)
                replaced = getattr(self, f"_{name}")(real)
                stack.enter_context(mock.patch.object(SQLiteDialect_pysqlite, name, replaced))
            yield

    def _inside(self, path: object) -> str | None:
        """The absolute path of a path or descriptor; None where it is not below the root."""
        if isinstance(path, int):
            try:
                path = Path(f"/proc/self/fd/{path}").readlink()
            except OSError:
                return None
        found = str(Path(os.fspath(path)).absolute())  # type: ignore[call-overload]
        inside = found == str(self.root) or found.startswith(f"{self.root}{os.sep}")
        return found if inside else None

    def _written(self, real: Callable[..., int]) -> Callable[..., int]:
        def write(fd: int, data: Any, *offset: int) -> int:
            path = self._inside(fd)
            if path is None:
                return real(fd, data, *offset)
            call = Call("write", path, needs_room=True)
            self.observer(call, "before")
            if len(data) > 1 and not offset:
                # The observer may end the process here, with half of the bytes on the disk.
                half = real(fd, memoryview(data)[: len(data) // 2])
                self.unsynced.add(path)
                self.observer(call, "torn")
                return half + write_rest(fd, memoryview(data)[half:], path, call)
            return write_rest(fd, data, path, call, *offset)

        def write_rest(fd: int, data: Any, path: str, call: Call, *offset: int) -> int:
            done = real(fd, data, *offset)
            self.unsynced.add(path)
            self.observer(call, "after")
            return done

        return write

    def _synced(self, real: Callable[[Any], None]) -> Callable[[Any], None]:
        def fsync(fd: Any) -> None:
            path = self._inside(fd if isinstance(fd, int) else fd.fileno())
            if path is None:
                real(fd)
                return
            call = Call("fsync", path, needs_room=True)
            self.observer(call, "before")
            real(fd)
            self.unsynced.discard(path)
            self.observer(call, "after")

        return fsync

    def _opened(self, real: Callable[..., int]) -> Callable[..., int]:
        def opened(path: Any, flags: int, *args: Any, **named: Any) -> int:
            inside = self._inside(path) if not isinstance(path, int) else None
            makes = bool(flags & os.O_CREAT) and inside is not None and not Path(inside).exists()
            cuts = bool(flags & os.O_TRUNC) and inside is not None
            if inside is None or not (makes or cuts):
                return real(path, flags, *args, **named)
            call = Call("create" if makes else "truncate", inside, needs_room=makes)
            self.observer(call, "before")
            fd = real(path, flags, *args, **named)
            self.unsynced.add(str(Path(inside).parent) if makes else inside)
            self.observer(call, "after")
            return fd

        return opened

    def _named(self, real: Callable[..., None]) -> Callable[..., None]:
        def named(old: Any, new: Any, *args: Any, **options: Any) -> None:
            inside = self._inside(new)
            if inside is None:
                real(old, new, *args, **options)
                return
            call = Call("rename", inside, needs_room=True)
            self.observer(call, "before")
            real(old, new, *args, **options)
            if (before := self._inside(old)) in self.unsynced:
                self.unsynced.discard(str(before))
                self.unsynced.add(inside)
            self.unsynced.add(str(Path(inside).parent))
            self.observer(call, "after")

        return named

    def _made(self, real: Callable[..., None], *, needs_room: bool = True) -> Callable[..., None]:
        def made(path: Any, *args: Any, **named: Any) -> None:
            inside = self._inside(path)
            if inside is None:
                real(path, *args, **named)
                return
            call = Call(real.__name__, inside, needs_room=needs_room)
            self.observer(call, "before")
            real(path, *args, **named)
            if needs_room:
                self.unsynced.add(str(Path(inside).parent))
            else:
                self.unsynced.discard(inside)
            self.observer(call, "after")

        return made

    def _file(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """Python's files, which collect what is written and write it when closed."""

        def opened(file: Any, mode: str = "r", *args: Any, **named: Any) -> Any:
            inside = self._inside(file)
            if inside is None or not set(mode) & set("wax+"):
                return real(file, mode, *args, **named)
            if isinstance(file, int):
                return self._watched(real(file, mode, *args, **named), inside)
            call = Call("create", inside, needs_room=True)
            self.observer(call, "before")
            made = real(file, mode, *args, **named)
            self.unsynced.add(str(Path(inside).parent))
            self.observer(call, "after")
            return self._watched(made, inside)

        return opened

    def _watched(self, file: Any, path: str) -> Any:
        call = Call("write", path, needs_room=True)
        pending = False

        def write(data: Any, real: Callable[[Any], Any] = file.write) -> Any:
            nonlocal pending
            if not pending:  # one point for all that one flush writes
                self.observer(call, "before")
            pending = True
            self.unsynced.add(path)
            return real(data)

        def flush(real: Callable[[], None] = file.flush) -> None:
            nonlocal pending
            wrote, pending = pending, False
            if wrote:
                self.observer(call, "torn")
            real()
            if wrote:
                self.observer(call, "after")

        def close(real: Callable[[], None] = file.close) -> None:
            try:
                if not file.closed:
                    flush()
            finally:
                real()

        file.write, file.flush, file.close = write, flush, close
        return file

    def _do_execute(self, real: Callable[..., None]) -> Callable[..., None]:
        def do_execute(dialect: Any, cursor: Any, statement: str, *rest: Any) -> None:
            path = self._inside(_database(cursor.connection))
            kind = next((kind for kind in _MUTATING if statement.startswith(kind)), None)
            if path is None or kind is None:
                real(dialect, cursor, statement, *rest)
                return
            call = Call(f"sqlite {kind.split()[0]}", path, needs_room=kind != "BEGIN IMMEDIATE")
            self.observer(call, "before")
            real(dialect, cursor, statement, *rest)
            self.observer(call, "after")

        return do_execute

    def _do_commit(self, real: Callable[..., None]) -> Callable[..., None]:
        def do_commit(dialect: Any, connection: Any) -> None:
            plain = getattr(connection, "dbapi_connection", connection)
            path = self._inside(_database(plain))
            if path is None or not plain.in_transaction:
                real(dialect, connection)
                return
            call = Call("sqlite COMMIT", path, needs_room=True)
            self.observer(call, "before")
            real(dialect, connection)
            self.observer(call, "after")

        return do_commit


def _database(connection: sqlite3.Connection) -> str:
    """The file of a connection."""
    return str(connection.execute("PRAGMA database_list").fetchone()[2])
