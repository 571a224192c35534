"""What the services ask of the outside. Adapters implement these; tests/contract runs one suite over every adapter."""

from rtb.ports.accounts import Accounts, AccountView, BookView, LocalAccounts, NearAccounts
from rtb.ports.bidder import Bidder, OpenAuction, Remote, Report
from rtb.ports.broker import (
    DEATH_COUNT,
    DEATH_EXCHANGE,
    DEATH_QUEUE,
    DEATH_REASON,
    DIRECT_REPLY_TO,
    ERROR,
    NO_HEADERS,
    Binding,
    Broker,
    Delivery,
    ExchangeType,
    Message,
    Overflow,
    QueueDepth,
    QueueSpec,
    Subscription,
    Topology,
)
from rtb.ports.clock import Clock
from rtb.ports.http import HttpClient, HttpResponse
from rtb.ports.queue_stats import QueueFigures, QueueStats
from rtb.ports.spool import Spool
from rtb.ports.state import CachedUser, StateStore
from rtb.ports.store import Instance, Ledger, LedgerKind, LedgerRow, OpenWins, Refusal, Repository, Touch

__all__ = [
    "DEATH_COUNT",
    "DEATH_EXCHANGE",
    "DEATH_QUEUE",
    "DEATH_REASON",
    "DIRECT_REPLY_TO",
    "ERROR",
    "NO_HEADERS",
    "AccountView",
    "Accounts",
    "Bidder",
    "Binding",
    "BookView",
    "Broker",
    "CachedUser",
    "Clock",
    "Delivery",
    "ExchangeType",
    "HttpClient",
    "HttpResponse",
    "Instance",
    "Ledger",
    "LedgerKind",
    "LedgerRow",
    "LocalAccounts",
    "Message",
    "NearAccounts",
    "OpenAuction",
    "OpenWins",
    "Overflow",
    "QueueDepth",
    "QueueFigures",
    "QueueSpec",
    "QueueStats",
    "Refusal",
    "Remote",
    "Report",
    "Repository",
    "Spool",
    "StateStore",
    "Subscription",
    "Topology",
    "Touch",
]
