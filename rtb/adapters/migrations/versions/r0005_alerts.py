"""Alert rules, and where they stand."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Begin without rules."""
    collation = "C" if op.get_context().dialect.name == "postgresql" else None
    for name in ("alert_rules", "alert_states"):
        op.create_table(
            name,
            sa.Column("id", sa.String(100, collation=collation), primary_key=True),
            sa.Column("version", sa.BigInteger, nullable=False),
            sa.Column("body", sa.Text, nullable=False),
        )
