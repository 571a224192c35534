"""Campaigns and profiles.

The first version of rtb made these tables without migrations: where they stand they are taken over as they are.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make what is missing."""
    op.create_table(
        "campaigns",
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("advertiser", sa.String(200), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_index("campaigns_by_advertiser", "campaigns", ["advertiser"], if_not_exists=True)
    op.create_table(
        "profiles",
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        if_not_exists=True,
    )
