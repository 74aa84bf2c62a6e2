"""The append-only ledger and the decisions, read and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select, text
from sqlalchemy.dialects.postgresql import insert

from slipway.adapters.postgres import Database
from slipway.adapters.postgres_tables import decisions, ledger
from slipway.ports import Decision, LedgerEntry

__all__ = ["PostgresDecisionLog", "PostgresLedger", "append"]

LIVE = "live"


def append(
    connection: Connection,
    *,
    at: datetime,
    model: str,
    event: str,
    actor: str,
    reason: str,
    version: str | None = None,
    slot: str | None = None,
    rollout_id: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> bool:
    """Add one row inside the caller's transaction; False when this rollout's row of that kind exists already.

    Writers queue for the number, so it has no gaps and its order is the order of the commits.
    """
    connection.execute(text("LOCK TABLE ledger IN SHARE ROW EXCLUSIVE MODE"))
    following = select(func.coalesce(func.max(ledger.c.seq), 0) + 1).scalar_subquery()
    statement = insert(ledger).values(
        seq=following,
        at=at,
        model=model,
        event=event,
        version=version,
        slot=slot,
        actor=actor,
        reason=reason,
        rollout_id=rollout_id,
        detail=dict(detail or {}),
    )
    done = connection.execute(statement.on_conflict_do_nothing().returning(ledger.c.seq))
    return done.first() is not None


def _entry(row: Row[Any]) -> LedgerEntry:
    return LedgerEntry(**row._asdict())


class PostgresLedger:
    """Pure reads: what was live when, and what happened."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def history(self, model: str | None = None, limit: int = 100) -> list[LedgerEntry]:
        """The newest rows first, of one model or of all."""
        query = select(ledger).order_by(ledger.c.seq.desc()).limit(limit)
        return self._entries(query if model is None else query.where(ledger.c.model == model))

    def live_at(self, model: str, at: datetime) -> LedgerEntry | None:
        """The row that made the version live that was live at that time; None when none was."""
        query = select(ledger).where(ledger.c.model == model, ledger.c.event == LIVE, ledger.c.at <= at)
        return next(iter(self._entries(query.order_by(ledger.c.seq.desc()).limit(1))), None)

    def until(self, model: str, at: datetime) -> list[LedgerEntry]:
        """Every row of the model up to that time, oldest first."""
        query = select(ledger).where(ledger.c.model == model, ledger.c.at <= at)
        return self._entries(query.order_by(ledger.c.seq))

    def missing_rows(self) -> int:
        """How many numbers between the first row and the last have no row; 0 in a ledger that is whole."""
        with self._database.begin() as connection:
            rows, last = connection.execute(select(func.count(), func.coalesce(func.max(ledger.c.seq), 0))).one()
        return int(last - rows)

    def weights_at(self, model: str, at: datetime) -> dict[str, int]:
        """The weights by slot that were in force at that time."""
        query = select(ledger).where(ledger.c.model == model, ledger.c.event == "traffic", ledger.c.at <= at)
        row = next(iter(self._entries(query.order_by(ledger.c.seq.desc()).limit(1))), None)
        return dict(row.detail["weights"]) if row else {}

    def went_live(self, model: str) -> list[LedgerEntry]:
        """Every row that made a version of the model live, oldest first."""
        query = select(ledger).where(ledger.c.model == model, ledger.c.event == LIVE)
        return self._entries(query.order_by(ledger.c.seq))

    def of_rollout(self, rollout_id: str) -> list[LedgerEntry]:
        """Every row of one rollout, oldest first."""
        return self._entries(select(ledger).where(ledger.c.rollout_id == rollout_id).order_by(ledger.c.seq))

    def _entries(self, query: Any) -> list[LedgerEntry]:
        with self._database.begin() as connection:
            return [_entry(row) for row in connection.execute(query)]


def _storable(value: Any) -> Any:
    """The same with U+FFFD for what Postgres cannot keep: NUL and halves of surrogate pairs.

    Evidence quotes data, and a text may hold any character.
    """
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {_storable(key): _storable(one) for key, one in value.items()}
    return [_storable(one) for one in value] if isinstance(value, list | tuple) else value


class PostgresDecisionLog:
    """The decision log port."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, decision: Decision) -> bool:
        """Keep a decision; False when its key is known already, and then nothing changes."""
        values = {
            "key": decision.key,
            "model": decision.model,
            "kind": decision.kind,
            "verdict": decision.verdict,
            "reasons": _storable(list(decision.reasons)),
            "evidence": _storable(dict(decision.evidence)),
            "at": decision.at,
        }
        statement = insert(decisions).values(values).on_conflict_do_nothing().returning(decisions.c.key)
        with self._database.begin() as connection:
            return connection.execute(statement).first() is not None

    def recent(self, model: str, kind: str | None = None, limit: int = 50) -> Sequence[Decision]:
        """The newest first."""
        query = select(decisions).where(decisions.c.model == model).order_by(decisions.c.at.desc(), decisions.c.key)
        if kind is not None:
            query = query.where(decisions.c.kind == kind)
        with self._database.begin() as connection:
            rows = connection.execute(query.limit(limit)).all()
        return [Decision(**{**row._asdict(), "reasons": tuple(row.reasons)}) for row in rows]
