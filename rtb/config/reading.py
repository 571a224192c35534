"""Reads settings from file, environment and command line; says in one line which is wrong, and where it stands."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from rtb.config.sections import Settings
from rtb.errors import ConfigError

PREFIX = "RTB_"
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
_CHOICE = re.compile(r"\^\(([a-z_|]+)\)\$")
_SHAPES = {
    "broker.url": "memory:// or amqp://user:password@host/vhost",
    "state.url": "memory://, redis://host:port/db or unix://path",
    "store.url": "sqlite:///path/rtb.db or postgresql://user:password@host/database",
    "tracking.url": "https://host/path, without ? and #",
    "broker.management_url": "http://user:password@host:15672",
    "alerts.webhook": "https://host/path",
    "alerts.slack": "https://hooks.slack.com/...",
    **dict.fromkeys(("currency.code", "facebook.currency", "google.currency"), "three capital letters, as in USD"),
}
"""How to write what has a form of its own; of what is not here the pattern says it."""
_CODE = re.compile("[A-Z]{3}")
_PASSWORD = re.compile(r"(://[^/@:]*:)[^/]*@")


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
    pattern = what.partition(" matching regex ")[2]
    if pattern and where in _SHAPES:
        what = f"write {_SHAPES[where]}"
    elif choice := _CHOICE.fullmatch(pattern.strip("'")):
        what = f"must be one of {', '.join(choice[1].split('|'))}"
    return f"{_source(key, origin)}: {where}: {what[:1].lower()}{what[1:]}"
