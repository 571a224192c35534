"""Private RabbitMQ, Redis and PostgreSQL servers on free ports, for tests, benchmarks and ``scripts/services``."""
