"""Ledgers on both databases."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from privacy.ledger import Ledger
from tests.privacy.databases import Database, Postgres, Sqlite
from tests.privacy.ledgers import Open
from tests.privacy.postgres import REQUIRED, Cluster, running


@pytest.fixture(scope="session")
def _cluster() -> Iterator[Cluster | None]:
    try:
        with running() as cluster:
            yield cluster
    except FileNotFoundError:
        if REQUIRED in os.environ:
            raise
        yield None


@pytest.fixture
def cluster(_cluster: Cluster | None) -> Cluster:
    if _cluster is None:
        pytest.skip(f"no PostgreSQL server is installed (an error where {REQUIRED} is set)")
    return _cluster


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """An empty database for one ledger, once of each kind."""
    if request.param == "sqlite":
        return Sqlite(tmp_path / "ledger.db")
    return Postgres(request.getfixturevalue("cluster"), tmp_path / "marks")


@pytest.fixture
def opened(database: Database) -> Open:
    """Opens the test's ledger, again each time."""
    return database.open


@pytest.fixture
def sqlite(tmp_path: Path) -> Open:
    """The same in SQLite alone, for what is decided before any database is asked."""
    return Sqlite(tmp_path / "ledger.db").open


@pytest.fixture
def elsewhere(tmp_path: Path) -> Ledger:
    """Another, empty ledger."""
    return Ledger(f"sqlite:///{tmp_path / 'elsewhere' / 'ledger.db'}")
