"""The database: engine, migrations, advisory locks, and foreign errors translated.

The tables are described in `postgres_tables`, their use in `postgres_releases` and `postgres_ledger`.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from slipway.errors import ConflictError, StoreError

__all__ = ["Database", "migrate"]

_MIGRATIONS = Path(__file__).resolve().parents[1] / "migrations"
_LOCK_CLASS = 0x511B  # first key of every advisory lock of ours, so that other users of the server cannot collide


def _key(name: str) -> int:
    """The signed 32-bit number that stands for a lock's name."""
    return zlib.crc32(name.encode()) - 2**31


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        line = next(iter(str(cause).strip().splitlines()), type(error).__name__)
        raise StoreError(f"Postgres: {line}; check `slipway status postgres` and its log") from error


def _json(value: Any) -> str:
    """A JSON document; null for infinity and NaN, which JSON does not have and Postgres refuses.

    A number that cannot be kept must never keep a rollout's row from being written: it would hang.
    """
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def migrate(url: str) -> str:
    """Bring Slipway's tables to the newest revision and return it; safe to run at the same time twice.

    Raises:
        StoreError: Postgres did not answer or refused.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    engine = create_engine(url, connect_args={"connect_timeout": 10})
    try:
        with _translated(), engine.begin() as connection:
            connection.execute(
                text("SELECT pg_advisory_xact_lock(:class, :key)"), {"class": _LOCK_CLASS, "key": _key("migrate")}
            )
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()
    return str(ScriptDirectory.from_config(config).get_current_head())


class Database:
    """One pool of connections; every session speaks UTC and notices a vanished server within seconds."""

    def __init__(self, url: str) -> None:
        self._engine: Engine = create_engine(
            url,
            json_serializer=_json,
            pool_pre_ping=True,
            pool_size=4,
            connect_args={
                "connect_timeout": 5,
                "options": "-c timezone=UTC -c statement_timeout=30000 -c idle_in_transaction_session_timeout=60000",
                "keepalives_idle": 5,
                "keepalives_interval": 2,
                "keepalives_count": 3,
                "application_name": "slipway",
            },
        )

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction: committed at the end, rolled back by any exception.

        Raises:
            StoreError: Postgres did not answer or refused.
        """
        with _translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def lock(self, name: str, wait_seconds: float = 10.0) -> Iterator[None]:
        """Hold a named lock that ends with this process at the latest, because its connection does.

        Raises:
            ConflictError: somebody else still holds it after `wait_seconds`.
            StoreError: Postgres did not answer.
        """
        values = {"class": _LOCK_CLASS, "key": _key(name)}
        with _translated():
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        released = False
        try:
            with _translated():
                self._acquire(connection, name, values, wait_seconds)
            yield
            with suppress(SQLAlchemyError):
                connection.execute(text("SELECT pg_advisory_unlock(:class, :key)"), values)
                connection.execute(text("RESET lock_timeout"))
                released = True
        finally:
            # Unless it was given back in order, the server session is closed: a lock never outlives its holder.
            if not released:
                connection.invalidate()
            connection.close()

    @staticmethod
    def _acquire(connection: Connection, name: str, values: dict[str, int], wait_seconds: float) -> None:
        connection.execute(text(f"SET lock_timeout = {max(1, int(wait_seconds * 1000))}"))
        try:
            connection.execute(text("SELECT pg_advisory_lock(:class, :key)"), values)
        except DBAPIError as error:
            if getattr(error.orig, "pgcode", None) == "55P03":  # lock_not_available
                message = f"{name} is being worked on by another process; try again in a moment"
                raise ConflictError(message) from error
            raise

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()
