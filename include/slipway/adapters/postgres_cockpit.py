"""Reads for pages about the whole fleet or one model's past: a fixed number of statements, whatever their size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, text

from slipway.adapters.postgres import Database

__all__ = ["PostgresCockpit"]

# One index lookup for each model and kind; DISTINCT ON would read every decision there is.
_NEWEST = text("""
    SELECT one.* FROM unnest(CAST(:models AS text[])) AS wanted (model)
    CROSS JOIN unnest(CAST(:kinds AS text[])) AS sort (kind)
    CROSS JOIN LATERAL (
        SELECT key, model, kind, verdict, reasons, at, evidence -> 'confirmed' AS confirmed,
               evidence -> 'score' AS score, evidence -> 'quality' AS quality
        FROM decisions WHERE decisions.model = wanted.model AND decisions.kind = sort.kind
        ORDER BY at DESC LIMIT 1
    ) AS one
""")
_LIVE = text("""
    SELECT one.* FROM unnest(CAST(:models AS text[])) AS wanted (model)
    CROSS JOIN LATERAL (
        SELECT model, version, at, actor, detail ->> 'kind' AS kind
        FROM ledger WHERE ledger.model = wanted.model AND event = 'live' ORDER BY seq DESC LIMIT 1
    ) AS one
""")
_ENDED = text("""
    SELECT one.* FROM unnest(CAST(:models AS text[])) AS wanted (model)
    CROSS JOIN LATERAL (
        SELECT model, id, version, kind, phase, failure, finished_at, previous_version
        FROM rollouts WHERE rollouts.model = wanted.model ORDER BY started_at DESC LIMIT 1
    ) AS one
    WHERE one.finished_at IS NOT NULL
""")
_ANSWERED = text("""
    SELECT id, model, dag_run, approval_asked_at, finished_at,
           coalesce(approved_at >= approval_asked_at, false) AS approved
    FROM rollouts WHERE kind = 'release' AND dag_run IS NOT NULL AND approval_asked_at >= :since
      AND (approved_at >= approval_asked_at OR finished_at IS NOT NULL)
    ORDER BY approval_asked_at
""")
_DRIFT = text("""
    SELECT key, verdict, reasons, at, evidence ->> 'champion' AS champion, evidence ->> 'start' AS start,
           evidence ->> 'end' AS end, evidence -> 'confirmed' AS confirmed, evidence -> 'score' AS score,
           evidence -> 'rows' AS rows, evidence -> 'logged_rows' AS logged_rows, evidence -> 'columns' AS columns,
           evidence -> 'joint' AS joint, evidence -> 'quality' AS quality, evidence -> 'estimate' AS estimate,
           evidence -> 'reports' AS reports
    FROM decisions WHERE model = :model AND kind = 'drift' ORDER BY at DESC LIMIT :limit
""")
_LEDGER = """
    SELECT seq, at, model, event, version, slot, actor, reason, rollout_id, {detail} AS detail
    FROM ledger WHERE {where} ORDER BY seq DESC LIMIT :limit
"""
_BRIEF = """jsonb_build_object('kind', detail -> 'kind', 'weights', detail -> 'weights', 'failure', detail -> 'failure',
    'dag_run', detail -> 'dag_run')"""


class PostgresCockpit:
    """What the cockpit shows out of ledger, decisions and rollouts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def newest_decisions(self, models: Sequence[str], kinds: Sequence[str]) -> dict[tuple[str, str], RowMapping]:
        """The newest decision of each kind by (model, kind), with a few numbers of its evidence."""
        rows = self._rows(_NEWEST, models=list(models), kinds=list(kinds))
        return {(row["model"], row["kind"]): row for row in rows}

    def went_live(self, models: Sequence[str]) -> dict[str, RowMapping]:
        """When and how the live version of each model went live."""
        return {row["model"]: row for row in self._rows(_LIVE, models=list(models))}

    def last_ended(self, models: Sequence[str]) -> dict[str, RowMapping]:
        """The newest rollout of each model, where it has ended."""
        return {row["model"]: row for row in self._rows(_ENDED, models=list(models))}

    def answered(self, since: datetime) -> list[RowMapping]:
        """Rollouts of DAG runs whose question, asked since then, was answered or has lost its point."""
        return self._rows(_ANSWERED, since=since)

    def drift_history(self, model: str, limit: int = 60) -> list[RowMapping]:
        """The drift decisions of a model with their statistics, the newest first."""
        return self._rows(_DRIFT, model=model, limit=limit)

    def ledger(
        self,
        *,
        model: str | None = None,
        events: Sequence[str] | None = None,
        before: int | None = None,
        limit: int = 100,
        whole: bool = False,
    ) -> list[RowMapping]:
        """Ledger rows, the newest first; `before` is a sequence number, `whole` gives the full detail."""
        conditions, values = ["true"], {"limit": limit}
        for condition, name, value in (
            ("model = :model", "model", model),
            ("event = ANY(:events)", "events", list(events) if events else None),
            ("seq < :before", "before", before),
        ):
            if value is not None:
                conditions.append(condition)
                values[name] = value  # type: ignore[assignment]
        query = _LEDGER.format(detail="detail" if whole else _BRIEF, where=" AND ".join(conditions))
        return self._rows(text(query), **values)

    def decisions(
        self,
        *,
        model: str | None,
        kinds: Sequence[str] | None,
        before: datetime | None,
        limit: int,
        whole: bool = True,
    ) -> list[RowMapping]:
        """Decisions, the newest first; with `whole` also what is long in their evidence."""
        evidence = "evidence" if whole else "evidence - ARRAY['columns', 'slices', 'joint', 'quality', 'estimate']"
        query = text(f"""
            SELECT key, model, kind, verdict, reasons, {evidence} AS evidence, at FROM decisions
            WHERE (CAST(:model AS text) IS NULL OR model = :model)
              AND (CAST(:kinds AS text[]) IS NULL OR kind = ANY(:kinds))
              AND (CAST(:before AS timestamptz) IS NULL OR at < :before)
            ORDER BY at DESC, key LIMIT :limit
        """)  # noqa: S608 - a constant of this file
        kinds = list(kinds) if kinds else None
        return self._rows(query, model=model, kinds=kinds, before=before, limit=limit)

    def versions(self, model: str) -> list[RowMapping]:
        """Released versions of a model, the newest first."""
        query = text("""
            SELECT version, bento_tag, dataset_sha256, code_commit, created_at, evidence ->> 'run_id' AS run_id
            FROM packages WHERE model = :model ORDER BY created_at DESC
        """)
        return self._rows(query, model=model)

    def rollouts(self, model: str, limit: int = 10) -> list[RowMapping]:
        """The newest rollouts of a model, briefly."""
        query = text("""
            SELECT id, version, kind, phase, actor, reason, failure, previous_version, dag_run, started_at, finished_at
            FROM rollouts WHERE model = :model ORDER BY started_at DESC LIMIT :limit
        """)
        return self._rows(query, model=model, limit=limit)

    def ledger_summary(self) -> Mapping[str, Any]:
        """How many rows the ledger has, and since when."""
        row = self._rows(text("SELECT coalesce(max(seq), 0) AS rows, min(at) AS since FROM ledger"))[0]
        return dict(row)

    def _rows(self, query: Any, **values: Any) -> list[RowMapping]:
        with self._database.begin() as connection:
            return list(connection.execute(query, values).mappings())
