"""The tables of the truth, as the newest migration leaves them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Float, Index, MetaData, SmallInteger, String, Table, Text, text

METADATA = MetaData()


def _key(length: int | None = None) -> Any:
    """Text that is compared byte by byte everywhere: other collations order differently, change with the system's
    libraries, and make slower indexes."""
    plain = String(length) if length else Text()
    exact = String(length, collation="C") if length else Text(collation="C")
    return plain.with_variant(exact, "postgresql")


CAMPAIGNS = Table(
    "campaigns",
    METADATA,
    Column("id", _key(200), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("status", String(16), nullable=False),
    Column("advertiser", String(200), nullable=False),
    Column("body", Text, nullable=False),
    Column("changed", BigInteger, nullable=False, server_default="0"),
    Index("campaigns_by_advertiser", "advertiser"),
    Index("campaigns_by_change", "changed"),
)
PROFILES = Table(
    "profiles",
    METADATA,
    Column("user_id", _key(), primary_key=True),
    Column("body", Text, nullable=False),
)
CAMPAIGN_CHANGES = Table(
    "campaign_changes",  # one row: the number of the last change
    METADATA,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
)
LEDGER = Table(
    "ledger",  # one row an event that concerns money: ports.LedgerRow; times are Unix seconds, amounts nanos
    METADATA,
    Column("key", _key(), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("campaign_id", _key(200), nullable=False),
    Column("day", _key(10), nullable=False),
    Column("auction_id", Text, nullable=False),
    Column("impid", Text, nullable=False),
    Column("instance", Text, nullable=False),
    Column("price_nanos", BigInteger, nullable=False),
    Column("charged_nanos", BigInteger, nullable=False),
    Column("expires_at", Float(53), nullable=False),
    Column("received_at", Float(53), nullable=False),
    Column("reason", Text, nullable=False),
    Column("date", _key(10), nullable=False, server_default=text("''")),
    Column("event_id", Text, nullable=False, server_default=text("''")),
    Column("creative_id", Text, nullable=False, server_default=text("''")),
    Column("user", _key(64), nullable=False, server_default=text("''")),
    Column("value_nanos", BigInteger, nullable=False, server_default="0"),
    Column("attributed", String(16), nullable=False, server_default=text("''")),
    Index("ledger_by_receipt", "received_at"),
    Index("ledger_by_account", "campaign_id", "day", "date", "charged_nanos"),
)
IS_TOUCH = text("\"user\" <> '' AND kind <> 'win'")
"""Of rows that a conversion may be owed to. Queries repeat it word for word, so that both databases use the index."""
Index(
    "ledger_by_touch",
    LEDGER.c.campaign_id,
    LEDGER.c.user,
    LEDGER.c.kind,
    LEDGER.c.received_at,
    sqlite_where=IS_TOUCH,
    postgresql_where=IS_TOUCH,
)
REFUSED_EVENTS = Table(
    "refused_events",  # charged to nobody: ports.Refusal
    METADATA,
    Column("id", _key(), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("received_at", Float(53), nullable=False),
    Column("campaign_id", _key(200), nullable=False),
    Column("detail", Text, nullable=False),
    Index("refused_events_by_receipt", "received_at"),
)
CAMPAIGN_HISTORY = Table(
    "campaign_history",  # what happened to campaigns: ports.HistoryEvent; details are JSON
    METADATA,
    Column("id", _key(), primary_key=True),
    Column("campaign_id", _key(200), nullable=False),
    Column("at", Float(53), nullable=False),
    Column("actor", String(64), nullable=False),
    Column("action", String(32), nullable=False),
    Column("cause", Text, nullable=False),
    Column("details", Text, nullable=False),
    Index("campaign_history_by_campaign", "campaign_id", "at"),
    Index("campaign_history_by_time", "at"),
)
ALERT_RULES = Table(
    "alert_rules",  # domain.alert.AlertRule as JSON
    METADATA,
    Column("id", _key(100), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
)
ALERT_STATES = Table(
    "alert_states",  # domain.alert.AlertState as JSON, by the id of its rule
    METADATA,
    Column("id", _key(100), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
)
SOURCE_FIGURES = Table(
    "source_figures",  # domain.source_metrics.CampaignMetrics as JSON, the last that a source told
    METADATA,
    Column("campaign_id", _key(200), primary_key=True),
    Column("source", _key(64), primary_key=True),
    Column("first_day", _key(10), primary_key=True),
    Column("last_day", _key(10), primary_key=True),
    Column("told_at", Float(53), nullable=False),
    Column("body", Text, nullable=False),
    Index("source_figures_by_time", "told_at"),
)
BUDGET_EPOCHS = Table(
    "budget_epochs",
    METADATA,
    Column("fence", _key(), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
)
INSTANCES = Table(
    "instances",  # daemons that may hold leases
    METADATA,
    Column("id", _key(), primary_key=True),
    Column("seen_at", Float(53), nullable=False),
)
