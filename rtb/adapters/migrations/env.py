"""Alembic's environment: on the connection that the caller brings, or as a script without one."""

from __future__ import annotations

from alembic import context

from rtb.adapters.sql_tables import METADATA

if context.is_offline_mode():
    context.configure(dialect_name=context.config.attributes["dialect"], target_metadata=METADATA, literal_binds=True)
else:
    context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
