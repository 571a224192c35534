"""Every setting, by section, with its type and default; config/default.toml says what each is for."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from rtb.domain.frequency import OnUnknown
from rtb.domain.validation import CridRule

Port = Annotated[int, Meta(ge=0, le=65_535)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Url = Annotated[str, Meta(pattern="^(https?://.+)?$")]
MEMORY = "memory://"


class Section(Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the sections: an unknown key is an error."""


class Http(Section, frozen=True):
    """Where the exchange listens, and its limits."""

    host: str = "127.0.0.1"
    port: Port = 8080
    reuse_port: bool = False
    max_connections: Positive = 4096
    max_body_bytes: Positive = 262_144
    idle_timeout_s: Seconds = 75.0
    request_timeout_s: Seconds = 5.0
    shed_after_ms: Annotated[float, Meta(ge=0)] = 20.0
    origins: tuple[str, ...] = ("*",)
    bidder_code: str = "rtb"


class Dashboard(Section, frozen=True):
    """Where the dashboard listens, and who may use it."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 8081
    open_on_loopback: bool = False
    token_file: str = "var/dashboard.tokens"
    secure_cookie: bool = False
    names: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    tape_per_s: Seconds = 5.0
    tape_keep: Positive = 256


class Alerts(Section, frozen=True):
    """How often alert rules are looked at, and whom they tell."""

    every_s: Seconds = 5.0
    per_minute: Positive = 20
    webhook: Url = ""
    webhook_secret: str = ""
    slack: Url = ""
    smtp_host: str = ""
    smtp_port: Port = 587
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    smtp_user: str = ""
    smtp_password: str = ""
    smtp_from: str = ""
    smtp_to: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()


class Supply(Section, frozen=True):
    """What is asked of the supply chain of a request; see rtb.domain.schain."""

    on_fault: Literal["ignore", "mark", "refuse"] = "ignore"
    required: bool = False
    most_nodes: Annotated[int, Meta(ge=1, le=32)] = 32
    blocked: tuple[str, ...] = ()
    folder: str = ""


class Bidders(Section, frozen=True):
    """The remote bidders, each a table of the file; see config/bidders.example.toml."""

    file: str = ""
    allow: tuple[str, ...] = ()


class Auction(Section, frozen=True):
    """The rules of the auction."""

    deadline_ms: Positive = 100
    network_margin_ms: Annotated[int, Meta(ge=0)] = 10
    minimum_ms: Positive = 5
    max_in_flight: Positive = 512
    increment_cpm: Annotated[float, Meta(ge=0)] = 0.01
    deals: Annotated[str, Meta(pattern="^(priority|price)$")] = "priority"
    advertisers: Positive = 4
    crid: CridRule = CridRule.OPTIONAL
    adomain_required: bool = False
    auction_types: tuple[Annotated[int, Meta(ge=500)], ...] = ()
    tie_key: str = ""


class Profiles(Section, frozen=True):
    """How user profiles are looked up."""

    wait_ms: Positive = 10
    gather_ms: Annotated[float, Meta(ge=0)] = 2.0
    cached: Positive = 100_000
    fresh_s: Seconds = 300.0
    ttl_s: Seconds = 3600.0
    on_unknown: OnUnknown = OnUnknown.BID


class Broker(Section, frozen=True):
    """The message broker: in process, or RabbitMQ."""

    url: Annotated[str, Meta(pattern="^(memory://$|amqps?://.)")] = MEMORY
    management_url: Url = ""
    prefetch: Positive = 256
    heartbeat_s: Positive = 5
    spool: str = "var/spool"
    journal: str = "var/journal"


class State(Section, frozen=True):
    """Hot, shared state: in process, or Redis."""

    url: Annotated[str, Meta(pattern="^(memory://$|rediss?://.|unix://.)")] = MEMORY
    cluster: bool = False
    announce_results: bool = False


class Store(Section, frozen=True):
    """The database of campaigns, profiles and the ledger: SQLite or PostgreSQL."""

    url: Annotated[str, Meta(pattern="^(sqlite|postgres(ql)?)://")] = "sqlite:///var/rtb.db"


class Budgets(Section, frozen=True):
    """How campaigns' money is leased to daemons and billed; see docs/architecture.md."""

    sync_ms: Positive = 1000
    lease_ttl_s: Seconds = 15.0
    lease_share: Annotated[float, Meta(gt=0, le=1)] = 0.1
    window_s: Seconds = 1_800.0
    settle_s: Seconds = 300.0
    alert_at: Annotated[float, Meta(gt=0, le=1)] = 0.9
    bill_at: Annotated[str, Meta(pattern="^(event|win)$")] = "event"


