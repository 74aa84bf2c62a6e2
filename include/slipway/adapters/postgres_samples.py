"""The gateway's counters by the minute, for a day: what the cockpit draws traffic and errors from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import delete, text
from sqlalchemy.dialects.postgresql import insert

from slipway.adapters.postgres import Database
from slipway.adapters.postgres_tables import traffic_samples

__all__ = ["PostgresSamples"]

# A counter that is smaller than before belongs to a gateway that was restarted: it counts from zero. Slots are left out
# while they have no traffic: what they counted in a longer pause is none.
_SERIES = text("""
    SELECT model, floor(extract(epoch FROM minute - CAST(:since AS timestamptz)) / :bucket_seconds)::int AS bucket,
           sum(requests)::bigint AS requests, sum(errors)::bigint AS errors
    FROM (
        SELECT model, minute,
               CASE WHEN minute - lag(minute) OVER slot > interval '2 minutes' THEN 0
                    WHEN requests >= lag(requests) OVER slot THEN requests - lag(requests) OVER slot
                    WHEN lag(requests) OVER slot IS NULL THEN 0 ELSE requests END AS requests,
               CASE WHEN minute - lag(minute) OVER slot > interval '2 minutes' THEN 0
                    WHEN errors >= lag(errors) OVER slot THEN errors - lag(errors) OVER slot
                    WHEN lag(errors) OVER slot IS NULL THEN 0 ELSE errors END AS errors
        FROM traffic_samples
        WHERE minute >= CAST(:since AS timestamptz) - interval '5 minutes'
          AND (CAST(:model AS text) IS NULL OR model = :model)
        WINDOW slot AS (PARTITION BY model, slot ORDER BY minute)
    ) AS differences
    WHERE minute >= CAST(:since AS timestamptz)
    GROUP BY model, bucket ORDER BY model, bucket
""")


class PostgresSamples:
    """Written by the keeper, read by the cockpit."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, counters: Mapping[tuple[str, str], tuple[int, int]], minute: datetime) -> None:
        """The counters (requests, errors) by (model, slot) as they stand in this minute; the last look counts."""
        if not counters:
            return
        rows = [
            {"model": model, "slot": slot, "minute": minute, "requests": requests, "errors": errors}
            for (model, slot), (requests, errors) in sorted(counters.items())
        ]
        statement = insert(traffic_samples)
        newer = {name: statement.excluded[name] for name in ("requests", "errors")}
        with self._database.begin() as connection:
            connection.execute(
                statement.on_conflict_do_update(index_elements=["model", "slot", "minute"], set_=newer), rows
            )

    def forget(self, before: datetime) -> None:
        """Drop what is older."""
        with self._database.begin() as connection:
            connection.execute(delete(traffic_samples).where(traffic_samples.c.minute < before))

    def series(
        self, since: datetime, bucket_seconds: int, buckets: int, model: str | None = None
    ) -> dict[str, dict[str, list[int]]]:
        """Requests and errors by model in equal buckets from `since` on; zeros where nothing was counted."""
        values: dict[str, Any] = {"since": since, "bucket_seconds": bucket_seconds, "model": model}
        found: dict[str, dict[str, list[int]]] = {}
        with self._database.begin() as connection:
            for row in connection.execute(_SERIES, values).mappings():
                if 0 <= row["bucket"] < buckets:
                    series = found.setdefault(row["model"], {"requests": [0] * buckets, "errors": [0] * buckets})
                    series["requests"][row["bucket"]] = row["requests"]
                    series["errors"][row["bucket"]] = row["errors"]
        return found
