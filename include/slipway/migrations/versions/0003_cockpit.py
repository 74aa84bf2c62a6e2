"""What people and programs asked for, control keys, traffic by the minute, and indexes for whole-fleet pages."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

CHANGES = (
    """
    CREATE TABLE actions (
        id          text PRIMARY KEY,
        at          timestamptz NOT NULL,
        actor       text NOT NULL,
        via         text NOT NULL,
        action      text NOT NULL,
        model       text NOT NULL,
        detail      jsonb NOT NULL DEFAULT '{}',
        outcome     text NOT NULL CHECK (outcome IN ('asked', 'done', 'refused', 'failed')),
        message     text,
        finished_at timestamptz
    )
    """,
    "CREATE INDEX actions_by_time ON actions (at DESC)",
    "CREATE INDEX actions_by_model ON actions (model, at DESC)",
    """
    CREATE TABLE control_keys (
        name       text PRIMARY KEY,
        sha256     text NOT NULL UNIQUE,
        scopes     jsonb NOT NULL,
        per_minute integer NOT NULL CHECK (per_minute > 0),
        created_at timestamptz NOT NULL,
        revoked_at timestamptz
    )
    """,
    # The gateway's counters as they stood when the minute was last looked at.
    """
    CREATE TABLE traffic_samples (
        model    text NOT NULL,
        slot     text NOT NULL CHECK (slot IN ('blue', 'green')),
        minute   timestamptz NOT NULL,
        requests bigint NOT NULL,
        errors   bigint NOT NULL,
        PRIMARY KEY (model, slot, minute)
    )
    """,
    "CREATE INDEX traffic_samples_by_minute ON traffic_samples (minute)",
    "CREATE INDEX decisions_by_kind ON decisions (model, kind, at DESC)",
    "CREATE INDEX ledger_went_live ON ledger (model, seq DESC) WHERE event = 'live'",
    "CREATE INDEX ledger_newest ON ledger (model, seq DESC)",
)


def upgrade() -> None:
    for statement in CHANGES:
        op.execute(statement)
