"""What follows a win in the ledger: dates, message ids, creatives, users and values; and the refused events.

Rows that stand there count for their budget day, or else for the day of their receipt in UTC.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adding a column with a constant default rewrites no table; dating the rows does, once."""
    is_postgresql = op.get_context().dialect.name == "postgresql"
    collation = "C" if is_postgresql else None
    for column in (
        sa.Column("date", sa.String(10, collation=collation), nullable=False, server_default=sa.text("''")),
        sa.Column("event_id", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("creative_id", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("user", sa.String(64, collation=collation), nullable=False, server_default=sa.text("''")),
        sa.Column("value_nanos", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("attributed", sa.String(16), nullable=False, server_default=sa.text("''")),
    ):
        op.add_column("ledger", column)
    received = (
        "to_char(to_timestamp(received_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
        if is_postgresql
        else "strftime('%Y-%m-%d', received_at, 'unixepoch')"
    )
    op.execute(f"UPDATE ledger SET date = CASE WHEN day IN ('', 'life') THEN {received} ELSE day END")
    op.drop_index("ledger_by_account", "ledger")
    op.create_index("ledger_by_account", "ledger", ["campaign_id", "day", "date", "charged_nanos"])
    is_touch = sa.text("\"user\" <> '' AND kind <> 'win'")
    op.create_index(
        "ledger_by_touch",
        "ledger",
        ["campaign_id", "user", "kind", "received_at"],
        sqlite_where=is_touch,
        postgresql_where=is_touch,
    )
    op.create_table(
        "refused_events",
        sa.Column("id", sa.Text(collation=collation), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("received_at", sa.Float(53), nullable=False),
        sa.Column("campaign_id", sa.String(200, collation=collation), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index("refused_events_by_receipt", "refused_events", ["received_at"])
