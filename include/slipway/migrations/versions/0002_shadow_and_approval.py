"""Mirrored traffic, approvals, and what a rollout found out between two looks."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

CHANGES = (
    "ALTER TABLE traffic ADD COLUMN shadow_slot text CHECK (shadow_slot IN ('blue', 'green'))",
    "ALTER TABLE traffic ADD COLUMN shadow_percent integer NOT NULL DEFAULT 0 CHECK (shadow_percent BETWEEN 0 AND 100)",
    "ALTER TABLE traffic ADD CHECK ((shadow_slot IS NULL) = (shadow_percent = 0))",
    "ALTER TABLE rollouts ADD COLUMN evidence jsonb NOT NULL DEFAULT '{}'",
    "ALTER TABLE rollouts ADD COLUMN approval_asked_at timestamptz",
    "ALTER TABLE rollouts ADD COLUMN approved_at timestamptz",
    "ALTER TABLE rollouts DROP CONSTRAINT rollouts_command_check",
    "ALTER TABLE rollouts ADD CONSTRAINT rollouts_command_check CHECK (command IN ('abort', 'promote', 'reject'))",
)


def upgrade() -> None:
    for statement in CHANGES:
        op.execute(statement)
