"""What happened to campaigns, and why."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Begin the record; of what was before nothing is known."""
    collation = "C" if op.get_context().dialect.name == "postgresql" else None
    op.create_table(
        "campaign_history",
        sa.Column("id", sa.Text(collation=collation), primary_key=True),
        sa.Column("campaign_id", sa.String(200, collation=collation), nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("details", sa.Text, nullable=False),
    )
    op.create_index("campaign_history_by_campaign", "campaign_history", ["campaign_id", "at"])
    op.create_index("campaign_history_by_time", "campaign_history", ["at"])
