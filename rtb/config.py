"""Settings: TOML file, then environment (RTB_HTTP__PORT=8080), then ``--set http.port=0``; frozen, every key known.

A string given as ``file:PATH`` is read from that file: a password need not stand in a configuration.

config/default.toml documents each key; its values and the defaults here are the same (a test holds them together).
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from rtb.domain.frequency import OnUnknown
from rtb.domain.validation import CridRule
from rtb.errors import ConfigError

Port = Annotated[int, Meta(ge=0, le=65_535)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Url = Annotated[str, Meta(pattern="^(https?://.+)?$")]
PREFIX = "RTB_"
MEMORY = "memory://"
FILE = "file:"
ANYWHERE = ("0.0.0.0", "::", "")
SECRETS = frozenset(
    {
        "tie_key",
        "postback_secret",
        "token",
        "app_secret",
        "developer_token",
        "client_secret",
        "refresh_token",
        "webhook_secret",
        "slack",
        "smtp_password",
    }
)
_CODE = re.compile("[A-Z]{3}")
_PASSWORD = re.compile(r"(://[^/@:]*:)[^/]*@")


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


def load(path: Path | None, environ: Mapping[str, str], overrides: Iterable[str] = ()) -> Settings:
    """The settings of a daemon.

    Args:
        path: a TOML file; None for the defaults alone.
        environ: variables RTB_SECTION__KEY; others are left alone.
        overrides: ``section.key=value``, the last word.

    Raises:
        ConfigError: one line that names where the setting came from, the key, and what is wrong.
    """
    tree: dict[str, Any] = {}
    origin: dict[str, str] = {}
    if path is not None:
        for section, keys in _read(path).items():
            if not isinstance(keys, dict):
                raise ConfigError(f"{path}: {section}: unknown key outside a section{_hint(section)}")
            if section not in Settings.__struct_fields__:
                raise ConfigError(f"{path}: [{section}]: unknown section{_hint(section, Settings.__struct_fields__)}")
            for key, value in keys.items():
                _put(tree, origin, f"{section}.{key}", value, str(path))
    for name, text in sorted(environ.items()):
        if name.startswith(PREFIX) and "__" in name:
            dotted = name.removeprefix(PREFIX).lower().replace("__", ".")
            _put(tree, origin, dotted, _value(dotted, text), f"environment {name}")
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals or "." not in dotted:
            raise ConfigError(f"--set {dotted}: write it as section.key=value, for example http.port=0")
        dotted = dotted.strip()
        _put(tree, origin, dotted, _value(dotted, text.strip()), f"--set {dotted}")
    for section, keys in tree.items():
        for key, value in keys.items():
            if isinstance(value, str) and value.startswith(FILE):
                dotted = f"{section}.{key}"
                keys[key] = _file_text(dotted, Path(value.removeprefix(FILE)), origin[dotted])
    _check_rates(tree, origin)
    try:
        settings = msgspec.convert(tree, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(error, origin)) from None
    _check(settings, origin)
    return settings


def flatten(settings: Settings) -> dict[str, Any]:
    """Every setting as section.key -> value; secrets, and passwords in URLs, are masked."""
    rows = {}
    for section in settings.__struct_fields__:
        values = getattr(settings, section)
        for key in values.__struct_fields__:
            value = msgspec.to_builtins(getattr(values, key))
            if isinstance(value, str):
                value = "****" if key in SECRETS and value else masked(value)
            rows[f"{section}.{key}"] = value
    return rows


def masked(url: str) -> str:
    """A URL without its password."""
    return _PASSWORD.sub(r"\1****@", url)


def _check_rates(tree: Mapping[str, Any], origin: Mapping[str, str]) -> None:
    """The conversion would not tell which rate is wrong."""
    rates = tree.get("currency", {}).get("rates")
    for code, rate in rates.items() if isinstance(rates, dict) else ():
        dotted = f"currency.rates.{code}"
        source = origin.get(dotted) or _source("currency.rates", origin)
        if not _CODE.fullmatch(code):
            raise ConfigError(f"{source}: {dotted}: a currency code is three capital letters")
        if type(rate) not in (int, float) or not 0 < rate < math.inf:
            raise ConfigError(f"{source}: {dotted}: must be a positive number")


def _check(settings: Settings, origin: Mapping[str, str]) -> None:
    """What the types alone do not tell."""
    for dotted, value in flatten(settings).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{_source(dotted, origin)}: {dotted}: must be a finite number")
    auction = settings.auction
    if auction.minimum_ms >= auction.deadline_ms:
        source = _source("auction.minimum_ms" if "auction.minimum_ms" in origin else "auction.deadline_ms", origin)
        raise ConfigError(f"{source}: auction.minimum_ms: must be less than auction.deadline_ms")
    if settings.http.host in ANYWHERE and settings.tracking.enabled and not settings.tracking.url:
        raise ConfigError(
            f"{_source('http.host', origin)}: tracking.url: is needed with http.host={settings.http.host}: "
            "browsers must be told where impressions and clicks go (or set tracking.enabled=false)"
        )
    google = settings.google
    if google.customer_id:
        for key in ("developer_token", "client_id", "client_secret", "refresh_token"):
            if not getattr(google, key):
                source = _source("google.customer_id", origin)
                raise ConfigError(f"{source}: google.{key}: is needed with google.customer_id")
    alerts = settings.alerts
    if alerts.smtp_host and not (alerts.smtp_from and alerts.smtp_to):
        source = _source("alerts.smtp_host", origin)
        raise ConfigError(f"{source}: alerts.smtp_from: is needed with alerts.smtp_host, and so is alerts.smtp_to")
    if alerts.smtp_user and alerts.smtp_security == "none":
        source = _source("alerts.smtp_user", origin)
        raise ConfigError(
            f"{source}: alerts.smtp_security: a login needs starttls or tls, or the password would travel in the clear"
        )
    if auction.increment_cpm > 1000:
        raise ConfigError(f"{_source('auction.increment_cpm', origin)}: auction.increment_cpm: must be at most 1000")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None


def _put(tree: dict[str, Any], origin: dict[str, str], dotted: str, value: Any, where: str) -> None:
    section, _, key = dotted.partition(".")
    if section == "currency" and key.startswith("rates."):
        rates = tree.setdefault("currency", {}).setdefault("rates", {})
        if isinstance(rates, dict):  # else the conversion tells what is wrong with it
            code = key.removeprefix("rates.").upper()
            rates[code] = value
            origin[f"currency.rates.{code}"] = where
        return
    if dotted not in _defaults():
        raise ConfigError(f"{where}: {dotted}: unknown key{_hint(dotted)}")
    tree.setdefault(section, {})[key] = value
    origin[dotted] = where


def _file_text(dotted: str, path: Path, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{where}: {dotted}: cannot read {path}: {reason}") from None


def _defaults() -> dict[str, Any]:
    return flatten(Settings())


def _hint(name: str, known: Iterable[str] | None = None) -> str:
    close = difflib.get_close_matches(name, list(known or _defaults()), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _value(dotted: str, text: str) -> Any:
    """A value as TOML reads it; what is not TOML, or is for a string setting, is a string."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return text if isinstance(_defaults().get(dotted), str) and not isinstance(value, str) else value


def _source(dotted: str, origin: Mapping[str, str]) -> str:
    return origin.get(dotted, "settings")


def _explain(error: msgspec.ValidationError, origin: Mapping[str, str]) -> str:
    what, _, where = str(error).partition(" - at `$.")
    where = where.rstrip("`")
    key = ".".join(where.split("[")[0].split(".")[:2])
    return f"{_source(key, origin)}: {where}: {what[:1].lower()}{what[1:]}"
