"""Settings: which source wins, and how a wrong setting is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rtb import config
from rtb.config import Settings, flatten, load
from rtb.errors import ConfigError

DEFAULT = Path(__file__).parents[2] / "config" / "default.toml"


def file(folder: Path, text: str) -> Path:
    """A settings file with this text."""
    path = folder / "rtb.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path | None = None, environ: dict[str, str] | None = None, *overrides: str) -> str:
    """The one line that refuses these settings."""
    with pytest.raises(ConfigError) as error:
        load(path, environ or {}, overrides)
    said = str(error.value)
    assert len(said.splitlines()) == 1
    return said


def test_the_documented_defaults_are_the_defaults() -> None:
    """config/default.toml says what the code does where nothing is set, key by key, and leaves out none."""
    assert load(DEFAULT, {}) == Settings() == load(None, {})
    text = DEFAULT.read_text(encoding="utf-8")
    for dotted in flatten(Settings()):
        section, key = dotted.split(".")
        documented = f"[{dotted}]" if dotted == "currency.rates" else f"\n{key} = "
        assert documented in text[text.index(f"[{section}]") :], dotted


def test_the_environment_goes_before_the_file_and_set_before_both(tmp_path: Path) -> None:
    """Each source leaves alone what it does not name."""
    path = file(tmp_path, "[http]\nport = 1\nmax_connections = 2\nidle_timeout_s = 3.0\n")
    environ = {"RTB_HTTP__PORT": "11", "RTB_HTTP__MAX_CONNECTIONS": "12", "HOME": "/root", "RTB_DEBUG": "1"}
    http = load(path, environ, ["http.port=21"]).http
    assert (http.port, http.max_connections, http.idle_timeout_s) == (21, 12, 3.0)
    assert http.host == Settings().http.host
    assert load(path, {}).http.port == 1
    assert load(path, environ).http.port == 11


def test_the_last_of_two_overrides_counts() -> None:
    """As on any command line."""
    assert load(None, {}, ["http.port=1", "http.port=2"]).http.port == 2


@pytest.mark.parametrize(
    ("dotted", "text", "value"),
    [
        ("http.host", "10.0.0.1", "10.0.0.1"),
        ("http.host", '"::1"', "::1"),
        ("http.port", " 0 ", 0),
        ("dashboard.enabled", "false", False),
        ("auction.increment_cpm", "1", 1.0),
        ("auction.auction_types", "[500, 501]", (500, 501)),
        ("auction.crid", "enforce", "enforce"),
        ("store.url", "sqlite:///x.db?mode=ro", "sqlite:///x.db?mode=ro"),
        ("currency.rates", "{KRW = 0.00072}", {"KRW": 0.00072}),
    ],
)
def test_values_as_text(dotted: str, text: str, value: Any) -> None:
    """The environment and --set carry text; it is read as TOML, and as it stands where it is not TOML."""
    name = f"RTB_{dotted.upper().replace('.', '__')}"
    assert flatten(load(None, {name: text}))[dotted] == value
    assert flatten(load(None, {}, [f"{dotted}={text}"]))[dotted] == value


@pytest.mark.parametrize("secret", ["12345", "0123", "true", "1e9", "2026-01-01", "[1]", "nan", "a=b"])
def test_a_text_setting_takes_any_text(secret: str) -> None:
    """A secret that happens to look like a number, a date or a list is still a text."""
    assert load(None, {"RTB_AUCTION__TIE_KEY": secret}).auction.tie_key == secret
    assert load(None, {}, [f"auction.tie_key={secret}"]).auction.tie_key == secret


def test_rates_come_from_all_three_sources(tmp_path: Path) -> None:
    """One rate a key: a later source adds to the earlier ones, or replaces the same currency."""
    path = file(tmp_path, "[currency.rates]\nEUR = 1.1\nKRW = 0.0007\n")
    environ = {"RTB_CURRENCY__RATES__KRW": "0.00072", "RTB_CURRENCY__RATES__GBP": "1.3"}
    rates = load(path, environ, ["currency.rates.gbp=1.25"]).currency.rates
    assert rates == {"EUR": 1.1, "KRW": 0.00072, "GBP": 1.25}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[http]\nprot = 1\n", "http.prot: unknown key; did you mean http.port?"),
        ("[htpp]\nport = 1\n", "[htpp]: unknown section; did you mean http?"),
        ("[nothing]\n", "[nothing]: unknown section"),
        ("port = 1\n", "port: unknown key outside a section"),
        ("[[http]]\nport = 1\n", "http: "),
        ("[http.tls]\ncert = 'x'\n", "http.tls: unknown key"),
        ("[http]\nport = '1'\n", "http.port: expected `int`, got `str`"),
        ("[http]\nport = 65536\n", "http.port: expected `int` <= 65535"),
        ("[http]\nport = true\n", "http.port: expected `int`, got `bool`"),
        ("[http]\nhost = 1\n", "http.host: expected `str`, got `int`"),
        ("[http]\nmax_connections = 0\n", "http.max_connections: "),
        ("[http]\nidle_timeout_s = 0\n", "http.idle_timeout_s: "),
        ("[http]\nidle_timeout_s = inf\n", "http.idle_timeout_s: must be a finite number"),
        ("[http]\nidle_timeout_s = nan\n", "http.idle_timeout_s: "),
        ("[auction]\ncrid = 'sometimes'\n", "auction.crid: "),
        ("[auction]\ndeals = 'never'\n", "auction.deals: must be one of priority, price"),
        ("[auction]\nauction_types = [1]\n", "auction.auction_types[0]: "),
        ("[auction]\nincrement_cpm = 1001\n", "auction.increment_cpm: must be at most 1000"),
        ("[auction]\nminimum_ms = 100\n", "auction.minimum_ms: must be less than auction.deadline_ms"),
        ("[auction]\ndeadline_ms = 5\n", "auction.minimum_ms: must be less than auction.deadline_ms"),
        ('[http]\nhost = "0.0.0.0"\n', "tracking.url: is needed with http.host=0.0.0.0"),
        ('[google]\ncustomer_id = "1"\n', "google.developer_token: is needed with google.customer_id"),
        ("[currency]\ncode = 'usd'\n", "currency.code: write three capital letters"),
        ("[currency]\nrates = 5\n", "currency.rates: "),
        ("[currency.rates]\nKRW = 0\n", "currency.rates.KRW: must be a positive number"),
        ("[currency.rates]\nKRW = '1'\n", "currency.rates.KRW: must be a positive number"),
        ("[currency.rates]\nkrw = 1\n", "currency.rates.krw: a currency code is three capital letters"),
        ("[log]\nlevel = 'loud'\n", "log.level: must be one of debug, info, warning, error"),
        ("[store]\nurl = 'mysql://x'\n", "store.url: write sqlite:///path/rtb.db or postgresql://"),
        ("[broker]\nurl = 'rabbit'\n", "broker.url: write memory:// or amqp://user:password@host/vhost"),
        ("[alerts]\nslack = 'here'\n", "alerts.slack: write https://hooks.slack.com/..."),
        ("[log]\nauctions = 1.1\n", "log.auctions: "),
    ],
)
def test_a_wrong_setting_in_a_file(tmp_path: Path, text: str, key: str) -> None:
    """The line begins with the file, then the key and what is wrong with it."""
    path = file(tmp_path, text)
    assert refusal(path).startswith(f"{path}: {key}")


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"RTB_HTTP__PROT": "1"}, "environment RTB_HTTP__PROT: http.prot: unknown key; did you mean http.port?"),
        ({"RTB_NOTHING__AT_ALL": "1"}, "environment RTB_NOTHING__AT_ALL: nothing.at_all: unknown key"),
        ({"RTB_HTTP__PORT": "many"}, "environment RTB_HTTP__PORT: http.port: expected `int`, got `str`"),
        ({"RTB_HTTP__PORT": ""}, "environment RTB_HTTP__PORT: http.port: expected `int`, got `str`"),
        ({"RTB_DRAIN__LIMIT_S": "inf"}, "environment RTB_DRAIN__LIMIT_S: drain.limit_s: must be a finite number"),
        (
            {"RTB_CURRENCY__RATES__EUR": "-1", "RTB_CURRENCY__RATES__KRW": "1"},
            "environment RTB_CURRENCY__RATES__EUR: currency.rates.EUR: must be a positive number",
        ),
    ],
)
def test_a_wrong_setting_in_the_environment(environ: dict[str, str], said: str) -> None:
    """The line names the variable."""
    assert refusal(None, environ).startswith(said)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("http.prot=1", "--set http.prot: http.prot: unknown key"),
        ("http.port=many", "--set http.port: http.port: expected `int`, got `str`"),
        ("http.port", "--set http.port: write it as section.key=value"),
        ("port=1", "--set port: write it as section.key=value"),
        ("=1", "--set : write it as section.key=value"),
        ("auction.minimum_ms=100", "--set auction.minimum_ms: auction.minimum_ms: must be less than"),
    ],
)
def test_a_wrong_override(override: str, said: str) -> None:
    """The line names the option."""
    assert refusal(None, {}, override).startswith(said)


def test_the_source_that_had_the_last_word_is_blamed(tmp_path: Path) -> None:
    """A good file is not blamed for a bad variable, nor the variable for a bad option."""
    path = file(tmp_path, "[http]\nport = 8080\n")
    assert refusal(path, {"RTB_HTTP__PORT": "x"}).startswith("environment RTB_HTTP__PORT: ")
    assert refusal(path, {"RTB_HTTP__PORT": "1"}, "http.port=x").startswith("--set http.port: ")


def test_an_override_without_a_section_keeps_its_value_to_itself() -> None:
    """It may be a secret."""
    assert "hush" not in refusal(None, {}, "tie_key=hush")


def test_rates_that_are_no_table_and_one_rate_more(tmp_path: Path) -> None:
    """The file's mistake is told; adding to it does not fall over."""
    path = file(tmp_path, "[currency]\nrates = 5\n")
    assert refusal(path, {}, "currency.rates.KRW=1").startswith(f"{path}: currency.rates: ")


