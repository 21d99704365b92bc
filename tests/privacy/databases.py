"""The two databases of a ledger, as whoever runs them sees them: copied, put back, written to."""

from __future__ import annotations

import contextlib
import sqlite3
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from psycopg import sql

from privacy.ledger import Ledger
from tests.privacy.postgres import Cluster


class Database(ABC):
    """A database for one ledger.

    Attributes:
        url: of the ledger.
        marks: the folder that a ledger in it is opened with.
    """

    url: str
    marks: Path | None

    def open(self, **options: Any) -> Ledger:
        """The ledger in it."""
        return Ledger(self.url, marks=self.marks, **options)

    @property
    @abstractmethod
    def mark(self) -> Path:
        """The file that holds the mark of the ledger in it."""

    @abstractmethod
    def execute(self, statement: str) -> None:
        """Change something behind the ledger's back."""

    @abstractmethod
    def copy(self) -> Any:
        """A copy of everything in it."""

    @abstractmethod
    def put_back(self, copy: Any) -> None:
        """What it holds is replaced by the copy."""

    @abstractmethod
    def remove(self) -> None:
        """Everything in it is gone."""


class Sqlite(Database):
    """One file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.url = f"sqlite:///{file}"
        self.marks = None

    @property
    def mark(self) -> Path:
        return self.file.with_name(self.file.name + ".high-water")

    def execute(self, statement: str) -> None:
        with contextlib.closing(sqlite3.connect(self.file)) as connection, connection:
            connection.execute(statement)

    def copy(self) -> bytes:
        return self.file.read_bytes()

    def put_back(self, copy: bytes) -> None:
        self.file.write_bytes(copy)

    def remove(self) -> None:
        self.file.unlink()


class Postgres(Database):
    """One database of a cluster; copies are databases of their own."""

    def __init__(self, cluster: Cluster, marks: Path) -> None:
        self.cluster = cluster
        self.marks = marks
        self.url = cluster.database()
        self._name = self.url.split("?")[0].rpartition("/")[2]
        self._copies = 0

    @property
    def mark(self) -> Path:
        assert self.marks is not None
        (found,) = self.marks.iterdir()
        return found

    def execute(self, statement: str) -> None:
        with self.cluster.connect(self._name) as connection:
            connection.execute(statement.encode())

    def copy(self) -> str:
        self._copies += 1
        name = f"{self._name}_copy_{self._copies}"
        self._make(name, template=self._name)
        return name

    def put_back(self, copy: str) -> None:
        self._drop()
        self._make(self._name, template=copy)

    def remove(self) -> None:
        self._drop()
        self._make(self._name, template="template1")

    def _make(self, name: str, *, template: str) -> None:
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        with self.cluster.connect("postgres") as connection:
            connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))

    def _drop(self) -> None:
        with self.cluster.connect("postgres") as connection:
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self._name))
            )
