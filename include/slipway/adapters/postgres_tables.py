"""Slipway's tables as SQLAlchemy Core; the migrations own their shape, this only names the columns."""

from __future__ import annotations

from sqlalchemy import Column, Integer, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

__all__ = [
    "actions",
    "api_keys",
    "decisions",
    "ledger",
    "packages",
    "rollouts",
    "slots",
    "traffic",
    "traffic_samples",
]

_METADATA = MetaData()
_TIME = TIMESTAMP(timezone=True)


def _table(name: str, text: str = "", time: str = "", number: str = "", json: str = "", key: str = "") -> Table:
    kinds = ((text, Text()), (time, _TIME), (number, Integer()), (json, JSONB(none_as_null=True)))
    keys = key.split()
    columns = [Column(column, kind, primary_key=column in keys) for names, kind in kinds for column in names.split()]
    return Table(name, _METADATA, *columns)


packages = _table(
    "packages",
    text="model version bento_tag path digest dataset_sha256 code_commit",
    json="evidence",
    time="created_at",
    key="model version",
)
slots = _table(
    "slots",
    text="model slot version bento_tag",
    number="port",
    time="keep_warm_until drain_until updated_at",
    key="model slot",
)
traffic = _table(
    "traffic",
    text="model live_slot live_version alias_version shadow_slot",
    number="blue green shadow_percent",
    time="updated_at",
    key="model",
)
rollouts = _table(
    "rollouts",
    text="id model version kind phase slot previous_slot previous_version actor reason dag_run command failure",
    number="step",
    json="policy baseline checks evidence",
    time="started_at phase_since confirmed_at driven_at approval_asked_at approved_at finished_at",
    key="id",
)
ledger = _table(
    "ledger",
    text="model event version slot actor reason rollout_id",
    number="seq",
    json="detail",
    time="at",
    key="seq",
)
decisions = _table(
    "decisions",
    text="key model kind verdict",
    json="reasons evidence",
    time="at",
    key="key",
)
api_keys = _table(
    "api_keys",
    text="name sha256 created_by",
    number="per_minute",
    json="scopes",
    time="created_at expires_at revoked_at",
    key="name",
)
actions = _table(
    "actions",
    text="id actor via action model outcome message",
    json="detail",
    time="at finished_at",
    key="id",
)
traffic_samples = _table(
    "traffic_samples",
    text="model slot",
    number="requests errors",
    time="minute",
    key="model slot minute",
)
