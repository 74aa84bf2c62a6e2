"""Alembic's entry point: runs on the connection that `slipway.adapters.postgres.migrate` passes in."""

from __future__ import annotations

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table="slipway_version")
with context.begin_transaction():
    context.run_migrations()
