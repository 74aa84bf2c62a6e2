"""A throw-away Postgres outside of pytest, by the same fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from contracts.services import postgres

__all__ = ["throw_away_database"]


@contextmanager
def throw_away_database() -> Iterator[str]:
    """A migrated database; its URL."""
    cluster = postgres.__wrapped__()  # type: ignore[attr-defined]
    made = next(cluster)
    try:
        made.execute("create database cockpit template template_slipway")
        yield made.url("cockpit")
    finally:
        cluster.close()
