"""What people and programs asked the control API to do, and how it went."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import insert, select, update

from slipway.adapters.postgres import Database
from slipway.adapters.postgres_tables import actions

__all__ = ["PostgresActions"]

Outcome = Literal["done", "refused", "failed"]


class PostgresActions:
    """The audit of actions: a row is written before anything is done, and told how it went."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ask(self, *, actor: str, via: str, action: str, model: str, detail: Mapping[str, Any], at: datetime) -> str:
        """Keep that somebody asks for something; the row's id."""
        known = json.loads(json.dumps(dict(detail), default=str))
        made = uuid.uuid4().hex
        row = {"id": made, "at": at, "actor": actor, "via": via, "action": action, "model": model}
        with self._database.begin() as connection:
            connection.execute(insert(actions).values(**row, detail=known, outcome="asked"))
        return made

    def finish(self, action_id: str, outcome: Outcome, message: str, at: datetime) -> None:
        """Say how it went; the first word stands."""
        open_row = (actions.c.id == action_id, actions.c.outcome == "asked")
        values = {"outcome": outcome, "message": message[:2000], "finished_at": at}
        with self._database.begin() as connection:
            connection.execute(update(actions).where(*open_row).values(**values))

    def recent(self, model: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """The newest first."""
        query = select(actions).order_by(actions.c.at.desc()).limit(limit)
        if model is not None:
            query = query.where(actions.c.model == model)
        with self._database.begin() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]
