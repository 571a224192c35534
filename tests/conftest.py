"""Real servers, one of a kind for the whole session; and those a test may kill. Hooks that let no test hang."""

from hypothesis import settings

from tests.support.certificates import certificates, strangers
from tests.support.hanging import (
    pytest_configure,
    pytest_runtest_call,
    pytest_runtest_setup,
    pytest_runtest_teardown,
    pytest_unconfigure,
)
from tests.support.postgres import own_postgres, postgres_databases, postgres_server
from tests.support.production import production
from tests.support.rabbitmq import make_rabbit, rabbit_server
from tests.support.redis import make_redis, own_cluster, redis_cluster, redis_server

__all__ = [
    "certificates",
    "make_rabbit",
    "make_redis",
    "own_cluster",
    "own_postgres",
    "postgres_databases",
    "postgres_server",
    "production",
    "pytest_configure",
    "pytest_runtest_call",
    "pytest_runtest_setup",
    "pytest_runtest_teardown",
    "pytest_unconfigure",
    "rabbit_server",
    "redis_cluster",
    "redis_server",
    "strangers",
]

settings.register_profile("rtb", deadline=None)  # a machine may be busy
settings.load_profile("rtb")
