"""Servers that tests of this folder kill, freeze and starve."""

from __future__ import annotations

from tests.support.rabbitmq import make_rabbit
from tests.support.redis import make_redis

__all__ = ["make_rabbit", "make_redis"]