class Tracking(Section, frozen=True):
    """Signed URLs in the markup of house ads, by which impressions, clicks and conversions are told."""

    enabled: bool = True
    url: Annotated[str, Meta(pattern="^(https?://[^/?#]+(/[^?#]*)?)?$")] = ""
    key_file: str = "var/tracking.keys"
    postback_secret: str = ""
    trusted_proxy: bool = False
    answer_ms: Positive = 2_000
    redirect_ms: Positive = 50
    click_s: Seconds = 86_400.0
    click_through_s: Seconds = 2_592_000.0
    view_through_s: Annotated[float, Meta(ge=0)] = 86_400.0
    web_s: Seconds = 60.0
    app_s: Seconds = 300.0
    native_s: Seconds = 600.0
    interstitial_s: Seconds = 1_800.0


class Notices(Section, frozen=True):
    """Win, billing and loss notices to bidders (nurl, burl, lurl)."""

    enabled: bool = True
    timeout_s: Seconds = 2.0
    allow: tuple[str, ...] = ()


class Sources(Section, frozen=True):
    """Where else a campaign's metrics come from; see docs/metric-sources.md."""

    refresh_s: Annotated[float, Meta(ge=0)] = 0.0
    per_second: Seconds = 10.0
    in_flight: Positive = 10
    keep: Positive = 10_000


class Facebook(Section, frozen=True):
    """Facebook's Marketing API; without a token it is not asked."""

    token: str = ""
    app_secret: str = ""
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")] = "USD"
    click_field: Annotated[str, Meta(pattern="^(inline_link_clicks|clicks)$")] = "inline_link_clicks"
    conversion: str = "omni_purchase"


class Google(Section, frozen=True):
    """The Google Ads API; without a customer it is not asked."""

    customer_id: str = ""
    login_customer_id: str = ""
    developer_token: str = ""
    client_id: str = ""
    client_secret: str = ""
    refresh_token: str = ""
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")] = "USD"
    bid_unit_micros: Positive = 10_000


class Admin(Section, frozen=True):
    """The local socket that `rtb campaigns`, `rtb explain` ... talk to the daemon through."""

    socket: str = "var/rtb.sock"


class Currency(Section, frozen=True):
    """The exchange's own currency, and what one unit of the others is worth in it."""

    code: Annotated[str, Meta(pattern="^[A-Z]{3}$")] = "USD"
    rates: dict[str, Annotated[float, Meta(gt=0)]] = {}
    source: str = ""
    refresh_s: Seconds = 3_600.0
    stale_s: Seconds = 172_800.0
    allow: tuple[str, ...] = ()


class Log(Section, frozen=True):
    """Logging: one line an auction for a share of them, and whole auctions to be replayed."""

    level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$")] = "info"
    format: Annotated[str, Meta(pattern="^(console|json)$")] = "console"
    auctions: Annotated[float, Meta(ge=0, le=1)] = 0.0
    replay: str = ""
    replay_share: Annotated[float, Meta(ge=0, le=1)] = 0.01
    replay_max_mb: Positive = 1024


class Drain(Section, frozen=True):
    """How long a stopping daemon finishes what it has begun."""

    limit_s: Seconds = 10.0


class Lab(Section, frozen=True):
    """A bidder of our own for experiments: it answers after a time and burns a time of processor."""

    bidder: bool = False
    bidder_ms: Annotated[float, Meta(ge=0)] = 20.0
    bidder_cpu_us: Annotated[int, Meta(ge=0)] = 0
    bidder_cpm: Annotated[float, Meta(gt=0)] = 1.0


class Settings(Section, frozen=True):
    """Everything that can be set."""

    http: Http = Http()
    dashboard: Dashboard = Dashboard()
    auction: Auction = Auction()
    profiles: Profiles = Profiles()
    broker: Broker = Broker()
    state: State = State()
    store: Store = Store()
    budgets: Budgets = Budgets()
    tracking: Tracking = Tracking()
    notices: Notices = Notices()
    supply: Supply = Supply()
    bidders: Bidders = Bidders()
    alerts: Alerts = Alerts()
    sources: Sources = Sources()
    facebook: Facebook = Facebook()
    google: Google = Google()
    admin: Admin = Admin()
    currency: Currency = Currency()
    log: Log = Log()
    drain: Drain = Drain()
    lab: Lab = Lab()

    @property
    def bills_wins(self) -> bool:
        """Whether a win is billed as such, because nobody tells of impressions."""
        return self.budgets.bill_at == "win" or not self.tracking.enabled