def test_a_missing_file(tmp_path: Path) -> None:
    """Named, and nothing else happens."""
    path = tmp_path / "none.toml"
    assert refusal(path) == f"{path}: no such file"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A folder is no file, and bytes that are no UTF-8 are no TOML."""
    assert refusal(tmp_path).startswith(f"{tmp_path}: cannot be read: ")
    path = tmp_path / "rtb.toml"
    path.write_bytes(b"[http]\nhost = '\xff'\n")
    assert refusal(path).startswith(f"{path}: cannot be read: ")


@pytest.mark.parametrize("text", ["[http\n", "[http]\nport 1\n", "[http]\nport = 1\nport = 2\n", "[http]\n[http]\n"])
def test_broken_toml(tmp_path: Path, text: str) -> None:
    """The parser's own words, with the line, after the file's name."""
    path = file(tmp_path, text)
    assert refusal(path).startswith(f"{path}: not TOML: ")


def test_a_file_in_any_language(tmp_path: Path) -> None:
    """TOML is UTF-8, whatever the locale of the machine."""
    assert load(file(tmp_path, "[auction]\ntie_key = '비밀'\n"), {}).auction.tie_key == "비밀"


def test_secrets_are_masked() -> None:
    """What is printed shows that a secret is set, not which; an empty one shows as empty."""
    rows = flatten(load(None, {"RTB_AUCTION__TIE_KEY": "hush"}))
    assert rows["auction.tie_key"] == "****"
    assert "hush" not in str(rows)
    assert flatten(Settings())["auction.tie_key"] == ""


def test_passwords_in_urls_are_masked() -> None:
    """The user and host stay readable."""
    settings = load(None, {}, ["store.url=sqlite://rtb:hu:sh@db.example/rtb"])
    assert settings.store.url == "sqlite://rtb:hu:sh@db.example/rtb"
    assert flatten(settings)["store.url"] == "sqlite://rtb:****@db.example/rtb"
    assert flatten(Settings())["store.url"] == Settings().store.url


def test_every_setting_is_listed() -> None:
    """check-config prints all of them, by section.key."""
    rows = flatten(Settings())
    sections = Settings().__struct_fields__
    assert {dotted.split(".")[0] for dotted in rows} == set(sections)
    assert len(rows) == sum(len(getattr(Settings(), section).__struct_fields__) for section in sections)


def test_settings_are_frozen() -> None:
    """A change is a new value, never in place."""
    with pytest.raises(AttributeError):
        config.Settings().http.port = 1  # type: ignore[misc]


def test_a_value_can_be_read_from_a_file(tmp_path: Path) -> None:
    """``file:PATH`` stands for what is in the file, without the newline at its end."""
    secret = tmp_path / "broker.url"
    secret.write_text("amqp://user:pass@host/\n")
    settings = load(None, {"RTB_BROKER__URL": f"file:{secret}"})
    assert settings.broker.url == "amqp://user:pass@host/"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """One line: the source, the key, the file and why."""
    with pytest.raises(ConfigError, match=r"--set state.url: state.url: cannot read .*/gone: No such file"):
        load(None, {}, [f"state.url=file:{tmp_path}/gone"])


def test_a_file_is_read_only_for_the_value_that_counts(tmp_path: Path) -> None:
    """A missing file does no harm where the environment has the last word."""
    path = file(tmp_path, '[state]\nurl = "file:gone"\n')
    assert load(path, {"RTB_STATE__URL": "redis://host"}).state.url == "redis://host"
