"""Alembic migrations of Slipway's own tables; applied by `slipway.adapters.postgres.migrate`."""
