"""The last figures that sources told of campaigns."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Begin without any."""
    collation = "C" if op.get_context().dialect.name == "postgresql" else None
    op.create_table(
        "source_figures",
        sa.Column("campaign_id", sa.String(200, collation=collation), primary_key=True),
        sa.Column("source", sa.String(64, collation=collation), primary_key=True),
        sa.Column("first_day", sa.String(10, collation=collation), primary_key=True),
        sa.Column("last_day", sa.String(10, collation=collation), primary_key=True),
        sa.Column("told_at", sa.Float(53), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("source_figures_by_time", "source_figures", ["told_at"])
