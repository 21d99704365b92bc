"""A PostgreSQL server of the tests' own: a cluster in a temporary folder, behind a Unix socket."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg
from psycopg import sql

REQUIRED = "FEDMETA_REQUIRE_TOOLS"
"""Set where the server must be there (.ci/run): a missing one then fails instead of skipping."""

ROOM = 2**30
"""Bytes that a cluster may grow to; containers often have less of shared memory."""


def binaries() -> Path | None:
    """The folder of the newest server's programs; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    if found:
        return found[-1].parent
    named = shutil.which("initdb")
    return None if named is None else Path(named).resolve().parent


@dataclass
class Cluster:
    """A running server.

    Attributes:
        socket: folder of its Unix socket; nothing listens on the network.
    """

    socket: Path
    _data: Path
    _bin: Path
    _names: Iterator[int] = field(default_factory=count)

    def database(self) -> str:
        """A new, empty database; its ledger URL."""
        name = f"ledger_{next(self._names)}"
        with self.connect("postgres") as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return f"postgresql://postgres@/{name}?host={self.socket}"

    def connect(self, database: str) -> psycopg.Connection[tuple[object, ...]]:
        """A connection of the superuser, outside of any transaction."""
        return psycopg.connect(
            host=str(self.socket), user="postgres", dbname=database, autocommit=True
        )

    def at(self, url: str) -> psycopg.Connection[tuple[object, ...]]:
        """A connection of the superuser to the database of this ledger."""
        return self.connect(url.split("?")[0].rpartition("/")[2])

    def set(self, name: str, value: str) -> None:
        """Change a setting of the whole server, for connections from now on."""
        with self.connect("postgres") as connection:
            connection.execute(
                sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
            )
            connection.execute("SELECT pg_reload_conf()")

    def shown(self, name: str) -> str:
        """A setting, as a new connection finds it."""
        with self.connect("postgres") as connection:
            row = connection.execute(sql.SQL("SHOW {}").format(sql.Identifier(name))).fetchone()
        assert row is not None
        return str(row[0])

    def control(self, *words: str) -> None:
        """Run pg_ctl on this server and wait for it."""
        _run(self._bin / "pg_ctl", "-D", str(self._data), "-w", "-t", "60", *words)

    def start(self) -> None:
        """Start the server."""
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.socket}'"
        self.control("start", "-l", str(self._data.parent / "server.log"), "-o", options)


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """Make a cluster and serve it; gone afterwards. Raises FileNotFoundError without a server."""
    folder = binaries()
    if folder is None:
        raise FileNotFoundError(
            "no PostgreSQL server is installed (Debian: apt install postgresql)"
        )
    # In memory where there is room: the server syncs as it must, and quickly. The path of a Unix
    # socket has at most 107 bytes: pytest's own folders may be too deep.
    memory = Path("/dev/shm")  # noqa: S108  a folder of its own is made there
    fits = memory.is_dir() and os.access(memory, os.W_OK) and _free(memory) >= ROOM
    where = str(memory) if fits else "/tmp"  # noqa: S108  the same
    with tempfile.TemporaryDirectory(prefix="fedmeta-pg-", dir=where) as made:
        root = Path(made)
        owner = _user()
        if owner is not None:
            os.chown(root, owner.pw_uid, owner.pw_gid)
        _run(folder / "initdb", "-D", str(root / "data"), "-U", "postgres", "-A", "trust",
             "-E", "UTF8", "--locale=C.UTF-8")  # fmt: skip
        cluster = Cluster(root, root / "data", folder)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.control("stop", "-m", "immediate")


def _user() -> pwd.struct_passwd | None:
    """Whom the server runs as: it refuses root. None: this very user."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres")
    return pwd.getpwnam("nobody")


def _run(program: Path, *words: str) -> None:
    owner = _user()
    identity = (
        {} if owner is None else {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    )
    done = subprocess.run(
        [str(program), *words],
        cwd="/",
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": "/"},
        stdout=subprocess.DEVNULL,  # a server that is started would keep a pipe open
        stderr=subprocess.DEVNULL,
        check=False,
        **identity,  # type: ignore[call-overload]
    )
    if done.returncode != 0:
        raise RuntimeError(f"{program.name} {' '.join(words)} ended with {done.returncode}")


def _free(path: Path) -> int:
    return shutil.disk_usage(path).free


def _version(path: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in path.parents[1].name.split(".") if part.isdigit())
