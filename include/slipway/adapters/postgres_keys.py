"""The records of API keys. A revoked one stays, so that the log's names keep their meaning."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from slipway.adapters.postgres import Database
from slipway.adapters.postgres_tables import api_keys
from slipway.core.keys import ApiKey
from slipway.errors import ConflictError, NotFoundError

__all__ = ["PostgresKeys"]


class PostgresKeys:
    """Adds, revokes and lists keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, key: ApiKey) -> None:
        """Keep a new key.

        Raises:
            ConflictError: its name was used before, also by a revoked one.
        """
        values = {column.name: getattr(key, column.name) for column in api_keys.columns}
        with self._database.begin() as connection:
            try:
                connection.execute(insert(api_keys).values(values | {"scopes": list(key.scopes)}))
            except IntegrityError as error:
                raise ConflictError(f"there was a key named {key.name!r} before; choose another name") from error

    def revoke(self, name: str, at: datetime) -> None:
        """End a key; one that has ended stays as it is.

        Raises:
            NotFoundError: no key of that name; the message lists them.
        """
        with self._database.begin() as connection:
            ended = update(api_keys).where(api_keys.c.name == name, api_keys.c.revoked_at.is_(None))
            connection.execute(ended.values(revoked_at=at))
            names = [row.name for row in connection.execute(select(api_keys.c.name).order_by(api_keys.c.name))]
        if name not in names:
            raise NotFoundError(f"no key named {name!r}; keys: {', '.join(names) or 'none'}")

    def by_digest(self, sha256: str) -> ApiKey | None:
        """The key of this digest, also when it has ended."""
        with self._database.begin() as connection:
            row = connection.execute(select(api_keys).where(api_keys.c.sha256 == sha256)).first()
        return _key(row) if row else None

    def all(self) -> tuple[ApiKey, ...]:
        """Every key by name, those that have ended included."""
        with self._database.begin() as connection:
            rows = connection.execute(select(api_keys).order_by(api_keys.c.name)).all()
        return tuple(_key(row) for row in rows)


def _key(row: Any) -> ApiKey:
    return ApiKey(**{**row._asdict(), "scopes": tuple(row.scopes)})
