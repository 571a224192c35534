"""Settings: TOML file, then environment (RTB_HTTP__PORT=8080), then ``--set http.port=0``; frozen, every key known.

A string given as ``file:PATH`` is read from that file: a password need not stand in a configuration.

config/default.toml documents each key; its values and the defaults here are the same (a test holds them together).
"""

from rtb.config.reading import flatten, load, masked
from rtb.config.sections import MEMORY, Alerts, Auction, Profiles, Settings, Store, Tracking

__all__ = ["MEMORY", "Alerts", "Auction", "Profiles", "Settings", "Store", "Tracking", "flatten", "load", "masked"]
