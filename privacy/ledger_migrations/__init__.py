"""Steps from each schema of the ledger to the next, as Alembic revisions under `versions`.

The id of a revision is the schema version that it leads to. The version that a database has stands
in its table `ledger_schema` alone, which every version of the product reads before anything else;
a second table of Alembic's own would have to agree with it. A step changes nothing that a charge or
a grant says; a new ledger is made from the tables themselves, and the tests compare the two.
"""

from __future__ import annotations

import logging
from pathlib import Path

import sqlalchemy as sa

from privacy.errors import LedgerError
from privacy.ledger_tables import SCHEMA_VERSION, schema

_log = logging.getLogger(__name__)


def migrate(connection: sa.Connection, *, since: int, kept: str) -> None:
    """Bring the tables from version `since` to SCHEMA_VERSION inside this transaction.

    Args:
        connection: in a transaction that excludes everybody else.
        since: the version that the database has.
        kept: what to tell about a copy of the old state.

    Raises:
        LedgerError: no step leads from `since`.
    """
    # Loading Alembic takes longer than all the rest of opening a ledger.
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(__file__).parent))
    steps = {int(step.revision): step for step in scripts.walk_revisions(base="base", head="heads")}
    wanted = range(since + 1, SCHEMA_VERSION + 1)
    if since < 1 or any(version not in steps for version in wanted):
        raise LedgerError(f"the ledger has schema {since}, from which no migration leads")
    with Operations.context(MigrationContext.configure(connection)):
        for version in wanted:
            steps[version].module.upgrade()
    connection.execute(schema.update().values(version=SCHEMA_VERSION))
    _log.warning("event=ledger-migrated from=%d to=%d note=%s", since, SCHEMA_VERSION, kept)
