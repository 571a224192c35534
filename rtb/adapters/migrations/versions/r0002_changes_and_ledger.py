"""Numbers of campaign changes; the ledger, its epochs and the instances that may hold leases.

On PostgreSQL keys are compared byte by byte from now on (collation "C").
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Number the campaigns that stand there, in the order of their ids."""
    collation = "C" if op.get_context().dialect.name == "postgresql" else None
    op.add_column("campaigns", sa.Column("changed", sa.BigInteger, nullable=False, server_default="0"))
    if collation is not None:
        op.alter_column("campaigns", "id", type_=sa.String(200, collation=collation))
        op.alter_column("profiles", "user_id", type_=sa.Text(collation=collation))
    op.execute(
        "UPDATE campaigns SET changed = numbered.n"
        " FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM campaigns) AS numbered"
        " WHERE numbered.id = campaigns.id"
    )
    op.create_index("campaigns_by_change", "campaigns", ["changed"])
    op.create_table(
        "campaign_changes",
        sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("last", sa.BigInteger, nullable=False),
    )
    op.execute("INSERT INTO campaign_changes (id, last) SELECT 1, coalesce(max(changed), 0) FROM campaigns")
    _make_ledger(collation)
    op.create_table(
        "budget_epochs",
        sa.Column("fence", sa.Text(collation=collation), primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "instances",
        sa.Column("id", sa.Text(collation=collation), primary_key=True),
        sa.Column("seen_at", sa.Float(53), nullable=False),
    )


def _make_ledger(collation: str | None) -> None:
    op.create_table(
        "ledger",
        sa.Column("key", sa.Text(collation=collation), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("campaign_id", sa.String(200, collation=collation), nullable=False),
        sa.Column("day", sa.String(10, collation=collation), nullable=False),
        sa.Column("auction_id", sa.Text, nullable=False),
        sa.Column("impid", sa.Text, nullable=False),
        sa.Column("instance", sa.Text, nullable=False),
        sa.Column("price_nanos", sa.BigInteger, nullable=False),
        sa.Column("charged_nanos", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False),
        sa.Column("received_at", sa.Float(53), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_index("ledger_by_receipt", "ledger", ["received_at"])
    op.create_index("ledger_by_account", "ledger", ["campaign_id", "day", "charged_nanos"])
