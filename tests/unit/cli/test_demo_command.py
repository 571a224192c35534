"""``rtb demo``: which settings of the environment it heeds."""

from __future__ import annotations

from rtb import config
from rtb.cli.running import demo_settings


def test_the_demo_heeds_the_environment() -> None:
    """Where commands find it, which keys it signs with and who may look at it are the user's, if they say."""
    environ = {
        "RTB_ADMIN__SOCKET": "/here/rtb.sock",
        "RTB_TRACKING__KEY_FILE": "/here/tracking.keys",
        "RTB_DASHBOARD__TOKEN_FILE": "/here/tokens",
        "RTB_DASHBOARD__OPEN_ON_LOOPBACK": "false",
        "RTB_HTTP__PORT": "18080",
    }
    settings = config.load(None, environ, demo_settings("/thrown/away", environ))
    assert settings.admin.socket == "/here/rtb.sock"
    assert settings.tracking.key_file == "/here/tracking.keys"
    assert (settings.dashboard.token_file, settings.dashboard.open_on_loopback) == ("/here/tokens", False)
    assert settings.http.port == 18080


def test_the_demo_leaves_real_daemons_alone() -> None:
    """Its campaigns and what waits for its broker go into its own folder, and nobody hears of them, whatever the
    environment names; --set has the last word."""
    environ = {
        "RTB_BROKER__URL": "amqp://production/",
        "RTB_STATE__URL": "redis://production/0",
        "RTB_STORE__URL": "postgresql://production/rtb",
        "RTB_BROKER__SPOOL": "/var/lib/rtb/spool",
        "RTB_BROKER__JOURNAL": "/var/lib/rtb/journal",
    }
    settings = config.load(None, environ, demo_settings("/thrown/away", environ))
    assert (settings.broker.url, settings.state.url) == (config.MEMORY, config.MEMORY)
    assert settings.store.url == "sqlite:////thrown/away/rtb.db"
    assert settings.broker.spool == "/thrown/away/spool"
    assert settings.broker.journal == "/thrown/away/journal"
    chosen = config.load(None, environ, [*demo_settings("/thrown/away", environ), "broker.url=amqp://mine/"])
    assert chosen.broker.url == "amqp://mine/"


def test_a_demo_of_its_own_needs_nothing() -> None:
    """Without an environment everything is in the folder that is thrown away, and everybody on the machine may look."""
    settings = config.load(None, {}, demo_settings("/thrown/away", {}))
    assert settings.admin.socket == "/thrown/away/rtb.sock"
    assert settings.tracking.key_file == "/thrown/away/tracking.keys"
    assert (settings.dashboard.token_file, settings.dashboard.open_on_loopback) == (
        "/thrown/away/dashboard.tokens",
        True,
    )
