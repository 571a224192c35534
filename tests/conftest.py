"""Real servers, one of a kind for the whole session; and those a test may kill."""

from tests.support.postgres import own_postgres, postgres_databases, postgres_server
from tests.support.production import production
from tests.support.rabbitmq import make_rabbit, rabbit_server
from tests.support.redis import make_redis, redis_cluster, redis_server

__all__ = [
    "make_rabbit",
    "make_redis",
    "own_postgres",
    "postgres_databases",
    "postgres_server",
    "production",
    "rabbit_server",
    "redis_cluster",
    "redis_server",
]
