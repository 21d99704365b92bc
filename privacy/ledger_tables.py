"""The ledger's tables, as the newest schema has them."""

from __future__ import annotations

import sqlalchemy as sa

SCHEMA_VERSION = 2

metadata = sa.MetaData()
schema = sa.Table(
    "ledger_schema",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
)
grants = sa.Table(
    "grants",
    metadata,
    sa.Column("sequence", sa.Integer, primary_key=True),
    sa.Column("population", sa.Text, nullable=False, index=True),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("epsilon", sa.Text, nullable=False),
    sa.Column("delta", sa.Text, nullable=False),
    sa.Column("approver", sa.Text, nullable=False),
    sa.Column("granted", sa.Text, nullable=False),
    sa.Column("expires", sa.Text, nullable=True),
    sa.Column("relation", sa.Text, nullable=False, server_default="add_remove"),
    sa.Column("adversary", sa.Text, nullable=False, server_default="worst"),
    sa.Column("rdp_order", sa.Integer, nullable=True),
)
reservations = sa.Table(
    "reservations",
    metadata,
    sa.Column("sequence", sa.Integer, primary_key=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("population", sa.Text, nullable=False, index=True),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("round", sa.BigInteger, nullable=False),
    sa.Column("attempt", sa.BigInteger, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("plan_digest", sa.Text, nullable=False),
    sa.Column("reserved", sa.Text, nullable=False),
    sa.Column("committed", sa.Text, nullable=True),
    sa.UniqueConstraint("run", "round", "attempt"),
)
