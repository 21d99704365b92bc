"""Grants say which relation and adversary they limit, and at which Renyi order, if at one.

What was granted before limits the worst adversary over all orders, under its unit's relation.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = None

_RELATIONS = {"record": "replace_one", "client": "zero_out"}


def upgrade() -> None:
    """Add the three columns."""
    relation = sa.Column("relation", sa.Text, nullable=False, server_default="add_remove")
    op.add_column("grants", relation)
    op.add_column("grants", sa.Column("adversary", sa.Text, nullable=False, server_default="worst"))
    op.add_column("grants", sa.Column("rdp_order", sa.Integer, nullable=True))
    grants = sa.table("grants", sa.column("unit"), sa.column("relation"))
    for unit, name in _RELATIONS.items():
        op.execute(grants.update().where(grants.c.unit == unit).values(relation=name))
